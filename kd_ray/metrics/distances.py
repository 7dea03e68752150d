"""Distances between rows of large arrays, in blocks, so that memory stays bounded whatever N and D are."""

import numpy as np
import numpy.typing as npt

from kd_ray.metrics.arrays import FloatArray, IntArray

BLOCK_ELEMENTS = 2**23
"""Elements of the largest temporary array, if one row fits in it: 64 MiB of float64."""


def euclidean(features_ND: npt.NDArray[np.floating], first_P: IntArray, second_P: IntArray) -> FloatArray:
    """|x_first - x_second|_2 of each pair, in float64 throughout; (P,), 0 for equal rows."""
    distance_P = np.empty(len(first_P))
    for block in _blocks(len(first_P), features_ND.shape[1]):
        difference_BD = features_ND[first_P[block]].astype(np.float64) - features_ND[second_P[block]]
        distance_P[block] = np.sqrt(np.einsum("bd,bd->b", difference_BD, difference_BD))
    return distance_P


def total_variation(probabilities_NC: npt.NDArray[np.floating], first_P: IntArray, second_P: IntArray) -> FloatArray:
    """0.5 * sum_c |p_c - q_c| of each pair of distributions, in float64; (P,), in [0, 1], 0 for equal rows."""
    distance_P = np.empty(len(first_P))
    for block in _blocks(len(first_P), probabilities_NC.shape[1]):
        difference_BC = probabilities_NC[first_P[block]].astype(np.float64) - probabilities_NC[second_P[block]]
        distance_P[block] = 0.5 * np.abs(difference_BC).sum(axis=1)
    return distance_P


def nearest(features_ND: npt.NDArray[np.floating], anchors_A: IntArray, num_neighbours: int) -> IntArray:
    """The `num_neighbours` samples nearest to each anchor, itself left out, in the order of their index; (A, K).

    Features are centred and compared in float32 (a matrix product), so of neighbours that are equally near to
    within rounding either may be taken. Expects num_neighbours < N.
    """
    num_samples, num_features = features_ND.shape
    mean_D = features_ND.mean(axis=0, dtype=np.float64).astype(np.float32)
    neighbours_AK = np.empty((len(anchors_A), num_neighbours), dtype=np.int64)
    if num_neighbours == 0:
        return neighbours_AK
    for anchor_block in _blocks(len(anchors_A), max(num_features, num_samples)):
        index_B = anchors_A[anchor_block]
        anchors_BD = features_ND[index_B].astype(np.float32) - mean_D
        # |x - a|^2 less the constant |a|^2, which does not change the order.
        shifted_BN = np.empty((len(index_B), num_samples), dtype=np.float32)
        for block in _blocks(num_samples, num_features):
            candidates_MD = features_ND[block].astype(np.float32) - mean_D
            squares_M = np.einsum("md,md->m", candidates_MD, candidates_MD)
            shifted_BN[:, block] = squares_M - 2 * (anchors_BD @ candidates_MD.T)
        shifted_BN[np.arange(len(index_B)), index_B] = np.inf
        nearest_BK = np.argpartition(shifted_BN, num_neighbours - 1, axis=1)[:, :num_neighbours]
        neighbours_AK[anchor_block] = np.sort(nearest_BK, axis=1)
    return neighbours_AK


def _blocks(num_rows: int, row_elements: int) -> list[slice]:
    """Slices over the rows, each with at most BLOCK_ELEMENTS elements but at least one row."""
    size = max(1, BLOCK_ELEMENTS // max(1, row_elements))
    return [slice(start, min(start + size, num_rows)) for start in range(0, num_rows, size)]
