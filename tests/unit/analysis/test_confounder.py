"""The frontier of accuracy and equalized odds, and the comparison at matched accuracy."""

import numpy as np
import pytest

from kd_ray.analysis.confounder import fit_covariance, pareto


def test_pareto_by_hand() -> None:
    accuracy_K = np.array([0.9, 0.8, 0.9, 0.7, np.nan, 0.9])
    eod_K = np.array([0.2, 0.1, 0.3, 0.15, 0.0, 0.2])
    assert pareto(accuracy_K, eod_K) == [True, True, False, False, False, True]


@pytest.mark.slow
def test_covariance_is_the_regression_of_statsmodels() -> None:
    import statsmodels.api as sm

    rng = np.random.default_rng(0)
    accuracy = [rng.normal(0.7 + 0.05 * k, 0.03, n) for k, n in enumerate((3, 5, 4))]
    eod = [0.5 - 0.4 * a + 0.02 * k + rng.normal(0, 0.01, len(a)) for k, a in enumerate(accuracy)]
    fit = fit_covariance(accuracy, eod)
    assert fit is not None
    condition_N = np.repeat([0, 1, 2], [3, 5, 4])
    design = np.column_stack([np.ones(12), condition_N == 1, condition_N == 2, np.concatenate(accuracy)]).astype(float)
    model = sm.OLS(np.concatenate(eod), design).fit()
    assert fit.slope == pytest.approx(model.params[3])
    assert fit.df == model.df_resid
    for k in (1, 2):
        effect, se = fit.difference(0, k)
        assert (effect, se) == pytest.approx((model.params[k], model.bse[k]))


def test_a_difference_that_accuracy_explains_is_none_at_equal_accuracy() -> None:
    rng = np.random.default_rng(1)
    accuracy = [rng.normal(0.7, 0.03, 5), rng.normal(0.75, 0.03, 5)]
    eod = [1 - a for a in accuracy]
    fit = fit_covariance(accuracy, eod)
    assert fit is not None
    assert fit.eod_K[1] - fit.eod_K[0] < -0.02
    assert fit.difference(0, 1)[0] == pytest.approx(0, abs=1e-12)


def test_there_is_no_regression_without_freedom_or_spread() -> None:
    assert fit_covariance([np.array([0.5]), np.array([0.6])], [np.array([0.1]), np.array([0.2])]) is None
    assert fit_covariance([np.ones(3), np.ones(3)], [np.arange(3.0), np.arange(3.0)]) is None
    assert fit_covariance([np.arange(3.0), np.arange(3.0)], [np.arange(3.0), np.full(3, np.nan)]) is None
