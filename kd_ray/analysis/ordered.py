"""Does a quantity go up or down with temperature? Spearman, Kendall and Jonckheere–Terpstra over runs.

Runs of one seed at several temperatures share initialisation and data order, so they are not independent, as the p of these tests takes
them to be. `p_exchange` is right all the same: it exchanges temperatures within seeds only.
"""

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
from scipy import special

from kd_ray.metrics.arrays import FloatArray, IntArray
from kd_ray.seeding import stream

EXCHANGES = 9999
"""Random exchanges within seeds, where there are more: the smallest p is 1 / 10,000. All exchanges where they are at most so many."""


@dataclass(frozen=True, kw_only=True)
class Trend:
    """One test of N values against N temperatures."""

    test: str
    effect: float
    """Correlation in [-1, 1]: rho, tau-b, or of Jonckheere–Terpstra (rising - falling) / pairs of different temperatures."""
    low: float
    """Lower end of the interval, taking runs as independent; NaN for Jonckheere–Terpstra and where N is too small."""
    high: float
    statistic: float
    """t of rho, z of the others."""
    p: float
    p_exchange: float
    """Two-sided, from temperatures exchanged within seeds; Spearman's only, NaN for the others."""


def orders_within(seeds_N: IntArray) -> IntArray:
    """Orders of N runs that leave each seed's runs in that seed's places, (W, N): the order as it is first, then all others where these
    are at most `EXCHANGES`, and as many random ones elsewhere. Not to be written to."""
    return _orders_within(tuple(seeds_N.tolist()))


@functools.lru_cache(maxsize=4)
def _orders_within(seeds: tuple[int, ...]) -> IntArray:
    seeds_N = np.array(seeds)
    members = [np.flatnonzero(seeds_N == seed) for seed in np.unique(seeds_N)]
    if math.prod(math.factorial(min(len(it), 20)) for it in members) <= EXCHANGES:
        ways = [list(itertools.permutations(it)) for it in members]
        orders_WN = np.empty((math.prod(map(len, ways)), len(seeds_N)), dtype=np.int64)
        for row_N, chosen in zip(orders_WN, itertools.product(*ways), strict=True):
            for members_K, order_K in zip(members, chosen, strict=True):
                row_N[members_K] = order_K
        return orders_WN
    random = stream(0, "exchanges")
    orders_WN = np.tile(np.arange(len(seeds_N)), (EXCHANGES + 1, 1))
    for members_K in members:
        k = len(members_K)
        keys_WK = random.bit_generator.random_raw(EXCHANGES * k).reshape(EXCHANGES, k)
        orders_WN[1:, members_K] = members_K[np.argsort(keys_WK, axis=1, kind="stable")]
    return orders_WN


def exchange_floor(temperatures_N: FloatArray, seeds_N: IntArray) -> float:
    """The smallest two-sided p that exchanges within seeds can give: 2 / (K!)^S for S seeds at K temperatures each, 1 / 10,000 at the
    least."""
    ways = 1.0
    for seed in np.unique(seeds_N):
        ways *= math.factorial(min(len(np.unique(temperatures_N[seeds_N == seed])), 20))
    return max(min(2.0 / ways, 1.0), 1 / (EXCHANGES + 1))


def rank_exchange(
    temperatures_N: FloatArray, values_N: FloatArray, orders_WN: IntArray, *, sign: float = 0.0
) -> tuple[float, float]:
    """Spearman's rho, and its p when temperatures are exchanged within seeds; (0, 1) where nothing varies or a value is NaN.

    Two-sided; with `sign` 1 or -1 only that direction counts.
    """
    if np.isnan(values_N).any() or np.ptp(values_N) == 0 or np.ptp(temperatures_N) == 0:
        return 0.0, 1.0
    rank_t_N, rank_v_N = (_centred_ranks(it) for it in (temperatures_N, values_N))
    rho_W = rank_t_N[orders_WN] @ rank_v_N
    scale = math.sqrt((rank_t_N @ rank_t_N) * (rank_v_N @ rank_v_N))
    extreme_W = sign * rho_W if sign else np.abs(rho_W)
    return float(rho_W[0] / scale), float((extreme_W >= extreme_W[0] - 1e-9).mean())


def trends(temperatures_N: FloatArray, values_N: FloatArray, orders_WN: IntArray, *, level: float) -> list[Trend]:
    """Spearman's rho, Kendall's tau-b and Jonckheere–Terpstra's test, two-sided; empty where neither varies or a value is NaN.

    `orders_WN` are those of `orders_within`. Intervals: Fisher's z with the standard errors of Bonett & Wright (2000) for rho and Fieller
    et al. (1957) for tau. p as scipy's `spearmanr` and `kendalltau(method="asymptotic")`; Jonckheere–Terpstra's by the normal
    approximation with ties on both sides (Kendall 1970).
    """
    n = len(values_N)
    if n < 4 or np.isnan(values_N).any() or np.ptp(values_N) == 0 or np.ptp(temperatures_N) == 0:
        return []
    sign_t_NN, sign_v_NN = (np.sign(x[:, None] - x[None, :]) for x in (temperatures_N, values_N))
    rank_t_N, rank_v_N = (sign.sum(axis=1) / 2 for sign in (sign_t_NN, sign_v_NN))
    rho = float(rank_t_N @ rank_v_N / math.sqrt((rank_t_N @ rank_t_N) * (rank_v_N @ rank_v_N)))
    score = float((sign_t_NN * sign_v_NN).sum() / 2)
    pairs_t, pairs_v = np.abs(sign_t_NN).sum() / 2, np.abs(sign_v_NN).sum() / 2
    z = score / math.sqrt(_score_variance(temperatures_N, values_N))
    p_z = float(2 * special.ndtr(-abs(z)))
    # Without any freedom left the correlation is ±1, and t infinite.
    t = rho * math.sqrt((n - 2) / max(1 - rho**2, 1e-300))
    p_rho = rank_exchange(temperatures_N, values_N, orders_WN)[1]
    tau = score / math.sqrt(pairs_t * pairs_v)
    rho_se = math.sqrt((1 + rho**2 / 2) / (n - 3))
    tau_se = math.sqrt(0.437 / (n - 4)) if n > 4 else math.nan
    return [
        Trend(
            test="spearman",
            effect=rho,
            **_interval(rho, rho_se, level),
            statistic=t,
            p=float(2 * special.stdtr(n - 2, -abs(t))),
            p_exchange=p_rho,
        ),
        Trend(test="kendall", effect=tau, **_interval(tau, tau_se, level), statistic=z, p=p_z, p_exchange=math.nan),
        Trend(
            test="jonckheere_terpstra",
            effect=float(score / pairs_t),
            low=math.nan,
            high=math.nan,
            statistic=z,
            p=p_z,
            p_exchange=math.nan,
        ),
    ]


def _centred_ranks(values_N: FloatArray) -> FloatArray:
    """Ranks minus their mean; equal values share the mean of their ranks."""
    ordered = np.sort(values_N)
    below, upto = (np.searchsorted(ordered, values_N, side=side) for side in ("left", "right"))
    return (below + upto - len(values_N)) / 2


def _score_variance(x_N: FloatArray, y_N: FloatArray) -> float:
    """Variance of the number of concordant minus discordant pairs when all orders are equally likely, with ties on both sides."""
    n = len(x_N)
    x_K, y_K = (np.unique(it, return_counts=True)[1].astype(np.float64) for it in (x_N, y_N))

    def fives(k: FloatArray) -> float:
        return float((k * (k - 1) * (2 * k + 5)).sum())

    def threes(k: FloatArray) -> float:
        return float((k * (k - 1) * (k - 2)).sum())

    def twos(k: FloatArray) -> float:
        return float((k * (k - 1)).sum())

    return (
        (n * (n - 1) * (2 * n + 5) - fives(x_K) - fives(y_K)) / 18
        + threes(x_K) * threes(y_K) / (9 * n * (n - 1) * (n - 2))
        + twos(x_K) * twos(y_K) / (2 * n * (n - 1))
    )


def _interval(correlation: float, se: float, level: float) -> dict[str, float]:
    """Ends of the interval by Fisher's z."""
    if math.isnan(se) or abs(correlation) >= 1 - 1e-12:
        return {"low": math.nan, "high": math.nan}
    half = float(special.ndtri(1 - level / 2)) * se
    return {"low": math.tanh(math.atanh(correlation) - half), "high": math.tanh(math.atanh(correlation) + half)}
