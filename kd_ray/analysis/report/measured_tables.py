"""Tables of what was measured: every condition with its runs, its fairness, and what it took."""

from collections.abc import Sequence

import numpy as np

from kd_ray.analysis.report.evidence import Evidence
from kd_ray.analysis.report.table import (
    Cell,
    ReportColumn,
    ReportTable,
    cell,
    measured,
    metric_column,
    named,
    percent,
    report_table,
)
from kd_ray.analysis.report.teacher_disagreement import TeacherDisagreement
from kd_ray.analysis.study import Study, spread
from kd_ray.metrics.catalogue import METRICS

EOD, DPD, WORST_GROUP = "equalized_odds_difference", "demographic_parity_difference", "worst_group_accuracy"
LABEL_DPD = "label_demographic_parity_difference"
OF_GROUPS = (EOD, DPD, WORST_GROUP)
CHANCE = (
    "Chance level: the mean of the metric when groups are dealt anew within each true class, so that they have nothing to do "
    "with errors"
)
_RUNS = "Mean ± sd over runs (seeds), ddof = 1"
_OF_TRIAL = ("accuracy", "worst_class_accuracy", "expected_calibration_error")
_INDIVIDUAL = ("individual_fairness", "individual_fairness_hard", "individual_fairness_calibrated")


def overview_table(study: Study, evidence: Evidence) -> ReportTable:
    """The first table: accuracy of every condition, and EOD and DPD of the first sensitive feature beside their chance levels."""
    fairness = study.fairness[0] if study.fairness else None
    columns = [ReportColumn(name="condition"), ReportColumn(name="n"), metric_column("accuracy")]
    if fairness:
        for name in (EOD, DPD):
            columns += [metric_column(name), ReportColumn(name=f"chance {METRICS[name].short}", unit="%")]
    accuracy_T = study.values("accuracy")
    rows = []
    for condition in study.conditions:
        cells: list[Cell] = [condition.label, condition.n, measured(condition, 100 * accuracy_T)]
        if fairness:
            for name in (EOD, DPD):
                chance = evidence.chance(condition, name, fairness.feature)[0]
                cells += [measured(condition, 100 * fairness.metrics[name]), cell(100 * chance)]
        rows.append(tuple(cells))
    groups = f" EOD and DPD are for {fairness.feature}; chance: their chance levels, see Figure 1." if fairness else ""
    return report_table("overview", "The conditions", f"{_RUNS}.{groups}", columns, rows)


def condition_table(study: Study) -> ReportTable:
    """Every condition with what concerns the whole trial."""
    rows = [
        (
            condition.role,
            condition.label,
            condition.n,
            *(measured(condition, 100 * study.values(name)) for name in (*_OF_TRIAL, "mean_confidence")),
            *(measured(condition, study.values(name)) for name in _INDIVIDUAL),
        )
        for condition in study.conditions
    ]
    return report_table(
        "conditions",
        "Conditions",
        f"{_RUNS}. ECE is the expected calibration error. Mean confidence is the mean probability of the predicted class. "
        "Individual fairness (Table 4 of Mohammadshahi & Ioannou 2025) is the mean change of the prediction per unit of distance between "
        "two samples; it follows confidence, and a perfect and certain classifier scores about 0.9 to 1 with ten equal classes, less with "
        "fewer.",
        [
            *named("role", "condition", "n"),
            *map(metric_column, _OF_TRIAL),
            ReportColumn(name="mean confidence", unit="%"),
            *map(metric_column, _INDIVIDUAL),
        ],
        rows,
    )


def fairness_table(study: Study, evidence: Evidence) -> ReportTable:
    """Every condition and sensitive feature, each metric beside its chance level."""
    rows: list[tuple[Cell, ...]] = []
    for fairness in study.fairness:
        for condition in study.conditions:
            cells: list[Cell] = [fairness.feature, condition.role, condition.label, condition.n]
            for name in OF_GROUPS:
                chance = evidence.chance(condition, name, fairness.feature)[0]
                cells += [measured(condition, 100 * fairness.metrics[name]), cell(100 * chance)]
            label = spread(fairness.metrics[LABEL_DPD][condition.trials]).mean
            rows.append((*cells, cell(100 * label)))
    return report_table(
        "group-fairness",
        "Fairness between groups",
        f"{_RUNS}; one-vs-rest mean over classes, 0 is parity. {CHANCE}. {METRICS[LABEL_DPD].short}: what the true labels have.",
        [
            *named("feature", "role", "condition", "n"),
            *(
                column
                for name in OF_GROUPS
                for column in (metric_column(name), ReportColumn(name=f"chance {METRICS[name].short}", unit="%"))
            ),
            metric_column(LABEL_DPD),
        ],
        rows,
    )


def small_group_table(evidence: Evidence) -> ReportTable:
    """What noise adds to the metrics of groups, and what is left without it."""
    rows = [
        (
            row.sensitive_feature,
            row.condition,
            METRICS[row.metric].short,
            *(
                percent(value)
                for value in (
                    row.mean_treatment,
                    row.chance_level,
                    row.chance_sd,
                    row.sampling_bias,
                    row.bias_corrected,
                    row.shrunken,
                    row.sampling_sd,
                )
            ),
            row.smallest_cell,
        )
        for row in evidence.of("condition")
        if row.metric in OF_GROUPS and row.sensitive_feature is not None
    ]
    return report_table(
        "small-groups",
        "What small groups add",
        f"A largest minus a smallest rate is above 0 by noise alone. {CHANCE}; sd is that of one such deal. Sampling bias: how far "
        "resampled test samples move the metric (bootstrap). Corrected: without that bias. Shrunken: from rates drawn to their mean by "
        "what noise explains (Herlihy et al. 2024). Smallest group: test samples of the smallest group, for EOD within a class.",
        [
            *named("feature", "condition", "metric"),
            *named("mean", "chance level", "sd of chance", unit="%"),
            ReportColumn(name="sampling bias", unit="points"),
            *named("corrected", "shrunken", unit="%"),
            ReportColumn(name="sampling sd", unit="points"),
            ReportColumn(name="smallest group"),
        ],
        rows,
    )


def disagreement_table(found: Sequence[TeacherDisagreement]) -> ReportTable:
    """Share of test samples on which students and teachers differ."""
    rows = [(it.condition.role, it.condition.label, it.n, cell(spread(100 * it.rates)), it.num_test) for it in found]
    return report_table(
        "disagreement",
        "Disagreement with the teacher",
        "Share of test samples on which a student and its teacher predict different classes; mean ± sd over pairs.",
        [
            *named("role", "condition", "pairs"),
            ReportColumn(name="disagreement", unit="%"),
            ReportColumn(name="test samples"),
        ],
        rows,
    )


def cost_table(study: Study) -> ReportTable:
    """What the trials of each condition took."""
    elapsed_T = study.values("elapsed_s")
    parameters_T, epochs_T = study.values("num_parameters"), study.values("epochs")
    rows = [
        (
            condition.role,
            condition.label,
            len(condition.trials),
            int(parameters_T[condition.trials[0]]),
            int(epochs_T[condition.trials[0]]),
            cell(spread(elapsed_T[condition.trials])),
            float(np.nansum(elapsed_T[condition.trials])),
            ", ".join(sorted(condition.devices)),
        )
        for condition in study.conditions
    ]
    return report_table(
        "cost",
        "What the trials took",
        "Training time per trial, mean ± sd over trials, and in all; in a pack, a trial's time is its share.",
        [
            *named("role", "condition", "trials", "parameters", "epochs"),
            ReportColumn(name="per trial", unit="s", digits=1),
            ReportColumn(name="in all", unit="s", digits=0),
            ReportColumn(name="device"),
        ],
        rows,
    )
