"""The command that would settle more, from the comparisons as they stand in the store."""

import shlex
from dataclasses import fields

from kd_ray.analysis.comparisons import Comparison
from kd_ray.analysis.planning import NextStep, next_steps
from kd_ray.analysis.runs import load_runs
from kd_ray.results.query import Results

_MOST_ROWS = 5000
"""Open tests that are looked at; the clearest come first."""
_CONTRASTS = {"scratch_vs_distilled": "scratch", "teacher_vs_distilled": "the teacher"}
_WHAT = {"class_bias": "class", "fairness": "fairness"}


def open_steps(results: Results, sweep: str) -> list[NextStep]:
    """What is open, and the runs that would settle half of it, as `kd-ray compare` says it."""
    rows = results.query(
        f"SELECT * FROM comparisons WHERE sweep = '{sweep}' AND analysis IN ('class_bias', 'fairness') "
        f"AND (p IS NULL OR p < level AND q >= level) ORDER BY p NULLS LAST LIMIT {_MOST_ROWS}"
    ).to_pylist(maps_as_pydicts="strict")
    names = [item.name for item in fields(Comparison)]
    found = [Comparison(**{**{name: row[name] for name in names}, "flags": tuple(row["flags"])}) for row in rows]
    return next_steps(load_runs(results, sweep), found)


def command(step: NextStep, sweep: str, store: str | None) -> str:
    """What to type; empty when no number of runs that is worth proposing would do. `store` is None for the default one."""
    if not step.overrides:
        return ""
    options = [
        *(f"--set {shlex.quote(it)}" for it in step.overrides),
        *([f"--store {shlex.quote(store)}"] if store else []),
    ]
    return " ".join(["kd-ray resume", sweep, *options])


def in_words(step: NextStep) -> str:
    """A step as a sentence."""
    about = f"{_WHAT.get(step.what, step.what)} differences against {_CONTRASTS.get(step.contrast, step.contrast)}"
    if step.n_now < 2:
        return f"One run on a side: {about} cannot be tested; {step.n_needed} seeds are what studies of the field have."
    count = f"{step.num_open:,} {about} {'has' if step.num_open == 1 else 'have'} p below the level uncorrected and not corrected"
    if step.n_needed is None:
        return f"{count}; even 200 seeds would not settle half of them, if they are as large as they look."
    return (
        f"{count}; {step.n_needed} seeds on each side (now {step.n_now}) would settle half of them, if they are as "
        "large as they look. "
        "Differences that were picked for being large look larger than they are."
    )
