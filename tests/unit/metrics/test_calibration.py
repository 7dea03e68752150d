"""The temperature that calibrates, against a brute-force search and cases by hand."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar

from kd_ray.metrics.calibration import LEAST, MOST, fit_temperature, halves, scaled_confidences


def drawn(seed: int, count: int = 300, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from softmax(z / temperature)."""
    random = np.random.default_rng(seed)
    logits_NC = random.normal(size=(count, 5)) * 3
    gumbel_NC = random.gumbel(size=logits_NC.shape)
    return logits_NC, (logits_NC / temperature + gumbel_NC).argmax(1)


def cross_entropy(logits_NC: np.ndarray, labels_N: np.ndarray, temperature: float) -> float:
    scaled_NC = logits_NC / temperature
    top_N = scaled_NC.max(1)
    log_sum_N = top_N + np.log(np.exp(scaled_NC - top_N[:, None]).sum(1))
    return float((log_sum_N - scaled_NC[np.arange(len(labels_N)), labels_N]).mean())


@pytest.mark.slow
@given(seed=st.integers(0, 1000), temperature=st.floats(0.3, 10))
@example(seed=457, temperature=10.0)
@settings(max_examples=15, deadline=None)
def test_it_is_where_scipys_search_ends(seed: int, temperature: float) -> None:
    logits_NC, labels_N = drawn(seed, temperature=temperature)
    found = fit_temperature(logits_NC, labels_N)
    searched = minimize_scalar(
        lambda log_t: cross_entropy(logits_NC, labels_N, np.exp(log_t)),
        bounds=(np.log(LEAST), np.log(MOST)),
        method="bounded",
    )
    assert found == pytest.approx(np.exp(searched.x), rel=1e-3)


def test_it_undoes_a_scale_of_the_logits() -> None:
    logits_NC, labels_N = drawn(0)
    assert fit_temperature(7 * logits_NC, labels_N) == pytest.approx(7 * fit_temperature(logits_NC, labels_N), rel=1e-6)


def test_two_samples_of_two_classes_by_hand() -> None:
    """Three quarters right with a margin of 2: σ(2 / T) = 3/4, so T = 2 / log 3."""
    logits_NC = np.array([[2.0, 0.0]] * 4)
    found = fit_temperature(logits_NC, np.array([0, 0, 0, 1]))
    assert found == pytest.approx(2 / np.log(3), rel=1e-8)
    np.testing.assert_allclose(scaled_confidences(logits_NC, np.full(4, found)), 0.75, rtol=1e-8)


def test_a_network_that_errs_nowhere_gets_the_least_temperature_and_no_samples_none() -> None:
    assert fit_temperature(np.eye(3), np.arange(3)) == pytest.approx(LEAST, rel=0.01)
    assert fit_temperature(np.zeros((0, 3)), np.zeros(0, dtype=np.int64)) == 1.0


def test_shapes_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match=r"logits have shape \(3, 3\), expected \(2, classes\)"):
        fit_temperature(np.eye(3), np.arange(2))


def test_halves_are_about_equal() -> None:
    assert 0.45 < halves(1000).mean() < 0.55
