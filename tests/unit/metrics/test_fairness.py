import math
import tracemalloc
from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_ray.groups import Groups
from kd_ray.metrics.arrays import FloatArray
from kd_ray.metrics.fairness import FairnessMetrics, OneVsRest, fairness_metrics, group_rates, one_vs_rest

from .strategies import Case, cases, permutations

VECTORS = [field.name for field in fields(FairnessMetrics) if field.name.endswith("_C")]

# Group a has five samples, group b four.
LABELS_N = np.array([0, 0, 1, 1, 2, 0, 1, 1, 2])
PREDICTIONS_N = np.array([0, 1, 1, 1, 2, 0, 0, 1, 1])
GROUPS = Groups.from_codes(np.array([0, 0, 0, 0, 0, 1, 1, 1, 1]), ["a", "b"])


def measure(case: Case) -> FairnessMetrics:
    return fairness_metrics(group_rates(case.labels_N, case.predictions_N, case.groups, num_classes=case.num_classes))


def vector(metrics: FairnessMetrics, name: str) -> FloatArray:
    values_C: FloatArray = getattr(metrics, name)
    return values_C


def test_group_rates_by_hand() -> None:
    rates = group_rates(LABELS_N, PREDICTIONS_N, GROUPS, num_classes=3)
    assert rates.names == ("a", "b")
    assert rates.n_G.tolist() == [5, 4]
    np.testing.assert_allclose(rates.accuracy_G, [4 / 5, 2 / 4])
    assert rates.num_positive_GC.tolist() == [[2, 2, 1], [1, 2, 1]]
    assert rates.num_predicted_GC.tolist() == [[1, 3, 1], [2, 2, 0]]
    assert rates.num_correct_GC.tolist() == [[1, 2, 1], [1, 1, 0]]
    np.testing.assert_allclose(rates.selection_rate_GC, [[1 / 5, 3 / 5, 1 / 5], [2 / 4, 2 / 4, 0]])
    np.testing.assert_allclose(rates.true_positive_rate_GC, [[1 / 2, 1, 1], [1, 1 / 2, 0]])
    np.testing.assert_allclose(rates.false_positive_rate_GC, [[0, 1 / 3, 0], [1 / 3, 1 / 2, 0]])
    np.testing.assert_allclose(rates.label_rate_GC, [[2 / 5, 2 / 5, 1 / 5], [1 / 4, 2 / 4, 1 / 4]])


def test_fairness_metrics_of_three_classes_by_hand() -> None:
    metrics = fairness_metrics(group_rates(LABELS_N, PREDICTIONS_N, GROUPS, num_classes=3))
    assert metrics.num_groups == 2
    assert metrics.num_groups_with_positives_C.tolist() == [2, 2, 2]
    assert metrics.num_groups_with_negatives_C.tolist() == [2, 2, 2]
    np.testing.assert_allclose(metrics.demographic_parity_difference_C, [0.3, 0.1, 0.2])
    np.testing.assert_allclose(metrics.demographic_parity_ratio_C, [0.4, 5 / 6, 0])
    np.testing.assert_allclose(metrics.equalized_odds_difference_C, [1 / 2, 1 / 2, 1])
    np.testing.assert_allclose(metrics.equalized_odds_ratio_C, [0, 1 / 2, 0])
    np.testing.assert_allclose(metrics.label_demographic_parity_difference_C, [0.15, 0.1, 0.05])
    assert metrics.worst_group_accuracy == 0.5
    # The macro is the mean over the three one-vs-rest problems, the sum three times that.
    assert metrics.macro.demographic_parity_difference == pytest.approx(0.2)
    assert metrics.macro.demographic_parity_ratio == pytest.approx((0.4 + 5 / 6) / 3)
    assert metrics.macro.equalized_odds_difference == pytest.approx(2 / 3)
    assert metrics.macro.equalized_odds_ratio == pytest.approx(1 / 6)
    assert metrics.macro.label_demographic_parity_difference == pytest.approx(0.1)
    total = one_vs_rest(metrics, reduce="sum")
    assert total.demographic_parity_difference == pytest.approx(0.6)
    assert total.equalized_odds_difference == pytest.approx(2)


def test_equalized_odds_takes_false_positives_when_they_are_further_apart() -> None:
    labels_N = np.array([1, 1, 0, 0, 1, 1, 0, 0])
    predictions_N = np.array([1, 0, 0, 0, 1, 0, 1, 1])
    groups = Groups.from_codes(np.array([0, 0, 0, 0, 1, 1, 1, 1]), ["a", "b"])
    metrics = fairness_metrics(group_rates(labels_N, predictions_N, groups, num_classes=2))
    # Class 1: true positive rates 1/2 and 1/2, false positive rates 0 and 1.
    assert metrics.equalized_odds_difference_C.tolist() == [1.0, 1.0]
    assert metrics.equalized_odds_ratio_C.tolist() == [0.0, 0.0]


def test_binary_differences_are_the_same_for_both_classes_and_ratios_are_not() -> None:
    labels_N = np.array([1, 1, 0, 0, 1, 1, 1, 0, 0, 0])
    predictions_N = np.array([1, 0, 0, 1, 1, 1, 0, 0, 1, 0])
    groups = Groups.from_codes(np.array([0, 0, 0, 0, 1, 1, 1, 1, 1, 1]), ["a", "b"])
    metrics = fairness_metrics(group_rates(labels_N, predictions_N, groups, num_classes=2))
    # Selection rates of class 1: 2/4 and 3/6, true positive rates 1/2 and 2/3, false positive rates 1/2 and 1/3.
    np.testing.assert_allclose(metrics.demographic_parity_difference_C, [0, 0], atol=1e-15)
    np.testing.assert_allclose(metrics.equalized_odds_difference_C, [1 / 6, 1 / 6])
    np.testing.assert_allclose(metrics.equalized_odds_ratio_C, [2 / 3, 2 / 3])
    fewer = Groups(names=groups.names, membership_NG=groups.membership_NG & (np.arange(10) != 9)[:, None])
    skewed = fairness_metrics(group_rates(labels_N, predictions_N, fewer, num_classes=2))
    np.testing.assert_allclose(skewed.demographic_parity_difference_C, [0.1, 0.1])
    np.testing.assert_allclose(skewed.demographic_parity_ratio_C, [(2 / 5) / (1 / 2), (1 / 2) / (3 / 5)])


def test_empty_group_is_nan_with_n_zero_and_left_out() -> None:
    with_empty = Groups(names=("a", "b", "nobody"), membership_NG=np.pad(GROUPS.membership_NG, ((0, 0), (0, 1))))
    rates = group_rates(LABELS_N, PREDICTIONS_N, with_empty, num_classes=3)
    assert rates.n_G.tolist() == [5, 4, 0]
    assert np.isnan(rates.accuracy_G).tolist() == [False, False, True]
    for rate_GC in (
        rates.selection_rate_GC,
        rates.true_positive_rate_GC,
        rates.false_positive_rate_GC,
        rates.label_rate_GC,
    ):
        assert np.isnan(rate_GC[2]).all()
        assert not np.isnan(rate_GC[:2]).any()
    with_nobody = fairness_metrics(rates)
    without = fairness_metrics(group_rates(LABELS_N, PREDICTIONS_N, GROUPS, num_classes=3))
    assert with_nobody.num_groups == 2
    for name in VECTORS:
        np.testing.assert_array_equal(vector(with_nobody, name), vector(without, name))
    assert with_nobody.worst_group_accuracy == 0.5


def test_fewer_than_two_groups_is_nan() -> None:
    for groups in (
        Groups.from_codes(np.zeros(9, dtype=np.int64), ["a", "b"]),
        Groups.from_codes(np.zeros(9, int), "a"),
    ):
        metrics = fairness_metrics(group_rates(LABELS_N, PREDICTIONS_N, groups, num_classes=3))
        assert metrics.num_groups == 1
        assert np.isnan(metrics.demographic_parity_difference_C).all()
        assert np.isnan(metrics.demographic_parity_ratio_C).all()
        assert np.isnan(metrics.equalized_odds_difference_C).all()
        assert np.isnan(metrics.equalized_odds_ratio_C).all()
        assert math.isnan(metrics.macro.demographic_parity_difference)
        assert math.isnan(one_vs_rest(metrics, reduce="sum").equalized_odds_ratio)
        assert metrics.worst_group_accuracy == 6 / 9


def test_no_group_at_all_is_nan() -> None:
    nobody = Groups(names=(), membership_NG=np.zeros((9, 0), dtype=np.bool_))
    metrics = fairness_metrics(group_rates(LABELS_N, PREDICTIONS_N, nobody, num_classes=3))
    assert metrics.num_groups == 0
    assert np.isnan(metrics.demographic_parity_difference_C).tolist() == [True, True, True]
    assert math.isnan(metrics.worst_group_accuracy)


def test_group_without_positives_is_left_out_of_the_true_positive_rates() -> None:
    # Class 1: group a has true positive rate 1, b 1/2, c no positives; false positive rates are 0, 0, 1/2.
    labels_N = np.array([1, 0, 1, 1, 0, 0, 0])
    predictions_N = np.array([1, 0, 1, 0, 0, 0, 1])
    groups = Groups.from_codes(np.array([0, 0, 1, 1, 1, 2, 2]), ["a", "b", "c"])
    rates = group_rates(labels_N, predictions_N, groups, num_classes=2)
    np.testing.assert_array_equal(rates.true_positive_rate_GC[:, 1], [1, 0.5, np.nan])
    metrics = fairness_metrics(rates)
    assert metrics.num_groups_with_positives_C.tolist() == [3, 2]
    assert metrics.num_groups_with_negatives_C.tolist() == [2, 3]
    assert metrics.equalized_odds_difference_C.tolist() == [0.5, 0.5]


def test_equalized_odds_needs_both_rates() -> None:
    # Everyone in group b is of class 1: its true positive rate is 1/2 against 1, but it has no false positive rate.
    groups = Groups.from_codes(np.array([0, 0, 1, 1]), ["a", "b"])
    metrics = fairness_metrics(group_rates(np.array([1, 0, 1, 1]), np.array([1, 0, 1, 0]), groups, num_classes=2))
    assert np.isnan(metrics.equalized_odds_difference_C).tolist() == [True, True]
    assert np.isnan(metrics.equalized_odds_ratio_C).tolist() == [True, True]
    assert metrics.demographic_parity_difference_C.tolist() == [0.0, 0.0]


def test_macro_leaves_undefined_classes_out() -> None:
    # Class 2 occurs in group a only, so its true positive rates cannot be compared: equalized odds is a mean of two.
    labels_N = np.array([0, 1, 2, 0, 1, 1])
    predictions_N = np.array([0, 1, 2, 0, 1, 0])
    groups = Groups.from_codes(np.array([0, 0, 0, 1, 1, 1]), ["a", "b"])
    metrics = fairness_metrics(group_rates(labels_N, predictions_N, groups, num_classes=4))
    np.testing.assert_array_equal(metrics.equalized_odds_difference_C, [0.5, 0.5, np.nan, np.nan])
    assert metrics.num_groups_with_positives_C.tolist() == [2, 2, 1, 0]
    assert metrics.macro.equalized_odds_difference == 0.5
    assert one_vs_rest(metrics, reduce="sum").equalized_odds_difference == 1.0
    # A class that nobody has and nobody is predicted as: equal selection, no ratio.
    assert metrics.demographic_parity_difference_C[3] == 0.0
    assert math.isnan(metrics.demographic_parity_ratio_C[3])


def test_many_to_many_membership_counts_a_sample_in_each_of_its_groups() -> None:
    groups = Groups.from_lists([["a"], ["a", "b"], ["b"], []], ["a", "b"])
    labels_N = np.array([0, 1, 1, 0])
    predictions_N = np.array([0, 1, 0, 1])
    rates = group_rates(labels_N, predictions_N, groups, num_classes=2)
    assert rates.n_G.tolist() == [2, 2]
    assert rates.num_positive_GC.tolist() == [[1, 1], [0, 2]]
    assert rates.num_predicted_GC.tolist() == [[1, 1], [1, 1]]
    assert rates.num_correct_GC.tolist() == [[1, 1], [0, 1]]
    assert rates.accuracy_G.tolist() == [1.0, 0.5]
    assert fairness_metrics(rates).demographic_parity_difference_C.tolist() == [0.0, 0.0]


@pytest.mark.slow
@given(cases())
def test_rates_and_differences_stay_in_their_range(case: Case) -> None:
    metrics = measure(case)
    for name in VECTORS:
        if not name.startswith("num_"):
            defined = vector(metrics, name)[~np.isnan(vector(metrics, name))]
            assert ((defined >= 0) & (defined <= 1)).all()


@pytest.mark.slow
@given(cases())
def test_identical_groups_are_at_distance_zero(case: Case) -> None:
    membership_N1 = np.ones((len(case.labels_N), 1), dtype=np.bool_)
    twins = Groups(names=("a", "b"), membership_NG=membership_N1.repeat(2, axis=1))
    metrics = fairness_metrics(group_rates(case.labels_N, case.predictions_N, twins, num_classes=case.num_classes))
    assert metrics.demographic_parity_difference_C.tolist() == [0.0] * case.num_classes
    assert set(metrics.equalized_odds_difference_C[~np.isnan(metrics.equalized_odds_difference_C)]) <= {0.0}
    assert set(metrics.equalized_odds_ratio_C[~np.isnan(metrics.equalized_odds_ratio_C)]) <= {1.0}
    occurs_C = np.bincount(case.predictions_N, minlength=case.num_classes) > 0
    np.testing.assert_array_equal(metrics.demographic_parity_ratio_C, np.where(occurs_C, 1.0, np.nan))


@pytest.mark.slow
@given(cases(), st.data())
def test_order_of_samples_and_of_groups_changes_nothing(case: Case, data: st.DataObject) -> None:
    order_N = data.draw(permutations(len(case.labels_N)))
    order_G = data.draw(permutations(len(case.groups.names)))
    shuffled = Groups(
        names=tuple(case.groups.names[g] for g in order_G),
        membership_NG=case.groups.membership_NG[order_N][:, order_G],
    )
    before = measure(case)
    after = fairness_metrics(
        group_rates(case.labels_N[order_N], case.predictions_N[order_N], shuffled, num_classes=case.num_classes)
    )
    for name in VECTORS:
        np.testing.assert_array_equal(vector(before, name), vector(after, name))
    np.testing.assert_array_equal(before.worst_group_accuracy, after.worst_group_accuracy)


@pytest.mark.slow
@given(cases(), st.data())
def test_relabelling_classes_permutes_the_vectors(case: Case, data: st.DataObject) -> None:
    new_name_C = data.draw(permutations(case.num_classes))
    before = measure(case)
    after = fairness_metrics(
        group_rates(
            new_name_C[case.labels_N], new_name_C[case.predictions_N], case.groups, num_classes=case.num_classes
        )
    )
    for name in VECTORS:
        np.testing.assert_array_equal(vector(after, name)[new_name_C], vector(before, name))
    for field in fields(OneVsRest):
        np.testing.assert_allclose(getattr(after.macro, field.name), getattr(before.macro, field.name), rtol=1e-12)


@pytest.mark.slow
@given(cases())
def test_perfect_classifier_has_the_demographic_parity_difference_of_the_labels(case: Case) -> None:
    perfect = fairness_metrics(group_rates(case.labels_N, case.labels_N, case.groups, num_classes=case.num_classes))
    given = measure(case)
    np.testing.assert_array_equal(perfect.demographic_parity_difference_C, given.label_demographic_parity_difference_C)
    np.testing.assert_array_equal(
        perfect.label_demographic_parity_difference_C, given.label_demographic_parity_difference_C
    )
    assert set(perfect.equalized_odds_difference_C[~np.isnan(perfect.equalized_odds_difference_C)]) <= {0.0}


def test_a_thousand_classes_need_no_confusion_matrix_per_group() -> None:
    rng = np.random.default_rng(0)
    labels_N, predictions_N = rng.integers(0, 1_000, size=(2, 20_000))
    groups = Groups.from_codes(rng.integers(0, 10, size=20_000), [f"g{g}" for g in range(10)])
    tracemalloc.start()
    metrics = fairness_metrics(group_rates(labels_N, predictions_N, groups, num_classes=1_000))
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Ten confusion matrices of a million cells would be 10 MB even in single bytes.
    assert peak_bytes < 4_000_000
    assert metrics.demographic_parity_difference_C.shape == (1_000,)
    assert 0 < metrics.macro.demographic_parity_difference < 0.01


def test_fairness_refuses_bad_input() -> None:
    with pytest.raises(ValueError, match="lengths differ: groups has 9, labels has 8"):
        group_rates(LABELS_N[:8], PREDICTIONS_N[:8], GROUPS, num_classes=3)
    with pytest.raises(ValueError, match=r"labels\[4\] is 2, expected a class index in 0\.\.1"):
        group_rates(LABELS_N, PREDICTIONS_N, GROUPS, num_classes=2)
    metrics = fairness_metrics(group_rates(LABELS_N, PREDICTIONS_N, GROUPS, num_classes=3))
    with pytest.raises(ValueError, match="reduce is 'max', expected 'mean' or 'sum'"):
        one_vs_rest(metrics, reduce="max")  # type: ignore[arg-type]
