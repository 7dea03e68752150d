"""Are the tables of a sweep what its records give? They are folded anew, without a byte being written, and compared row by row."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa

from kd_ray.results.record import decode_table
from kd_ray.results.schema import TABLES
from kd_ray.results.store import TABLES_FOLDER, Store, StoredObject, fold_index_key, part_key

MISSING = "it is missing; the next fold writes it"
STALE = "it is not up to date with the records; the next fold rebuilds it"
SURPLUS = "no trial of the sweep has its place there; the next fold deletes it"
BEHIND = (MISSING, STALE, SURPLUS)
"""What any fold mends; the tables of a running sweep are like this between two folds."""
BROKEN = "it is not a whole table part"
WRONG = "its rows are not those of its records"


class Rehearsal(Store):
    """A store in which the tables of a sweep are folded anew without a byte being written: puts are compared and forgotten."""

    def __init__(self, store: Store, sweep: str) -> None:
        super().__init__(store.url)
        self._real = store
        self._sweep = sweep
        self._index = fold_index_key(sweep)
        self._kept: dict[str, bytes] = {}
        self._parts: dict[str, StoredObject] = {}
        self._verdicts: dict[str, str] = {}

    def get(self, key: str) -> bytes | None:
        """Everything but the tables is as it is in the store."""
        return self._kept.get(key) if key == self._index else self._real.get(key)

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        """Everything but the tables."""
        return iter(list(self._parts.values())) if prefix == TABLES_FOLDER else self._real.entries(prefix)

    def put(self, key: str, data: bytes, *, durable: bool = False) -> str:
        """Compare a part with the one in the store."""
        tag = hashlib.sha256(data).hexdigest()
        if key == self._index:
            self._kept[key] = data
        else:
            self._verdicts[key] = _verdict(self._real.get(key), data)
            self._parts[key] = StoredObject(key=key, size_bytes=len(data), modified_at=datetime.now(UTC), e_tag=tag)
        return tag

    def delete(self, key: str) -> None:
        """Forget a part."""
        self._parts.pop(key, None)
        self._verdicts.pop(key, None)

    def compare(self) -> dict[str, str]:
        """What is wrong with each part that there is or should be; empty for one that is right."""
        folders = {part_key(name, self._sweep, 0).rsplit("/", 1)[0] for name in TABLES}
        there = [item.key for item in self._real.entries(TABLES_FOLDER) if item.key.rsplit("/", 1)[0] in folders]
        return {**dict.fromkeys(there, SURPLUS), **self._verdicts}


def _verdict(there: bytes | None, expected: bytes) -> str:
    if there is None:
        return MISSING
    if there == expected:
        return ""
    try:
        table = decode_table(there)
    except (pa.ArrowException, OSError) as error:
        return f"{BROKEN}: {error}"
    wanted = decode_table(expected)
    if table.schema.equals(wanted.schema) and table.equals(wanted):
        return ""
    is_current = (table.schema.metadata or {}).items() >= (wanted.schema.metadata or {}).items()
    return WRONG if is_current else STALE
