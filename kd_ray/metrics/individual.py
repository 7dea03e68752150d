"""Individual fairness: does the model treat similar samples similarly?

The form is Mohammadshahi & Ioannou's average ratio E[|f(x) - f(x')| / d(x, x')], after the Lipschitz condition of
Dwork et al. 2012. They do not tell what f, |.|, d and the pairs are. Our substitutes: f is the vector of
probabilities (and, as `hard_mean`, the one-hot label), |.| the total variation distance, d the Euclidean distance
of given features divided by the median distance of random pairs, and the pairs are random ones plus nearest
neighbours. Values for other choices are not comparable. Which features to use is left to the caller.
"""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kd_ray.metrics.arrays import FloatArray, IntArray
from kd_ray.metrics.distances import euclidean, nearest, total_variation
from kd_ray.seeding import stream

_PROBABILITY_ROUNDING = 1e-3
"""How far probabilities may be from summing to 1; half precision is about this exact."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pairs:
    """P pairs of samples with their distance. Made by `choose_pairs`.

    Pairs are draws: one may occur more than once, and (i, j) next to (j, i). Raises ValueError when shapes differ, an
    index is negative, or a distance is not finite and > 0.
    """

    first_P: IntArray
    """Index of the first sample."""
    second_P: IntArray
    """Index of the second sample."""
    distance_P: FloatArray
    """Distance in units of the median distance of random pairs; finite and > 0."""
    num_dropped: int
    """Pairs left out because their distance was too small to divide by."""

    def __post_init__(self) -> None:
        """Check shapes, indices and distances."""
        shapes = (self.first_P.shape, self.second_P.shape, self.distance_P.shape)
        if self.first_P.ndim != 1 or len(set(shapes)) > 1:
            raise ValueError(f"first, second and distance have shapes {shapes}, expected the same (P,)")
        if not (np.isfinite(self.distance_P) & (self.distance_P > 0)).all():
            raise ValueError("distances must be finite and greater than 0")
        if (self.first_P < 0).any() or (self.second_P < 0).any():
            raise ValueError("pairs have a negative index")

    def __len__(self) -> int:
        """Number of pairs P."""
        return int(self.first_P.shape[0])


def choose_pairs(
    features_ND: npt.NDArray[np.floating],
    *,
    num_random: int = 10_000,
    num_anchors: int = 1_000,
    num_neighbours: int = 5,
    seed: int = 0,
    min_distance: float = 1e-6,
) -> Pairs:
    """Seeded random pairs, followed by the nearest neighbours of seeded anchor samples; all of it our substitute.

    Euclidean distances are divided by the median over the random pairs, so the scale of the features does not
    matter; pairs closer than `min_distance` (in that unit) are dropped and counted. If the median is 0 there is no
    scale and every pair is dropped. With few samples there are at most N anchors and N - 1 neighbours. Memory
    beyond the features is bounded.

    Raises ValueError for features that are not (N >= 2, D >= 1) finite floats, and for counts or a min_distance
    below their minimum.
    """
    _check_features(features_ND)
    minima = {"num_random": (num_random, 1), "num_anchors": (num_anchors, 0), "num_neighbours": (num_neighbours, 0)}
    for name, (value, minimum) in minima.items():
        if value < minimum:
            raise ValueError(f"{name} is {value}, expected at least {minimum}")
    if not min_distance > 0:
        raise ValueError(f"min_distance is {min_distance}, expected more than 0")
    num_samples = len(features_ND)
    random = stream(seed, "pairs", "random")
    random_first_P = random.integers(num_samples, size=num_random)
    random_second_P = (random_first_P + random.integers(1, num_samples, size=num_random)) % num_samples
    anchors_A = stream(seed, "pairs", "anchors").permutation(num_samples)[:num_anchors]
    neighbours_AK = nearest(features_ND, anchors_A, min(num_neighbours, num_samples - 1))
    first_P = np.concatenate([random_first_P, np.repeat(anchors_A, neighbours_AK.shape[1])])
    second_P = np.concatenate([random_second_P, neighbours_AK.ravel()])
    distance_P = euclidean(features_ND, first_P, second_P)
    scale = float(np.median(distance_P[:num_random]))
    distance_P = distance_P / scale if scale > 0 else np.zeros_like(distance_P)
    kept_P = distance_P >= min_distance
    return Pairs(
        first_P=first_P[kept_P],
        second_P=second_P[kept_P],
        distance_P=distance_P[kept_P],
        num_dropped=int((~kept_P).sum()),
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class IndividualFairness:
    """Distribution over pairs of the ratio |f(x) - f(x')| / d(x, x').

    Every statistic is >= 0 without an upper bound; lower is fairer, 0 means that no pair is told apart. NaN: no pairs.
    """

    num_pairs: int
    """Pairs measured."""
    num_dropped: int
    """Pairs left out as too close."""
    mean: float
    """Mean ratio of total variation to distance: the form of the paper, with our f, |.|, d and pairs."""
    p50: float
    """Median ratio."""
    p95: float
    """95th percentile."""
    maximum: float
    """Largest ratio: over all pairs it would be the Lipschitz constant of Dwork et al."""
    hard_mean: float
    """`mean` for one-hot argmax labels: flatter probabilities without another decision lower `mean`, but not this."""


def individual_fairness(probabilities_NC: npt.NDArray[np.floating], pairs: Pairs) -> IndividualFairness:
    """Mean, quantiles and maximum over pairs of TV(f(x), f(x')) / d(x, x').

    TV(p, q) = 0.5 * sum_c |p_c - q_c| is the total variation distance, in [0, 1].

    The paper's part is the form E[|f(x) - f(x')| / d(x, x')]; f as probabilities, total variation, d and the pairs
    are our substitute. Quantiles interpolate linearly; of equal largest probabilities the first class is the hard
    label.

    Raises ValueError if probabilities are not (N, C) rows that are non-negative and sum to 1, or a pair names a
    sample >= N.
    """
    _check_probabilities(probabilities_NC)
    num_samples = len(probabilities_NC)
    largest = max((int(index_P.max()) for index_P in (pairs.first_P, pairs.second_P) if len(pairs)), default=-1)
    if largest >= num_samples:
        raise ValueError(f"pairs name sample {largest}, but probabilities has {num_samples} samples")
    if not len(pairs):
        nan = float("nan")
        return IndividualFairness(
            num_pairs=0, num_dropped=pairs.num_dropped, mean=nan, p50=nan, p95=nan, maximum=nan, hard_mean=nan
        )
    ratio_P = total_variation(probabilities_NC, pairs.first_P, pairs.second_P) / pairs.distance_P
    hard_N = probabilities_NC.argmax(axis=1)
    hard_ratio_P = (hard_N[pairs.first_P] != hard_N[pairs.second_P]) / pairs.distance_P
    p50, p95 = np.quantile(ratio_P, [0.5, 0.95])
    return IndividualFairness(
        num_pairs=len(pairs),
        num_dropped=pairs.num_dropped,
        mean=float(ratio_P.mean()),
        p50=float(p50),
        p95=float(p95),
        maximum=float(ratio_P.max()),
        hard_mean=float(hard_ratio_P.mean()),
    )


def _check_features(features_ND: npt.NDArray[np.floating]) -> None:
    if features_ND.ndim != 2 or features_ND.shape[0] < 2 or features_ND.shape[1] < 1:
        raise ValueError(f"features has shape {features_ND.shape}, expected (N, D) with N >= 2 and D >= 1")
    if not np.issubdtype(features_ND.dtype, np.floating):
        raise ValueError(f"features has dtype {features_ND.dtype}, expected floats")
    with np.errstate(invalid="ignore", over="ignore"):
        finite = bool(np.isfinite(features_ND.sum(dtype=np.float64)))
    if not finite:
        raise ValueError("features has a NaN or infinite value")


def _check_probabilities(probabilities_NC: npt.NDArray[np.floating]) -> None:
    if probabilities_NC.ndim != 2:
        raise ValueError(f"probabilities has shape {probabilities_NC.shape}, expected (N, C)")
    sum_N = probabilities_NC.sum(axis=1, dtype=np.float64)
    wrong_N = ~(np.abs(sum_N - 1) <= _PROBABILITY_ROUNDING) | (probabilities_NC < 0).any(axis=1)
    if wrong_N.any():
        n = int(wrong_N.argmax())
        raise ValueError(f"probabilities[{n}] sums to {sum_N[n]}, or is negative: expected a distribution, not logits")
