"""What a search has found so far: candidates, the chosen one, what it costs each arm, and the rows of the table `tuning`."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import pyarrow as pa

from kd_ray.metrics.catalogue import METRICS
from kd_ray.results.rows import key_columns
from kd_ray.results.schema import TUNING
from kd_ray.results.store import Store, part_key
from kd_ray.results.table_parts import encode_part
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.source import dump_yaml
from kd_ray.sweep.tuning_settings import SUFFIX, Tuned, Tuning
from kd_ray.tuning.candidates import tuning_of
from kd_ray.tuning.replay import Placed, Replayed
from kd_ray.tuning.stored_values import StoredValues, arm_of


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A search as far as it is."""

    sweep: str
    """Name of the sweep that is tuned."""
    tuning: Tuning
    placed: tuple[Placed, ...]
    """The candidates, in order."""
    chosen: Placed | None
    """The best complete one; of equal ones the first."""
    by_arm: Mapping[int, Mapping[str, float]]
    """Number of each complete candidate → arm → mean over its seeds."""
    regret: Mapping[str, float]
    """By arm: how much worse the chosen candidate is than the one that is best for this arm alone; at least 0."""
    train_s: float
    """Seconds of training, all trials together."""
    epochs_trained: int
    epochs_of_all: int
    """Epochs that all candidates would have taken to their end."""
    is_over: bool
    rows: tuple[Mapping[str, Any], ...]
    """Of the table `tuning`."""

    @property
    def name(self) -> str:
        """Name of the search in the store."""
        return f"{self.sweep}{SUFFIX}"

    def count(self, state: str) -> int:
        """Candidates in this state."""
        return sum(one.state == state for one in self.placed)

    def tuned(self) -> Tuned | None:
        """How the settings were found, for the sweep file; None without a chosen candidate."""
        if self.chosen is None or self.chosen.value is None:
            return None
        scheduler = f", {self.tuning.scheduler.name}" if self.tuning.scheduler else ""
        return Tuned(
            arm=self.tuning.arm,
            metric=self.tuning.metric + (f" ({self.tuning.feature})" if self.tuning.feature else ""),
            searcher=self.tuning.searcher + scheduler,
            candidates=len(self.placed),
            stopped=self.count("stopped"),
            seeds=self.tuning.seeds,
            train_hours=round(self.train_s / 3600, 3),
            value=round(self.chosen.value, 6),
            settings=dict(self.chosen.candidate.settings),
            regret={arm: round(value, 6) for arm, value in self.regret.items()},
        )


def outcome_of(file: SweepFile, replayed: Replayed, values: StoredValues) -> Outcome:
    """What is known now."""
    tuning = tuning_of(file)
    sign = sign_of(tuning)
    complete = [one for one in replayed.placed if one.state == "complete" and math.isfinite(one.value or 0.0)]
    chosen = max(complete, key=lambda one: sign * (one.value or 0.0), default=None)
    by_arm = {one.candidate.number: _by_arm(one, file, values) for one in complete}
    regret = {}
    if chosen is not None:
        for arm, mine in by_arm[chosen.candidate.number].items():
            best = max((sign * arms[arm] for arms in by_arm.values() if arm in arms), default=sign * mine)
            regret[arm] = max(0.0, best - sign * mine)
    rows = _rows(file, replayed, chosen, values)
    trials = {trial.trial_id: trial for one in replayed.placed for trial in one.candidate.trials}
    return Outcome(
        sweep=file.sweep.name,
        tuning=tuning,
        placed=replayed.placed,
        chosen=chosen,
        by_arm=by_arm,
        regret=regret,
        train_s=values.train_s([one.candidate for one in replayed.placed]),
        epochs_trained=sum({row["trial_id"]: row["epochs"] for row in rows}.values()),
        epochs_of_all=sum(trial.spec.epochs for trial in trials.values()),
        is_over=not replayed.to_run,
        rows=rows,
    )


def sign_of(tuning: Tuning) -> int:
    """1 if larger values of the metric are better, -1 if smaller ones are."""
    return 1 if METRICS[tuning.metric].better == "higher" else -1


def _by_arm(one: Placed, file: SweepFile, values: StoredValues) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for trial in one.candidate.trials:
        known = values.known(trial, None)
        if known is not None and math.isfinite(known.value):
            found.setdefault(arm_of(trial, file.axes), []).append(known.value)
    return {arm: fmean(of_seeds) for arm, of_seeds in found.items()}


def _rows(
    file: SweepFile, replayed: Replayed, chosen: Placed | None, values: StoredValues
) -> tuple[Mapping[str, Any], ...]:
    tuning = tuning_of(file)
    rows = []
    for one in replayed.placed:
        for trial in one.candidate.trials:
            known = values.last(one.candidate, trial, values.rungs)
            if known is None:
                continue
            rows.append(
                {
                    **key_columns(trial.spec, f"{file.sweep.name}{SUFFIX}"),
                    "candidate": one.candidate.number,
                    "settings": json.dumps(dict(one.candidate.settings)),
                    "arm": arm_of(trial, file.axes),
                    "state": one.state,
                    "epochs": known.epochs,
                    "split": "validation",
                    "metric": tuning.metric,
                    "feature": tuning.feature,
                    "value": _null(known.value),
                    "candidate_value": _null(one.value),
                    "is_chosen": one is chosen,
                    "elapsed_s": known.elapsed_s,
                }
            )
    return tuple(rows)


def _null(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value


def write_table(store: Store, outcome: Outcome) -> None:
    """Replace the rows of the search in the table `tuning`, in one atomic write; nothing is written where nothing has changed."""
    table = pa.Table.from_pylist(list(outcome.rows), schema=TUNING.arrow_schema)
    key = part_key(TUNING.name, outcome.name, 0)
    data = encode_part(table, TUNING.name, outcome.name)
    if store.get(key) != data:
        store.put(key, data)


def tuned_yaml(outcome: Outcome, raw: Mapping[str, Any]) -> str | None:
    """The sweep file with the chosen settings in place, and a head that says how they were found; None without a chosen candidate.

    `raw` is the mapping to fill in; the `tune` section stays, so that the search can be repeated.
    """
    tuned = outcome.tuned()
    if tuned is None:
        return None
    filled = json.loads(json.dumps(dict(raw)))
    for path, value in tuned.settings.items():
        *parents, last = path.split(".")
        node = filled
        for part in parents:
            node = node.setdefault(part, {})
        node[last] = value
    filled["tuned"] = tuned.model_dump(mode="json")
    return head_of(outcome.sweep, tuned) + dump_yaml(filled)


def head_of(sweep: str, tuned: Tuned) -> str:
    """How the settings were found, as comments of YAML."""
    settings = ", ".join(f"{path} = {json.dumps(value)}" for path, value in tuned.settings.items())
    lines = [
        f"Sweep {sweep} with settings that `kd-ray tune` has chosen: {settings}.",
        f"Split: validation; no sample of the test split was used. Arm: {tuned.arm}. Metric: {tuned.metric} = {tuned.value:g}.",
        f"{searched(tuned)}. Searcher: {tuned.searcher}.",
    ]
    return "".join(f"# {line}\n" for line in lines)


def searched(tuned: Tuned) -> str:
    """`24 candidates, 10 of them stopped early, seeds [0, 1] each, 0.2 hours of training`."""
    stopped = f", {tuned.stopped} of them stopped early" if tuned.stopped else ""
    seeds: Sequence[int] = list(tuned.seeds)
    return f"{tuned.candidates} candidates{stopped}, seeds {seeds} each, {tuned.train_hours:g} hours of training"
