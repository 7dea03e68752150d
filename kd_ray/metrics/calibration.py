"""Temperature scaling: one number by which logits are divided, so that a network's confidences match its accuracy."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq

from kd_ray.metrics.arrays import check_vector

LEAST, MOST = 0.01, 100.0
"""Bounds of the temperature. Without them a network without errors would get 0."""
_RELATIVE_ERROR = 1e-10


def fit_temperature(logits_NC: npt.NDArray[np.float64], labels_N: npt.NDArray[np.int64]) -> float:
    """The temperature T in [0.01, 100] with the smallest mean cross-entropy of softmax(z / T); 1 without any sample.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The cross-entropy is convex in 1 / T, so its minimum is
    where its derivative is 0: Brent's method, to a relative error of 1e-10. A search for the minimum itself would stop near 1e-8, because
    the cross-entropy is flat there.

    Raises:
        ValueError: the shapes do not match.
    """
    if logits_NC.ndim != 2 or len(logits_NC) != check_vector("labels", labels_N):
        raise ValueError(f"logits have shape {logits_NC.shape}, expected ({len(labels_N)}, classes)")
    if len(labels_N) == 0:
        return 1.0
    own_N = logits_NC[np.arange(len(labels_N)), labels_N]

    def slope(log_temperature: float) -> float:
        """Derivative of the mean cross-entropy by 1 / T: the mean of E_p[z] − z_y. It falls as T grows."""
        return float(((_softmax(logits_NC / np.exp(log_temperature)) * logits_NC).sum(1) - own_N).mean())

    low, high = np.log(LEAST), np.log(MOST)
    if slope(low) <= 0:
        return LEAST
    if slope(high) >= 0:
        return MOST
    return float(np.exp(brentq(slope, low, high, xtol=_RELATIVE_ERROR)))


def scaled_confidences(
    logits_NC: npt.NDArray[np.float64], temperature_N: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Probability of the predicted class by softmax(z / T), with a temperature for each sample."""
    return np.asarray(_softmax(logits_NC / temperature_N[:, None]).max(1))


def halves(count: int) -> npt.NDArray[np.int64]:
    """0 or 1 for each sample, by a multiplicative hash of its index (Knuth), because the order of a data set may follow its features."""
    return np.asarray((np.arange(count) * 2654435761 // 65536) % 2)


def _softmax(logits_NC: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted_NC = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
    return np.asarray(shifted_NC / shifted_NC.sum(1, keepdims=True))
