"""Checks the tables of a sweep: aggregates its records again, in memory, and compares the result with the stored parts row by row."""

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime

import pyarrow as pa

from kd_ray.errors import CorruptObjectError, OtherVersionError
from kd_ray.housekeeping.problems import Problem, Remedy
from kd_ray.results import ledger
from kd_ray.results.aggregate import aggregate_alone
from kd_ray.results.inventory import table_parts
from kd_ray.results.manifest import Manifest
from kd_ray.results.record import decode_table
from kd_ray.results.schema import TABLES
from kd_ray.results.store import TABLES_FOLDER, Store, StoredObject, sweep_parts, table_index_key
from kd_ray.sweep.spec import TrialState

MISSING = "it is missing; the next aggregation writes it"
STALE = "it is not up to date with the records; the next aggregation rebuilds it"
SURPLUS = "no trial of the sweep has its place there; the next aggregation deletes it"
BEHIND = (MISSING, STALE, SURPLUS)
"""What any aggregation mends; the tables of a running sweep are like this between two aggregations."""
BROKEN = "it is not a whole table part"
WRONG = "its rows are not those of its records"


def check_tables(store: Store, sweep: str, manifest: Manifest) -> tuple[int, list[Problem]]:
    """Number of table parts compared, and what is wrong with them."""
    was_running = _is_running(store, manifest)
    comparing = _ComparingStore(store, sweep)
    try:
        report, _ = aggregate_alone(comparing, sweep)
    except (CorruptObjectError, OtherVersionError, pa.ArrowException, ValueError, LookupError) as error:
        what = f"the tables of sweep {sweep} cannot be checked: {' '.join(str(error).split())}"
        return 0, [Problem(key=sweep_parts(sweep), what=what, remedy=Remedy.NONE)]
    verdicts = comparing.compare()
    # Unreadable trials and data sets are named elsewhere; the aggregation after their repair updates the tables.
    is_behind = was_running or _is_running(store, manifest) or bool(report.problems)
    return len(verdicts), [
        Problem(key=key, what=verdict, remedy=Remedy.REBUILD, owner=sweep)
        for key, verdict in verdicts.items()
        if verdict and not (is_behind and verdict in BEHIND)
    ]


def _is_running(store: Store, manifest: Manifest) -> bool:
    states = ledger.scan(store, [trial.trial_id for trial in manifest.active]).values()
    return any(status.state is TrialState.RUNNING for status in states)


class _ComparingStore(Store):
    """A store for one aggregation that writes nothing: a table part that is put is compared with the stored one, then forgotten.

    The tables look empty to the aggregation, so that it computes every part.
    """

    def __init__(self, store: Store, sweep: str) -> None:
        super().__init__(store.url)
        # What is not overridden below asks where the real store asks: an object store has another client than a folder.
        vars(self).update(vars(store))
        self._real = store
        self._sweep = sweep
        self._index = table_index_key(sweep)
        self._kept: dict[str, bytes] = {}
        self._parts: dict[str, StoredObject] = {}
        self._verdicts: dict[str, str] = {}

    def get(self, key: str, *, most_bytes: int | None = None) -> bytes | None:
        """The stored object; of the tables' index, what this aggregation has written."""
        return self._kept.get(key) if key == self._index else self._real.get(key, most_bytes=most_bytes)

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
        there = [part.item.key for part in table_parts(self._real, sweep=self._sweep) if part.place.table in TABLES]
        return {**dict.fromkeys(there, SURPLUS), **self._verdicts}


def _verdict(there: bytes | None, expected: bytes) -> str:
    if there is None:
        return MISSING
    if there == expected:
        return ""
    try:
        table = decode_table(there)
    except (pa.ArrowException, OSError, ValueError) as error:
        return f"{BROKEN}: {error}"
    wanted = decode_table(expected)
    if table.schema.equals(wanted.schema) and table.equals(wanted):
        return ""
    is_current = (table.schema.metadata or {}).items() >= (wanted.schema.metadata or {}).items()
    return WRONG if is_current else STALE
