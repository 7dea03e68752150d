"""The sentences of a verdict about the claims that a sweep file has declared."""

import math
from collections.abc import Sequence

from kd_ray.analysis.chance import MIN_CELL
from kd_ray.analysis.claim_tests import Declared
from kd_ray.analysis.row_words import interval, points, scope, shown_p, signed
from kd_ray.errors import count_of
from kd_ray.results.comparison_schema import Comparison
from kd_ray.sweep.claims import Claim

_CLAIMS = 2
"""Declared claims that are told; the second is the sum of those that are left where there are more."""
_REASONS = {
    "small cells": f"a group has fewer than {MIN_CELL} test samples",
    "collapsed": "its runs collapsed",
    "accuracies differ": "accuracies are further apart than the smaller sd",
}


def claim_sentences(rows: Sequence[Comparison], declared: Sequence[Declared]) -> tuple[str, ...]:
    """What became of each claim; of many, the first ones and the numbers of the others."""
    sentences = [_claim(row, it) for row, it in zip(rows, declared, strict=True)]
    rest = rows[_CLAIMS - 1 :] if len(rows) > _CLAIMS else ()
    if rest:
        hold = sum(row.status == "established" for row in rest)
        sentences[_CLAIMS - 1 :] = [
            f"{len(rest)} more claims: {hold} established, {len(rest) - hold} not; `--full` lists them."
        ]
    if sentences and (taken_back := declared[0].num_withdrawn):
        sentences[-1] += (
            f" {count_of(taken_back, 'claim')} of this sweep {'was' if taken_back == 1 else 'were'} taken back."
        )
    return tuple(sentences)


def _claim(row: Comparison, declared: Declared) -> str:
    when = (
        f"declared {declared.declared_at[:10]} before training"
        if declared.num_complete == 0
        else f"declared {declared.declared_at[:10]}, with {count_of(declared.num_complete, 'trial')} complete"
    )
    text = row.claim or ""
    if row.p_claim is None:
        return f"Not tested: {text} ({_REASONS.get(row.held_back or '', row.held_back or 'too few runs')}); {when}."
    holds = "Established" if row.status == "established" else "Not established"
    if row.status != "established" and _is_contradicted(row, declared.claim):
        holds = "Not established, and the whole interval lies where the claim is false"
    size = (
        f"rank correlation {signed(row.effect)}"
        if row.test == "spearman"
        else ", ".join(filter(None, [points(row, row.effect, sign=True), interval(row)]))
    )
    return f"{holds}: {text} ({size}, p {shown_p(row.p_holm)} after Holm){scope(row)}; {when}."


def _is_contradicted(row: Comparison, claim: Claim) -> bool:
    """Whether the interval holds no difference at which the claim is true."""
    margin = claim.margin or 0.0
    true_between = {
        "higher": (margin, math.inf),
        "lower": (-math.inf, -margin),
        "not_lower": (-margin, math.inf),
        "not_higher": (-math.inf, margin),
        "equivalent": (-margin, margin),
    }
    if claim.direction not in true_between or row.ci_total_low is None or row.ci_total_high is None:
        return False
    least, most = true_between[claim.direction]
    return row.ci_total_high < least or row.ci_total_low > most
