"""What figures show, read from their axes; and that the same numbers give the same bytes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes

from kd_ray.analysis.report import bias, equity
from kd_ray.analysis.report.axis import condition_axis, interval
from kd_ray.analysis.report.evidence import Evidence, make_evidence
from kd_ray.analysis.report.overview import overview
from kd_ray.analysis.report.style import Drawing, drawable, drawing, render
from kd_ray.analysis.report.teacher_disagreement import disagreements, matrices
from kd_ray.analysis.study import Study
from tests.unit.analysis.report.made import make_bias, make_row, make_study

pytestmark = pytest.mark.slow

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
        found = equity.group_fairness(study, make_evidence([], study), study.fairness[0], condition_axis(study), "f")
    eod, dpd = lines(panel(found, 0)), lines(panel(found, 1))
    assert eod["distilled"] == pytest.approx([7.0, 7.0])
    assert eod["scratch"] == pytest.approx([6.0, 6.0])
    assert dpd["distilled"] == pytest.approx([3.5, 3.5])
    assert dpd["true labels"] == pytest.approx([3.0, 3.0])
    assert found is not None
    assert "n = 2 teacher runs, n = 2 scratch runs, n = 2 distilled runs per condition" in found.caption
    assert "95 % t intervals over runs" in found.caption


def chance_rows(study: Study, levels: tuple[float, ...]) -> list[Any]:
    """Chance levels of EOD for color, by condition."""
    found = {"metric": "equalized_odds_difference", "sensitive_feature": "color", "contrast": None}
    return [
        make_row(it, analysis="condition", chance_level=level, **found)
        for it, level in zip(study.distilled, levels, strict=True)
    ]


def test_differences_between_groups_stand_beside_their_chance_levels() -> None:
    study = make_study(seeds=2, accuracies=ACCURACIES)
    evidence, axis = make_evidence(chance_rows(study, (0.04, 0.05)), study), condition_axis(study)
    with drawing():
        found = equity.group_fairness(study, evidence, study.fairness[0], axis, "f")
        first = overview(study, evidence, axis)
    assert found is not None
    assert lines(panel(found, 0))["chance level"] == pytest.approx([4.0, 5.0])
    assert "chance level" not in lines(panel(found, 1))
    assert lines(panel(first, 1))["chance level"] == pytest.approx([4.0, 5.0])
    assert lines(panel(first, 0))["distilled"] == pytest.approx([70, 70])
    assert "Chance level: the mean of the metric when groups are dealt anew within each true class" in found.caption


def test_no_legend_lies_on_the_axes_of_a_figure() -> None:
    study = make_study(seeds=2, accuracies=ACCURACIES)
    evidence, axis = make_evidence(chance_rows(study, (0.04, 0.05)), study), condition_axis(study)
    with drawing():
        found = [
            overview(study, evidence, axis),
            bias.counts(study, evidence, axis),
            bias.class_accuracy(study, evidence, axis),
            equity.group_fairness(study, evidence, study.fairness[0], axis, "f"),
            equity.frontier(study, study.fairness, axis),
            equity.individual(study, axis),
        ]
        for it in found:
            assert it is not None
            it.figure.draw_without_rendering()
            (legend,) = it.figure.legends
            box = legend.get_window_extent()
            assert not any(box.overlaps(axes.get_window_extent()) for axes in it.figure.axes), it.name
            assert all(axes.get_legend() is None for axes in it.figure.axes)


def test_individual_fairness_stands_beside_confidence_and_is_not_called_fair_at_0() -> None:
    study = make_study(seeds=2)
    with drawing():
        found = equity.individual(study, condition_axis(study))
    assert found is not None
    # These trials have no probabilities after calibration.
    assert [axes.get_title() for axes in found.figure.axes] == [
        "on probabilities",
        "on predicted labels",
        "mean confidence",
    ]
    assert "a perfect and certain classifier scores about 0.9 to 1 with ten equal classes" in found.caption
    assert "0 is fair" not in found.caption
    trials = [{**trial, "individual_fairness_calibrated": 0.7} for trial in study.trials]
    with drawing():
        found = equity.individual(replace(study, trials=trials), condition_axis(study))
    assert lines(panel(found, 2))["distilled"] == pytest.approx([0.7, 0.7])
    assert found is not None
    assert [axes.get_title() for axes in found.figure.axes][2:] == ["after calibration", "mean confidence"]


def test_counts_show_those_published_established_and_by_chance() -> None:
    study = make_study(seeds=2, accuracies=ACCURACIES)
    rows = []
    for condition, raw in zip(study.distilled, (3, 8), strict=True):
        counted = {"num_significant": raw, "num_established": raw - 2, "expected_significant": 0.4}
        rows.append(make_row(condition, analysis="class_bias_counts", **counted))
    with drawing():
        found = bias.counts(study, make_evidence(rows, study), condition_axis(study))
    assert lines(panel(found, 0))["distilled"] == pytest.approx([70, 70])
    assert {name: list(y) for name, y in lines(panel(found, 1)).items()} == {
        "p < 0.05, as published": [3, 8],
        "established": [1, 6],
        "chance if none differs": [0.4, 0.4],
    }


def many_classes() -> tuple[Study, Evidence]:
    """A thousand classes, of which 7 and 500 change."""
    study = make_study(class_names=[f"c{i}" for i in range(1000)])
    effect = np.zeros(1000)
    effect[[7, 500]] = -0.1, 0.2
    p = np.where(effect != 0, 0.001, 0.5)
    rows = [row for it in study.distilled for row in make_bias(it, p=list(p), effect=list(effect), established=[500])]
    return study, make_evidence(rows, study)


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
    published, established = panel(found).collections[1:]
    assert [np.asarray(it.get_offsets())[:, 1].tolist() for it in (published, established)] == [
        [names.index("c7") + 0.5] * 2,
        [names.index("c500") + 0.5] * 2,
    ]


def test_panels_of_classes_span_as_much() -> None:
    study = make_study(accuracies={"T=1": (0.1, 0.3, 0.2, 0.2, 0.2)})
    with drawing():
        found = bias.class_accuracy(study, make_evidence([], study), condition_axis(study))
    assert found is not None
    spans = [np.diff(axes.get_ylim())[0] for axes in found.figure.axes]
    assert spans == pytest.approx([spans[0]] * 2)


def test_panels_show_no_impossible_rate() -> None:
    # t(0.975, 1) = 12.7: the intervals of two runs reach from far below 0 to far above 100 %.
    study = make_study(seeds=2, accuracies=ACCURACIES)
    with drawing():
        found = bias.class_accuracy(study, make_evidence([], study), condition_axis(study))
    assert found is not None
    assert all(0 <= low < high <= 100 for low, high in (axes.get_ylim() for axes in found.figure.axes))


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
    predicted = {0: [0, 0, 1, 2], 1: [0, 1, 1, 0], 2: [0, 0, 1, 2], 3: [1, 1, 1, 2]}
    study = make_study(seeds=1, class_names=("a", "b", "c"), predicted=predicted)
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

    def files() -> tuple[bytes, bytes | None]:
        with drawing():
            found = equity.group_fairness(
                study, make_evidence([], study), study.fairness[0], condition_axis(study), "f"
            )
            assert found is not None
            rendered = render(found.figure, with_pdf=True)
        return rendered.svg, rendered.pdf

    svg, pdf = files()
    assert (svg, pdf) == files()
    assert pdf is not None
    assert pdf.startswith(b"%PDF")
    assert b"Date" not in svg
    assert b"CreationDate" not in pdf


@pytest.mark.parametrize(
    ("name", "expected"),
    [("cat", "cat"), ("a\nb\t c", "a b c"), ("東京", "□□"), ("x" * 30, "x" * 23 + "…"), ("a\u202eb", "a□b")],
)
def test_names_are_made_drawable(name: str, expected: str) -> None:
    assert drawable(name) == expected
