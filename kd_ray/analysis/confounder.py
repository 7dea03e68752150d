"""Is a difference in equalized odds more than a difference in accuracy? The frontier of both, and a comparison at equal accuracy.

A student that errs less has less room to err unequally. `frontier` says which conditions no other beats on both. `matched_accuracy` fits
EOD = condition + slope · accuracy to all runs (analysis of covariance; the slope is that within conditions, common to all) and compares
the conditions' intercepts. It assumes that the relation is linear, the same in every condition, and of one variance. Where accuracies
hardly overlap these assumptions decide the answer (simulated: 16 to 46 % false findings with a curved relation), so that nothing is
claimed there.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from kd_ray.analysis.conditions import Condition
from kd_ray.analysis.contrast import Options, about, flags, number
from kd_ray.analysis.fairness_comparisons import measure_samples
from kd_ray.analysis.measures import Measured, standing
from kd_ray.analysis.study import CONTRASTS, Study
from kd_ray.metrics.arrays import FloatArray
from kd_ray.results.comparison_schema import Comparison

EOD = "equalized_odds_difference"
MIN_MATCHED_RUNS = 5
"""Runs on a side below which nothing is claimed at equal accuracy."""


def frontier(study: Study, measured: Measured, options: Options) -> list[Comparison]:
    """A row for each feature and condition with its mean accuracy and EOD; the flag `pareto` where no other is better in both."""
    rows = []
    for dataset_id in study.classes:
        conditions = [it for it in study.conditions if it.axes["dataset_id"] == dataset_id]
        for m, measure in enumerate(measured.measures):
            if measure.name != EOD:
                continue
            mean_K2 = np.array([measured.of(it)[:, [0, m]].mean(axis=0) for it in conditions])
            best = pareto(mean_K2[:, 0], mean_K2[:, 1])
            for condition, (accuracy, eod), is_best in zip(conditions, mean_K2, best, strict=True):
                rows.append(
                    Comparison(
                        **{
                            **about(study, condition, options),
                            **measure.columns(),
                            "analysis": "frontier",
                            "n_treatment": condition.n,
                            "mean_treatment": number(eod),
                            "accuracy_treatment": number(accuracy),
                            "flags": ("pareto",) if is_best else (),
                        }
                    )
                )
    return rows


def pareto(accuracy_K: FloatArray, eod_K: FloatArray) -> list[bool]:
    """Which of K conditions no other beats: at least as accurate and at least as low in EOD, and better in one. NaN is never best."""
    found = []
    for accuracy, eod in zip(accuracy_K, eod_K, strict=True):
        as_good_K = (accuracy_K >= accuracy) & (eod_K <= eod)
        better_K = as_good_K & ((accuracy_K > accuracy) | (eod_K < eod))
        found.append(bool(not better_K.any() and np.isfinite(accuracy) and np.isfinite(eod)))
    return found


@dataclass(frozen=True, kw_only=True, eq=False)
class Covariance:
    """EOD of runs against accuracy, one intercept for each of K conditions and one slope."""

    slope: float
    variance: float
    """Of the residuals."""
    df: int
    spread: float
    """Sum of squares of accuracy within conditions."""
    n_K: FloatArray
    accuracy_K: FloatArray
    eod_K: FloatArray

    def difference(self, a: int, b: int) -> tuple[float, float]:
        """EOD of condition b minus condition a at equal accuracy, and its standard error."""
        gap = self.accuracy_K[b] - self.accuracy_K[a]
        effect = self.eod_K[b] - self.eod_K[a] - self.slope * gap
        variance = self.variance * (1 / self.n_K[a] + 1 / self.n_K[b] + gap**2 / self.spread)
        return float(effect), float(np.sqrt(variance))


def fit_covariance(accuracy: list[FloatArray], eod: list[FloatArray]) -> Covariance | None:
    """Least squares; arrays hold the runs of each condition. None without a degree of freedom, or where accuracy does not vary."""
    x = np.concatenate([it - it.mean() for it in accuracy])
    y = np.concatenate([it - it.mean() for it in eod])
    df = len(x) - len(accuracy) - 1
    spread = float(x @ x)
    if df < 1 or spread <= 1e-24 or np.isnan(y).any():
        return None
    slope = float(x @ y) / spread
    residual = y - slope * x
    return Covariance(
        slope=slope,
        variance=float(residual @ residual) / df,
        df=df,
        spread=spread,
        n_K=np.array([len(it) for it in accuracy], dtype=np.float64),
        accuracy_K=np.array([it.mean() for it in accuracy]),
        eod_K=np.array([it.mean() for it in eod]),
    )


def matched_accuracy(
    study: Study, measured: Measured, differences: Sequence[Comparison], options: Options
) -> list[Comparison]:
    """A row for each contrast, feature and distilled condition: the difference in EOD at equal accuracy.

    `differences` are the rows of `fairness`: a claim at equal accuracy needs the plain difference as well.
    """
    plain = {
        (row.contrast, row.condition, row.dataset_id, row.model, row.sensitive_feature): row
        for row in differences
        if row.metric == EOD
    }
    rows = []
    for contrast in CONTRASTS:
        for baseline, treatments in _by_baseline(study, contrast):
            for m, measure in enumerate(measured.measures):
                if measure.name == EOD:
                    for row in _matched(study, measured, m, contrast, baseline, treatments, options):
                        key = (row.contrast, row.condition, row.dataset_id, row.model, row.sensitive_feature)
                        rows.append(_claimable(row, plain.get(key)))
    return rows


def _claimable(row: Comparison, plain: Comparison | None) -> Comparison:
    """Claimed only where the regression hardly has to reach: five runs on each side, accuracies no further apart than the smaller sd, and
    a plain difference of the same sign that is claimable itself."""
    if plain is None or plain.held_back is not None:
        return row.but(held_back=plain.held_back if plain else "not compared")
    if min(row.n_baseline or 0, row.n_treatment or 0) < MIN_MATCHED_RUNS:
        return row.but(held_back=f"fewer than {MIN_MATCHED_RUNS} runs")
    if "apart" in row.flags:
        return row.but(held_back="accuracies differ")
    if row.p is None or plain.p_claim is None or row.effect is None or plain.effect is None:
        return row
    if row.effect * plain.effect <= 0:
        return row.but(p_claim=1.0)
    return row.but(p_claim=max(row.p, plain.p_claim))


def _by_baseline(study: Study, contrast: str) -> list[tuple[Condition, list[Condition]]]:
    found: dict[int, tuple[Condition, list[Condition]]] = {}
    for treatment in study.distilled:
        baseline = study.baseline(contrast, treatment)
        upright = standing(study, treatment)
        below = None if baseline is None else standing(study, baseline)
        if baseline is not None and below is not None and upright is not None:
            found.setdefault(id(baseline), (below, []))[1].append(upright)
    return list(found.values())


def _matched(
    study: Study,
    measured: Measured,
    m: int,
    contrast: str,
    baseline: Condition,
    treatments: list[Condition],
    options: Options,
) -> list[Comparison]:
    values = [measured.of(it) for it in (baseline, *treatments)]
    fit = fit_covariance([it[:, 0] for it in values], [it[:, m] for it in values])
    if fit is None:
        return []
    rows = []
    for b, treatment in enumerate(treatments, start=1):
        effect, se = fit.difference(0, b)
        # One run says nothing of its own spread, and that of others is no substitute across roles.
        t = effect / se if se > 0 and min(baseline.n, treatment.n) > 1 else float("nan")
        half = float(special.stdtrit(fit.df, 1 - options.level / 2)) * se
        gap = abs(fit.accuracy_K[b] - fit.accuracy_K[0])
        sd = [it[:, 0].std(ddof=1) if len(it) > 1 else 0.0 for it in (values[0], values[b])]
        rows.append(
            Comparison(
                **{
                    **about(study, treatment, options),
                    **measured.measures[m].columns(),
                    "analysis": "matched_accuracy",
                    "contrast": contrast,
                    "n_baseline": baseline.n,
                    "n_treatment": treatment.n,
                    "mean_baseline": number(fit.eod_K[0]),
                    "mean_treatment": number(fit.eod_K[b]),
                    "accuracy_baseline": number(fit.accuracy_K[0]),
                    "accuracy_treatment": number(fit.accuracy_K[b]),
                    "effect": effect,
                    "standard_error": number(se),
                    "ci_low": None if np.isnan(t) else effect - half,
                    "ci_high": None if np.isnan(t) else effect + half,
                    "sampling_sd": number(measure_samples(study, measured, (baseline, treatment), [m]).sd_M[0]),
                    "test": "ancova_t",
                    "statistic": number(t),
                    "df": float(fit.df),
                    "p": number(2 * special.stdtr(fit.df, -abs(t))),
                    "smallest_cell": measured.smallest_cell(treatment, m),
                    "flags": (*flags(baseline, treatment), *(["apart"] if gap > min(sd) else [])),
                }
            )
        )
    return rows
