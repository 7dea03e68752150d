"""What more seeds would show: the power curve of a sweep, and the runs that would settle what is open now."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_ray.analysis.comparisons import Comparison
from kd_ray.analysis.power import CURVE, MOST_RUNS, POWER, detectable_shift, runs_needed
from kd_ray.analysis.runs import SCRATCH, SweepRuns

_TYPICAL = ("sweep", "dataset", "dataset_id", "target", "model", "teacher", "contrast", "role", "objective", "level")


@dataclass(frozen=True, kw_only=True)
class NextStep:
    """Runs that would settle something."""

    contrast: str
    what: str
    """class_bias or fairness."""
    num_open: int
    """Comparisons with p < level ≤ q."""
    n_now: int
    """Runs of the smaller side."""
    n_needed: int | None
    """Runs per side that would settle half of them if they are as large as they look; None above `MOST_RUNS`."""
    overrides: tuple[str, ...]
    """What `kd-ray resume` has to be told with `--set`."""


def power_curves(rows: Sequence[Comparison]) -> list[Comparison]:
    """A row for each contrast, metric and number of runs of `CURVE`: the shift they find with `POWER`, others being null.

    Standard deviations are medians over conditions and classes; families are as large as they are now.
    """
    groups: dict[tuple[Any, ...], list[Comparison]] = defaultdict(list)
    for row in rows:
        if row.analysis in ("class_bias", "fairness") and pooled(row) is not None:
            groups[row.dataset_id, row.model, row.contrast, row.metric, row.sensitive_feature].append(row)
    curves = []
    for group in groups.values():
        sd = float(np.median([pooled(row) for row in group]))
        noise = [row.sampling_sd for row in group if row.sampling_sd is not None]
        num_tests = int(np.median([row.num_tests for row in group]))
        first = group[0]
        for n in CURVE:
            here = detectable_shift(n, n, first.level / max(num_tests, 1))
            beyond = (1 + (float(np.median(noise)) / (sd * (2 / n) ** 0.5)) ** 2) ** 0.5 if noise else None
            curves.append(
                Comparison(
                    **{
                        **{name: getattr(first, name) for name in _TYPICAL},
                        "analysis": "power",
                        "condition": "median of all",
                        "metric": first.metric,
                        "sensitive_feature": first.sensitive_feature,
                        "positive_class": first.positive_class,
                        "normalisation": first.normalisation,
                        "overall": first.overall,
                        "n_baseline": n,
                        "n_treatment": n,
                        "sd_baseline": sd,
                        "sd_treatment": sd,
                        "test": "welch_t",
                        "num_tests": num_tests,
                        "power": POWER,
                        "smallest_detectable": here * sd,
                        "smallest_detectable_uncorrected": detectable_shift(n, n, first.level) * sd,
                        "smallest_detectable_new_samples": None if beyond is None else here * sd * beyond,
                    }
                )
            )
    return curves


def pooled(row: Comparison) -> float | None:
    """Standard deviation of a run in the unit of the effect; None where it is unknown or 0."""
    if not row.smallest_detectable_uncorrected or row.n_baseline is None or row.n_treatment is None:
        return None
    return row.smallest_detectable_uncorrected / detectable_shift(row.n_baseline, row.n_treatment, row.level)


def next_steps(runs: SweepRuns, rows: Sequence[Comparison]) -> list[NextStep]:
    """For each contrast: what is open, and the seeds that would settle half of it."""
    found = []
    for contrast in dict.fromkeys(row.contrast for row in rows if row.analysis in ("class_bias", "fairness")):
        for what in ("class_bias", "fairness"):
            mine = [row for row in rows if (row.analysis, row.contrast) == (what, contrast)]
            # Given weights are one teacher for good.
            if not mine or contrast is None or (contrast != SCRATCH and _has_given_teachers(runs)):
                continue
            n_now = min(min(row.n_baseline or 0, row.n_treatment or 0) for row in mine)
            if n_now < 2:
                # A first standard deviation takes two runs; five is what the papers of the field have.
                found.append(_step(runs, contrast, what, 0, n_now, 5))
                continue
            still_open = [row for row in mine if row.p is not None and row.p < row.level <= (row.q or 0.0)]
            needed = [
                float(runs_needed(np.array([(row.effect or 0.0) / sd]), row.level / (row.num_tests or 1))[0])
                for row in still_open
                if (sd := pooled(row)) is not None
            ]
            if needed:
                # With an even number the larger of the two in the middle, so that half of them is really settled.
                half = sorted(needed)[len(needed) // 2]
                settles = half if np.isfinite(half) else min(needed)
                n_needed = None if settles > MOST_RUNS else max(int(settles), n_now + 1)
                found.append(_step(runs, contrast, what, len(still_open), n_now, n_needed))
    return found


def _has_given_teachers(runs: SweepRuns) -> bool:
    return all(trial["teacher_seed"] is None for trial in runs.trials if trial["role"] == "distilled")


def _step(runs: SweepRuns, contrast: str, what: str, num_open: int, n_now: int, n_needed: int | None) -> NextStep:
    seeds = sorted({seed for it in runs.conditions if it.role != "teacher" for seed in it.seeds if seed is not None})
    overrides = []
    if n_needed is not None and len(seeds) < n_needed:
        first = max(seeds, default=-1) + 1
        overrides.append(f"grid.seed=[{','.join(map(str, [*seeds, *range(first, first + n_needed - len(seeds))]))}]")
    is_paired = all(it.has_paired_teachers for it in runs.distilled)
    if contrast != SCRATCH and not is_paired and n_needed is not None:
        overrides.append("teacher.seed=paired")
    return NextStep(
        contrast=contrast, what=what, num_open=num_open, n_now=n_now, n_needed=n_needed, overrides=tuple(overrides)
    )
