"""The paper's values: those that could be read, beside the sweep they belong to, and no others."""

import json
from importlib import resources

import pytest

from kd_ray.analysis.report.evidence import make_evidence
from kd_ray.analysis.report.published import Published, find_published
from kd_ray.analysis.report.reference_table import published_table
from kd_ray.analysis.study import Study
from tests.unit.analysis.report.made import make_row, make_study


def study_of(dataset: str, teacher: str, student: str, target: str = "shape") -> Study:
    """A study with these names."""
    return make_study(seeds=2, temperatures=(2, 10), dataset=dataset, target=target, teacher=teacher, student=student)


def published(study: Study) -> Published:
    found = find_published(study)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("metric", "feature", "place", "mean", "sd", "where"),
    [
        ("accuracy", None, 0, 100.0, 0.0, "Table 2"),
        ("equalized_odds_difference", "color", 1, 2.81, 0.05, "Table 2"),
        ("demographic_parity_difference", "color", 3, 3.10, 0.02, "Table 2"),
        ("individual_fairness", None, 2, 0.0407, None, "Table 4"),
    ],
)
def test_trifeature_has_the_values_of_the_paper(
    metric: str, feature: str | None, place: int, mean: float, sd: float | None, where: str
) -> None:
    study = study_of("trifeature", "resnet20", "lenet5")
    value = published(study).value(metric, study.conditions[place], feature)
    assert value is not None
    assert (value.mean, value.sd, value.where) == (mean, sd, where)


@pytest.mark.parametrize(
    ("dataset", "teacher", "student", "sc", "tc"),
    [
        ("cifar100", "resnet56", "resnet20", (5, 22), (15, 11)),
        ("CIFAR-100", "densenet169", "densenet121", (4, 14), (12, 10)),
        ("imagenet", "resnet50", "resnet18", (77, 408), (314, 86)),
        ("imagenet", "vit_base", "tinyvit", (83, 426), (397, 78)),
    ],
)
def test_counts_of_table_1(dataset: str, teacher: str, student: str, sc: tuple[int, int], tc: tuple[int, int]) -> None:
    study = study_of(dataset, teacher, student, target="class")
    for metric, expected in (("sc", sc), ("tc", tc)):
        values = [published(study).value(metric, condition) for condition in study.of_role("distilled")]
        assert tuple(value.mean for value in values if value is not None) == expected


def test_other_data_sets_targets_and_models_are_not_the_papers() -> None:
    assert find_published(study_of("trifeature", "resnet20", "resnet20")) is None
    assert find_published(study_of("trifeature", "resnet56", "lenet5")) is None
    assert find_published(study_of("trifeature", "resnet20", "lenet5", target="color")) is None
    assert find_published(study_of("tinyimagenet", "resnet56", "resnet20")) is None


def test_what_could_not_be_read_is_not_there() -> None:
    study = study_of("trifeature", "resnet20", "lenet5")
    found = published(study)
    # The paper's curve for textures, and temperatures above 10, could not be read.
    assert {value.feature for value in found.values} == {None, "color"}
    assert max(value.temperature or 0 for value in found.values) == 10
    assert {value.metric for value in published(study_of("cifar10", "resnet56", "resnet20")).values} == {"disagreement"}
    assert "alpha" in found.unknown
    assert "substitute" not in json.dumps([value.note for value in found.values])


def test_every_value_says_where_it_was_read() -> None:
    content = json.loads(
        resources.files("kd_ray.analysis.report").joinpath("published.json").read_text(encoding="utf-8")
    )
    rows = [row for study in content["studies"] for row in study["rows"]]
    assert {row["source"] for row in rows} == set(content["sources"])
    assert all(set(source) == {"where", "how", "confidence"} for source in content["sources"].values())
    assert all(isinstance(row["mean"], float) for row in rows)
    (eod,) = [
        row
        for row in rows
        if (row.get("feature"), row["metric"], row.get("temperature")) == ("male", "equalized_odds_difference", 10)
    ]
    # Two panels of one figure disagree, and both values are told.
    assert (eod["mean"], eod["note"]) == (3.29, "from the panel up to T = 40; the panel up to T = 10 shows 2.90")


def test_both_stand_side_by_side() -> None:
    study = study_of("trifeature", "resnet20", "lenet5")
    table = published_table(study, make_evidence([make_row(analysis="none")], study), published(study), [])
    (row,) = [row for row in table.rows if row[:4] == ("EOD", "color", "scratch", None)]
    here, n_here, paper, n_paper = row[4:8]
    assert (here.mean, n_here, n_paper) == (pytest.approx(5.0), 2, 5)  # type: ignore[union-attr]
    assert (paper.mean, paper.sd) == (2.81, 0.05)  # type: ignore[union-attr]
    assert "Table 2: as printed in the authors' slides; confidence high." in table.caption
    assert "condition" not in [column.name for column in table.columns]


def test_conditions_of_one_temperature_are_told_apart() -> None:
    """Guard: a sweep over alpha had equal rows beside equal values of the paper, and nothing said which was which."""
    study = make_study(seeds=2, temperatures=(2, 10), alphas=(0.5, 0.9))
    table = published_table(study, make_evidence([make_row(analysis="none")], study), published(study), [])
    place = [column.name for column in table.columns].index("condition")
    distilled = [row[place] for row in table.rows if row[:4] == ("EOD", "color", "distilled", 2.0)]
    assert distilled == ["T=2, alpha=0.5", "T=2, alpha=0.9"]
    assert "one value for each T" in table.caption
