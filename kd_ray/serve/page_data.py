"""What the pages know of a store, and for how long it is kept.

A snapshot of all states is read at most every two seconds, and less often where it takes longer. A study and its comparisons are read
again when a part of the sweep's tables has changed. `kept.py` has the rules. Readers share all of it; at most `MOST_STUDIES` are held.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from kd_ray.errors import InvalidInputError
from kd_ray.metrics.arrays import FloatArray
from kd_ray.results.inventory import table_parts
from kd_ray.results.store import Store
from kd_ray.serve.kept import Kept, KeptByName
from kd_ray.serve.snapshot import Snapshot, SweepNow, take_snapshot

if TYPE_CHECKING:
    from kd_ray.analysis.study import Study
    from kd_ray.results.query import Results
    from kd_ray.serve.findings import Findings

MOST_STUDIES = 4
"""Sweeps whose numbers are held in memory."""
MOST_REMEMBERED = 200
"""Quantities and means of one sweep that are held in memory."""
PATIENCE_S = 4.0
"""How long a page waits for comparisons that are made for it; after that it says that they are being made."""


class NoSuchSweepError(InvalidInputError):
    """The store has no sweep of this name."""


@dataclass(frozen=True, kw_only=True)
class GroupAccuracy:
    """Accuracy of all trials within one group of a sensitive feature."""

    n: int
    """Test samples of the group; the most, where data sets differ."""
    accuracy_T: FloatArray
    """NaN for a group without test samples."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Read:
    """The numbers of one sweep, as its tables were."""

    results: "Results"
    study: "Study"
    parts: tuple[tuple[str, str], ...]
    """Key and e_tag of every part of its tables."""
    _remembered: OrderedDict[Hashable, Any] = field(default_factory=OrderedDict, repr=False)

    def remember(self, what: Hashable, make: Callable[[], Any]) -> Any:
        """What was made of these numbers before, or is made now; the last `MOST_REMEMBERED` are held."""
        if what not in self._remembered:
            self._remembered[what] = make()
            while len(self._remembered) > MOST_REMEMBERED:
                self._remembered.popitem(last=False)
        found = self._remembered.get(what)
        return make() if found is None else found

    @cached_property
    def groups(self) -> Mapping[str, Mapping[str, GroupAccuracy]]:
        """Accuracy by sensitive feature and group."""
        rows = self.results.query(
            'SELECT trial_id, feature, "group", max(n) AS n, max(accuracy) AS accuracy FROM group_metrics '
            f"WHERE sweep = '{self.study.sweep}' GROUP BY ALL ORDER BY feature, \"group\""
        )
        found: dict[str, dict[str, GroupAccuracy]] = {it.feature: {} for it in self.study.fairness}
        for row in rows.to_pylist():
            of_feature = found.setdefault(row["feature"], {})
            known = of_feature.get(row["group"])
            if known is None:
                known = GroupAccuracy(n=0, accuracy_T=np.full(len(self.study.trials), np.nan))
            if row["trial_id"] in self.study.index and row["accuracy"] is not None:
                known.accuracy_T[self.study.index[row["trial_id"]]] = row["accuracy"]
            of_feature[row["group"]] = GroupAccuracy(n=max(known.n, row["n"]), accuracy_T=known.accuracy_T)
        return found


class Reading:
    """The store, as the pages read it."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._snapshot: Kept[Snapshot] = Kept(lambda before: take_snapshot(store, before))
        self._studies: KeptByName[Read] = KeptByName(self._read, most=MOST_STUDIES)
        self._newest: dict[str, Read] = {}
        self._findings: KeptByName[tuple[Read, Findings]] = KeptByName(self._find, most=MOST_STUDIES)

    @cached_property
    def results(self) -> "Results":
        """The tables, for reading only."""
        # DuckDB and what makes tables take a while to import; the list of sweeps does not wait for them.
        from kd_ray.results.query import Results

        return Results(self.store, may_write=False)

    async def snapshot(self) -> Snapshot:
        """The states of all trials.

        Raises:
            StoreError: the store cannot be read.
        """
        return await self._snapshot.get()

    async def sweep(self, name: str) -> SweepNow:
        """The states of the trials of one sweep.

        Raises:
            NoSuchSweepError: the store has none of this name.
            InvalidInputError: its manifest cannot be read.
        """
        snapshot = await self.snapshot()
        if name in snapshot.unreadable:
            raise InvalidInputError(snapshot.unreadable[name])
        if name not in snapshot.sweeps:
            names = ", ".join(snapshot.sweeps) or "none"
            raise NoSuchSweepError(f"The store has no sweep {name!r}; it has: {names}.")
        return snapshot.sweeps[name]

    async def read(self, name: str) -> Read:
        """The numbers of one sweep.

        Raises:
            NoSuchSweepError: the store has none of this name.
            InvalidInputError: none of its trials is complete and aggregated.
        """
        await self.sweep(name)
        return await self._studies.get(name)

    async def read_if_any(self, name: str) -> Read | None:
        """The same; None where no trial is complete."""
        try:
            return await self.read(name)
        except NoSuchSweepError:
            raise
        except InvalidInputError:
            return None

    async def findings(self, read: Read) -> "Findings | None":
        """The comparisons of a sweep; None while they are being read or made for the first time."""
        name = read.study.sweep
        self._newest[name] = read
        asking = asyncio.create_task(self._findings.get(name))
        # Who does not wait leaves the error to the next one.
        asking.add_done_callback(lambda task: None if task.cancelled() else task.exception())
        done, _ = await asyncio.wait({asking}, timeout=PATIENCE_S)
        return asking.result()[1] if done else None

    def _find(self, name: str, before: "tuple[Read, Findings] | None") -> "tuple[Read, Findings]":
        # Statistics take a second to import; the list of sweeps does not wait for them.
        from kd_ray.serve.findings import find

        read = self._newest[name]
        return before if before is not None and before[0] is read else (read, find(self.results, read.study))

    def _read(self, name: str, before: Read | None) -> Read:
        parts = tuple((entry.item.key, entry.item.e_tag) for entry in table_parts(self.store, sweep=name))
        if before is not None and before.parts == parts:
            return before
        # As above.
        from kd_ray.analysis.reading import read_study

        return Read(results=self.results, study=read_study(self.results, name), parts=parts)
