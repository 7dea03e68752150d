"""Accuracy, relative accuracy and precision of every class, and the calibration of the confidence.

The class-bias test compares relative accuracies; the test itself is left to `analysis`.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kd_ray.metrics.arrays import FloatArray, IntArray, check_classes, check_vector, divide, divide_scalar, nan_min

_ROUNDING = 1e-6
"""How far a softmax in float32 may leave [0, 1]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassMetrics:
    """Counts and rates per true class, over N samples and C classes. Made by `class_metrics`."""

    n_C: IntArray
    """Samples whose true class is c."""
    num_correct_C: IntArray
    """Those of them that are predicted as c."""
    num_predicted_C: IntArray
    """Samples predicted as c, whatever their true class."""
    accuracy_C: FloatArray
    """num_correct / n, the recall of class c, in [0, 1]. 0: no sample of the class is recognised. NaN: n is 0."""
    relative_accuracy_C: FloatArray
    """accuracy_C / accuracy, in [0, N / n]. 0: as accuracy_C; 1: as accurate as the whole. NaN: n or accuracy is 0."""
    precision_C: FloatArray
    """num_correct / num_predicted, in [0, 1]. 0: every prediction of c is wrong. NaN: c is never predicted."""
    accuracy: float
    """Share of all N samples predicted correctly, in [0, 1]. NaN: N is 0."""
    worst_class_accuracy: float
    """The smallest accuracy_C over classes with n > 0, in [0, 1]. NaN: N is 0."""
    balanced_accuracy: float
    """The mean of accuracy_C over classes with n > 0, in [0, 1]. NaN: N is 0."""


def class_metrics(
    labels_N: npt.NDArray[np.integer], predictions_N: npt.NDArray[np.integer], *, num_classes: int
) -> ClassMetrics:
    """Per-class metrics of hard predictions.

    accuracy_c = P(Yhat = c | Y = c), precision_c = P(Y = c | Yhat = c), relative_accuracy_c = accuracy_c / P(Yhat =
    Y). Accuracy and precision agree with scikit-learn's `recall_score` and `precision_score` (average=None,
    zero_division=nan), the balanced accuracy with `balanced_accuracy_score`. The ratio is b^c / b^M of Mohammadshahi &
    Ioannou's class-bias test.

    Raises ValueError for arrays that are not (N,) integers in 0..num_classes-1.
    """
    labels_N, predictions_N = check_classes(num_classes, labels=labels_N, predictions=predictions_N)
    n_C = np.bincount(labels_N, minlength=num_classes)
    num_correct_C = np.bincount(labels_N[labels_N == predictions_N], minlength=num_classes)
    num_predicted_C = np.bincount(predictions_N, minlength=num_classes)
    accuracy_C = divide(num_correct_C, n_C)
    accuracy = divide_scalar(int(num_correct_C.sum()), len(labels_N))
    return ClassMetrics(
        n_C=n_C,
        num_correct_C=num_correct_C,
        num_predicted_C=num_predicted_C,
        accuracy_C=accuracy_C,
        relative_accuracy_C=divide(accuracy_C, np.asarray(accuracy)),
        precision_C=divide(num_correct_C, num_predicted_C),
        accuracy=accuracy,
        worst_class_accuracy=nan_min(accuracy_C),
        balanced_accuracy=divide_scalar(float(np.nansum(accuracy_C)), int((n_C > 0).sum())),
    )


def expected_calibration_error(
    confidences_N: npt.NDArray[np.floating], correct_N: npt.NDArray[np.bool_], *, num_bins: int = 15
) -> float:
    """Expected calibration error: sum over bins of |B| / N * |accuracy(B) - mean confidence(B)|.

    The num_bins bins have equal width and are open on the left, ((b-1)/num_bins, b/num_bins]; a confidence of 0
    belongs to the first. Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3.

    Args:
        confidences_N: (N,) probability of the predicted class, in [0, 1] up to rounding.
        correct_N: (N,) bool, whether the prediction is right.
        num_bins: at least 1.

    Returns:
        A value in [0, 1]; 0 means that in every bin the accuracy equals the mean confidence. NaN if N is 0.

    Raises:
        ValueError: for wrong shapes or dtypes, or a confidence that is NaN or outside [0, 1].
    """
    if num_bins < 1:
        raise ValueError(f"num_bins is {num_bins}, expected at least 1")
    n = check_vector("confidences", confidences_N)
    if check_vector("correct", correct_N) != n:
        raise ValueError(f"lengths differ: confidences has {n}, correct has {len(correct_N)}")
    if correct_N.dtype != np.bool_:
        raise ValueError(f"correct has dtype {correct_N.dtype}, expected bool")
    inside_N = (confidences_N >= -_ROUNDING) & (confidences_N <= 1 + _ROUNDING)
    if not inside_N.all():
        first = int(inside_N.argmin())
        raise ValueError(f"confidences[{first}] is {confidences_N[first]}, expected a probability in [0, 1]")
    clipped_N = np.clip(confidences_N.astype(np.float64), 0.0, 1.0)
    inner_edges = np.linspace(0.0, 1.0, num_bins + 1)[1:-1]
    bin_N = np.searchsorted(inner_edges, clipped_N, side="left")
    gap_B = np.bincount(bin_N, weights=correct_N - clipped_N, minlength=num_bins)
    return divide_scalar(float(np.abs(gap_B).sum()), n)
