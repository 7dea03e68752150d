"""What a sweep will cost: training time of its open trials, from complete trials of the store that are like them."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from kd_ray.results.store import Store
from kd_ray.results.table_parts import part_keys, read_part
from kd_ray.sweep.datasets import table_name
from kd_ray.sweep.spec import TrialSpec

_COLUMNS = ("trial_id", "role", "dataset", "target", "model", "teacher", "objective", "epochs", "elapsed_s", "device")
_Key = tuple[str | None, ...]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Training time of trials that would run, in one worker."""

    num_trials: int
    """Trials that would train."""
    num_known: int
    """Those with a like trial in the store: the same role, data set, networks and objective."""
    seconds: float
    """Training time of the known ones: the median time of an epoch of like trials, times their epochs."""
    num_like: int
    """Complete trials that this rests on."""
    devices: tuple[str, ...]
    """On which they were trained."""

    def sentence(self) -> str:
        """`about 1.2 h in one worker, after 24 complete trials on cpu; 3 of 30 trials have no like one`."""
        if not self.num_known:
            return "unknown: this store has no complete trial like these; `kd-ray launch SWEEP.yaml --only TRIAL_ID` trains one"
        time = f"{self.seconds / 3600:.1f} h" if self.seconds >= 3600 else f"{self.seconds / 60:.1f} min"
        trials = f"{self.num_like:,} complete trial{'' if self.num_like == 1 else 's'}"
        said = f"about {time} of training in one worker, after {trials} like these on {', '.join(self.devices)}"
        left = self.num_trials - self.num_known
        return f"{said}; {left} of {self.num_trials} trials have no like one and are not counted" if left else said

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self)


def cost(store: Store, specs: Iterable[TrialSpec]) -> Cost:
    """What these trials cost, by the tables of all sweeps of the store.

    Raises:
        CorruptObjectError: a part of the table `trials` cannot be read.
    """
    trials = [spec for spec in specs if spec.epochs]
    seconds: dict[_Key, list[float]] = defaultdict(list)
    devices: dict[_Key, set[str]] = defaultdict(set)
    # Part by part: Arrow joins tables with the help of pandas, which takes a second to start.
    parts = (read_part(store, key).select(_COLUMNS).to_pylist() for key in part_keys(store, "trials"))
    for row in {row["trial_id"]: row for rows in parts for row in rows}.values():
        if row["epochs"] and row["elapsed_s"]:
            key = tuple(row[name] for name in _COLUMNS[1:7])
            seconds[key].append(row["elapsed_s"] / row["epochs"])
            devices[key].add(row["device"])
    keys = [_key(spec) for spec in trials]
    known = {key for key in keys if key in seconds}
    return Cost(
        num_trials=len(trials),
        num_known=sum(key in known for key in keys),
        seconds=sum(median(seconds[key]) * spec.epochs for key, spec in zip(keys, trials, strict=True) if key in known),
        num_like=sum(len(seconds[key]) for key in known),
        devices=tuple(sorted(set().union(*(devices[key] for key in known)))),
    )


def _key(spec: TrialSpec) -> _Key:
    """As `rows.py` writes it."""
    return spec.role.value, table_name(spec.dataset), spec.dataset.target, spec.model, spec.teacher_name, spec.objective
