"""What the pages know of a store, and for how long it is kept.

A snapshot of all states is read at most every two seconds, and less often where it takes longer. A study and its comparisons are read
again when a part of the sweep's tables has changed. `kept.py` has the rules. Readers share all of it; at most `MOST_STUDIES` are held.
"""

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from kd_ray.errors import InvalidInputError
from kd_ray.results.inventory import table_parts
from kd_ray.results.store import Store
from kd_ray.serve.kept import Kept, KeptByName
from kd_ray.serve.snapshot import Snapshot, SweepNow, take_snapshot

if TYPE_CHECKING:
    from kd_ray.analysis.study import Study
    from kd_ray.metrics.arrays import FloatArray
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
    accuracy_T: "FloatArray"
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

    def prepare(self) -> None:
        """Read what most pages need, so that none of them waits for it."""
        study = self.study
        for read in (
            lambda: study.class_accuracy_TC,
            lambda: study.fairness,
            lambda: self.groups,
            lambda: study.epochs,
        ):
            read()

    @cached_property
    def groups(self) -> Mapping[str, Mapping[str, GroupAccuracy]]:
        """Accuracy by sensitive feature and group."""
        # The list of sweeps does not wait for NumPy.
        import numpy as np

        # The accuracy of a group stands beside each positive class; those of one class for each data set are read.
        firsts = {it.names[0] for it in self.study.classes.values() if it.names}
        names = ", ".join("'" + name.replace("'", "''") + "'" for name in sorted(firsts))
        rows = self.results.query_own(
            f'SELECT trial_id, feature, "group", max(n) AS n, max(accuracy) AS accuracy FROM group_metrics '
            f"WHERE sweep = '{self.study.sweep}' AND positive_class IN ({names}) GROUP BY ALL ORDER BY feature, \"group\", trial_id",
            sweep=self.study.sweep,
        )
        frame = rows.to_pandas()
        frame["row"] = frame["trial_id"].map(self.study.index)
        found: dict[str, dict[str, GroupAccuracy]] = {it.feature: {} for it in self.study.fairness}
        for (feature, group), of_group in frame.groupby(["feature", "group"]):
            known = of_group.dropna(subset="row")
            accuracy_T = np.full(len(self.study.trials), np.nan)
            accuracy_T[known["row"].astype(int)] = known["accuracy"]
            found.setdefault(feature, {})[group] = GroupAccuracy(n=int(of_group["n"].max()), accuracy_T=accuracy_T)
        return found


class Reading:
    """The store, as the pages read it."""

    def __init__(self, store: Store, first: Future[Snapshot] | None = None) -> None:
        """`first` is a snapshot that is being taken already."""
        self.store = store
        self._first = first
        self._snapshot: Kept[Snapshot] = Kept(self._take)
        self._studies: KeptByName[Read] = KeptByName(self._read, most=MOST_STUDIES)
        self._now: dict[str, SweepNow] = {}
        self._newest: dict[str, Read] = {}
        self._findings: KeptByName[tuple[Read, Findings]] = KeptByName(self._find, most=MOST_STUDIES)

    @cached_property
    def results(self) -> "Results":
        """The tables, for reading only."""
        # DuckDB and what makes tables take a while to import; the list of sweeps does not wait for them.
        from kd_ray.results.query import Results

        return Results(self.store, may_write=False)

    def _take(self, before: Snapshot | None) -> Snapshot:
        first, self._first = self._first, None
        return take_snapshot(self.store, before) if first is None else first.result()

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
        self._now[name] = await self.sweep(name)
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

        study = read_study(self.results, name, self._now[name].lines)
        read = Read(results=self.results, study=study, parts=parts)
        # Readers see the value before while this one is prepared; only the first of a sweep waits.
        read.prepare()
        return read
