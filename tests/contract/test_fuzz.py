"""Mutated objects of every kind, through their readers: each is read, or named by an error of ours, in bounded time.

`KD_RAY_FUZZ=10000 pytest tests/contract/test_fuzz.py` tries so many of each kind; a failure names its seed, which then joins `FAILED`.
"""

import csv
import io
import json
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch

from kd_ray.data import listed
from kd_ray.data.family import Loading
from kd_ray.distill.checkpoint import TrainingState, decode, encode
from kd_ray.errors import KdRayError
from kd_ray.results import ledger
from kd_ray.results.aggregate import aggregate, read_index
from kd_ray.results.manifest import find_manifest, read_manifest
from kd_ray.results.plan_mark import is_marked, this_code
from kd_ray.results.record import (
    decode_table,
    encode_record,
    misfit,
    read_record,
    read_samples,
    sha256,
)
from kd_ray.results.rows import TrialInput, part_rows
from kd_ray.results.samples import _samples_digest
from kd_ray.results.status import sweep_status
from kd_ray.results.store import (
    Store,
    checkpoint_key,
    error_key,
    lease_key,
    manifest_key,
    open_store,
    part_key,
    plan_mark_key,
    record_key,
    samples_key,
    table_index_key,
)
from kd_ray.results.table_parts import read_table
from kd_ray.sweep.load import parse_sweep
from kd_ray.sweep.plan import expand
from tests.datasets import write_table
from tests.fakes import SWEEP_YAML, make_record, make_sweep, plan_trials, write_sweep
from tests.mutations import mutate_bytes, mutate_json, mutate_table
from tests.unit.data.test_listed_columns import make
from tests.unit.housekeeping.whole import commit_whole

COUNT = int(os.environ.get("KD_RAY_FUZZ", "40"))
LONGEST_S = 5.0
"""Of the processor, so that a busy machine fails no object."""
PLANNED = plan_trials(make_sweep())
TRIAL = PLANNED[4]
DATASET = TRIAL.spec.dataset_id

FAILED: dict[str, tuple[int, ...]] = {"samples": (1, 7, 59), "part": (1, 60, 64), "record": (3, 3498)}
"""Seeds that once ended in a traceback, by kind."""


@dataclass(frozen=True, kw_only=True)
class Target:
    """A kind of object: where it lies, what mutates it, and what reads it."""

    key: str
    mutate: Callable[[bytes, random.Random], bytes]
    read: Callable[[Store, bytes], object]


def either(
    structured: Callable[[bytes, random.Random], bytes],
) -> Callable[[bytes, random.Random], bytes]:
    """Half of the mutations keep the form, half are of bytes."""
    return lambda data, dice: (structured if dice.random() < 0.5 else mutate_bytes)(data, dice)


def _table(resign: Callable[[pa.Table], pa.Table]) -> Callable[[bytes, random.Random], bytes]:
    return either(lambda data, dice: mutate_table(decode_table(data), dice, resign))


def _resigned_samples(table: pa.Table) -> pa.Table:
    meta = {name.decode(): value.decode() for name, value in (table.schema.metadata or {}).items()}
    return table.replace_schema_metadata(meta | {"sha256": _samples_digest(table, meta)})


def _manifest(data: bytes, dice: random.Random) -> bytes:
    outer = json.loads(data)
    content = mutate_json(outer["content"].encode(), dice)
    return json.dumps(outer | {"content": content.decode(), "sha256": sha256(content)}).encode()


def _checkpoint(data: bytes, dice: random.Random) -> bytes:
    """The text in the header of a safetensors file."""
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + size])
    if dice.random() < 0.7:
        header["__metadata__"]["kd_ray"] = mutate_json(header["__metadata__"]["kd_ray"].encode(), dice).decode()
        text = json.dumps(header).encode()
    else:
        text = mutate_json(json.dumps(header).encode(), dice)
    return len(text).to_bytes(8, "little") + text + data[8 + size :]


def _sweep_file(data: bytes, dice: random.Random) -> bytes:
    file = make_sweep(data.decode())
    return mutate_json(json.dumps(dict(file.raw)).encode(), dice)


def _read_record(store: Store, data: bytes) -> None:
    record = read_record(store, TRIAL.trial_id)
    samples = read_samples(store, DATASET)
    if record is not None and samples is not None and misfit(record, samples) is None:
        manifest = find_manifest(store, "demo").manifest
        assert manifest is not None
        try:
            list(part_rows([TrialInput(record, samples, {}, record.spec.dataset_id)], manifest.row_settings))
        except (ValueError, KeyError) as error:
            # An aggregation names the trial, and leaves it out.
            raise KdRayError(str(error)) from error


def _read_samples(store: Store, data: bytes) -> None:
    _read_record(store, data)


def decoded_checkpoint(data: bytes) -> TrainingState:
    """As a worker decodes it."""
    return decode(data)


def _read_checkpoint(store: Store, data: bytes) -> None:
    # `Checkpoints.load` leaves out what raises one of these.
    try:
        decode(data)
    except (ValueError, KeyError, TypeError) as error:
        raise KdRayError(str(error)) from error


def _read_sweep(store: Store, data: bytes) -> None:
    expand(parse_sweep(data.decode(errors="replace"), source="s", most_cells=500), lambda path: "ab" * 32)


def _state() -> bytes:
    model = torch.nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    history = make_record().epochs
    return encode(
        TrainingState(
            step=3,
            model=model.state_dict(),
            optimizer=optimizer.state_dict(),
            sums=torch.zeros(4, dtype=torch.float64),
            history=history,
            elapsed_s=1.5,
            restarts=0,
        )
    )


LEASE = ledger.Lease(
    trial_id=TRIAL.trial_id,
    generation=1,
    launch_id="l",
    host="h",
    boot_id="b",
    pid=1,
    process_started="1",
    renewed_at=make_record().provenance.started_at,
    progress={"epoch": 1, "epochs": 4, "accuracy": 0.5, "images_per_s": 3.0},
)

TARGETS: dict[str, tuple[Target, Callable[[Store], bytes | None]]] = {
    "record": (
        Target(key=record_key(TRIAL.trial_id), mutate=_table(lambda table: table), read=_read_record),
        lambda store: store.get(record_key(TRIAL.trial_id)),
    ),
    "samples": (
        Target(key=samples_key(DATASET), mutate=_table(_resigned_samples), read=_read_samples),
        lambda store: store.get(samples_key(DATASET)),
    ),
    "manifest": (
        Target(
            key=manifest_key("demo", 2), mutate=either(_manifest), read=lambda store, _: sweep_status(store, "demo")
        ),
        lambda store: store.get(manifest_key("demo", 1)),
    ),
    "lease": (
        Target(
            key=lease_key(PLANNED[7].trial_id, 1),
            mutate=either(mutate_json),
            read=lambda store, _: ledger.scan_few(store, [PLANNED[7].trial_id]),
        ),
        lambda store: LEASE.to_json(),
    ),
    "error": (
        Target(
            key=error_key(PLANNED[7].trial_id),
            mutate=either(mutate_json),
            read=lambda store, _: ledger.scan_few(store, [PLANNED[7].trial_id]),
        ),
        lambda store: b'{"cause": "c", "traceback": "t", "host": "h", "launch_id": "l", "failed_at": "f"}',
    ),
    "index": (
        Target(
            key=table_index_key("demo"), mutate=either(mutate_json), read=lambda store, _: read_index(store, "demo")
        ),
        lambda store: store.get(table_index_key("demo")),
    ),
    "mark": (
        Target(
            key=plan_mark_key("demo"),
            mutate=either(mutate_json),
            read=lambda store, _: is_marked(store, read_manifest(store, "demo"), make_sweep()),
        ),
        lambda store: json.dumps({"sweep": "0" * 64, "plan": "0" * 64, "code": this_code()}).encode(),
    ),
    "part": (
        Target(
            key=part_key("trials", "demo", 0),
            mutate=_table(lambda table: table),
            read=lambda store, _: read_table(store, "trials"),
        ),
        lambda store: store.get(part_key("trials", "demo", 0)),
    ),
    "checkpoint": (
        Target(
            key=checkpoint_key(PLANNED[7].trial_id, 1, 3, "0" * 16), mutate=either(_checkpoint), read=_read_checkpoint
        ),
        lambda store: _state(),
    ),
    "sweep file": (
        Target(key="sweeps/demo/sweep.yaml", mutate=either(_sweep_file), read=_read_sweep),
        lambda store: SWEEP_YAML.encode(),
    ),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of which one trial is not complete."""
    store = open_store(tmp_path_factory.mktemp("store"))
    write_sweep(store, make_sweep())
    commit_whole(store, PLANNED[:7])
    aggregate(store, "demo")
    return store


def _attempt(what: Callable[[], object], kind: str, seed: int) -> None:
    began = time.process_time()
    try:
        what()
    except KdRayError as error:
        assert str(error), f"{kind}, seed {seed}: an error without a message"
    except (Exception, RecursionError) as error:
        raise AssertionError(f"{kind}, seed {seed}: {type(error).__name__}: {str(error)[:300]}") from error
    assert time.process_time() - began < LONGEST_S, f"{kind}, seed {seed}: took too long"


@pytest.mark.parametrize("kind", TARGETS)
def test_mutated_object_is_read_or_named(whole: Store, kind: str) -> None:
    target, whole_of = TARGETS[kind]
    original, before = whole_of(whole), whole.get(target.key)
    assert original is not None
    problems: list[str] = []
    for seed in [*FAILED.get(kind, ()), *range(COUNT)]:
        data = target.mutate(original, random.Random(seed))
        whole.put(target.key, data)
        try:
            _attempt(lambda data=data: target.read(whole, data), kind, seed)  # type: ignore[misc]
        except AssertionError as error:
            problems.append(str(error))
    # Restored, so that the next kind meets a whole store.
    _restore(whole, target.key, before)
    assert not problems, "\n".join(problems[:20]) + f"\n{len(problems)} of {COUNT}"


def _restore(store: Store, key: str, data: bytes | None) -> None:
    if data is None:
        store.delete(key)
    else:
        store.put(key, data)


def test_mutated_list_is_read_or_named(tmp_path: Path) -> None:
    root = write_table(tmp_path)
    path = root / "table" / "loans.csv"
    original, dataset = path.read_bytes(), make()
    problems = []
    for seed in [*FAILED.get("list", ()), *range(COUNT)]:
        path.write_bytes(mutated_list(original, random.Random(seed)))
        try:
            _attempt(lambda: listed.fingerprint(dataset, Loading(root=root)), "list", seed)
        except AssertionError as error:
            problems.append(str(error))
    assert not problems, "\n".join(problems[:20]) + f"\n{len(problems)} of {COUNT}"


def mutated_list(data: bytes, dice: random.Random) -> bytes:
    """A CSV file with other bytes, or with another cell."""
    if dice.random() < 0.5:
        return mutate_bytes(data, dice)
    rows: list[list[Any]] = list(csv.reader(io.StringIO(data.decode())))
    row = dice.choice(rows)
    row[dice.randrange(len(row))] = dice.choice(
        ["", "nan", "\x00", "\x1b[2J", "1e999", "=1+1", "a\nb", "x" * 5000, "1;2"]
    )
    out = io.StringIO()
    csv.writer(out).writerows(rows)
    return out.getvalue().encode()


def test_fuzzed_record_of_this_version_is_whole() -> None:
    """Guard: the mutations begin from objects that are read."""
    assert decode_table(encode_record(make_record())).num_rows == 1
