"""The sentences of MORE SEEDS and the commands of NEXT, from the rows of `comparisons`, the study and the plan for more seeds."""

import shlex
from collections.abc import Sequence
from statistics import median

from kd_ray.analysis.contrast import MIN_RUNS
from kd_ray.analysis.planning import NextStep
from kd_ray.analysis.row_words import BASELINE, capital, listed
from kd_ray.analysis.study import CONTRASTS, SCRATCH, Study
from kd_ray.errors import count_of
from kd_ray.metrics.catalogue import METRICS
from kd_ray.results.comparison_schema import Comparison
from kd_ray.shown import rounded


def more_seeds(study: Study, rows: Sequence[Comparison], steps: Sequence[NextStep]) -> tuple[str, ...]:
    """What so many seeds would establish, how many would settle half of the hints, and what the commands train."""
    sentences = []
    counts = sorted({it.n for it in study.conditions if it.role != "teacher"})
    sizes = []
    for analysis, metric in (
        ("class_bias", "relative_accuracy"),
        ("fairness", "accuracy"),
        ("fairness", "equalized_odds_difference"),
    ):
        about = [
            row
            for row in rows
            if (row.metric, row.contrast) == (metric, SCRATCH) and row.smallest_detectable is not None
        ]
        mine = [row for row in about if row.analysis == analysis and row.p_claim is not None]
        # The value of the power curves, where they have this number of runs, so that both say the same.
        of_curve = [row for row in about if (row.analysis, row.n_treatment) == ("power", counts[0])]
        if mine:
            features = len({row.sensitive_feature for row in mine})
            name = "class accuracy" if analysis == "class_bias" else METRICS[metric].short
            name += f" (median of {features} features)" if features > 1 else ""
            size = median(row.smallest_detectable or 0.0 for row in of_curve or mine)
            sizes.append((name, f"{rounded(100 * size, 1)} points" if size < 1 else None))
    can = [f"{size} in {name}" for name, size in sizes if size is not None]
    cannot = [name for name, size in sizes if size is None]
    seeds = count_of(counts[0], "seed")
    if can:
        sentences.append(
            f"For planning: {seeds} establish a single true difference from scratch with probability 0.8 if it is at least {listed(can)}, "
            "smaller ones less often; what is possible now is in the intervals."
        )
    if cannot:
        sentences.append(
            f"{capital(seeds)} establish no single difference from scratch in {listed(cannot)} with probability 0.8, however large: the "
            "sd is hardly known."
        )
    if any("teacher.seed=paired" in step.overrides for step in _proposed(steps)):
        sentences.append(
            "`teacher.seed=paired` trains a teacher for each seed; with fewer than three teachers, results hold for these alone."
        )
    return (*sentences, *_seeds(steps), *_cost(steps))


def _seeds(steps: Sequence[NextStep]) -> list[str]:
    """How many seeds the hints take."""
    words = []
    for contrast in CONTRASTS:
        mine = [step for step in steps if step.contrast == contrast and step.n_now >= MIN_RUNS]
        counts = [
            f"{f'about {step.n_needed}' if step.n_needed else 'more than 200'} for {'classes' if step.what == 'class_bias' else 'metrics'}"
            for step in mine
        ]
        if counts:
            words.append(f"{listed(counts)} against {BASELINE[contrast]}")
    if not words:
        return []
    is_cut = any(step.n_needed and step.n_proposed < step.n_needed for step in steps)
    cap = (
        f" The commands ask for at most {max(step.n_proposed for step in steps)}, which will not settle what takes more."
        if is_cut
        else ""
    )
    return [f"Seeds that would settle half of the hints, if these are true: {'; '.join(words)}.{cap}"]


def _cost(steps: Sequence[NextStep]) -> list[str]:
    """What the commands would train."""
    asked = [step for step in _proposed(steps) if step.num_trials]
    if not asked:
        return []
    times = [
        f"{step.train_s / 3600:,.1f} h" if step.train_s >= 3600 else f"{step.train_s / 60:.1f} min" for step in asked
    ]
    # Two commands may train as much.
    found = list(dict.fromkeys((f"{step.num_trials:,}", time) for step, time in zip(asked, times, strict=True)))
    trials = "trial" if [count for count, _ in found] == ["1"] else "trials"
    counts, durations = (" or ".join(words) for words in zip(*found, strict=True))
    who = "Each command of NEXT" if len(found) < len(asked) else "NEXT"
    return [f"{who} trains {counts} more {trials}, about {durations} in one worker."]


def _proposed(steps: Sequence[NextStep]) -> list[NextStep]:
    """The step that takes least and the one that takes most, which includes the others."""
    possible = sorted((step for step in steps if step.overrides), key=lambda step: step.n_needed or 0)
    found = {step.overrides: step for step in possible}
    return [found[overrides] for overrides in dict.fromkeys(step.overrides for step in (*possible[:1], *possible[-1:]))]


def commands(study: Study, steps: Sequence[NextStep]) -> tuple[str, ...]:
    """The commands after NEXT."""
    return tuple(
        " ".join(["kd-ray resume", study.sweep, *(f"--set {shlex.quote(it)}" for it in step.overrides)])
        for step in _proposed(steps)
    )
