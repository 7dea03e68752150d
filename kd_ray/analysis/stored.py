"""The comparison of a sweep for those who show it: as the store has it, made first where it has none."""

import math
from collections.abc import Sequence

from kd_ray.analysis.claim_tests import Declared
from kd_ray.analysis.compare import compare, corrected
from kd_ray.analysis.comparisons import read_comparisons
from kd_ray.analysis.multiple_testing import exploration_level
from kd_ray.analysis.planning import next_steps
from kd_ray.analysis.reading import read_declared
from kd_ray.analysis.study import Study
from kd_ray.analysis.verdict import Verdict
from kd_ray.analysis.verdict_words import make_verdict
from kd_ray.results.comparison_schema import Comparison
from kd_ray.results.query import Results


def stored_or_made(results: Results, study: Study) -> tuple[Sequence[Comparison], Verdict]:
    """The rows of `comparisons` and what they say. The store has none as soon as a trial changes; then they are made with default options.

    Raises:
        InvalidInputError: the sweep has nothing to compare.
    """
    rows = read_comparisons(results, study.sweep)
    declared = read_declared(results, study.sweep)
    # Claims that were declared since are not in the rows.
    if rows and sum(row.analysis == "claim" for row in rows) == len(declared):
        return rows, stored_verdict(study, rows, declared)
    made = compare(results, study.sweep)
    return made.rows, made.verdict


def stored_verdict(study: Study, rows: Sequence[Comparison], declared: Sequence[Declared]) -> Verdict:
    """The verdict of rows that have been made before, the same as then."""
    level = rows[0].level
    claims_p = [math.nan if row.p_claim is None else row.p_claim for row in rows if row.analysis == "claim"]
    explored = [row for row in rows if row.analysis not in ("claim", "power")]
    _, levels = corrected(explored, level=exploration_level(claims_p, level=level)[1])
    return make_verdict(study, rows, declared, next_steps(study, explored, levels), level=level)
