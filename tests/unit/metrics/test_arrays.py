import math

import numpy as np
import pytest

from kd_ray.metrics.arrays import check_classes, divide, divide_scalar, nan_min


def test_divide_broadcasts_and_gives_nan_for_every_zero_denominator() -> None:
    quotient = divide(np.array([[1, 0, 3]]), np.array([[2], [0]]))
    np.testing.assert_array_equal(quotient, [[0.5, 0.0, 1.5], [np.nan, np.nan, np.nan]])


def test_divide_scalar_by_zero_is_nan() -> None:
    assert divide_scalar(1, 4) == 0.25
    assert math.isnan(divide_scalar(0, 0))


def test_nan_min_ignores_nan() -> None:
    assert nan_min(np.array([np.nan, 0.5, 0.25])) == 0.25
    assert math.isnan(nan_min(np.array([np.nan])))
    assert math.isnan(nan_min(np.array([])))


@pytest.mark.parametrize("dtype", [np.uint8, np.int32, np.uint64])
def test_check_classes_takes_any_integers(dtype: type[np.integer]) -> None:
    (labels_N,) = check_classes(1000, labels=np.array([0, 200], dtype=dtype))
    assert labels_N.dtype == np.int64
    assert labels_N.tolist() == [0, 200]


def test_check_classes_names_the_array_and_the_place() -> None:
    good = np.array([0, 1, 2])
    with pytest.raises(ValueError, match=r"predictions\[1\] is 3, expected a class index in 0\.\.2"):
        check_classes(3, labels=good, predictions=np.array([0, 3, 2]))
    with pytest.raises(ValueError, match=r"labels\[2\] is -1, expected a class index in 0\.\.2"):
        check_classes(3, labels=np.array([0, 1, -1]))
    with pytest.raises(ValueError, match="lengths differ: labels has 3, predictions has 2"):
        check_classes(3, labels=good, predictions=good[:2])
    with pytest.raises(ValueError, match=r"labels has shape \(3, 1\), expected one axis"):
        check_classes(3, labels=good[:, None])
    with pytest.raises(ValueError, match="labels has dtype float64, expected integers"):
        check_classes(3, labels=np.array([0.0, 1.0]))
    with pytest.raises(ValueError, match="num_classes is 0, expected at least 1"):
        check_classes(0, labels=good)
