"""The vectors of AdaAlpha-style and AdaMargin-style students in a report, by hand and from a real sweep."""

from pathlib import Path

import numpy as np
import pytest

from kd_ray.analysis.report.build import make_report
from kd_ray.analysis.report.vectors import class_vectors, vector_table
from kd_ray.analysis.study import Study
from kd_ray.cluster.launch import launch
from kd_ray.results.query import Results
from kd_ray.results.store import open_store
from kd_ray.sweep.distillation import OBJECTIVES, shown_objective
from tests.sweeps import tiny_sweep
from tests.unit.analysis.report.made import make_study

NAMES = ("held_out_n", "teacher_held_out_accuracy", "teacher_held_out_margin", "class_alpha", "class_margin")


def study_with_vectors() -> Study:
    """Two seeds; T=1 and T=4 have one vector of alphas, T=8 has margins."""
    found = {name: np.full((10, 2), np.nan) for name in NAMES}
    distilled = slice(4, 10)
    found["held_out_n"][distilled] = [30, 10]
    found["teacher_held_out_accuracy"][distilled] = [0.9, 0.4]
    found["teacher_held_out_margin"][distilled] = [0.8, -0.2]
    found["class_alpha"][4:8] = [[0.9, 0.1], [0.7, 0.3]] * 2
    found["class_margin"][8:] = [0.0, 1.5]
    return make_study(seeds=2, temperatures=(1, 4, 8), vectors=found)


def test_each_different_vector_is_shown_once_as_its_mean_over_runs() -> None:
    table = vector_table(study_with_vectors())
    assert [column.title for column in table.columns] == [
        "class",
        "held out",
        "teacher's accuracy (%)",
        "teacher's margin",
        "alpha: T=1",
        "margin: T=8",
    ]
    assert [row[0] for row in table.rows] == ["cat", "dog"]
    values = np.array([row[1:] for row in table.rows], dtype=np.float64)
    assert values == pytest.approx(np.array([[30.0, 90.0, 0.8, 0.8, 0.0], [10.0, 40.0, -0.2, 0.2, 1.5]]))


def test_the_figure_has_a_point_for_each_class() -> None:
    drawn = class_vectors(study_with_vectors())
    assert drawn is not None
    alphas, margins = (axes.get_lines() for axes in drawn.figure.axes)
    assert np.column_stack(alphas[0].get_data()).tolist() == pytest.approx(np.array([[0.8, 0.8], [-0.2, 0.2]]))
    assert np.column_stack(margins[0].get_data()).tolist() == [[0.8, 0.0], [-0.2, 1.5]]
    assert "in the style of AdaAlpha" in drawn.caption


def test_a_study_without_vectors_shows_nothing() -> None:
    study = make_study()
    assert class_vectors(study) is None
    assert vector_table(study).rows == ()


def test_what_is_only_in_the_style_of_its_source_says_so() -> None:
    styled = {name for name in OBJECTIVES if shown_objective(name) != name}
    assert styled == {"kd_pt", "kd_sim", "kd_topk", "iad", "kd_groups", "ada_alpha", "ada_margin"}
    assert shown_objective("ada_alpha") == "ada_alpha-style"
    assert shown_objective("my_losses:focal") == "my_losses:focal"


@pytest.mark.long
@pytest.mark.slow
def test_report_of_a_real_sweep_has_objectives_and_controls_as_conditions(
    tmp_path: Path, trifeature_root: Path
) -> None:
    store = open_store(tmp_path / "store")
    file = tiny_sweep(
        trifeature_root, "dataset.validation_fraction=0.2", "training.epochs=1", "training.schedule={name: constant}",
        "grid.temperature=[4]", "distillation.statistic=accuracy", "intersections=null",
        "grid.objective=[kd, ada_alpha, ada_margin, {name: scratch_long, factor: 2}]",
    )  # fmt: skip
    assert launch(file, store, runner="local").exit_code == 0
    files = make_report(Results(store), "tiny")
    assert files["figures/class-vectors.svg"]
    head = files["tables/class-vectors.csv"].decode().splitlines()[0]
    assert '"alpha: T=4, teacher=resnet20, objective=ada_alpha-style' in head
    conditions = files["tables/conditions.csv"].decode()
    assert "objective=scratch_long" in conditions
    assert "objective=ada_margin-style" in conditions
    compared = Results(store).query("SELECT DISTINCT objective FROM comparisons WHERE analysis = 'class_bias_counts'")
    assert set(compared["objective"].to_pylist()) == {"kd", "ada_alpha", "ada_margin", "scratch_long"}
