"""What figures show, read from their axes; and that the same numbers give the same bytes."""

from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from kd_ray.analysis.report import bias, equity
from kd_ray.analysis.report.axis import condition_axis, interval
from kd_ray.analysis.report.disagreement import disagreements, matrices
from kd_ray.analysis.report.evidence import key_of
from kd_ray.analysis.report.study import Study
from kd_ray.analysis.report.style import Drawing, drawable, drawing, render
from tests.unit.analysis.report.made import SCRATCH, make_bias, make_evidence, make_row, make_study

ACCURACIES = {"teacher": (0.9,), "scratch": (0.5, 0.7), "T=1": (0.6, 0.8), "T=4": (0.7, 0.7)}


def panel(found: Drawing | None, i: int = 0) -> Axes:
    assert found is not None
    return found.figure.axes[i]


def lines(axes: Axes) -> dict[str, Any]:
    """y values of labelled lines and error bars."""
    handles, labels = axes.get_legend_handles_labels()
    data = [getattr(handle, "lines", [handle])[0] for handle in handles]
    return dict(zip(labels, [line.get_ydata() for line in data], strict=True))


def test_interval_is_students() -> None:
    it = interval(np.array([1.0, 2.0, 3.0, np.nan]))
    # t(0.975, 2) = 4.302653; sd = 1.
    assert (it.mean, it.n) == (2.0, 3)
    assert it.half_width == pytest.approx(4.302653 / 3**0.5, abs=1e-6)
    assert np.isnan(interval(np.array([1.0])).half_width)
    assert np.isnan(interval(np.array([np.nan])).mean)


def test_fairness_shows_means_in_percent_beside_teacher_scratch_and_labels() -> None:
    study = make_study(seeds=2, accuracies=ACCURACIES)
    with drawing():
        found = equity.group_fairness(study, study.fairness[0], condition_axis(study), "f")
    eod, dpd = lines(panel(found, 0)), lines(panel(found, 1))
    assert eod["distilled"] == pytest.approx([7.0, 7.0])
    assert eod["scratch"] == pytest.approx([6.0, 6.0])
    assert dpd["distilled"] == pytest.approx([3.5, 3.5])
    assert dpd["true labels"] == pytest.approx([3.0, 3.0])
    assert found is not None
    assert "n = 2 teacher runs, n = 2 scratch runs, n = 2 distilled runs per condition" in found.caption
    assert "95 % t intervals over runs" in found.caption


def test_counts_show_raw_corrected_and_expected() -> None:
    study = make_study(seeds=2, accuracies=ACCURACIES)
    rows = []
    for condition, raw in zip(study.of_role("distilled"), (3, 8), strict=True):
        axes = {**condition.axes, "role": "distilled", "temperature": condition.temperature}
        counted = {
            "num_significant": raw,
            "num_significant_bh": raw - 2,
            "num_significant_holm": 0,
            "expected_significant": 0.4,
        }
        rows.append(make_row(analysis="class_bias_counts", metric="relative_accuracy", **axes, **counted))
    with drawing():
        found = bias.counts(study, make_evidence(rows), condition_axis(study))
    assert lines(panel(found, 0))["distilled"] == pytest.approx([70, 70])
    assert {name: list(y) for name, y in lines(panel(found, 1)).items()} == {
        "uncorrected": [3, 8],
        "Benjamini–Hochberg": [1, 6],
        "Holm": [0, 0],
        "expected if none differed": [0.4, 0.4],
    }


def many_classes() -> tuple[Study, Any]:
    """A thousand classes, of which 7 and 500 change."""
    study = make_study(class_names=[f"c{i}" for i in range(1000)])
    effect = np.zeros(1000)
    effect[[7, 500]] = -0.1, 0.2
    p = np.where(effect != 0, 0.001, 0.5)
    tests = make_bias(
        p=list(p), q=list(np.where(np.arange(1000) == 500, 0.01, 0.6)), holm=list(np.ones(1000)), effect=list(effect)
    )
    return study, make_evidence(class_bias={(SCRATCH, key_of(c)): tests for c in study.of_role("distilled")})


def test_a_thousand_classes_show_those_with_the_largest_effects() -> None:
    study, evidence = many_classes()
    assert bias.largest_effects(study, evidence, 3).tolist() == [0, 7, 500]
    with drawing():
        found = bias.heat_map(study, evidence, condition_axis(study))
        classes = bias.class_accuracy(study, evidence, condition_axis(study))
    assert found is not None
    assert classes is not None
    assert "40 of 1,000 classes with the largest effects" in found.caption
    assert "12 of 1,000 classes" in classes.caption
    map_ = panel(found).collections[0].get_array()
    assert map_ is not None
    assert map_.shape == (40, 2)
    names = [text.get_text() for text in panel(found).get_yticklabels()]
    assert map_[names.index("c500")].tolist() == pytest.approx([20, 20])
    raw, corrected = panel(found).collections[1:]
    assert [np.asarray(it.get_offsets())[:, 1].tolist() for it in (raw, corrected)] == [
        [names.index("c7") + 0.5] * 2,
        [names.index("c500") + 0.5] * 2,
    ]


def test_panels_of_classes_span_as_much() -> None:
    study = make_study(accuracies={"T=1": (0.1, 0.3, 0.2, 0.2, 0.2)})
    with drawing():
        found = bias.class_accuracy(study, make_evidence(), condition_axis(study))
    assert found is not None
    spans = [np.diff(axes.get_ylim())[0] for axes in found.figure.axes]
    assert spans == pytest.approx([spans[0]] * 2)


def test_panels_show_no_impossible_rate() -> None:
    # t(0.975, 1) = 12.7: the intervals of two runs reach from far below 0 to far above 100 %.
    study = make_study(seeds=2, accuracies=ACCURACIES)
    with drawing():
        found = bias.class_accuracy(study, make_evidence(), condition_axis(study))
    assert found is not None
    assert all(-2 <= low < high <= 102 for low, high in (axes.get_ylim() for axes in found.figure.axes))


@pytest.mark.parametrize(
    ("temperatures", "places", "label"),
    [
        ((1, 2, 3), [1, 2, 3], "temperature T"),
        ((1, 2, 3, 10, 40), [0, 1, 2, 3, 4], "temperature T, tested values evenly spaced"),
        ((4,), [0], ""),
    ],
)
def test_axis_is_temperature_where_there_are_several(
    temperatures: tuple[int, ...], places: list[int], label: str
) -> None:
    axis = condition_axis(make_study(temperatures=temperatures))
    assert axis.lines[0].x.tolist() == places
    assert axis.label == label


def test_disagreement_counts_pairs_and_leaves_out_the_diagonal() -> None:
    study = make_study(seeds=1, temperatures=(1, 4), class_names=("a", "b", "c"))
    teacher = study.trials[0]["trial_id"]
    common = {"seed": 0, "model": "lenet5", "dataset_id": "d", "settings": []}
    roles = ("teacher", "scratch", "distilled", "distilled")
    trials = [
        {**row, **common, "role": role, "teacher_trial_id": teacher}
        for row, role in zip(study.trials, roles, strict=True)
    ]
    predicted = {0: [0, 0, 1, 2], 1: [0, 1, 1, 0], 2: [0, 0, 1, 2], 3: [1, 1, 1, 2]}
    study = Study(
        **{**vars(study), "trials": trials, "predictions": lambda places: {i: np.array(predicted[i]) for i in places}}
    )
    found = disagreements(study)
    assert [it.rates.tolist() for it in found] == [[0.5], [0.0], [0.5]]
    assert found[0].matrix_CC.tolist() == [[0, 1, 0], [0, 0, 0], [1, 0, 0]]
    assert found[2].matrix_CC.tolist() == [[0, 2, 0], [0, 0, 0], [0, 0, 0]]
    with drawing():
        drawn = matrices(study, found)
    assert drawn is not None
    assert [axes.get_title() for axes in drawn.figure.axes[:3]] == ["scratch\n50.0 %", "T=1\n0.0 %", "T=4\n50.0 %"]


def test_same_numbers_give_the_same_bytes_without_a_date() -> None:
    study = make_study(accuracies=ACCURACIES)

    def files() -> tuple[bytes, bytes]:
        with drawing():
            found = equity.group_fairness(study, study.fairness[0], condition_axis(study), "f")
            assert found is not None
            rendered = render(found.figure)
        return rendered.svg, rendered.pdf

    svg, pdf = files()
    assert (svg, pdf) == files()
    assert pdf.startswith(b"%PDF")
    assert b"Date" not in svg
    assert b"CreationDate" not in pdf


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cat", "cat"), ("a\nb\t c", "a b c"), ("東京", "□□"), ("x" * 30, "x" * 23 + "…"), ("a\u202eb", "a□b")],
)
def test_names_are_made_drawable(name: str, expected: str) -> None:
    assert drawable(name) == expected
