"""Which differences of a report are established: one procedure over all of them.

A *family* is one question of one contrast over all conditions, such as "does any class differ from scratch at any temperature?". First
the families are tested, each by Simes' p of its members, corrected over the families by Holm. Then, in the families that remain, members
are tested by Benjamini & Hochberg at level × (families that remain) / (families): the procedure of Benjamini & Bogomolov (2014) for
selected families. Where nothing differs, no family remains with probability 1 - level, so a report names a false difference with
probability level at most, whatever the number of temperatures, classes and features. Where some differ, the expected share of false ones
among those named is at most level, on average over the families that remain.

Claims that a sweep declares before training come first: they are tested by Holm at four fifths of the level, and exploration has one
fifth. If every claim is established, exploration has the whole level (the fallback of Wiens 2003).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from kd_ray.analysis.two_groups import benjamini_hochberg, holm
from kd_ray.metrics.arrays import FloatArray

DECLARED_SHARE = 0.8
"""Share of the level that declared claims have."""


def simes(p_M: FloatArray) -> float:
    """p of a family (Simes 1986): small if any member is; NaN without a tested member."""
    tested = np.sort(p_M[~np.isnan(p_M)])
    if not len(tested):
        return np.nan
    return float(min((tested * len(tested) / np.arange(1, len(tested) + 1)).min(), 1.0))


def established(families: Mapping[str, FloatArray], *, level: float) -> tuple[dict[str, float], dict[str, FloatArray]]:
    """p of each family after Holm over the families, and the level that q of its members has to stay below, as an array like its p.

    The level is 0 for a family that does not remain.
    """
    names = list(families)
    p_F = holm(np.array([simes(families[name]) for name in names]))
    remaining = int((p_F < level).sum())
    count = int((~np.isnan(p_F)).sum())
    inner = level * remaining / count if count else 0.0
    levels = {name: np.full(len(families[name]), inner if p_F[i] < level else 0.0) for i, name in enumerate(names)}
    return dict(zip(names, map(float, p_F), strict=True)), levels


def corrected_within(p_M: FloatArray) -> FloatArray:
    """q of the members of a family."""
    return benjamini_hochberg(p_M)


def exploration_level(claims_p: Sequence[float], *, level: float) -> tuple[FloatArray, float]:
    """p of the declared claims after Holm, scaled so that below `level` means established; and the level that exploration has."""
    if not len(claims_p):
        return np.zeros(0), level
    adjusted_K = np.minimum(holm(np.array(claims_p, dtype=np.float64)) / DECLARED_SHARE, 1.0)
    all_hold = bool((adjusted_K < level).all())
    return adjusted_K, level if all_hold else level * (1 - DECLARED_SHARE)
