import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, precision_score, recall_score

from kd_ray.metrics.per_class import class_metrics, expected_calibration_error

from .strategies import Case, cases, permutations


def test_class_metrics_by_hand() -> None:
    labels_N = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2])
    predictions_N = np.array([0, 0, 0, 1, 1, 0, 0, 2, 2, 1])
    metrics = class_metrics(labels_N, predictions_N, num_classes=3)
    assert metrics.n_C.tolist() == [4, 3, 3]
    assert metrics.num_correct_C.tolist() == [3, 1, 2]
    assert metrics.num_predicted_C.tolist() == [5, 3, 2]
    np.testing.assert_allclose(metrics.accuracy_C, [3 / 4, 1 / 3, 2 / 3])
    np.testing.assert_allclose(metrics.relative_accuracy_C, [5 / 4, 5 / 9, 10 / 9])
    np.testing.assert_allclose(metrics.precision_C, [3 / 5, 1 / 3, 1])
    assert metrics.accuracy == 0.6
    assert metrics.worst_class_accuracy == 1 / 3
    assert metrics.balanced_accuracy == pytest.approx((3 / 4 + 1 / 3 + 2 / 3) / 3, rel=1e-12)
    assert metrics.n_C.dtype == metrics.num_correct_C.dtype == metrics.num_predicted_C.dtype == np.int64


def test_class_metrics_empty_class_is_nan_with_n_zero() -> None:
    metrics = class_metrics(np.array([0, 0]), np.array([0, 1]), num_classes=3)
    assert metrics.n_C.tolist() == [2, 0, 0]
    np.testing.assert_array_equal(metrics.accuracy_C, [0.5, np.nan, np.nan])
    np.testing.assert_array_equal(metrics.relative_accuracy_C, [1.0, np.nan, np.nan])
    np.testing.assert_array_equal(metrics.precision_C, [1.0, 0.0, np.nan])
    assert metrics.worst_class_accuracy == metrics.balanced_accuracy == 0.5


def test_class_metrics_all_wrong_has_no_relative_accuracy() -> None:
    metrics = class_metrics(np.array([0, 1]), np.array([1, 0]), num_classes=2)
    assert metrics.accuracy == metrics.worst_class_accuracy == metrics.balanced_accuracy == 0.0
    np.testing.assert_array_equal(metrics.accuracy_C, [0.0, 0.0])
    np.testing.assert_array_equal(metrics.relative_accuracy_C, [np.nan, np.nan])


def test_class_metrics_no_samples_is_nan() -> None:
    none = np.array([], dtype=np.int64)
    metrics = class_metrics(none, none, num_classes=2)
    assert metrics.n_C.tolist() == [0, 0]
    assert math.isnan(metrics.accuracy)
    assert math.isnan(metrics.worst_class_accuracy)
    assert math.isnan(metrics.balanced_accuracy)


@pytest.mark.slow
@given(cases())
def test_class_metrics_agree_with_scikit_learn(case: Case) -> None:
    metrics = class_metrics(case.labels_N, case.predictions_N, num_classes=case.num_classes)
    options = {"labels": range(case.num_classes), "average": None, "zero_division": np.nan}
    expected_recall_C = recall_score(case.labels_N, case.predictions_N, **options)
    expected_precision_C = precision_score(case.labels_N, case.predictions_N, **options)
    np.testing.assert_allclose(metrics.accuracy_C, expected_recall_C, rtol=1e-12)
    np.testing.assert_allclose(metrics.precision_C, expected_precision_C, rtol=1e-12)
    assert metrics.accuracy == pytest.approx(accuracy_score(case.labels_N, case.predictions_N), rel=1e-12)
    assert metrics.worst_class_accuracy == pytest.approx(np.nanmin(expected_recall_C), rel=1e-12)
    # scikit-learn's `balanced_accuracy_score` warns of classes that are predicted and have no sample.
    assert metrics.balanced_accuracy == pytest.approx(np.nanmean(expected_recall_C), rel=1e-12)


@pytest.mark.slow
@given(cases(), st.data())
def test_class_metrics_follow_relabelling_and_ignore_order(case: Case, data: st.DataObject) -> None:
    new_name_C = data.draw(permutations(case.num_classes))
    order_N = data.draw(permutations(len(case.labels_N)))
    before = class_metrics(case.labels_N, case.predictions_N, num_classes=case.num_classes)
    after = class_metrics(
        new_name_C[case.labels_N][order_N], new_name_C[case.predictions_N][order_N], num_classes=case.num_classes
    )
    np.testing.assert_array_equal(after.relative_accuracy_C[new_name_C], before.relative_accuracy_C)
    np.testing.assert_array_equal(after.precision_C[new_name_C], before.precision_C)
    assert after.accuracy == before.accuracy
    assert after.worst_class_accuracy == before.worst_class_accuracy
    assert after.balanced_accuracy == pytest.approx(before.balanced_accuracy, rel=1e-12)


def test_expected_calibration_error_by_hand() -> None:
    # Two bins. (0, .5]: confidences .3, .5, one of two right, gap |.5 - .4|. (.5, 1]: .6, .8, 1, two right, |2/3 - .8|.
    confidences_N = np.array([0.3, 0.5, 0.6, 0.8, 1.0])
    correct_N = np.array([True, False, False, True, True])
    error = expected_calibration_error(confidences_N, correct_N, num_bins=2)
    assert error == pytest.approx(2 / 5 * 0.1 + 3 / 5 * (0.8 - 2 / 3))


def test_expected_calibration_error_bins_are_closed_on_the_right() -> None:
    # .2 is the right end of the third of 15 bins. Alone there it is off by .8; sharing a bin with .21 would give less.
    confidences_N = np.array([0.2, 0.21])
    correct_N = np.array([True, False])
    assert expected_calibration_error(confidences_N, correct_N) == pytest.approx((0.8 + 0.21) / 2)
    assert expected_calibration_error(confidences_N, correct_N, num_bins=1) == pytest.approx(0.5 - 0.205)


def test_expected_calibration_error_of_calibrated_and_of_empty() -> None:
    calibrated = expected_calibration_error(np.full(4, 0.75), np.array([True, True, True, False]))
    assert calibrated == 0.0
    assert math.isnan(expected_calibration_error(np.array([]), np.array([], dtype=np.bool_)))
    assert expected_calibration_error(np.array([0.0]), np.array([True])) == 1.0


def test_expected_calibration_error_forgives_rounding_of_float32() -> None:
    just_above_one_N = np.array([1.0000001], dtype=np.float32)
    assert expected_calibration_error(just_above_one_N, np.array([True])) == 0.0


def test_expected_calibration_error_refuses_bad_input() -> None:
    correct_N = np.array([True, False])
    with pytest.raises(ValueError, match=r"confidences\[1\] is 1\.5, expected a probability in \[0, 1\]"):
        expected_calibration_error(np.array([0.5, 1.5]), correct_N)
    with pytest.raises(ValueError, match=r"confidences\[0\] is nan"):
        expected_calibration_error(np.array([np.nan, 0.5]), correct_N)
    with pytest.raises(ValueError, match="confidences has 1, correct has 2"):
        expected_calibration_error(np.array([0.5]), correct_N)
    with pytest.raises(ValueError, match="correct has dtype int64, expected bool"):
        expected_calibration_error(np.array([0.5, 0.5]), np.array([1, 0]))
    with pytest.raises(ValueError, match="num_bins is 0"):
        expected_calibration_error(np.array([0.5, 0.5]), correct_N, num_bins=0)
    with pytest.raises(ValueError, match=r"confidences has shape \(2, 2\)"):
        expected_calibration_error(np.full((2, 2), 0.5), correct_N)
