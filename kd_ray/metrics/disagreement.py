"""Disagreement of two models, such as teacher and student: for each true class, and for each pair of predicted classes.

Whether a prediction is right does not matter here.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kd_ray.metrics.arrays import FloatArray, IntArray, check_classes, divide, divide_scalar


@dataclass(frozen=True, kw_only=True, eq=False)
class Disagreement:
    """Disagreement of two models on N samples and C classes. Made by `disagreement`."""

    n_C: IntArray
    """Samples whose true class is c."""
    num_disagree_C: IntArray
    """Those of them on which the two predictions differ."""
    rate_C: FloatArray
    """num_disagree / n, in [0, 1]. 0: the same prediction on every sample of the class. NaN: n is 0."""
    rate: float
    """Share of all N samples on which the predictions differ, in [0, 1]. 0: the same everywhere. NaN: N is 0."""
    matrix_CC: IntArray
    """Samples that the reference predicts as i (row) and the other as j (column), whatever their true class. The
    diagonal is 0."""


def disagreement(
    reference_N: npt.NDArray[np.integer],
    other_N: npt.NDArray[np.integer],
    labels_N: npt.NDArray[np.integer],
    *,
    num_classes: int,
) -> Disagreement:
    """Counts and rates of argmax f(x) != argmax g(x), given the (N,) hard predictions of both models.

    rate_c = P(f(x) != g(x) | Y = c); matrix_ij = #{f(x) = i, g(x) = j} for i != j. Rates are symmetric in the two
    models, the matrix is transposed when they change places. Mohammadshahi & Ioannou, class-wise disagreement.

    Raises ValueError for arrays that are not (N,) integers in 0..num_classes-1.
    """
    reference_N, other_N, labels_N = check_classes(num_classes, reference=reference_N, other=other_N, labels=labels_N)
    differ_N = reference_N != other_N
    n_C = np.bincount(labels_N, minlength=num_classes)
    num_disagree_C = np.bincount(labels_N[differ_N], minlength=num_classes)
    cell_N = reference_N[differ_N] * num_classes + other_N[differ_N]
    return Disagreement(
        n_C=n_C,
        num_disagree_C=num_disagree_C,
        rate_C=divide(num_disagree_C, n_C),
        rate=divide_scalar(int(differ_N.sum()), len(labels_N)),
        matrix_CC=np.bincount(cell_N, minlength=num_classes**2).reshape(num_classes, num_classes),
    )
