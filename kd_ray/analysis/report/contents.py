"""The tables of a report."""

from collections.abc import Sequence

import numpy as np

from kd_ray.analysis.report.disagreement import Disagreement
from kd_ray.analysis.report.evidence import SCRATCH, TEACHER, Evidence, Row
from kd_ray.analysis.report.findings import BASELINE, IN_PERCENT, short
from kd_ray.analysis.report.study import Condition, FloatArray, Study
from kd_ray.analysis.report.table import Cell, Column, Measured, ReportTable, percent, without_empty_columns

_SCALED = (
    *("effect", "ci_low", "ci_high", "mean_baseline", "mean_treatment", "label_difference"),
    *("sampling_sd", "smallest_detectable"),
)
_RUNS = "Mean ± sd over runs (seeds), ddof = 1"


def condition_table(study: Study) -> ReportTable:
    """Every condition with what concerns the whole trial."""
    names = ("accuracy", "worst_class_accuracy", "expected_calibration_error")
    rows = [
        (
            condition.role,
            condition.label,
            condition.n,
            *(measured(condition, 100 * study.values(name)) for name in names),
            measured(condition, study.values("individual_fairness")),
            measured(condition, study.values("individual_fairness_hard")),
        )
        for condition in study.conditions
    ]
    return report_table(
        "conditions",
        "Conditions",
        f"{_RUNS}. Individual fairness (Table 4 of the paper): mean change of the prediction per unit of distance, 0 "
        "is fair.",
        [
            Column(name="role"),
            Column(name="condition"),
            Column(name="n"),
            Column(name="accuracy", unit="%"),
            Column(name="worst class", unit="%"),
            Column(name="calibration error", unit="%"),
            Column(name="individual fairness", digits=4),
            Column(name="on labels", digits=4),
        ],
        rows,
    )


def fairness_table(study: Study) -> ReportTable:
    """Every condition and sensitive feature."""
    rows = [
        (
            fairness.feature,
            condition.role,
            condition.label,
            condition.n,
            *(
                measured(condition, 100 * fairness.metrics[name])
                for name in ("equalized_odds_difference", "demographic_parity_difference", "worst_group_accuracy")
            ),
            _number(100 * float(np.nanmean(fairness.metrics["label_demographic_parity_difference"][condition.trials]))),
        )
        for fairness in study.fairness
        for condition in study.conditions
    ]
    return report_table(
        "group-fairness",
        "Fairness between groups",
        f"{_RUNS}; one-vs-rest mean over classes, 0 is parity. Label DPD is what the true labels have.",
        [
            Column(name="feature"),
            Column(name="role"),
            Column(name="condition"),
            Column(name="n"),
            Column(name="EOD", unit="%"),
            Column(name="DPD", unit="%"),
            Column(name="worst group accuracy", unit="%"),
            Column(name="label DPD", unit="%"),
        ],
        rows,
    )


def count_table(evidence: Evidence) -> ReportTable:
    """#SC and #TC of every condition."""
    rows = [
        (
            BASELINE.get(row["contrast"], row["contrast"]),
            row["condition"],
            row["n_baseline"],
            row["n_treatment"],
            row["num_tests"],
            row["num_significant"],
            row["expected_significant"],
            row["num_significant_bh"],
            row["num_significant_holm"],
            row["num_significant_paired"],
            percent(row["smallest_detectable"]),
        )
        for row in evidence.of("class_bias_counts")
    ]
    return report_table(
        "class-counts",
        "How many classes differ",
        f"Classes whose accuracy ÷ overall accuracy differs from the baseline's, at level {evidence.level:g}: "
        "uncorrected (#SC against scratch, #TC against the teacher, as published), expected uncorrected if none "
        "differed, and after correction over the classes of the condition. Paired compares the same seeds, after "
        "Benjamini & Hochberg. The last column is the difference that is found with probability 0.8 after Holm.",
        [
            Column(name="baseline"),
            Column(name="condition"),
            Column(name="n baseline"),
            Column(name="n distilled"),
            Column(name="classes"),
            Column(name="uncorrected"),
            Column(name="expected", digits=1),
            Column(name="BH"),
            Column(name="Holm"),
            Column(name="paired, BH"),
            Column(name="smallest detectable", unit="points", digits=1),
        ],
        rows,
    )


def class_table(study: Study, evidence: Evidence) -> ReportTable:
    """One row per class: its accuracies, and the distilled condition that differs most clearly from scratch."""
    scratch, teacher = (study.of_role(role)[:1] for role in ("scratch", "teacher"))
    distilled = [(condition, evidence.bias(SCRATCH, condition)) for condition in study.of_role("distilled")]
    tested = [(condition, bias) for condition, bias in distilled if bias is not None]
    rows: list[tuple[Cell, ...]] = []
    for place, name in enumerate(study.class_names):
        cells: list[Cell] = [name, int(study.class_n_C[place])]
        cells += [measured(c[0], 100 * study.class_accuracy_RC[:, place]) if c else None for c in (teacher, scratch)]
        clearest = min(
            tested, key=lambda pair: (_or_last(pair[1].p_C[place]), -abs(pair[1].effect_C[place])), default=None
        )
        if clearest is None:
            cells += [None] * 8
        else:
            condition, bias = clearest
            counts = [
                sum(b.marks(place) in kinds for _, b in tested) for kinds in (("raw", "bh", "holm"), ("bh", "holm"))
            ]
            cells += [
                *counts,
                condition.label,
                measured(condition, 100 * study.class_accuracy_RC[:, place]),
                *(_number(100 * values[place]) for values in (bias.effect_C, bias.ci_low_C, bias.ci_high_C)),
                _number(bias.q_C[place]),
            ]
        rows.append(tuple(cells))
    return report_table(
        "classes",
        "Classes",
        "Accuracy per class, and the condition in which it differs most clearly (smallest p) from scratch: effect "
        f"in points of normalised accuracy with its {_coverage(evidence)} interval, not corrected for having been "
        "chosen; q after Benjamini & Hochberg over the classes of that condition. Counts of conditions, of "
        f"{len(tested)}, with p and with q below {evidence.level:g}.",
        [
            Column(name="class"),
            Column(name="test samples"),
            Column(name="teacher", unit="%"),
            Column(name="scratch", unit="%"),
            Column(name="conditions with p below level"),
            Column(name="with q below level"),
            Column(name="clearest in"),
            Column(name="distilled", unit="%"),
            Column(name="effect", unit="points"),
            Column(name="from", unit="points"),
            Column(name="to", unit="points"),
            Column(name="q", digits=3, is_p=True),
        ],
        rows,
    )


def class_effect_table(study: Study, evidence: Evidence) -> ReportTable:
    """Every test of a class; long, and for the CSV file."""
    rows: list[tuple[Cell, ...]] = []
    for contrast in (SCRATCH, TEACHER):
        for condition in study.of_role("distilled"):
            bias = evidence.bias(contrast, condition)
            if bias is None:
                continue
            columns = [
                100 * bias.effect_C,
                100 * bias.ci_low_C,
                100 * bias.ci_high_C,
                bias.p_C,
                bias.q_C,
                bias.p_holm_C,
            ]
            rows += [
                (BASELINE[contrast], condition.label, name, *map(_number, values))
                for name, *values in zip(study.class_names, *(column.tolist() for column in columns), strict=True)
            ]
    return report_table(
        "class-effects",
        "Effects on classes",
        "Every class in every condition against each baseline.",
        [
            Column(name="baseline"),
            Column(name="condition"),
            Column(name="class"),
            Column(name="effect", unit="points"),
            Column(name="from", unit="points"),
            Column(name="to", unit="points"),
            Column(name="p", digits=3, is_p=True),
            Column(name="q", digits=3, is_p=True),
            Column(name="p after Holm", digits=3, is_p=True),
        ],
        rows,
    )


def test_table(evidence: Evidence, analysis: str, name: str, title: str, caption: str) -> ReportTable:
    """The rows of an analysis, as they were tested."""
    rows = []
    for row in evidence.of(analysis):
        scale = 100.0 if row["metric"] in IN_PERCENT and analysis != "trend" else 1.0
        scaled = {name: None if row[name] is None else scale * row[name] for name in _SCALED}
        rows.append(
            (
                _contrast(row),
                short(row["metric"]),
                row["sensitive_feature"],
                row["condition"],
                *(scaled[name] for name in ("effect", "ci_low", "ci_high")),
                *(row[name] for name in ("p", "q", "p_holm", "p_permutation", "n_baseline", "n_treatment")),
                *(scaled[name] for name in ("mean_baseline", "mean_treatment", "label_difference")),
                *(scaled[name] for name in ("sampling_sd", "smallest_detectable")),
                row["test"],
                ", ".join(row["flags"] or ()) or None,
            )
        )
    return report_table(
        name,
        title,
        caption,
        [
            Column(name="contrast"),
            Column(name="metric"),
            Column(name="feature"),
            Column(name="condition"),
            Column(name="effect", digits=3),
            Column(name="from", digits=3),
            Column(name="to", digits=3),
            Column(name="p", digits=3, is_p=True),
            Column(name="q", digits=3, is_p=True),
            Column(name="p after Holm", digits=3, is_p=True),
            Column(name="p by exchange", digits=3, is_p=True),
            Column(name="n baseline"),
            Column(name="n"),
            Column(name="baseline", digits=3),
            Column(name="treatment", digits=3),
            Column(name="label DPD", digits=3),
            Column(name="sampling sd", digits=3),
            Column(name="smallest detectable", digits=3),
            Column(name="test"),
            Column(name="flags"),
        ],
        rows,
    )


def disagreement_table(found: Sequence[Disagreement]) -> ReportTable:
    """Share of test samples on which students and teachers differ."""
    rows = [(it.condition.role, it.condition.label, it.n, spread(100 * it.rates), it.num_test) for it in found]
    return report_table(
        "disagreement",
        "Disagreement with the teacher",
        "Share of test samples on which a student and its teacher predict different classes; mean ± sd over pairs.",
        [
            Column(name="role"),
            Column(name="condition"),
            Column(name="pairs"),
            Column(name="disagreement", unit="%"),
            Column(name="test samples"),
        ],
        rows,
    )


def cost_table(study: Study) -> ReportTable:
    """What the trials of each condition took."""
    elapsed_R = study.values("elapsed_s")
    parameters_R, epochs_R = study.values("num_parameters"), study.values("epochs")
    rows = [
        (
            condition.role,
            condition.label,
            len(condition.trials),
            int(parameters_R[condition.trials[0]]),
            int(epochs_R[condition.trials[0]]),
            spread(elapsed_R[condition.trials]),
            float(np.nansum(elapsed_R[condition.trials])),
            ", ".join(sorted({str(study.trials[i]["device"]) for i in condition.trials})),
        )
        for condition in study.conditions
    ]
    return report_table(
        "cost",
        "What the trials took",
        "Training time per trial, mean ± sd over trials, and in all; in a pack, a trial's time is its share.",
        [
            Column(name="role"),
            Column(name="condition"),
            Column(name="trials"),
            Column(name="parameters"),
            Column(name="epochs"),
            Column(name="per trial", unit="s", digits=1),
            Column(name="in all", unit="s", digits=0),
            Column(name="device"),
        ],
        rows,
    )


def measured(condition: Condition, values_R: FloatArray) -> Measured | None:
    """Mean and sd over the runs of a condition; None without a defined value."""
    return spread(condition.over_runs(values_R))


def spread(values: FloatArray) -> Measured | None:
    """Mean and sd of the defined values."""
    defined = values[~np.isnan(values)]
    if not len(defined):
        return None
    return Measured(mean=float(defined.mean()), sd=float(defined.std(ddof=1)) if len(defined) > 1 else None)


def _contrast(row: Row) -> str:
    words = {
        SCRATCH: "against scratch",
        TEACHER: "against the teacher",
        "temperature_low": "low temperatures",
        "temperature_high": "high temperatures",
    }
    return words.get(row["contrast"] or "", (row["contrast"] or "").replace("_", " "))


def _coverage(evidence: Evidence) -> str:
    return f"{100 * (1 - evidence.level):g} %"


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)


def _or_last(value: float) -> float:
    return np.inf if np.isnan(value) else value


def report_table(
    name: str, title: str, caption: str, columns: Sequence[Column], rows: Sequence[tuple[Cell, ...]]
) -> ReportTable:
    """A table without the columns that hold nothing."""
    return without_empty_columns(
        ReportTable(name=name, title=title, caption=caption, columns=tuple(columns), rows=tuple(rows))
    )
