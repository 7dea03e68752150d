import math

import numpy as np
import pytest
from hypothesis import given
from sklearn.metrics import confusion_matrix

from kd_ray.metrics.disagreement import disagreement

from .strategies import Case, cases


def test_disagreement_by_hand() -> None:
    labels_N = np.array([0, 0, 0, 1, 1, 2])
    reference_N = np.array([0, 0, 1, 1, 2, 2])
    other_N = np.array([0, 1, 2, 1, 0, 2])
    result = disagreement(reference_N, other_N, labels_N, num_classes=4)
    assert result.n_C.tolist() == [3, 2, 1, 0]
    assert result.num_disagree_C.tolist() == [2, 1, 0, 0]
    np.testing.assert_array_equal(result.rate_C, [2 / 3, 0.5, 0.0, np.nan])
    assert result.rate == 0.5
    assert result.matrix_CC.tolist() == [[0, 1, 0, 0], [0, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]


def test_disagreement_counts_two_different_errors_and_not_a_shared_one() -> None:
    shared = disagreement(np.array([1]), np.array([1]), np.array([0]), num_classes=3)
    different = disagreement(np.array([1]), np.array([2]), np.array([0]), num_classes=3)
    assert shared.rate == 0.0
    assert different.rate == 1.0


def test_disagreement_without_samples_is_nan() -> None:
    none = np.array([], dtype=np.int64)
    result = disagreement(none, none, none, num_classes=2)
    assert math.isnan(result.rate)
    assert np.isnan(result.rate_C).all()
    assert result.n_C.tolist() == [0, 0]
    assert result.matrix_CC.tolist() == [[0, 0], [0, 0]]


@pytest.mark.slow
@given(cases())
def test_disagreement_matrix_is_the_confusion_matrix_off_its_diagonal(case: Case) -> None:
    true_N = case.groups.membership_NG[:, 0].astype(np.int64) % case.num_classes
    num_classes = case.num_classes + 1  # one class more, because scikit-learn warns about a single one
    result = disagreement(case.labels_N, case.predictions_N, true_N, num_classes=num_classes)
    expected_CC = confusion_matrix(case.labels_N, case.predictions_N, labels=range(num_classes))
    np.fill_diagonal(expected_CC, 0)
    np.testing.assert_array_equal(result.matrix_CC, expected_CC)
    assert result.matrix_CC.sum() == result.num_disagree_C.sum()
    assert result.n_C.sum() == len(true_N)


@pytest.mark.slow
@given(cases())
def test_disagreement_is_symmetric_and_zero_with_oneself(case: Case) -> None:
    one = disagreement(case.labels_N, case.predictions_N, case.labels_N, num_classes=case.num_classes)
    two = disagreement(case.predictions_N, case.labels_N, case.labels_N, num_classes=case.num_classes)
    same = disagreement(case.labels_N, case.labels_N, case.labels_N, num_classes=case.num_classes)
    np.testing.assert_array_equal(one.matrix_CC, two.matrix_CC.T)
    np.testing.assert_array_equal(one.rate_C, two.rate_C)
    assert same.rate == 0.0
    assert not same.matrix_CC.any()


def test_disagreement_refuses_wrong_lengths() -> None:
    with pytest.raises(ValueError, match="lengths differ: reference has 2, other has 2, labels has 1"):
        disagreement(np.array([0, 1]), np.array([0, 1]), np.array([0]), num_classes=2)
    with pytest.raises(ValueError, match=r"other\[0\] is 2, expected a class index in 0\.\.1"):
        disagreement(np.array([0]), np.array([2]), np.array([0]), num_classes=2)
