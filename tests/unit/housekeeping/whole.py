"""Stores as launches leave them, weights included, without training."""

import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa

from kd_ray.results.record import commit_record, encode_table, sha256, write_samples
from kd_ray.results.schema import TABLES
from kd_ray.results.store import Store, checkpoint_key, weights_key
from kd_ray.results.table_parts import read_table
from kd_ray.sweep.plan import PlannedTrial
from tests.fakes import make_record, make_samples, random_predictions


def commit_whole(store: Store, trials: Iterable[PlannedTrial], *, generation: int = 1, **changes: Any) -> None:
    """Commit each trial as a worker does: samples, weights, record."""
    for trial in trials:
        write_samples(store, trial.spec.dataset_id, make_samples())
        weights = f"weights of {trial.trial_id}".encode()
        key = weights_key(trial.trial_id, generation)
        store.put(key, weights)
        fields = {
            "predictions_N": random_predictions(trial.spec),
            "weights_key": key,
            "weights_sha256": sha256(weights),
            **changes,
        }
        assert commit_record(store, make_record(trial.spec, **fields))


def save_checkpoint(store: Store, trial_id: str, step: int, *, generation: int = 1, content: bytes = b"") -> str:
    """A whole checkpoint; returns its key."""
    data = content or f"checkpoint {trial_id} {step}".encode()
    key = checkpoint_key(trial_id, generation, step, sha256(data))
    store.put(key, data)
    return key


def grow_old(store: Store, *, seconds: float = 7200) -> None:
    """Every object of a local store was written so long ago."""
    assert store.local_root is not None
    then = time.time() - seconds
    for path in store.local_root.rglob("*"):
        if path.is_file():
            os.utime(path, (then, then))


def keys(store: Store) -> set[str]:
    """Every object."""
    return {item.key for item in store.entries("")}


def contents(store: Store) -> dict[str, bytes | None]:
    """Every object with its content."""
    return {key: store.get(key) for key in keys(store)}


def tables(store: Store, sweep: str = "demo") -> dict[str, bytes]:
    """Every table of a sweep."""
    return {name: encode_table(_plain(read_table(store, name, [sweep]))) for name in TABLES}


def _plain(table: pa.Table) -> pa.Table:
    return table.replace_schema_metadata(None)


def spoil(store: Store, key: str) -> None:
    """Change bytes near the beginning of an object, where Parquet has its first page."""
    data = store.get(key)
    assert data is not None
    store.put(key, data[:4] + bytes(byte ^ 0xFF for byte in data[4:64]) + data[64:])


def files(store: Store) -> set[str]:
    """Every file of a local store, also those that are no objects."""
    assert store.local_root is not None
    root: Path = store.local_root
    return {str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()}
