"""How often does a whole report say something that is not so? From drawn predictions to sentences, in one table: `python -m
tests.calibration.whole`.

`before` is what reports of kd_ray 0.1 called found on the same predictions: Benjamini & Hochberg over the classes of one condition, over
the metrics and conditions of one contrast, Welch's p, and 0 where nothing varies. `now` is a report with at least one ESTABLISHED.
"""

import argparse
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from kd_ray.analysis.compare import decided
from kd_ray.analysis.contrast import Options
from kd_ray.analysis.two_groups import benjamini_hochberg
from kd_ray.analysis.verdict_words import make_verdict
from kd_ray.results.comparison_schema import Comparison
from tests.calibration.drawn import Design, draw

CURVED = "EOD at equal accuracy, one poor condition"
"""Accuracies differ here, so only statements about EOD at equal accuracy are false."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """What one report says about a sweep in which nothing differs from scratch."""

    before: bool
    now: bool


def found_before(rows: Sequence[Comparison]) -> bool:
    """Whether a report of kd_ray 0.1 would have contained "Found" about distilled against scratch students, or a trend."""
    families: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for row in rows:
        if row.contrast == "teacher_vs_distilled":
            continue
        # Zero variance on both sides had p = 0 for different means, and 1 for equal ones.
        p = row.p
        if p is None and "zero_variance" in row.flags and row.effect is not None:
            p = 0.0 if abs(row.effect) > 1e-12 else 1.0
        if p is None:
            continue
        if row.analysis == "class_bias":
            families["class_bias", row.condition].append(p)
        elif row.analysis in ("fairness", "matched_accuracy"):
            families[row.analysis,].append(p)
        elif row.analysis == "trend" and row.test == "spearman":
            families["trend", row.contrast or ""].append(max(p, row.p_permutation or 0.0))
    return any((benjamini_hochberg(np.array(p)) < 0.05).any() for p in families.values())


def false_now(rows: Sequence[Comparison]) -> bool:
    """Whether the report calls a difference from scratch, or a trend, established."""
    return any(row.status == "established" and row.contrast != "teacher_vs_distilled" for row in rows)


def only(rows: Sequence[Comparison], analysis: str) -> list[Comparison]:
    """The rows of one analysis; all of them without a name."""
    return [row for row in rows if analysis in ("", row.analysis)]


def said(design: Design, seed: int, analysis: str = "") -> Said:
    """Draw one sweep and make its comparison; with the name of an analysis, only its statements count, because others are true."""
    study = draw(design, seed)
    _, rows, _ = decided(study, Options())
    now = false_now(only(rows, analysis))
    if analysis:
        return Said(before=found_before(only(rows, analysis)), now=now)
    # The sentence follows the row, and nothing else.
    verdict = make_verdict(study, rows, (), (), level=0.05)
    title, sentences = next(part for part in verdict.parts() if part[0] == "ESTABLISHED")
    against = [it for it in sentences if "against the teacher" not in it and it != "Nothing."]
    if bool(against) != now and not any("more; " in it for it in against):
        raise AssertionError(f"{title}: {sentences}")
    return Said(before=found_before(rows), now=now)


def null_cells() -> Iterator[tuple[str, Design]]:
    """Sweeps in which distilled students are as scratch students, as far as a sentence may say so."""
    for temperatures in (1, 3, 10):
        for seeds in (2, 3, 5, 10):
            for classes in (10, 100):
                per_class = 20 if classes == 10 else 5
                yield (
                    f"{temperatures} T, {seeds} seeds, {classes} classes",
                    Design(temperatures=temperatures, seeds=seeds, classes=classes, per_class=per_class),
                )
    for seeds in (3, 5, 10):
        yield f"sd 3 : 1, {seeds} seeds", Design(seeds=seeds, ratio=3.0)
        yield f"sd 1 : 3, {seeds} seeds", Design(seeds=seeds, run_sd=0.45, ratio=1 / 3)
        yield f"runs of a seed alike, {seeds} seeds", Design(seeds=seeds, seed_sd=0.2)
        yield f"a teacher each, tau2/sigma2 0.35, {seeds} seeds", Design(seeds=seeds, teachers=0, teacher_sd=0.09)
        yield f"small cells, {seeds} seeds", Design(seeds=seeds, per_class=12, intersections=True)
        yield (
            f"ties (6 samples per class), {seeds} seeds",
            Design(seeds=seeds, per_class=6, base=2.5, luck=0.1, run_sd=0.05),
        )
        yield (
            f"{CURVED}, {seeds} seeds",
            Design(seeds=seeds, group_gap=0.5, skill={4.0: -0.6}, temperatures=3),
        )
    for teachers in (3, 5):
        yield (
            f"{teachers} teachers crossed, tau2/sigma2 0.35, 5 seeds",
            Design(seeds=5, teachers=teachers, teacher_sd=0.09),
        )


def main() -> None:
    """Print one row for each cell, as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reports", type=int, default=200)
    parser.add_argument("--only", default="")
    asked = parser.parse_args()
    print("| nothing differs | reports | before | now | standard error |\n|---|---|---|---|---|")
    for name, design in null_cells():
        if asked.only not in name:
            continue
        start = time.monotonic()
        analysis = "matched_accuracy" if name.startswith(CURVED) else ""
        found = [said(design, seed, analysis) for seed in range(asked.reports)]
        before, now = (np.mean([getattr(it, which) for it in found]) for which in ("before", "now"))
        error = max(now * (1 - now), 1 / asked.reports) ** 0.5 / asked.reports**0.5
        print(
            f"| {name} | {asked.reports} | {100 * before:.1f} % | {100 * now:.1f} % | {100 * error:.1f} |", flush=True
        )
        print(f"{name}: {(time.monotonic() - start) / asked.reports:.2f} s per report", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
