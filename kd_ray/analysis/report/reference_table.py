"""The paper's values beside ours."""

from collections.abc import Iterable, Sequence
from typing import Any

from kd_ray.analysis.conditions import Condition
from kd_ray.analysis.report.evidence import Evidence
from kd_ray.analysis.report.measured_tables import DPD, EOD
from kd_ray.analysis.report.published import Published
from kd_ray.analysis.report.table import Cell, MeanAndSd, ReportColumn, ReportTable, cell, measured, named, report_table
from kd_ray.analysis.report.teacher_disagreement import TeacherDisagreement
from kd_ray.analysis.study import SCRATCH, TEACHER, Study, spread
from kd_ray.metrics.catalogue import METRICS


def published_table(
    study: Study, evidence: Evidence, published: Published, found: Sequence[TeacherDisagreement]
) -> ReportTable:
    """The paper's values beside ours, condition by condition; only what the paper is known to print."""
    has_settings = len({(it.role, it.temperature) for it in study.conditions}) < len(study.conditions)
    rows: list[tuple[Cell, ...]] = []
    for metric, feature, ours, name, unit in _ours(study, evidence, found):
        for condition in study.conditions:
            value = published.value(metric, condition, feature)
            if value is None:
                continue
            rows.append(
                (
                    name,
                    feature,
                    condition.role,
                    condition.temperature,
                    *([condition.label] if has_settings else []),
                    ours(condition),
                    condition.n,
                    MeanAndSd(mean=value.mean, sd=value.sd),
                    published.seeds,
                    unit,
                    value.where,
                    value.note or None,
                )
            )
    return report_table(
        "beside-the-paper",
        f"Beside the paper: {published.name}",
        f"Mean ± sd over seeds, here and in the paper ({published.paper}). {published.how_read}"
        f"{' The paper prints one value for each T: our conditions of that T stand beside the same one.' if has_settings else ''}",
        [
            *named("metric", "feature", "role"),
            ReportColumn(name="T", digits=0),
            *named(
                *(["condition"] if has_settings else []), "here", "n here", "paper", "n paper", "unit", "where", "note"
            ),
        ],
        rows,
    )


def _ours(study: Study, evidence: Evidence, found: Sequence[TeacherDisagreement]) -> Iterable[Any]:
    """(metric, feature, our value of a condition, name, unit)."""
    rates = {it.condition: it.rates for it in found}
    accuracy_T, individual_T = 100 * study.values("accuracy"), study.values("individual_fairness")
    yield "accuracy", None, lambda c: measured(c, accuracy_T), "accuracy", "%"
    for contrast, metric in ((SCRATCH, "sc"), (TEACHER, "tc")):
        yield metric, None, lambda c, contrast=contrast: _count(evidence, c, contrast), f"#{metric.upper()}", "classes"
    yield "disagreement", None, lambda c: cell(spread(100 * rates[c])) if c in rates else None, "disagreement", "%"
    for fairness in study.fairness:
        for metric in (EOD, DPD):
            values_T = 100 * fairness.metrics[metric]
            yield (
                metric,
                fairness.feature,
                lambda c, values_T=values_T: measured(c, values_T),
                METRICS[metric].short,
                "%",
            )
    yield "individual_fairness", None, lambda c: measured(c, individual_T), "individual fairness", ""


def _count(evidence: Evidence, condition: Condition, contrast: str) -> MeanAndSd | None:
    row = evidence.about(condition, "class_bias_counts", contrast=contrast)
    return None if row is None or row.num_significant is None else MeanAndSd(mean=row.num_significant)
