"""The state of every trial of the sweeps in a store, and the reason. Only reads, and imports little: people wait for it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from kd_ray.errors import CorruptObjectError, OtherVersionError
from kd_ray.lasting import without_garbage_search
from kd_ray.results.inventory import Inventory, TrialObjects, deciding_objects, quarantined_of, take_inventory
from kd_ray.results.ledger import states
from kd_ray.results.manifest import find_manifest, read_manifest
from kd_ray.results.store import DAMAGED, SWEEPS, TABLES_FOLDER, Store
from kd_ray.results.trial_lines import TrialLine, count_states, manifest_lines


@dataclass(frozen=True, kw_only=True)
class SweepStatus:
    """The state of the trials of a sweep in the store."""

    sweep: str
    store: str
    trials: tuple[TrialLine, ...]
    problems: tuple[str, ...]
    """Objects of the sweep that are damaged, or are in quarantine."""
    strangers: tuple[str, ...] = ()
    """Keys among the sweeps and the tables of the store that kd_ray does not write; they are ignored."""

    def counts(self) -> dict[str, int]:
        """Trials by state."""
        return count_states(self.trials)

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return {
            "sweep": self.sweep,
            "store": self.store,
            "counts": self.counts(),
            "problems": self.problems,
            "strangers": self.strangers,
            "trials": [asdict(trial) for trial in self.trials],
        }


@without_garbage_search()
def sweep_status(store: Store, sweep: str) -> SweepStatus:
    """The state of every trial that a sweep in the store asks for.

    Raises:
        InvalidInputError: the store has no such sweep.
    """
    return _sweep_status(store, sweep, *_listed(store))


def all_statuses(store: Store) -> list[SweepStatus]:
    """The state of every sweep in the store. One without a readable manifest has no trials, and says in `problems` why."""
    named, trials = _listed(store)

    def status(name: str) -> SweepStatus:
        try:
            return _sweep_status(store, name, named, trials)
        except (CorruptObjectError, OtherVersionError) as error:
            return SweepStatus(sweep=name, store=store.url, trials=(), problems=(str(error),))

    return store.at_once(status, sorted(name for name, sweep in named.sweeps.items() if sweep.manifests))


_Listed = tuple[Inventory, Mapping[str, TrialObjects]]
"""What stands under the names of sweeps, with what is in quarantine; and the trials."""


def _listed(store: Store) -> _Listed:
    return take_inventory(store, SWEEPS, TABLES_FOLDER, DAMAGED), deciding_objects(store)


def _sweep_status(store: Store, sweep: str, named: Inventory, trials: Mapping[str, TrialObjects]) -> SweepStatus:
    newest = find_manifest(store, sweep, named.sweeps[sweep].manifests if sweep in named.sweeps else ())
    manifest = newest.manifest or read_manifest(store, sweep)
    statuses = states(store, trials, [trial.trial_id for trial in manifest.active])
    quarantined = quarantined_of(named.quarantined, sweep, statuses)
    damaged = {one.key for one in quarantined}
    lines = manifest_lines(manifest, statuses, damaged=damaged)
    problems = (
        *(
            f"{key} is damaged; an older manifest is shown, and the next launch writes a new one"
            for key in newest.damaged
        ),
        *(f"{one.key} was damaged; it is in quarantine as {one.item.key}" for one in quarantined),
    )
    strangers = tuple(named.strangers)
    return SweepStatus(sweep=sweep, store=store.url, trials=lines, problems=problems, strangers=strangers)
