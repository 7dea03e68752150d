"""What the store knows of the candidates of a search: the metric of each trial, at its end or where it was stopped."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean

import pyarrow.compute as pc

from kd_ray.errors import CorruptObjectError
from kd_ray.metrics.catalogue import METRICS
from kd_ray.results.record import Record, Samples, read_record, read_samples, read_stop
from kd_ray.results.row_settings import RowSettings
from kd_ray.results.rows import trial_rows
from kd_ray.results.store import Store, error_key
from kd_ray.sweep.plan import PlannedTrial
from kd_ray.sweep.spec import Role
from kd_ray.sweep.tuning_settings import Tuning
from kd_ray.tuning.candidates import Candidate


@dataclass(frozen=True, kw_only=True)
class Known:
    """How a trial did after some epoch."""

    value: float
    """Its metric; NaN where it is undefined."""
    epochs: int
    elapsed_s: float
    accuracy_by_epoch: tuple[float | None, ...]
    """On the validation split."""


@dataclass(kw_only=True)
class StoredValues:
    """Reads each result once; those that are not there yet are looked for again."""

    store: Store
    tuning: Tuning
    damaged: set[str] = field(default_factory=set)
    """Trials whose record cannot be read."""
    damaged_stops: set[tuple[str, int]] = field(default_factory=set)
    """trial_id and epoch of stops that cannot be read."""
    _known: dict[tuple[str, int | None], Known] = field(default_factory=dict)
    _samples: dict[str, Samples] = field(default_factory=dict)

    def known(self, trial: PlannedTrial, epoch: int | None) -> Known | None:
        """How a trial did after this epoch, or at its end; None while it has not got there."""
        key = (trial.trial_id, epoch)
        if key not in self._known:
            found = self._at_end(trial) if epoch is None else self._at_stop(trial, epoch)
            if found is None:
                return None
            self._known[key] = found
        return self._known[key]

    def _at_end(self, trial: PlannedTrial) -> Known | None:
        try:
            record = read_record(self.store, trial.trial_id)
            return None if record is None else self._of(record, trial)
        except CorruptObjectError:
            self.damaged.add(trial.trial_id)
            return None

    def _at_stop(self, trial: PlannedTrial, epoch: int) -> Known | None:
        try:
            if (record := read_stop(self.store, trial.trial_id, epoch)) is not None:
                return self._of(record, trial)
        except CorruptObjectError:
            self.damaged_stops.add((trial.trial_id, epoch))
            return None
        # A trial that was trained without stops tells its accuracy by epoch, and no other metric.
        if (at_end := self.known(trial, None)) is None:
            return None
        value = at_end.accuracy_by_epoch[epoch - 1] if self.tuning.metric == "accuracy" else None
        return Known(
            value=math.nan if value is None else value,
            epochs=epoch,
            elapsed_s=at_end.elapsed_s,
            accuracy_by_epoch=at_end.accuracy_by_epoch[:epoch],
        )

    def _of(self, record: Record, trial: PlannedTrial) -> Known | None:
        # The record may name other groups of the same samples.
        samples = self._samples_of(trial.dataset_id) or self._samples_of(record.spec.dataset_id)
        if samples is None:
            return None
        return Known(
            value=metric_of(record, samples, self.tuning),
            epochs=len(record.epochs),
            elapsed_s=record.provenance.elapsed_s,
            accuracy_by_epoch=tuple(epoch.validation_accuracy for epoch in record.epochs),
        )

    def _samples_of(self, dataset_id: str) -> Samples | None:
        if dataset_id not in self._samples and (found := read_samples(self.store, dataset_id)) is not None:
            self._samples[dataset_id] = found
        return self._samples.get(dataset_id)

    def last(self, candidate: Candidate, trial: PlannedTrial, rungs: Sequence[int]) -> Known | None:
        """The latest that is known of a trial."""
        if (known := self.known(trial, None)) is not None:
            return known
        for rung in reversed(rungs):
            if rung < candidate.epochs and (known := self.known(trial, candidate.until(trial, rung))) is not None:
                return known
        return None

    def value(self, candidate: Candidate, epoch: int | None) -> float | None:
        """See `replay.Results`: the mean over the roles of the mean over their trials."""
        by_role: dict[Role, list[float]] = {}
        for trial in candidate.trials:
            known = self.known(trial, None if epoch is None else candidate.until(trial, epoch))
            if known is None:
                return None
            by_role.setdefault(trial.spec.role, []).append(known.value)
        return fmean(fmean(values) for values in by_role.values())

    def has_failed(self, candidate: Candidate) -> bool:
        """See `replay.Results`."""
        return any(
            self.known(trial, None) is None and self.store.exists(error_key(trial.trial_id))
            for trial in (*candidate.teachers, *candidate.trials)
        )

    def train_s(self, candidates: Sequence[Candidate]) -> float:
        """See `replay.Results`: trials that candidates share count once."""
        trials = {trial.trial_id: (one, trial) for one in candidates for trial in (*one.teachers, *one.trials)}
        lasts = [self.last(one, trial, self.rungs) for one, trial in trials.values()]
        return sum(known.elapsed_s for known in lasts if known)

    rungs: Sequence[int] = ()
    """Where the scheduler decides."""


def metric_of(record: Record, samples: Samples, tuning: Tuning) -> float:
    """The metric that a search asks for; NaN where it is undefined. A group metric is the mean over the classes, as in reports."""
    features = () if tuning.feature is None else (tuning.feature,)
    tables = trial_rows(record, samples, RowSettings(sweep="", sensitive_features=features), {})
    if METRICS[tuning.metric].of != "groups":
        rows = tables["trials"]
    else:
        table = tables["fairness_metrics"]
        rows = table.filter(pc.is_null(table["positive_class"]))
    value = rows[tuning.metric][0].as_py() if rows.num_rows else None
    return math.nan if value is None else float(value)


def arm_of(trial: PlannedTrial, axes: Mapping[str, object]) -> str:
    """What a trial is of, apart from its seed: `scratch`, `teacher`, or the condition of a distilled student, as in `temperature=4`."""
    spec = trial.spec
    own = {
        "temperature": spec.temperature,
        "alpha": spec.alpha,
        "t_squared": spec.t_squared,
        "objective": spec.objective,
    }
    words = []
    for axis in axes:
        value = own[axis] if axis in own and spec.role is Role.DISTILLED else trial.settings.get(axis)
        if axis != "seed" and value is not None:
            words.append(f"{axis}={value:g}" if isinstance(value, float) else f"{axis}={value}")
    if spec.role is Role.DISTILLED:
        return " ".join(words) or "distilled"
    return " ".join([spec.role.value, *words])
