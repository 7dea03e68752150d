"""What the differences of a sweep mean: the comparisons that the store has, or made anew for a page. Nothing is written."""

from collections.abc import Sequence
from dataclasses import dataclass

from kd_ray.analysis.compare import compare_study
from kd_ray.analysis.comparisons import read_comparisons
from kd_ray.analysis.contrast import Options
from kd_ray.analysis.reading import read_declared
from kd_ray.analysis.report.evidence import Evidence, make_evidence
from kd_ray.analysis.stored import stored_verdict
from kd_ray.analysis.study import Study
from kd_ray.analysis.verdict import Verdict
from kd_ray.errors import InvalidInputError
from kd_ray.results.comparison_schema import Comparison
from kd_ray.results.query import Results

MOST_PREDICTIONS = 2_000_000
"""A sweep with more predictions (trials × test samples) is compared by `kd-ray compare` only: it takes minutes and much memory."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Findings:
    """The comparisons of a sweep and what they say."""

    rows: Sequence[Comparison]
    verdict: Verdict | None
    """None where nothing was compared."""
    evidence: Evidence
    why_not: str = ""
    """Why nothing was compared."""
    is_stored: bool = False
    """Whether the store has these rows; else they were made for this page, with default options."""


def find(results: Results, study: Study) -> Findings:
    """The comparisons of the store; made here, and not written, where it has none and the sweep is small."""
    nothing = make_evidence((), study)
    rows: Sequence[Comparison] = read_comparisons(results, study.sweep)
    declared = read_declared(results, study.sweep)
    if rows and sum(row.analysis == "claim" for row in rows) == len(declared):
        verdict = stored_verdict(study, rows, declared)
        return Findings(rows=rows, verdict=verdict, evidence=make_evidence(rows, study), is_stored=True)
    if sum(row["num_test"] for row in study.trials) > MOST_PREDICTIONS:
        why = "The store has no comparison of the trials as they are now, and this sweep is too large to compare it for a page."
        return Findings(rows=(), verdict=None, evidence=nothing, why_not=why)
    try:
        made = compare_study(study, Options(), declared=declared)
    except InvalidInputError as error:
        return Findings(rows=(), verdict=None, evidence=nothing, why_not=str(error))
    return Findings(rows=made.rows, verdict=made.verdict, evidence=make_evidence(made.rows, study))
