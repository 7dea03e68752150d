"""Temperature scaling: one number by which logits are divided, so that a network's confidences match its accuracy."""

import numpy as np
import numpy.typing as npt
from scipy.optimize import brentq, root_scalar

from kd_ray.metrics.arrays import check_vector

LEAST, MOST = 0.01, 100.0
"""Bounds of the temperature. Without them a network without errors would get 0."""
_ERROR = 1e-10
"""Of log T."""
_NEWTON_STEPS = 12
_LEAST_VARIANCE = 1e-30
"""Newton's method cannot divide by 0."""


def fit_temperature(logits_NC: npt.NDArray[np.float64], labels_N: npt.NDArray[np.int64]) -> float:
    """The temperature T in [0.01, 100] with the smallest mean cross-entropy of softmax(z / T); 1 without any sample.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 4.2. The cross-entropy is convex in 1 / T, so its minimum is
    where its derivative is 0. Newton's method finds this root in about 6 evaluations; where it fails, Brent's method finds it. A search for
    the minimum itself would stop near a relative error of 1e-8, because the cross-entropy is flat there.

    Raises:
        ValueError: the shapes do not match.
    """
    if logits_NC.ndim != 2 or len(logits_NC) != check_vector("labels", labels_N):
        raise ValueError(f"logits have shape {logits_NC.shape}, expected ({len(labels_N)}, classes)")
    if len(labels_N) == 0:
        return 1.0
    # Shifted so that the largest logit of a sample is 0: then no exponential overflows.
    shifted_NC = logits_NC - logits_NC.max(1, keepdims=True)
    own = float(shifted_NC[np.arange(len(labels_N)), labels_N].mean())
    weights_NC = np.empty_like(shifted_NC)
    low, high = float(np.log(LEAST)), float(np.log(MOST))

    def slope(log_temperature: float) -> tuple[float, float]:
        """Derivative of the mean cross-entropy by 1 / T, the mean of E_p[z] − z_y; and the derivative of that by log T, −Var_p[z] / T."""
        # A step of Newton's method may leave the bounds by far.
        inverse = float(np.exp(-np.clip(log_temperature, low - 1, high + 1)))
        np.exp(np.multiply(shifted_NC, inverse, out=weights_NC), out=weights_NC)
        total_N = weights_NC.sum(1)
        np.multiply(weights_NC, shifted_NC, out=weights_NC)
        mean_N = weights_NC.sum(1) / total_N
        square_N = np.einsum("nc,nc->n", weights_NC, shifted_NC) / total_N
        variance = max(float((square_N - mean_N**2).mean()), _LEAST_VARIANCE)
        return float(mean_N.mean()) - own, -inverse * variance

    found = root_scalar(slope, fprime=True, x0=0.0, method="newton", xtol=_ERROR, maxiter=_NEWTON_STEPS)
    if found.converged and low < found.root < high:
        return float(np.exp(found.root))
    if slope(low)[0] <= 0:
        return LEAST
    if slope(high)[0] >= 0:
        return MOST
    return float(np.exp(brentq(lambda log_temperature: slope(log_temperature)[0], low, high, xtol=_ERROR)))


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
