"""What these seeds could have established, and how many would settle what is open."""

from collections import defaultdict
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kd_ray.analysis.power import CURVE, POWER, Spreads, detectable_at, seeds_for_share, stacked
from kd_ray.analysis.study import SCRATCH, TEACHER, Study
from kd_ray.results.comparison_schema import Comparison
from kd_ray.sweep.short_axes import shortest

_TYPICAL = ("sweep", "dataset", "dataset_id", "target", "model", "teacher", "contrast", "role", "objective", "level")
_MOST_OPEN = 200
"""Hints of one contrast and question from which the number of seeds is taken; the clearest come first."""
MOST_PROPOSED = 20
"""Seeds that a command asks for at most, or twice as many as there are: more are better decided on after a look."""
FIRST_SEEDS = 5
"""Seeds to begin with: what studies of the field have."""


@dataclass(frozen=True, kw_only=True)
class NextStep:
    """Runs that would settle something."""

    contrast: str
    what: str
    """class_bias or fairness."""
    num_open: int
    """Hints: differences that a single test would show and the correction does not."""
    n_now: int
    """Runs of the smaller side."""
    n_needed: int | None
    """Runs per side that would establish half of the hints if they are as large as they are likely to be; None above `MOST_RUNS`."""
    n_proposed: int
    """Runs per side that `overrides` ask for; no more than `MOST_PROPOSED`, or twice `n_now`."""
    overrides: tuple[str, ...]
    """What `kd-ray resume` has to be told with `--set`."""
    num_trials: int = 0
    """Trials that it would train; 0 where the sweep lacks trials, so that their number is not known."""
    train_s: float = 0.0
    """Their training time in one worker, if they take as long as those that are complete."""


def with_detectable(rows: Sequence[Comparison], levels: Sequence[float]) -> list[Comparison]:
    """The rows with the smallest difference that their runs establish, each at the level that a single true difference would have to
    meet."""
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        if row.test == "welch_t" and row.sd_baseline is not None and row.sd_treatment is not None and levels[i] > 0:
            groups[row.n_baseline, row.n_treatment, levels[i], row.level].append(i)
    found = list(rows)
    for (n_baseline, n_treatment, strict, level), places in groups.items():
        spreads = _spreads([rows[i] for i in places])
        here_M, alone_M = detectable_at(spreads, n_baseline, n_treatment, [strict, level])
        for i, here, alone in zip(places, here_M, alone_M, strict=True):
            if np.isfinite(here):
                found[i] = rows[i].but(
                    power=POWER, smallest_detectable=float(here), smallest_detectable_uncorrected=float(alone)
                )
    return found


def power_curves(rows: Sequence[Comparison], levels: Sequence[float]) -> list[Comparison]:
    """A row for each contrast, metric and number of runs of `CURVE`: the difference that they establish with probability `POWER`.

    Standard deviations are medians over conditions and classes; families are as large as they are now.
    """
    groups: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        if row.analysis in ("class_bias", "fairness") and row.smallest_detectable is not None:
            groups[row.dataset_id, row.model, row.contrast, row.metric, row.sensitive_feature].append(i)
    typical: dict[tuple[Any, ...], list[tuple[Comparison, Spreads]]] = defaultdict(list)
    for places in groups.values():
        group, every = [rows[i] for i in places], _spreads([rows[i] for i in places])
        strict = float(np.median([levels[i] for i in places]))
        typical[every.n_baseline, every.n_treatment, strict].append((group[0], _median(every)))
    curves = []
    for (_, _, strict), found in typical.items():
        spreads = stacked([it for _, it in found])
        for n in CURVE:
            here_M, alone_M = detectable_at(spreads, n, n, [strict, found[0][0].level])
            curves += [
                _curve_row(first, it, n, float(here), float(alone))
                for (first, it), here, alone in zip(found, here_M, alone_M, strict=True)
            ]
    return curves


def _curve_row(first: Comparison, typical: Spreads, n: int, here: float, alone: float) -> Comparison:
    return Comparison(
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
            "sd_baseline": float(typical.sd_baseline_M[0]),
            "sd_treatment": float(typical.sd_treatment_M[0]),
            "sampling_sd": float(typical.sampling_sd_M[0]),
            "test": "welch_t",
            "num_tests": first.num_tests,
            "power": POWER,
            "smallest_detectable": here,
            "smallest_detectable_uncorrected": alone,
        }
    )


def _median(every: Spreads) -> Spreads:
    return replace(
        every,
        sd_baseline_M=np.median(every.sd_baseline_M, keepdims=True),
        sd_treatment_M=np.median(every.sd_treatment_M, keepdims=True),
        sampling_sd_M=np.median(every.sampling_sd_M, keepdims=True),
    )


def next_steps(study: Study, rows: Sequence[Comparison], levels: Sequence[float]) -> list[NextStep]:
    """For each contrast and question: what is open, and the seeds that would settle half of it."""
    found = []
    for contrast in (SCRATCH, TEACHER):
        for what in ("class_bias", "fairness"):
            mine = [i for i, row in enumerate(rows) if (row.analysis, row.contrast) == (what, contrast)]
            # Pretrained weights are one teacher for good.
            if not mine or (contrast == TEACHER and _has_pretrained_teachers(study)):
                continue
            n_now = min(min(rows[i].n_baseline or 0, rows[i].n_treatment or 0) for i in mine)
            hints = sorted((i for i in mine if rows[i].status == "hint"), key=lambda i: rows[i].p_claim or 0.0)
            if n_now < 3:
                found.append(_step(study, contrast, what, len(hints), n_now, FIRST_SEEDS))
            elif hints:
                clearest = [
                    (row.effect or 0.0, row.standard_error or 0.0, _spreads([row]), levels[i])
                    for i in hints[:_MOST_OPEN]
                    if (row := rows[i]).sd_baseline is not None and row.sd_treatment is not None
                ]
                half = seeds_for_share(clearest, (len(clearest) + 1) // 2) if clearest else None
                n_needed = None if half is None else max(half, n_now + 1)
                found.append(_step(study, contrast, what, len(hints), n_now, n_needed))
    return found


def _spreads(rows: Sequence[Comparison]) -> Spreads:
    scale = np.array([1.0 if row.effect_scale is None else row.effect_scale for row in rows])
    return Spreads(
        sd_baseline_M=scale * np.array([row.sd_baseline or 0.0 for row in rows]),
        sd_treatment_M=scale * np.array([row.sd_treatment or 0.0 for row in rows]),
        n_baseline=rows[0].n_baseline or 0,
        n_treatment=rows[0].n_treatment or 0,
        sampling_sd_M=np.array([row.sampling_sd or 0.0 for row in rows]),
    )


def _has_pretrained_teachers(study: Study) -> bool:
    return all(trial["teacher_seed"] is None for trial in study.trials if trial["role"] == "distilled")


def _step(study: Study, contrast: str, what: str, num_open: int, n_now: int, n_needed: int | None) -> NextStep:
    seeds = sorted({seed for it in study.conditions if it.role != "teacher" for seed in it.seeds if seed is not None})
    n_proposed = 0 if n_needed is None else min(n_needed, max(MOST_PROPOSED, 2 * n_now))
    overrides = []
    if len(seeds) < n_proposed:
        first = max(seeds, default=-1) + 1
        overrides.append(f"grid.seed={shortest([*seeds, *range(first, first + n_proposed - len(seeds))])}")
    is_paired = all(it.has_paired_teachers for it in study.distilled)
    pairs = contrast == TEACHER and not is_paired and n_needed is not None
    if pairs:
        overrides.append("teacher.seed=paired")
    # A sweep that lacks trials would train these, too.
    is_known = bool(overrides) and not study.num_missing
    counts = _to_train(study, set(seeds), max(0, n_proposed - len(seeds)), pairs=pairs) if is_known else []
    return NextStep(
        contrast=contrast,
        what=what,
        num_open=num_open,
        n_now=n_now,
        n_needed=n_needed,
        n_proposed=n_proposed,
        overrides=tuple(overrides),
        num_trials=round(sum(count for count, _ in counts)),
        train_s=sum(count * seconds for count, seconds in counts),
    )


def _to_train(study: Study, seeds: Set[int], num_more: int, *, pairs: bool) -> list[tuple[float, float]]:
    """How many trials each condition would train for so many more seeds, and the mean training time of its trials in seconds.

    With `pairs`, each student is trained anew with the teacher of its seed; those that have it already stay.
    """
    elapsed_T, own, taught = study.values("elapsed_s"), study.column("seed"), study.column("teacher_seed")
    is_paired = pairs or all(it.has_paired_teachers for it in study.distilled)
    found = []
    for it in study.conditions:
        seconds = elapsed_T[it.trials]
        mean_s = float(np.nanmean(seconds)) if np.isfinite(seconds).any() else 0.0
        if it.role == "teacher":
            has_seeds = any(own[row] is not None for row in it.trials)
            there = len(seeds & {own[row] for row in it.trials})
            count: float = len(seeds) + num_more - there if is_paired and has_seeds else 0
        elif pairs and it.is_distilled:
            count = len(seeds) + num_more - sum(taught[row] == own[row] for row in it.trials)
        else:
            count = num_more * len(it.trials) / it.n
        found.append((count, mean_s))
    return found
