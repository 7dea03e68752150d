"""Mutations of stored objects: bytes, values of JSON, and cells of Parquet, each from a seed."""

import io
import json
import random
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0,
    2**31,
    2**63,
    10**400,
    1e308,
    float("nan"),
    float("-inf"),
    "",
    "x" * 3000,
    "\x1b[2J\x00\ud800".encode("utf-8", "replace").decode(),
    "../../etc/passwd",
    "9999-99-99",
    "2026-11-27T00:00:00",
    [],
    [[[[[[]]]]]],
    {},
    {"": {"": None}},
    ["a", 1, None],
)


def mutate_bytes(data: bytes, dice: random.Random) -> bytes:
    """Bits, cuts, repetitions and insertions."""
    changed = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 5))):
        place = dice.randrange(len(changed) + 1)
        match dice.randrange(5):
            case 0 if place < len(changed):
                changed[place] ^= 1 << dice.randrange(8)
            case 1:
                del changed[place:]
            case 2:
                del changed[place : place + dice.randrange(1, 40)]
            case 3:
                changed[place:place] = changed[: dice.randrange(1, 200)]
            case _:
                changed[place:place] = dice.choice((b"\x00", b"\xff\xfe", b"[" * 2000, b'{"a":' * 500, b"9" * 5000))
    return bytes(changed)


def mutate_json(data: bytes, dice: random.Random) -> bytes:
    """One to three values or keys of a JSON object replaced, deleted, doubled; sometimes text within text."""
    content = json.loads(data)
    for _ in range(dice.choice((1, 1, 2, 3))):
        content = _change(content, dice)
    return json.dumps(content).encode()


def _change(node: Any, dice: random.Random) -> Any:
    if dice.random() < 0.25 or not isinstance(node, dict | list) or not node:
        return dice.choice(ODD)
    if isinstance(node, list):
        place = dice.randrange(len(node))
        return dice.choice(
            (
                [*node[:place], _change(node[place], dice), *node[place + 1 :]],
                node[:place] + node[place + 1 :],
                node + node[place : place + 1],
            )
        )
    key = dice.choice(list(node))
    rest = {name: value for name, value in node.items() if name != key}
    return dice.choice((node | {key: _change(node[key], dice)}, rest, rest | {str(dice.choice(ODD)): node[key]}))


def mutate_table(table: pa.Table, dice: random.Random, resign: Callable[[pa.Table], pa.Table]) -> bytes:
    """One or two cells, columns or metadata of a Parquet table changed; a valid file of wrong content."""
    for _ in range(dice.choice((1, 2))):
        place = dice.randrange(len(table.schema.names))
        name = table.schema.names[place]
        match dice.randrange(5):
            case 0:
                table = table.remove_column(place)
            case 1:
                table = table.append_column(name, table.column(place))
            case 2:
                table = pa.concat_tables([table, table]) if dice.random() < 0.5 else table.slice(0, 0)
            case _:
                rows = table.column(place).to_pylist(maps_as_pydicts=None)
                rows = [_change(value, dice) if dice.random() < 0.5 else value for value in rows]
                kind = table.schema.field(place).type
                try:
                    # pyarrow ends the process when it writes a map with missing entries.
                    cells = pa.array(
                        [[entry for entry in row if entry] if pa.types.is_map(kind) and row else row for row in rows],
                        type=kind,
                    )
                    table = table.set_column(place, table.schema.field(place), cells)
                except (pa.ArrowException, OverflowError, TypeError, ValueError):
                    table = table.set_column(place, name, pa.nulls(table.num_rows, kind))
        if not table.schema.names:
            break
    buffer = io.BytesIO()
    pq.write_table(resign(table), buffer, compression="zstd", write_page_checksum=True)
    return buffer.getvalue()
