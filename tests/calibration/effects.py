"""What honesty costs: how often a true difference is named, before and now: `python -m tests.calibration.effects`."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kd_ray.analysis.claim_tests import Declared
from kd_ray.analysis.compare import decided
from kd_ray.analysis.contrast import Options
from kd_ray.analysis.two_groups import benjamini_hochberg
from kd_ray.results.comparison_schema import Comparison
from kd_ray.sweep.claims import Claim
from tests.calibration.drawn import Design, draw

Wanted = Callable[[Comparison], bool]


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A design with one true difference, and the rows that are about it."""

    design: Design
    wanted: Wanted
    claim: Claim
    """The same as a claim that the sweep file declares."""


def _class(row: Comparison) -> bool:
    return row.analysis == "class_bias" and row.class_index == 0 and row.contrast == "scratch_vs_distilled"


def _eod(row: Comparison) -> bool:
    return (
        row.analysis == "fairness"
        and row.metric == "equalized_odds_difference"
        and row.contrast == "scratch_vs_distilled"
    )


def _trend(row: Comparison) -> bool:
    return row.analysis == "trend" and row.test == "spearman" and row.metric == "accuracy"


EFFECTS: dict[str, Effect] = {
    **{
        f"one class, {seeds} seeds": Effect(
            design=Design(seeds=seeds, per_class=100, class_shift=-0.4, run_sd=0.1),
            wanted=_class,
            claim=Claim.model_validate({"metric": "class_accuracy", "class": "class 0", "direction": "lower"}),
        )
        for seeds in (3, 5, 10)
    },
    **{
        f"EOD, {seeds} seeds": Effect(
            design=Design(seeds=seeds, classes=4, per_class=150, groups=2, group_shift=-0.35, run_sd=0.05),
            wanted=_eod,
            claim=Claim(metric="equalized_odds_difference", feature="color", direction="higher"),
        )
        for seeds in (3, 5, 10)
    },
    **{
        f"trend of accuracy, {seeds} seeds": Effect(
            design=Design(seeds=seeds, temperatures=5, trend=0.15, run_sd=0.1),
            wanted=_trend,
            claim=Claim(metric="accuracy", trend="temperature", direction="rises"),
        )
        for seeds in (3, 5, 10)
    },
}


def named_before(rows: Sequence[Comparison], wanted: Wanted) -> bool:
    """Whether a report of kd_ray 0.1 named the difference: q below the level within its family of then."""
    families: dict[tuple[str | None, ...], list[Comparison]] = {}
    for row in rows:
        if row.p is not None and (row.analysis != "trend" or row.test == "spearman"):
            condition = row.condition if row.analysis == "class_bias" else None
            families.setdefault((row.analysis, row.contrast, condition), []).append(row)
    return any(
        q < row.level and wanted(row)
        for family in families.values()
        for row, q in zip(
            family, benjamini_hochberg(np.array([row.p for row in family], dtype=np.float64)), strict=True
        )
    )


def power_of(effect: Effect, reports: int) -> tuple[float, float, float]:
    """Share of the reports that name the difference at any temperature: now, now as a declared claim over all temperatures, and before."""
    now, declared, before = 0, 0, 0
    for seed in range(reports):
        rows = decided(draw(effect.design, seed), Options())[1]
        now += any(row.status == "established" and effect.wanted(row) for row in rows)
        before += named_before(rows, effect.wanted)
        claim = Declared(claim=effect.claim, declared_at="2026-01-01T00:00:00+00:00", num_complete=0)
        declared += decided(draw(effect.design, seed), Options(), declared=[claim])[0][0].status == "established"
    return now / reports, declared / reports, before / reports


def size_of(effect: Effect) -> float:
    """The true difference as a report shows it, in points (a trend: rho), mean over ten sweeps."""
    found = []
    for seed in range(10):
        rows = [row for row in decided(draw(effect.design, 1000 + seed), Options())[1] if effect.wanted(row)]
        found.append(np.mean([row.effect for row in rows if row.effect is not None]))
    return float(np.mean(found)) * (1 if effect.wanted is _trend else 100)


def main() -> None:
    """Print one row for each effect, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, default=100)
    reports = parser.parse_args().reports
    print("| true difference | size | reports | before | now, explored | now, declared |\n|---|---|---|---|---|---|")
    for name, effect in EFFECTS.items():
        now, declared, before = power_of(effect, reports)
        unit = "rho" if effect.wanted is _trend else "points"
        print(
            f"| {name} | {size_of(effect):+.2f} {unit} | {reports} | {100 * before:.0f} % | {100 * now:.0f} % | {100 * declared:.0f} % |",
            flush=True,
        )


if __name__ == "__main__":
    main()
