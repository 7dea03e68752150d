"""What a notebook shows: sweeps, plans, comparisons and figures."""

import json

import pytest

import kd_ray
from kd_ray.errors import InvalidInputError, SweepError
from kd_ray.notebook import MAX_ROWS, listing, page, paragraph, table
from kd_ray.results.query import Results
from kd_ray.sweep.source import read_yaml
from tests.fakes import SWEEP_YAML, make_sweep, plan_trials
from tests.golden.make import golden_results


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return golden_results(tmp_path_factory.mktemp("golden"))


def test_everything_is_escaped() -> None:
    text = page("<b>", paragraph("<i>"), listing("<u>", ["<li"]), table(["<th"], [["<td"]]))
    assert not {"<b>", "<i>", "<u>", "<li<", "<th<"} & {text}
    assert text.count("&lt;") == 6


def test_a_long_table_says_what_it_leaves_out() -> None:
    assert "… and 3 more" in table(["n"], [[i] for i in range(MAX_ROWS + 3)])
    assert "more" not in table(["n"], [[i] for i in range(MAX_ROWS)])


def test_a_sweep_from_a_mapping_is_that_of_its_file() -> None:
    raw, _ = read_yaml(SWEEP_YAML, "demo.yaml")
    raw["grid"]["seed"] = (0, 1)
    found = plan_trials(kd_ray.load_sweep(raw))
    assert [it.trial_id for it in found] == [it.trial_id for it in plan_trials(make_sweep())]
    assert kd_ray.load_sweep(raw, ["grid.temperature=[9]"]).axes["temperature"] == (9,)


def test_a_wrong_mapping_is_refused_with_its_field() -> None:
    raw, _ = read_yaml(SWEEP_YAML, "demo.yaml")
    with pytest.raises(SweepError, match=r"sweep: training.epochs: .*-3"):
        kd_ray.load_sweep(json.loads(json.dumps(raw)) | {"training": {**raw["training"], "epochs": -3}})
    with pytest.raises(SweepError, match="its values must be plain"):
        kd_ray.load_sweep({"name": object()})


@pytest.mark.slow
def test_html_of_sweeps_plans_and_comparisons(golden: Results) -> None:
    sweep = make_sweep()
    assert "<td>temperature</td><td>2</td><td>1, 4</td>" in sweep._repr_html_()
    assert "resnet20 → lenet5" in sweep._repr_html_()
    plan = kd_ray.plan(sweep, golden)
    assert "plan of sweep demo" in plan._repr_html_()
    assert "<td>complete</td>" in plan._repr_html_()
    comparison = kd_ray.compare("demo", golden)
    assert "<h5>ESTABLISHED</h5>" in comparison._repr_html_()


@pytest.mark.long
def test_figures_give_axes(golden: Results) -> None:
    overview = kd_ray.figures.overview("demo", golden)
    assert isinstance(overview, list)
    assert all(axes.figure for axes in overview)
    assert kd_ray.figures.group_fairness("demo", golden, "color")
    with pytest.raises(InvalidInputError, match="no sensitive feature 'size'; valid: color, texture"):
        kd_ray.figures.group_fairness("demo", golden, "size")


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(kd_ray.figures.__all__) - {"group_fairness", "overview"}))
def test_every_figure_of_the_report_can_be_drawn_or_says_why_not(name: str, golden: Results) -> None:
    try:
        assert getattr(kd_ray.figures, name)("demo", golden)
    except InvalidInputError as error:
        assert "nothing for this figure" in str(error)
