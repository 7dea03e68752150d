"""The chapters of the page: which figures and tables stand in which, with their explanations."""

import re

from kd_ray.analysis.report import bias, equity, measured_tables, runs, tested_tables
from kd_ray.analysis.report.axis import ConditionAxis, condition_axis
from kd_ray.analysis.report.evidence import Evidence
from kd_ray.analysis.report.overview import overview
from kd_ray.analysis.report.page import Section
from kd_ray.analysis.report.power_figure import power_curves
from kd_ray.analysis.report.published import Published
from kd_ray.analysis.report.reference_table import published_table
from kd_ray.analysis.report.style import Drawing
from kd_ray.analysis.report.table import ReportTable
from kd_ray.analysis.report.teacher_disagreement import TeacherDisagreement, disagreements, matrices
from kd_ray.analysis.report.tuned_section import tuned_section
from kd_ray.analysis.report.vectors import MAX_ROWS, class_vectors, vector_table
from kd_ray.analysis.study import Study
from kd_ray.sweep.tuning_settings import Tuned

_MAX_FEATURES = 6
"""Sensitive features and intersections with a figure of their own."""


def first_section(study: Study, evidence: Evidence) -> Section:
    """What stands on the first screen beside the verdict: one figure and one table."""
    return Section(
        name="answer",
        title="What the sweep shows",
        drawings=_drawn(overview(study, evidence, condition_axis(study))),
        tables=(measured_tables.overview_table(study, evidence),),
    )


def make_sections(
    study: Study, evidence: Evidence, published: Published | None, tuned: Tuned | None = None
) -> list[Section]:
    """The chapters below it; one without anything to show is left out."""
    axis = condition_axis(study)
    found = disagreements(study)
    sections = [
        _claim_section(evidence),
        _bias_section(study, evidence, axis, found),
        *([_group_section(study, evidence, axis)] if study.fairness else []),
        _individual_section(study, axis),
        _trend_section(evidence),
        _power_section(evidence, study),
        *([_published_section(study, evidence, published, found)] if published else []),
        *([tuned_section(tuned)] if tuned else []),
        _runs_section(study),
    ]
    return [section for section in sections if section.drawings or section.tables]


def file_only_tables(study: Study, evidence: Evidence) -> list[ReportTable]:
    """Tables that are too long for a page."""
    vectors = [] if len(study.class_names) <= MAX_ROWS else [vector_table(study)]
    return _some([tested_tables.class_effect_table(study, evidence), *vectors])


def _claim_section(evidence: Evidence) -> Section:
    return Section(
        name="claims",
        title="Declared claims",
        explanation="Questions that the sweep file asks before training. They are tested first, and have most of the level.",
        tables=tuple(_some([tested_tables.claim_table(evidence)])),
    )


def _bias_section(
    study: Study, evidence: Evidence, axis: ConditionAxis, found: tuple[TeacherDisagreement, ...]
) -> Section:
    return Section(
        name="classes",
        title="Classes",
        explanation=f"Does distillation treat some classes differently? A class differs if its {evidence.relative} does. #SC "
        "counts such classes against scratch, #TC against the teacher.",
        drawings=_drawn(
            bias.counts(study, evidence, axis),
            bias.class_accuracy(study, evidence, axis),
            bias.heat_map(study, evidence, axis),
            matrices(study, found),
            class_vectors(study),
        ),
        tables=tuple(
            _some(
                [
                    measured_tables.condition_table(study),
                    tested_tables.count_table(evidence),
                    tested_tables.class_table(study, evidence),
                    measured_tables.disagreement_table(found),
                    *([vector_table(study)] if len(study.class_names) <= MAX_ROWS else []),
                ]
            )
        ),
    )


def _group_section(study: Study, evidence: Evidence, axis: ConditionAxis) -> Section:
    shown = study.fairness[:_MAX_FEATURES]
    figures = [
        equity.group_fairness(study, evidence, fairness, axis, f"fairness-{i}-{_slug(fairness.feature)}")
        for i, fairness in enumerate(shown, start=1)
    ]
    more = len(study.fairness) - len(shown)
    return Section(
        name="groups",
        title="Groups",
        explanation="EOD, the equalized odds difference, is the largest gap in true or false positive rate between groups. DPD, the "
        "demographic parity difference, is the largest gap in the share that is predicted as a class. Both are 0 at parity.",
        paragraphs=(f"{more} more sensitive features and intersections are in the tables.",) if more else (),
        drawings=_drawn(*figures, equity.frontier(study, study.fairness, axis)),
        tables=tuple(
            _some(
                [
                    measured_tables.fairness_table(study, evidence),
                    measured_tables.small_group_table(evidence),
                    tested_tables.test_table(
                        evidence,
                        "fairness",
                        "fairness-tests",
                        "Differences in fairness",
                        "Distilled minus baseline, with its interval over runs, teachers and test samples, and that over runs alone; "
                        "rates in percent, differences in points. p decides, before correction: the stricter of two tests, of groups also "
                        "of what exceeds chance, so it may be above the level although the interval is without 0. q: corrected over the "
                        "family, which is one question of one contrast over all conditions (Benjamini & Hochberg); p of the family decides "
                        "whether its q count. Paired by seed: a paired t-test over runs of one seed. Smallest p possible: by exchange, "
                        "with so few runs. Chance: the chance level. Sampling sd: how far other test samples of the same size would move "
                        "the difference. Scope: which teachers it holds for.",
                    ),
                    tested_tables.test_table(
                        evidence,
                        "matched_accuracy",
                        "matched-accuracy",
                        "Differences at equal accuracy",
                        "The same with the accuracy of each run held equal by regression. Nothing is claimed where the accuracies are "
                        "further apart than the smaller sd, or where a side has fewer than five runs.",
                    ),
                ]
            )
        ),
    )


def _individual_section(study: Study, axis: ConditionAxis) -> Section:
    return Section(
        name="individuals",
        title="Individuals",
        explanation="How fast do predictions change between similar samples? Confident models change them faster.",
        drawings=_drawn(equity.individual(study, axis)),
    )


def _trend_section(evidence: Evidence) -> Section:
    table = tested_tables.test_table(
        evidence,
        "trend",
        "trends",
        "Trends over temperature",
        "Rank correlation of a metric with temperature over all runs, or Jonckheere & Terpstra's test; low and high "
        "temperatures apart, because trends reported in the literature turn. What is claimed rests on the exchange of temperatures "
        "within seeds; with few seeds and temperatures its p cannot be small, and the smallest possible one stands beside.",
    )
    return Section(
        name="trends",
        title="Trends",
        explanation="Does a metric rise or fall with the temperature?",
        tables=tuple(_some([table])),
    )


def _power_section(evidence: Evidence, study: Study) -> Section:
    return Section(
        name="power",
        title="What so many runs would establish",
        explanation="For planning: the true difference that a new sweep of so many runs would establish. What these runs leave possible "
        "is in their intervals.",
        drawings=_drawn(power_curves(study, evidence)),
    )


def _published_section(
    study: Study, evidence: Evidence, published: Published, found: tuple[TeacherDisagreement, ...]
) -> Section:
    words = (
        f"This sweep has the data set and the models of the {published.name} experiment in {published.paper}. Values "
        "of the paper stand beside those of this sweep; what could not be read is left out, not guessed.",
        f"Not known of the paper: {published.unknown}. Whatever this sweep sets them to is a substitute, so a "
        "difference between the columns is no failed replication, and equal columns are no proof of one.",
        *([published.statement] if published.statement else []),
    )
    table = published_table(study, evidence, published, found)
    return Section(name="paper", title="Beside the paper", paragraphs=words, tables=tuple(_some([table])))


def _runs_section(study: Study) -> Section:
    return Section(
        name="runs",
        title="Runs",
        drawings=_drawn(runs.training_curves(study), runs.cost(study)),
        tables=tuple(_some([measured_tables.cost_table(study)])),
    )


def _drawn(*drawings: Drawing | None) -> tuple[Drawing, ...]:
    return tuple(it for it in drawings if it is not None)


def _some(tables: list[ReportTable]) -> list[ReportTable]:
    return [table for table in tables if table.rows]


def _slug(name: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", name.lower())[:40].strip("-") or "feature"
