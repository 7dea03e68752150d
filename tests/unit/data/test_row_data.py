"""Columns become numbers by what the training split alone says."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_ray.data.row_data import Column, RowData, RowSplit, encoded, standardised
from kd_ray.errors import DataError
from kd_ray.groups import Groups


def split(values: list[list[float]], labels: list[int] | None = None) -> RowSplit:
    labels_N = np.array([0] * len(values) if labels is None else labels, dtype=np.int64)
    return RowSplit(values_NF=np.array(values, dtype=np.float64), labels_N=labels_N)


def data(train: list[list[float]], test: list[list[float]], is_number: list[bool]) -> RowData:
    names = tuple(f"c{f}" for f in range(len(is_number)))
    return RowData(
        train=split(train), test=split(test), class_names=("a", "b"), columns=names, is_number_F=np.array(is_number)
    )


def test_categories_are_those_of_the_training_rows_in_alphabetical_order() -> None:
    columns = [
        Column(name="kind", values=["b", "a", "b", "new"]),
        Column(name="x", values=np.array([1.0, 2.0, 3.0, 4.0])),
        Column(name="v", values=np.arange(8.0).reshape(4, 2)),
    ]
    values_NF, names, is_number_F = encoded(columns, np.array([True, True, True, False]))
    assert names == ("kind=a", "kind=b", "x", "v[0]", "v[1]")
    assert is_number_F.tolist() == [False, False, True, True, True]
    assert values_NF.tolist() == [[0, 1, 1, 0, 1], [1, 0, 2, 2, 3], [0, 1, 3, 4, 5], [0, 0, 4, 6, 7]]


def test_numbers_are_standardised_by_the_training_split_and_categories_stay() -> None:
    found = standardised(data([[1, 0, 5], [3, 1, 5]], [[5, 1, 7]], [True, False, True]))
    # Training mean 2 and deviation 1; what is constant in training is 0 everywhere.
    assert found.train.values_NF.tolist() == [[-1, 0, 0], [1, 1, 0]]
    assert found.test.values_NF.tolist() == [[3, 1, 0]]
    assert found.notes == ("constant in the training rows, so 0 everywhere: c2",)
    assert found.train.values_NF.dtype == np.float32


@pytest.mark.parametrize(
    "training",
    [
        [14.62] * 250,  # its computed deviation is 1e-13, not 0
        [0.3] * 100 + [0.1 + 0.2] * 100,
        [float(np.float32(14.62)), float(np.nextafter(np.float32(14.62), np.float32(15)))] * 50,
        [1e200] * 7,
        [0.0] * 5,
    ],
)
def test_a_column_that_is_constant_up_to_rounding_is_zero_and_named(training: list[float]) -> None:
    found = standardised(data([[x] for x in training], [[14.63], [-1e3]], [True]))
    assert not found.train.values_NF.any()
    assert not found.test.values_NF.any()
    assert found.notes == ("constant in the training rows, so 0 everywhere: c0",)


@pytest.mark.parametrize(
    "training",
    [
        [1e15, 1e15 + 1],
        [1.6e9, 1.6e9 + 1],
        [16_777_214.0, 16_777_216.0],
        [-1e200, 1e200],
        [1e308, -1.7e308],
        [1e-200, 3e-200],
        [5e-324, 1e-322],
    ],
)
def test_numbers_of_any_magnitude_are_standardised(training: list[float]) -> None:
    found = standardised(data([[x] for x in training], [[training[0]]], [True]))
    first = -1 if training[0] < training[1] else 1
    np.testing.assert_allclose(found.train.values_NF, [[first], [-first]], rtol=1e-6)
    np.testing.assert_allclose(found.test.values_NF, [[first]], rtol=1e-6)
    assert found.notes == ()


def test_a_number_too_far_from_training_is_refused() -> None:
    far = data([[0, 0], [0, 1]], [[0, 1], [0, 1e300]], [True, True])
    message = (
        r"rows: column c1: test row 2 has 1e\+300, too far from the training rows \(mean 0.5, standard deviation 0.5\)"
    )
    with pytest.raises(DataError, match=message):
        standardised(far)


@pytest.mark.slow
@given(
    st.lists(st.lists(st.integers(-1000, 1000).map(float), min_size=3, max_size=3), min_size=2, max_size=12),
    st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=1, max_size=4),
)
def test_test_rows_never_change_how_training_rows_look(train: list[list[float]], test: list[list[float]]) -> None:
    numbers = [True] * 3
    found = standardised(data(train, test, numbers)).train.values_NF
    assert np.array_equal(found, standardised(data(train, [[0.0] * 3], numbers)).train.values_NF)
    expected = np.array(train)
    for f in range(3):
        deviation = expected[:, f].std()
        assert found[:, f].mean() == pytest.approx(0, abs=1e-4)
        assert found[:, f].std() == pytest.approx(1 if deviation > 0 else 0, abs=1e-4)


def test_take_keeps_rows_labels_and_groups_together() -> None:
    groups = Groups.from_codes(np.array([0, 1, 0]), ["x", "y"])
    rows = RowSplit(
        values_NF=np.array([[1.0], [2.0], [3.0]]), labels_N=np.array([0, 1, 1]), sensitive_features={"g": groups}
    )
    taken = rows.take(np.array([2, 1]))
    assert taken.values_NF.tolist() == [[3], [2]]
    assert taken.labels_N.tolist() == [1, 1]
    assert taken.sensitive_features["g"].to_lists() == [["x"], ["y"]]


def test_what_does_not_match_is_refused() -> None:
    with pytest.raises(ValueError, match=r"rows have shape \(3,\)"):
        RowSplit(values_NF=np.zeros(3), labels_N=np.zeros(3, dtype=np.int64))
    with pytest.raises(ValueError, match="dtype int64, expected"):
        RowSplit(values_NF=np.zeros((3, 1), dtype=np.int64), labels_N=np.zeros(3, dtype=np.int64))
    with pytest.raises(ValueError, match="not finite"):
        split([[float("nan")]])
    with pytest.raises(ValueError, match=r"labels have shape \(2,\), expected \(1,\)"):
        split([[1.0]], [0, 1])
    with pytest.raises(ValueError, match="labels have dtype int32"):
        RowSplit(values_NF=np.zeros((1, 1)), labels_N=np.zeros(1, dtype=np.int32))
    with pytest.raises(ValueError, match="'g' has 1 samples, expected 2"):
        groups = Groups.from_codes(np.array([0]), ["x"])
        RowSplit(values_NF=np.zeros((2, 1)), labels_N=np.zeros(2, dtype=np.int64), sensitive_features={"g": groups})
    with pytest.raises(ValueError, match=r"train labels lie in 2\.\.2"):
        RowData(
            train=split([[1.0]], [2]),
            test=split([[1.0]]),
            class_names=("a", "b"),
            columns=("x",),
            is_number_F=np.ones(1, bool),
        )
    with pytest.raises(ValueError, match="train rows have 1 numbers, expected 2 named columns"):
        data([[1.0]], [[1.0]], [True, True])
