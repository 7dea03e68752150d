import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_ray.metrics import distances
from kd_ray.metrics.individual import Pairs, choose_pairs, individual_fairness


def make_pairs(*triples: tuple[int, int, float], num_dropped: int = 0) -> Pairs:
    first, second, distance = zip(*triples, strict=True)
    return Pairs(
        first_P=np.array(first), second_P=np.array(second), distance_P=np.array(distance), num_dropped=num_dropped
    )


def random_features(num_samples: int, num_features: int = 3) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return np.random.default_rng(0).normal(size=(num_samples, num_features)).astype(np.float32)


def test_individual_fairness_of_three_points_by_hand() -> None:
    probabilities_NC = np.array([[1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])
    pairs = make_pairs((0, 1, 1.0), (0, 2, 3.0), (1, 2, 2.0), num_dropped=4)
    result = individual_fairness(probabilities_NC, pairs)
    # Total variation .5, 1, .5 gives ratios 1/2, 1/3, 1/4; labels 0, 0, 1 give 0, 1/3, 1/2.
    assert result.num_pairs == 3
    assert result.num_dropped == 4
    assert result.mean == pytest.approx(13 / 36)
    assert result.p50 == pytest.approx(1 / 3)
    assert result.p95 == pytest.approx(0.1 * (1 / 3) + 0.9 * 0.5)
    assert result.maximum == pytest.approx(0.5)
    assert result.hard_mean == pytest.approx(5 / 18)


def test_individual_fairness_total_variation_over_three_classes() -> None:
    probabilities_NC = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5]], dtype=np.float32)
    result = individual_fairness(probabilities_NC, make_pairs((0, 1, 2.0)))
    assert result.mean == pytest.approx(0.15, rel=1e-6)
    assert result.hard_mean == 0.5


def test_individual_fairness_flatter_probabilities_change_mean_but_not_hard_mean() -> None:
    pairs = make_pairs((0, 1, 1.0))
    sharp = individual_fairness(np.array([[0.9, 0.1], [0.1, 0.9]]), pairs)
    flat = individual_fairness(np.array([[0.6, 0.4], [0.4, 0.6]]), pairs)
    assert sharp.mean == pytest.approx(0.8)
    assert flat.mean == pytest.approx(0.2)
    assert sharp.hard_mean == flat.hard_mean == 1.0


@given(st.integers(2, 12), st.integers(1, 4))
def test_individual_fairness_of_a_constant_predictor_is_zero(num_samples: int, num_classes: int) -> None:
    pairs = choose_pairs(random_features(num_samples), num_random=20)
    result = individual_fairness(np.full((num_samples, num_classes), 1 / num_classes), pairs)
    assert (result.mean, result.p95, result.maximum, result.hard_mean) == (0.0, 0.0, 0.0, 0.0)


def test_individual_fairness_without_pairs_is_nan_with_its_counts() -> None:
    pairs = choose_pairs(np.ones((5, 2), dtype=np.float32), num_random=7, num_anchors=2, num_neighbours=3)
    assert len(pairs) == 0
    assert pairs.num_dropped == 7 + 2 * 3
    result = individual_fairness(np.full((5, 2), 0.5), pairs)
    assert (result.num_pairs, result.num_dropped) == (0, 13)
    assert all(math.isnan(x) for x in (result.mean, result.p50, result.p95, result.maximum, result.hard_mean))


def test_choose_pairs_of_three_points_by_hand() -> None:
    features_ND = np.array([[0.0], [1.0], [3.0]], dtype=np.float32)
    pairs = choose_pairs(features_ND, num_random=1, num_anchors=3, num_neighbours=1)
    scale = abs(features_ND[pairs.first_P[0], 0] - features_ND[pairs.second_P[0], 0])
    triples = zip(pairs.first_P[1:].tolist(), pairs.second_P[1:].tolist(), pairs.distance_P[1:].tolist(), strict=True)
    assert pairs.distance_P[0] == 1.0
    assert sorted(triples) == [(0, 1, 1 / scale), (1, 0, 1 / scale), (2, 1, 2 / scale)]


def test_choose_pairs_of_two_samples_has_only_the_one_pair() -> None:
    pairs = choose_pairs(np.array([[0.0, 0.0], [3.0, 4.0]], dtype=np.float32), num_random=10)
    assert len(pairs) == 10 + 2
    assert (pairs.first_P + pairs.second_P == 1).all()
    assert (pairs.distance_P == 1.0).all()
    assert pairs.num_dropped == 0


def test_choose_pairs_drops_and_counts_duplicates() -> None:
    features_ND = np.array([[0.0], [0.0], [1.0], [2.0], [4.0], [8.0]], dtype=np.float32)
    pairs = choose_pairs(features_ND, num_random=200, num_anchors=6, num_neighbours=1)
    total = 200 + 6
    duplicates = {(0, 1), (1, 0)}
    assert pairs.num_dropped >= 2
    assert len(pairs) == total - pairs.num_dropped
    assert duplicates.isdisjoint(zip(pairs.first_P.tolist(), pairs.second_P.tolist(), strict=True))


def test_choose_pairs_default_counts_and_unit() -> None:
    features_ND = random_features(1_500)
    pairs = choose_pairs(features_ND)
    assert len(pairs) == 10_000 + 1_000 * 5
    assert (pairs.first_P != pairs.second_P).all()
    assert np.median(pairs.distance_P[:10_000]) == pytest.approx(1.0)
    assert len(set(pairs.first_P[10_000:].tolist())) == 1_000
    # All samples take part, and neighbours are nearer than random pairs.
    assert set(pairs.first_P.tolist()) | set(pairs.second_P.tolist()) == set(range(1_500))
    assert np.median(pairs.distance_P[10_000:]) < 0.2


def test_choose_pairs_neighbours_agree_with_brute_force() -> None:
    features_ND = random_features(60, 4)
    distance_NN = np.linalg.norm(features_ND[:, None].astype(np.float64) - features_ND[None], axis=2)
    np.fill_diagonal(distance_NN, np.inf)
    pairs = choose_pairs(features_ND, num_random=5, num_anchors=60, num_neighbours=3)
    for n in range(60):
        chosen = pairs.second_P[5:][pairs.first_P[5:] == n]
        assert set(chosen.tolist()) == set(np.argsort(distance_NN[n])[:3].tolist())
    scale = np.median(distance_NN[pairs.first_P[:5], pairs.second_P[:5]])
    np.testing.assert_allclose(pairs.distance_P, distance_NN[pairs.first_P, pairs.second_P] / scale)


def test_choose_pairs_finds_neighbours_far_from_the_origin() -> None:
    # A step of 1 is lost in float32 squares of 20,000 unless the features are centred.
    features_ND = (20_000 + np.arange(50)[:, None] ** 2).astype(np.float32).repeat(64, axis=1)
    pairs = choose_pairs(features_ND, num_random=1, num_anchors=50, num_neighbours=1)
    nearest = dict(zip(pairs.first_P[1:].tolist(), pairs.second_P[1:].tolist(), strict=True))
    assert nearest == {0: 1} | {n: n - 1 for n in range(1, 50)}


def test_choose_pairs_depends_on_the_seed_and_on_nothing_else() -> None:
    features_ND = random_features(100)
    one, again, other = (choose_pairs(features_ND, num_random=50, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.first_P, again.first_P)
    np.testing.assert_array_equal(one.second_P, again.second_P)
    np.testing.assert_array_equal(one.distance_P, again.distance_P)
    assert (one.first_P[:50] != other.first_P[:50]).any()
    fewer_neighbours = choose_pairs(features_ND, num_random=50, seed=1, num_neighbours=1)
    np.testing.assert_array_equal(one.second_P[:50], fewer_neighbours.second_P[:50])


def test_choose_pairs_ignores_the_scale_of_the_features() -> None:
    features_ND = random_features(100)
    one = choose_pairs(features_ND, num_random=50)
    scaled = choose_pairs(features_ND * 1024, num_random=50)
    np.testing.assert_array_equal(one.second_P, scaled.second_P)
    np.testing.assert_array_equal(one.distance_P, scaled.distance_P)


def test_choose_pairs_without_neighbours_has_random_pairs_only() -> None:
    features_ND = random_features(100)
    assert len(choose_pairs(features_ND, num_random=50, num_neighbours=0)) == 50
    assert len(choose_pairs(features_ND, num_random=50, num_anchors=0)) == 50


@pytest.mark.slow
def test_block_size_bounds_memory_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    features_ND = np.random.default_rng(1).integers(0, 50, size=(3_000, 32)).astype(np.float32)
    probabilities_NC = np.random.default_rng(2).dirichlet(np.ones(200), size=3_000)
    whole = choose_pairs(features_ND, num_random=3_000, num_neighbours=2)
    fairness = individual_fairness(probabilities_NC, whole)
    monkeypatch.setattr(distances, "BLOCK_ELEMENTS", 2**14)
    tracemalloc.start()
    blocks = choose_pairs(features_ND, num_random=3_000, num_neighbours=2)
    fairness_in_blocks = individual_fairness(probabilities_NC, blocks)
    _, peak_bytes = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # In one piece: 12 MB of anchor distances, 16 MB of probability differences.
    assert peak_bytes < 3_000_000
    np.testing.assert_array_equal(whole.distance_P, blocks.distance_P)
    assert fairness.mean == fairness_in_blocks.mean
    assert fairness.maximum == fairness_in_blocks.maximum


def test_choose_pairs_refuses_bad_input() -> None:
    good = random_features(4)
    with pytest.raises(ValueError, match=r"features has shape \(4,\), expected \(N, D\)"):
        choose_pairs(good[:, 0])
    with pytest.raises(ValueError, match=r"features has shape \(1, 3\), expected \(N, D\) with N >= 2"):
        choose_pairs(good[:1])
    with pytest.raises(ValueError, match="features has dtype uint8, expected floats"):
        choose_pairs(np.zeros((4, 3), dtype=np.uint8))
    for bad in (np.nan, np.inf):
        with pytest.raises(ValueError, match="features has a NaN or infinite value"):
            choose_pairs(np.array([[0.0, bad], [-bad, 1.0]], dtype=np.float32))
    with pytest.raises(ValueError, match="num_random is 0, expected at least 1"):
        choose_pairs(good, num_random=0)
    with pytest.raises(ValueError, match="num_neighbours is -1, expected at least 0"):
        choose_pairs(good, num_neighbours=-1)
    with pytest.raises(ValueError, match=r"min_distance is 0\.0, expected more than 0"):
        choose_pairs(good, min_distance=0.0)


def test_pairs_and_individual_fairness_refuse_bad_input() -> None:
    with pytest.raises(ValueError, match="distances must be finite and greater than 0"):
        make_pairs((0, 1, 0.0))
    with pytest.raises(ValueError, match="negative index"):
        make_pairs((0, -1, 1.0))
    with pytest.raises(ValueError, match="expected the same"):
        Pairs(first_P=np.array([0]), second_P=np.array([1, 2]), distance_P=np.array([1.0]), num_dropped=0)
    pairs = make_pairs((0, 2, 1.0))
    with pytest.raises(ValueError, match="pairs name sample 2, but probabilities has 2 samples"):
        individual_fairness(np.full((2, 2), 0.5), pairs)
    with pytest.raises(ValueError, match=r"probabilities has shape \(3,\), expected \(N, C\)"):
        individual_fairness(np.ones(3), pairs)
    with pytest.raises(ValueError, match=r"probabilities\[1\] sums to 1\.5.*not logits"):
        individual_fairness(np.array([[0.5, 0.5], [1.0, 0.5], [1.0, 0.0]]), pairs)
    with pytest.raises(ValueError, match=r"probabilities\[0\] sums to 1\.0, or is negative"):
        individual_fairness(np.array([[1.5, -0.5], [1.0, 0.0], [1.0, 0.0]]), pairs)
    with pytest.raises(ValueError, match=r"probabilities\[2\] sums to nan"):
        individual_fairness(np.array([[0.5, 0.5], [1.0, 0.0], [np.nan, 0.0]]), pairs)
