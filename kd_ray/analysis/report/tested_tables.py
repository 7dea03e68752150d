"""Tables of what was tested: counts of classes, single classes, differences in fairness, trends, and declared claims."""

import numpy as np

from kd_ray.analysis.report.evidence import Evidence, shared_baseline
from kd_ray.analysis.report.table import Cell, ReportColumn, ReportTable, cell, measured, named, percent, report_table
from kd_ray.analysis.row_words import BASELINE
from kd_ray.analysis.study import CONTRASTS, SCRATCH, Study
from kd_ray.metrics.catalogue import METRICS
from kd_ray.results.comparison_schema import Comparison

_SCALED = (
    *("effect", "ci_total_low", "ci_total_high", "ci_low", "ci_high", "mean_baseline", "mean_treatment"),
    *("chance_baseline", "chance_level", "label_difference", "sampling_sd", "smallest_detectable"),
)
STATUS = {
    "established": "established",
    "hint": "hint",
    "held_back": "held back",
    "none": "none",
    "not_tested": "not tested",
}
"""Words for the statuses of a row; `none`: nothing was found."""
_CONTRASTS = {
    **{contrast: f"against {baseline}" for contrast, baseline in BASELINE.items()},
    "temperature_low": "low temperatures",
    "temperature_high": "high temperatures",
}


def count_table(evidence: Evidence) -> ReportTable:
    """#SC and #TC of every condition."""
    rows = [
        (
            BASELINE.get(row.contrast or "", row.contrast),
            row.condition,
            row.n_baseline,
            row.n_treatment,
            row.num_tests,
            row.num_significant,
            row.expected_significant,
            row.usual_significant,
            row.num_established,
            _possible(percent(row.smallest_detectable)),
        )
        for row in evidence.of("class_bias_counts")
    ]
    return report_table(
        "class-counts",
        "How many classes differ",
        f"Classes whose {evidence.relative} differs from the baseline's. As published: p < {evidence.level:g}, uncorrected (#SC "
        "against scratch, #TC against the teacher). By chance: what that count is on average if no class differs and runs of one "
        "seed are no more alike than others, else less. Seldom more than: what "
        f"{_coverage(evidence)} of the ways to exchange the runs do not exceed; among many conditions, some do by chance. "
        "Established: after correction over the whole report. "
        "The last column is the true difference in one class that these runs establish with "
        "probability 0.8; empty where not even 100 points would do.",
        [
            *named("baseline", "condition", "n baseline", "n distilled", "classes", "as published"),
            ReportColumn(name="by chance", digits=1),
            *named("seldom more than", "established"),
            ReportColumn(name="smallest detectable", unit="points", digits=1),
        ],
        rows,
    )


def class_table(study: Study, evidence: Evidence) -> ReportTable:
    """One row per class: its accuracies, and the distilled condition that differs most clearly from scratch."""
    scratch, teacher = (study.of_role(role)[:1] for role in ("scratch", "teacher"))
    distilled = [(condition, evidence.bias(SCRATCH, condition)) for condition in study.distilled]
    tested = [(condition, bias) for condition, bias in distilled if bias is not None]
    rows: list[tuple[Cell, ...]] = []
    for place, name in enumerate(study.class_names):
        accuracy_T = 100 * study.class_accuracy_TC[:, place]
        cells: list[Cell] = [name, int(study.class_n_C[place])]
        cells += [measured(of_role[0], accuracy_T) if of_role else None for of_role in (teacher, scratch)]
        clearest = min(
            tested, key=lambda pair: (_or_last(pair[1].p_C[place]), -abs(pair[1].effect_C[place])), default=None
        )
        if clearest is None:
            cells += [None] * 8
        else:
            condition, bias = clearest
            cells += [
                sum(bool(it.p_C[place] < it.level) for _, it in tested),
                sum(it.mark(place) == "established" for _, it in tested),
                condition.label,
                measured(condition, accuracy_T),
                *(cell(100 * them_C[place]) for them_C in (bias.effect_C, bias.ci_total_low_C, bias.ci_total_high_C)),
                cell(bias.q_C[place]),
            ]
        rows.append(tuple(cells))
    return report_table(
        "classes",
        "Classes",
        "Accuracy per class, and the condition in which it differs most clearly (smallest p) from scratch: effect in points of "
        f"normalised accuracy with its {_coverage(evidence)} interval over runs, teachers and test samples, not corrected for having "
        f"been chosen; q over all classes and conditions. Counts are of {len(tested)} conditions. {shared_baseline(study)}".rstrip(),
        [
            *named("class", "test samples"),
            *named("teacher", "scratch", unit="%"),
            *named("conditions with Welch's p below level", "established", "clearest in"),
            ReportColumn(name="distilled", unit="%"),
            *named("effect", "from", "to", unit="points"),
            ReportColumn(name="q", digits=3, is_p=True),
        ],
        rows,
    )


def class_effect_table(study: Study, evidence: Evidence) -> ReportTable:
    """Every test of a class; long, and for the CSV file."""
    rows: list[tuple[Cell, ...]] = []
    for contrast in CONTRASTS:
        for condition in study.distilled:
            bias = evidence.bias(contrast, condition)
            if bias is None:
                continue
            columns = (
                *(100 * bias.effect_C, 100 * bias.ci_low_C, 100 * bias.ci_high_C),
                *(100 * bias.ci_total_low_C, 100 * bias.ci_total_high_C, bias.p_C, bias.p_claim_C, bias.q_C),
            )
            rows += [
                (BASELINE[contrast], condition.label, name, *map(cell, values), STATUS.get(status, status))
                for name, status, *values in zip(
                    study.class_names, bias.status, *(column.tolist() for column in columns), strict=True
                )
            ]
    return report_table(
        "class-effects",
        "Effects on classes",
        "Every class in every condition against each baseline; intervals over runs, and over runs, teachers and test samples.",
        [
            *named("baseline", "condition", "class"),
            *named("effect", "from, over runs", "to, over runs", "from", "to", unit="points"),
            *named("p over runs", "p", "q", digits=3, is_p=True),
            ReportColumn(name="status"),
        ],
        rows,
    )


def test_table(evidence: Evidence, analysis: str, name: str, title: str, caption: str) -> ReportTable:
    """The rows of an analysis, as they were tested."""
    rows: list[tuple[Cell, ...]] = []
    for row in evidence.of(analysis):
        value = _scaled(row)
        rows.append(
            (
                _CONTRASTS.get(row.contrast or "", (row.contrast or "").replace("_", " ")),
                METRICS[row.metric].short if row.metric in METRICS else row.metric.replace("_", " "),
                row.sensitive_feature,
                row.condition,
                row.test,
                STATUS.get(row.status or "", row.status),
                row.held_back,
                *(value[it] for it in ("effect", "ci_total_low", "ci_total_high", "ci_low", "ci_high")),
                *(row.p_claim, row.q, row.p_family, row.p, row.p_paired, row.p_permutation, row.p_permutation_floor),
                *(row.n_baseline, row.n_treatment),
                *(value[it] for it in ("mean_baseline", "chance_baseline", "mean_treatment", "chance_level")),
                *(value[it] for it in ("label_difference", "sampling_sd", "smallest_detectable")),
                row.smallest_cell,
                row.scope,
                ", ".join(row.flags) or None,
            )
        )
    columns = [
        *named("contrast", "metric", "feature", "condition", "test", "status", "held back"),
        *named("effect", "from", "to", "from, over runs", "to, over runs", digits=3),
        *named("p", "q", "p of the family", "p over runs", "paired by seed", digits=3, is_p=True),
        *named("p by exchange", "smallest p possible", digits=3, is_p=True),
        *named("n baseline", "n"),
        *named("baseline", "chance baseline", "treatment", "chance", digits=3),
        *named("label DPD", "sampling sd", "smallest detectable", digits=3),
        *named("smallest group", "scope", "flags"),
    ]
    return report_table(name, title, caption, columns, rows)


def claim_table(evidence: Evidence) -> ReportTable:
    """What became of every claim that the sweep file declares."""
    rows: list[tuple[Cell, ...]] = []
    for row in evidence.of("claim"):
        value = _scaled(row)
        ends = ("ci_total_low", "ci_total_high") if row.ci_total_low is not None else ("ci_low", "ci_high")
        status = STATUS["established"] if row.status == "established" else "not established"
        rows.append(
            (
                row.claim,
                "not tested" if row.p_claim is None else status,
                row.held_back,
                *(value[it] for it in ("effect", *ends)),
                *(row.p_claim, row.p_holm, row.n_baseline, row.n_treatment, row.scope),
            )
        )
    return report_table(
        "claims",
        "Declared claims",
        "Claims that the sweep file declares, tested before everything else, by Holm over all of them; effects on rates in points.",
        [
            *named("claim", "status", "held back"),
            *named("effect", "from", "to", digits=3),
            *named("p", "p after Holm", digits=3, is_p=True),
            *named("n baseline", "n", "scope"),
        ],
        rows,
    )


def _scaled(row: Comparison) -> dict[str, float | None]:
    """The values of a row as they are shown: rates in percent, correlations and ratios as they are."""
    is_correlation = row.test in ("spearman", "kendall", "jonckheere_terpstra")
    scale = METRICS[row.metric].scale if row.metric in METRICS and not is_correlation else 1.0
    if row.metric == "relative_accuracy":
        # The effect on a class is in points of accuracy, whatever it is divided by.
        scale = 100.0
    values = {name: getattr(row, name) for name in _SCALED}
    scaled = {name: None if value is None else scale * value for name, value in values.items()}
    if scale == 100.0:
        scaled["smallest_detectable"] = _possible(scaled["smallest_detectable"])
    return scaled


def _possible(points: float | None) -> float | None:
    """A difference in points; None if rates cannot differ by that much."""
    return None if points is None or points > 100 else points


def _coverage(evidence: Evidence) -> str:
    return f"{100 * (1 - evidence.level):g} %"


def _or_last(value: float) -> float:
    return np.inf if np.isnan(value) else value
