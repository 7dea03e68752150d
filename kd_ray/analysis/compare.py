"""`kd-ray compare`: every analysis of a sweep, one procedure over all of them, into the table `comparisons` and into words."""

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from kd_ray import notebook
from kd_ray.analysis.chance_levels import KnownLevels, read_levels, write_levels
from kd_ray.analysis.claim_tests import Declared, declared_rows
from kd_ray.analysis.class_bias import class_bias
from kd_ray.analysis.comparisons import write_comparisons
from kd_ray.analysis.confounder import frontier, matched_accuracy
from kd_ray.analysis.contrast import Options
from kd_ray.analysis.fairness_comparisons import fairness
from kd_ray.analysis.measures import measure
from kd_ray.analysis.multiple_testing import corrected_within, established, exploration_level
from kd_ray.analysis.planning import NextStep, next_steps, power_curves, with_detectable
from kd_ray.analysis.reading import read_declared, read_study
from kd_ray.analysis.study import CONTRASTS, Study
from kd_ray.analysis.trend import temperature_trends
from kd_ray.analysis.two_groups import holm
from kd_ray.analysis.verdict import Verdict
from kd_ray.analysis.verdict_words import make_verdict
from kd_ray.errors import InvalidInputError, StoreError
from kd_ray.results.comparison_schema import Comparison
from kd_ray.results.query import Results

_TESTED = ("class_bias", "fairness", "matched_accuracy", "trend")
"""Analyses whose rows are tests."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepComparison:
    """What can be said about a sweep."""

    sweep: str
    options: Options
    rows: tuple[Comparison, ...]
    """As the table `comparisons` has them."""
    verdict: Verdict
    """The answer in words."""
    next_steps: tuple[NextStep, ...]
    joint_features: frozenset[str]
    """The sensitive features among `rows` that are intersections of others."""
    not_written: str | None = None
    """Why the store does not keep the rows, as when this user may only read it; None if it does."""

    def of(self, analysis: str, contrast: str | None = None) -> list[Comparison]:
        """The rows of one analysis, and of one contrast if it is given."""
        return [row for row in self.rows if row.analysis == analysis and contrast in (None, row.contrast)]

    def _repr_html_(self) -> str:
        """For notebooks: the answer in words."""
        parts = [notebook.listing(title, sentences) for title, sentences in self.verdict.parts()]
        return notebook.page(f"sweep {self.sweep}", *parts)

    def to_dict(self) -> dict[str, Any]:
        """For JSON. Rows of single classes are left to the table: there may be very many."""
        rows = [asdict(row) for row in self.rows if row.analysis != "class_bias"]
        return {
            "sweep": self.sweep,
            "options": asdict(self.options),
            "verdict": {title: list(sentences) for title, sentences in self.verdict.parts()},
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
        StoreError: the store cannot be read. One that cannot be written keeps no rows, and the result says so.
    """
    options = _options(normalise, overall, level, split)
    known = read_levels(results, sweep)
    num_known = len(known.levels)
    found = compare_study(read_study(results, sweep), options, declared=read_declared(results, sweep), known=known)
    try:
        if len(known.levels) > num_known:
            write_levels(results, sweep, known)
        write_comparisons(results, sweep, found.rows)
    except StoreError as error:
        return replace(found, not_written=str(error))
    return found


def compare_study(
    study: Study, options: Options, *, declared: Sequence[Declared] = (), known: KnownLevels | None = None
) -> SweepComparison:
    """The same for a study that has been read; writes nothing. Chance levels that are not `known` are added to it.

    Raises:
        InvalidInputError: the study has nothing to compare.
    """
    claims, rows, levels = decided(study, options, declared=declared, known=known)
    rows = with_detectable(rows, levels)
    steps = tuple(next_steps(study, rows, levels))
    rows = [*claims, *_counted(rows), *power_curves(rows, levels)]
    return SweepComparison(
        sweep=study.sweep,
        options=options,
        rows=tuple(rows),
        verdict=make_verdict(study, rows, declared, steps, level=options.level),
        next_steps=steps,
        joint_features=frozenset(it.feature for it in study.fairness if it.is_joint),
    )


def decided(
    study: Study, options: Options, *, declared: Sequence[Declared] = (), known: KnownLevels | None = None
) -> tuple[list[Comparison], list[Comparison], list[float]]:
    """The rows of the claims, all other rows with their status, and the level that a single true difference of each has to meet.

    Raises:
        InvalidInputError: the study has nothing to compare.
    """
    _refuse_what_has_no_contrast(study)
    measured = measure(study, known)
    claims = declared_rows(study, measured, declared, options)
    claims_p, level = exploration_level([_nan(row.p_claim) for row in claims], level=options.level)
    claims = [_decided_claim(row, p) for row, p in zip(claims, claims_p, strict=True)]
    differences = fairness(study, measured, options)
    rows = [
        *class_bias(study, options),
        *differences,
        *matched_accuracy(study, measured, [row for row in differences if row.analysis == "fairness"], options),
        *temperature_trends(study, measured, options),
        *frontier(study, measured, options),
    ]
    return claims, *corrected(rows, level=level)


def corrected(rows: Sequence[Comparison], *, level: float) -> tuple[list[Comparison], list[float]]:
    """The rows with family, q, Holm's p and status; and the level that a single true difference of each would have to meet, 0 for no
    test.

    One family is one question of one contrast over all conditions. `multiple_testing.py` has the procedure.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for i, row in enumerate(rows):
        # Kendall's and Jonckheere–Terpstra's tests describe the trend that Spearman's row decides.
        if row.analysis in _TESTED and (row.analysis != "trend" or row.test == "spearman"):
            members[f"{row.analysis} {row.contrast}"].append(i)
    p = {name: np.array([_nan(rows[i].p_claim) for i in places]) for name, places in members.items()}
    family_p, inner = established(p, level=level)
    possible = {name: sum(_may_be_tested(rows[i]) for i in places) for name, places in members.items()}
    num_families = sum(count > 0 for count in possible.values())
    found, levels = list(rows), [0.0] * len(rows)
    for name, places in members.items():
        q_M, holm_M = corrected_within(p[name]), holm(p[name])
        num_tests = int((~np.isnan(p[name])).sum())
        for m, i in enumerate(places):
            found[i] = rows[i].but(
                family=name,
                num_tests=num_tests,
                p_family=_none(family_p[name]),
                q=_none(q_M[m]),
                p_holm=_none(holm_M[m]),
                status=_status(rows[i], q_M[m], inner[name][m]),
            )
            if possible[name]:
                levels[i] = level / num_families / possible[name]
    return found, levels


def _may_be_tested(row: Comparison) -> bool:
    """Whether enough runs would test it."""
    return row.held_back is None and row.effect is not None


def _status(row: Comparison, q: float, inner: float) -> str:
    """established, hint, held_back, none or not_tested."""
    if row.held_back is not None and row.held_back != "collapsed":
        return "held_back" if row.p is not None and row.p < row.level else "none"
    if row.p_claim is None:
        return "not_tested"
    if q < inner:
        return "established"
    if row.p_claim < row.level:
        return "hint"
    return "held_back" if "chance_level" in row.flags and row.p is not None and row.p < row.level else "none"


def _decided_claim(row: Comparison, adjusted: float) -> Comparison:
    if row.p_claim is None:
        return row.but(status="not_tested")
    return row.but(p_holm=float(adjusted), status="established" if adjusted < row.level else "none")


def _counted(rows: Sequence[Comparison]) -> list[Comparison]:
    """The rows, counts with the number of established classes and the median of what could have been."""
    found = list(rows)
    classes: dict[tuple[Any, ...], list[Comparison]] = defaultdict(list)
    for row in rows:
        if row.analysis == "class_bias":
            classes[row.contrast, row.condition, row.dataset_id, row.model].append(row)
    for i, row in enumerate(rows):
        if row.analysis == "class_bias_counts":
            mine = classes[row.contrast, row.condition, row.dataset_id, row.model]
            sizes = [it.smallest_detectable for it in mine if it.smallest_detectable is not None]
            alone = [
                it.smallest_detectable_uncorrected for it in mine if it.smallest_detectable_uncorrected is not None
            ]
            found[i] = row.but(
                family=mine[0].family,
                p_family=mine[0].p_family,
                num_established=sum(it.status == "established" for it in mine),
                power=mine[0].power,
                smallest_detectable=float(np.median(sizes)) if sizes else None,
                smallest_detectable_uncorrected=float(np.median(alone)) if alone else None,
            )
    return found


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


def _refuse_what_has_no_contrast(study: Study) -> None:
    if not study.distilled:
        raise InvalidInputError(
            f"sweep {study.sweep}: no complete distilled student, so there is nothing to compare; "
            f"`kd-ray status {study.sweep}` says how far it is"
        )
    if all(study.baseline(contrast, it) is None for contrast in CONTRASTS for it in study.distilled):
        roles = sorted({condition.role for condition in study.conditions})
        raise InvalidInputError(
            f"sweep {study.sweep}: its complete trials are {', '.join(roles)}, and no teacher or scratch student fits the "
            "distilled ones, so there is nothing to compare with; add `baselines: [scratch]`"
        )


def _nan(value: float | None) -> float:
    return math.nan if value is None else value


def _none(value: float) -> float | None:
    return None if math.isnan(value) else float(value)
