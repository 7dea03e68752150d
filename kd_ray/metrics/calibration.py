"""Temperature scaling: one number that makes a network's confidences fit its accuracy, and the confidences after it."""

import numpy as np
import numpy.typing as npt

from kd_ray.metrics.arrays import check_vector

LEAST, MOST = 0.01, 100.0
"""Temperatures between which one is sought; a network that errs nowhere would get 0."""
_STEPS = 60
_CLOSE = 1e-10


def fit_temperature(logits_NC: npt.NDArray[np.float64], labels_N: npt.NDArray[np.int64]) -> float:
    """The temperature T in [0.01, 100] with the smallest mean cross-entropy of softmax(z / T); 1 without any sample.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The cross-entropy is convex in 1 / T: Newton's method on
    its derivative, between bounds that close in.

    Raises:
        ValueError: the shapes do not match.
    """
    if logits_NC.ndim != 2 or len(logits_NC) != check_vector("labels", labels_N):
        raise ValueError(f"logits have shape {logits_NC.shape}, expected ({len(labels_N)}, classes)")
    if len(labels_N) == 0:
        return 1.0
    own_N = logits_NC[np.arange(len(labels_N)), labels_N]
    low, high, inverse = 1 / MOST, 1 / LEAST, 1.0
    for _ in range(_STEPS):
        slope, curvature = _derivatives(logits_NC, own_N, inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        newton = inverse - slope / curvature if curvature > 0 else low
        following = newton if low < newton < high else (low * high) ** 0.5
        if abs(following - inverse) <= _CLOSE * inverse:
            break
        inverse = following
    return float(1 / inverse)


def _derivatives(
    logits_NC: npt.NDArray[np.float64], own_N: npt.NDArray[np.float64], inverse: float
) -> tuple[float, float]:
    """First and second derivative of the mean cross-entropy by 1 / T: mean of E_p[z] − z_y, and of Var_p[z]."""
    probabilities_NC = _softmax(logits_NC * inverse)
    mean_N = (probabilities_NC * logits_NC).sum(1)
    variance_N = (probabilities_NC * (logits_NC - mean_N[:, None]) ** 2).sum(1)
    return float((mean_N - own_N).mean()), float(variance_N.mean())


def scaled_confidences(
    logits_NC: npt.NDArray[np.float64], temperature_N: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Probability of the predicted class by softmax(z / T), with a temperature for each sample."""
    return np.asarray(_softmax(logits_NC / temperature_N[:, None]).max(1))


def halves(count: int) -> npt.NDArray[np.int64]:
    """0 or 1 for each place, by a multiplicative hash (Knuth): the order of a data set may follow its features."""
    return np.asarray((np.arange(count) * 2654435761 // 65536) % 2)


def _softmax(logits_NC: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted_NC = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
    return np.asarray(shifted_NC / shifted_NC.sum(1, keepdims=True))
