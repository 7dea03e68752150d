"""The command that would settle more, from the comparisons as they stand in the store."""

import shlex
from collections.abc import Sequence
from dataclasses import fields

from kd_ray.analysis.comparisons import Comparison
from kd_ray.analysis.planning import NextStep, next_steps
from kd_ray.analysis.power import MOST_RUNS
from kd_ray.analysis.runs import load_runs
from kd_ray.results.query import Results

_MOST_ROWS = 5000
"""Open tests that are looked at; the clearest come first."""
_CONTRASTS = {"scratch_vs_distilled": "scratch", "teacher_vs_distilled": "the teacher"}
_WHAT = {"class_bias": "class", "fairness": "fairness"}


def open_steps(results: Results, sweep: str) -> list[NextStep]:
    """What is open, and the runs that would settle half of it, as `kd-ray compare` says it."""
    rows = results.query(
        f"SELECT * FROM comparisons WHERE sweep = '{sweep}' AND analysis IN ('class_bias', 'fairness') AND (p IS "
        f"NULL OR p < level AND q >= level) ORDER BY p NULLS LAST LIMIT {_MOST_ROWS}"
    ).to_pylist(maps_as_pydicts="strict")
    names = [item.name for item in fields(Comparison)]
    found = [Comparison(**{**{name: row[name] for name in names}, "flags": tuple(row["flags"])}) for row in rows]
    return next_steps(load_runs(results, sweep), found)


def command(step: NextStep, sweep: str, store: str | None) -> str:
    """What to type; `store` is None for the default one."""
    options = [
        *(f"--set {shlex.quote(it)}" for it in step.overrides),
        *([f"--store {shlex.quote(store)}"] if store else []),
    ]
    return " ".join(["kd-ray resume", sweep, *options])


def commands(steps: Sequence[NextStep], sweep: str, store: str | None) -> list[str]:
    """The commands of the step that takes least and of the one that takes most, which includes the others."""
    possible = sorted((step for step in steps if step.overrides), key=lambda step: step.n_needed or 0)
    ends = [possible[0], possible[-1]] if possible else []
    return list(dict.fromkeys(command(step, sweep, store) for step in ends))


def in_words(step: NextStep) -> str:
    """A step as a sentence."""
    noun = "difference" if step.num_open == 1 else "differences"
    about = f"{_WHAT.get(step.what, step.what)} {noun} against {_CONTRASTS.get(step.contrast, step.contrast)}"
    if step.n_now < 2:
        return f"One run on a side cannot be tested; {step.n_needed} seeds are what studies of the field have."
    count = f"{step.num_open:,} {about} {'has' if step.num_open == 1 else 'have'} p below the level only uncorrected"
    if step.n_needed is None:
        return f"{count}; even {MOST_RUNS} seeds would not settle half of them, if they are as large as they look."
    return (
        f"{count}; {step.n_needed} seeds on each side (now {step.n_now}) would settle half of them, if they are as "
        "large as they look."
    )
