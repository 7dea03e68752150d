"""`kd-ray compare`: every analysis of a sweep, one after another, into the table `comparisons`."""

import math
from dataclasses import asdict, dataclass
from typing import Any, Literal

from kd_ray.analysis.class_bias import class_bias
from kd_ray.analysis.comparisons import Comparison, write_comparisons
from kd_ray.analysis.confounder import frontier, matched_accuracy
from kd_ray.analysis.contrast import Options
from kd_ray.analysis.fairness import fairness, measure
from kd_ray.analysis.planning import NextStep, next_steps, power_curves
from kd_ray.analysis.runs import SCRATCH, TEACHER, SweepRuns, load_runs
from kd_ray.analysis.trend import temperature_trends
from kd_ray.errors import InvalidInputError
from kd_ray.results.manifest import read_manifest
from kd_ray.results.query import Results


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepComparison:
    """What can be said about a sweep."""

    sweep: str
    options: Options
    rows: tuple[Comparison, ...]
    """As the table `comparisons` has them."""
    problems: tuple[str, ...]
    """What could not be compared, and what to know before believing the rest."""
    next_steps: tuple[NextStep, ...]

    def of(self, analysis: str, contrast: str | None = None) -> list[Comparison]:
        """The rows of one analysis, and of one contrast if it is given."""
        return [row for row in self.rows if row.analysis == analysis and contrast in (None, row.contrast)]

    def to_dict(self) -> dict[str, Any]:
        """For JSON. Rows of single classes are left to the table: there may be very many."""
        rows = [asdict(row) for row in self.rows if row.analysis != "class_bias"]
        return {
            "sweep": self.sweep,
            "options": asdict(self.options),
            "problems": list(self.problems),
            "next_steps": [asdict(step) for step in self.next_steps],
            "comparisons": [{name: it for name, it in row.items() if it is not None} for row in rows],
        }


def compare(
    results: Results,
    sweep: str,
    *,
    normalise: Literal["ratio", "difference"] = "ratio",
    overall: Literal["per_run", "mean"] = "per_run",
    level: float = 0.05,
    split: float = 10.0,
) -> SweepComparison:
    """Compare the conditions of a sweep, and replace its rows of the table `comparisons`.

    Raises:
        InvalidInputError: there is no such sweep, it has nothing to compare, or an option is out of range.
        StoreError: the store cannot be read or written.
    """
    options = _options(normalise, overall, level, split)
    runs = load_runs(results, sweep)
    _refuse_what_has_no_contrast(runs)
    measured = measure(runs)
    rows = [
        *class_bias(runs, options),
        *fairness(runs, measured, options),
        *temperature_trends(runs, measured, options),
        *frontier(runs, measured, options),
        *matched_accuracy(runs, measured, options),
    ]
    rows += power_curves(rows)
    write_comparisons(results, sweep, rows)
    return SweepComparison(
        sweep=sweep,
        options=options,
        rows=tuple(rows),
        problems=tuple(_problems(results, runs, rows)),
        next_steps=tuple(next_steps(runs, rows)),
    )


def _options(normalise: Any, overall: Any, level: float, split: float) -> Options:
    for name, value, valid in (
        ("normalise", normalise, ("ratio", "difference")),
        ("overall", overall, ("per_run", "mean")),
    ):
        if value not in valid:
            raise InvalidInputError(f"{name} is {value!r}; valid: {', '.join(valid)}")
    if not 0 < level < 0.5:
        raise InvalidInputError(f"level is {level}; expected a number above 0 and below 0.5")
    if not (split > 0 and math.isfinite(split)):
        raise InvalidInputError(f"split is {split}; expected a temperature above 0")
    return Options(normalise=normalise, overall=overall, level=level, split=split)


def _refuse_what_has_no_contrast(runs: SweepRuns) -> None:
    if not runs.distilled:
        raise InvalidInputError(
            f"sweep {runs.sweep}: no complete distilled student, so there is nothing to compare; "
            f"`kd-ray status {runs.sweep}` says how far it is"
        )
    if all(runs.baseline(contrast, it) is None for contrast in (SCRATCH, TEACHER) for it in runs.distilled):
        raise InvalidInputError(
            f"sweep {runs.sweep}: no distilled student has a complete scratch student or teacher on the same test samples; "
            f"`kd-ray resume {runs.sweep}` trains what is missing, `baselines: [scratch]` asks for scratch students"
        )


def _problems(results: Results, runs: SweepRuns, rows: list[Comparison]) -> list[str]:
    found = []
    asked = len(read_manifest(results.store, runs.sweep).active)
    if len(runs.trials) < asked:
        found.append(f"{len(runs.trials)} of {asked} trials are in the tables; the others are missing here")
    for contrast in (SCRATCH, TEACHER):
        role = contrast.removesuffix("_vs_distilled")
        lacking = [it for it in runs.distilled if runs.baseline(contrast, it) is None]
        if lacking:
            elsewhere = any(it.role == role for it in runs.conditions)
            why = "on the same test samples and settings" if elsewhere else "in the tables"
            found.append(f"{contrast}: no {role} {why} for {_some([it.label for it in lacking])}")
        counts = [row for row in rows if (row.analysis, row.contrast) == ("class_bias_counts", contrast)]
        for flag, words in _WORDS.items():
            flagged = [row.condition for row in counts if flag in row.flags]
            if flagged:
                found.append(f"{contrast}: {words} ({_some(flagged)})")
    return found


_WORDS = {
    "n<2": "a side has one run, so nothing can be tested",
    "n<3": "a side has two runs: intervals are wide, and hardly anything can be found",
    "shared_teacher": "students share a teacher; they are no independent samples of what other teachers would do",
    "mixed_devices": "trials come from different devices, whose last bits differ",
    "zero_variance": "classes with equal accuracy in all runs of both sides; their p is 0 or 1 by convention",
    "undefined": "classes without test samples are left out",
}


def _some(labels: list[str]) -> str:
    return ", ".join(labels[:5]) + (f" and {len(labels) - 5} more" if len(labels) > 5 else "")
