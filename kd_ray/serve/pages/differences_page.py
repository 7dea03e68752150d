"""Which differences are real: the sentences of the verdict first, then what was tested, and the command to copy."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from kd_ray.analysis.report.table import p_value
from kd_ray.analysis.report.tested_tables import STATUS
from kd_ray.analysis.row_words import BASELINE, from_to
from kd_ray.metrics.catalogue import METRICS
from kd_ray.results.comparison_schema import Comparison
from kd_ray.serve.csv_text import csv_text
from kd_ray.serve.findings import Findings
from kd_ray.serve.page_data import Read

ANALYSES = {
    "fairness": "fairness",
    "class_bias": "classes",
    "trend": "trends over temperature",
    "matched_accuracy": "fairness at equal accuracy",
}
"""What is tested, by the name of the analysis."""
CORRECTIONS: Mapping[str, str] = {
    "report": "over the whole report",
    "bh": "within the question (Benjamini & Hochberg)",
    "holm": "within the question (Holm)",
    "none": "none",
}
"""The switch. `report` is what ESTABLISHED means; the others are for readers who know what they ask for."""
MAX_ROWS = 300
"""Rows on the page; the CSV has all."""
_CONTRASTS = {**BASELINE, "temperature_low": "trend, low temperatures", "temperature_high": "trend, high temperatures"}
_RANKS = ("spearman", "kendall", "jonckheere_terpstra")
_SORTS: Mapping[str, Callable[["Tested"], Any]] = {
    # After correction many are equal.
    "p": lambda it: None if it.p is None else (it.p, it.alone or 0.0),
    "effect": lambda it: abs(it.effect) if it.effect is not None else None,
    "what": lambda it: it.what,
    "condition": lambda it: it.condition,
}


@dataclass(frozen=True, kw_only=True)
class Tested:
    """One test, with numbers as they are shown."""

    analysis: str
    against: str
    what: str
    """Metric, with its feature or class."""
    condition: str
    before: float | None
    """Of a class its own accuracy, else the mean, of the baseline; None for trends."""
    after: float | None
    """The same of the treatment."""
    effect: float | None
    low: float | None
    high: float | None
    unit: str
    """`points`, or nothing."""
    digits: int
    p: float | None
    """Under the chosen correction."""
    alone: float | None
    """Before any."""
    holds: bool
    """Whether it is found under the chosen correction."""
    status: str
    """What the report says of it."""
    held_back: str
    n: str


def view(
    read: Read, found: Findings, *, analysis: str, against: str, correction: str, only: str, sort: str, is_down: bool
) -> Mapping[str, Any]:
    """What the page shows."""
    correction = correction if correction in CORRECTIONS else "report"
    rows = tested(found.rows, analysis=analysis, against=against, correction=correction)
    level = found.evidence.level
    shown = [row for row in rows if row.holds] if only == "holds" else rows
    sort = sort if sort in _SORTS else "p"
    key = _SORTS[sort]
    known = sorted((row for row in shown if key(row) is not None), key=key, reverse=is_down)
    shown = known + [row for row in shown if key(row) is None]
    num_tested = sum(row.p is not None for row in rows)
    return {
        "verdict": found.verdict.parts() if found.verdict else (),
        "why_not": found.why_not,
        "is_stored": found.is_stored,
        "rows": shown[:MAX_ROWS],
        "num_rows": len(shown),
        "num_tested": num_tested,
        "num_holds": sum(row.holds for row in rows),
        "by_chance": num_tested * level if correction == "none" else None,
        "level": level,
        "is_ratio": found.evidence.is_ratio,
        "analyses": ANALYSES,
        "contrasts": {name: _CONTRASTS[name] for name in _contrasts(found.rows)},
        "corrections": CORRECTIONS,
        "analysis": analysis,
        "against": against,
        "correction": correction,
        "only": only,
        "sort": sort,
        "is_down": is_down,
        "p_value": p_value,
        "sweep": read.study.sweep,
    }


def tested(rows: Sequence[Comparison], *, analysis: str, against: str, correction: str) -> list[Tested]:
    """The tests of an analysis (or all) against a baseline (or all)."""
    return [
        _tested(row, correction)
        for row in rows
        if row.analysis in ANALYSES
        and analysis in ("", row.analysis)
        and against in ("", row.contrast)
        # Kendall's and Jonckheere–Terpstra's tests describe the trend that Spearman's row decides.
        and row.test not in _RANKS[1:]
    ]


def to_csv(found: Findings, *, analysis: str, against: str, correction: str) -> str:
    """All tests, with all digits."""
    names = (
        "analysis",
        "against",
        "what",
        "condition",
        "before",
        "after",
        "effect",
        "low",
        "high",
        "unit",
        "p",
        "holds",
        "status",
        "held_back",
        "n",
    )
    rows = tested(found.rows, analysis=analysis, against=against, correction=correction)
    return csv_text(names, ([getattr(row, name) for name in names] for row in rows))


def _contrasts(rows: Sequence[Comparison]) -> list[str]:
    return list(dict.fromkeys(row.contrast for row in rows if row.analysis in ANALYSES and row.contrast in _CONTRASTS))


def _tested(row: Comparison, correction: str) -> Tested:
    is_rank = row.test in _RANKS
    metric = METRICS.get(row.metric)
    # The effect on a class is in points of accuracy, whatever it is divided by.
    is_points = not is_rank and (row.metric == "relative_accuracy" or (metric is not None and metric.unit == "rate"))
    scale = 100.0 if is_points else 1.0
    ends = (row.ci_total_low, row.ci_total_high) if row.ci_total_low is not None else (row.ci_low, row.ci_high)
    effect, low, high = (None if it is None else scale * it for it in (row.effect, *ends))
    before, after = (None if it is None else scale * it for it in ((None, None) if is_rank else from_to(row)))
    p = {"report": row.q, "bh": row.q, "holm": row.p_holm, "none": row.p_claim}[correction]
    name = (
        "class accuracy, relative"
        if row.metric == "relative_accuracy"
        else metric.short
        if metric
        else row.metric.replace("_", " ")
    )
    about = row.class_name if row.class_name is not None else row.sensitive_feature
    is_below = p is not None and p < row.level and row.held_back is None
    return Tested(
        analysis=ANALYSES[row.analysis],
        against=_CONTRASTS.get(row.contrast or "", (row.contrast or "").replace("_", " ")),
        what=name if about is None else f"{name}, {about}",
        condition=row.condition,
        before=before,
        after=after,
        effect=effect,
        low=low,
        high=high,
        unit="points" if is_points else "",
        digits=2 if is_points else 3,
        p=p,
        alone=row.p_claim,
        holds=row.status == "established" if correction == "report" else is_below,
        status=STATUS.get(row.status or "", row.status or ""),
        held_back=(row.held_back or "").replace("_", " "),
        n=f"{row.n_baseline} : {row.n_treatment}" if row.n_baseline and row.n_treatment else "",
    )
