"""Frames for notebooks, and fairlearn's `MetricFrame` of a trial."""

import re
from pathlib import Path

import fairlearn.metrics as fl
import numpy as np
import pandas as pd
import pytest

import kd_ray
from kd_ray.analysis.compare import compare
from kd_ray.errors import QueryError
from kd_ray.groups import Groups
from kd_ray.results.aggregate import aggregate
from kd_ray.results.query import Results
from kd_ray.results.record import commit_record, write_samples
from kd_ray.results.store import Store
from tests.fakes import commit_trials, make_record, make_samples, make_spec, make_sweep, plan_trials, write_sweep
from tests.golden.make import golden_results

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return golden_results(tmp_path_factory.mktemp("golden"))


@pytest.fixture
def several_axes(store: Store) -> Results:
    axes = (
        'grid={"seed": [0], "temperature": [10, 2], "training.optimizer.lr": [0.1, 1], "training.batch_size": [4, 8],'
        ' "training.optimizer.nesterov": [true, false], "training.augmentation": ["none", "flip"]}'
    )
    file = make_sweep(overrides=["training.optimizer.lr=null", "training.batch_size=null", axes])
    commit_trials(store, plan_trials(file))
    write_sweep(store, file)
    aggregate(store, "demo")
    return Results(store)


def test_types_of_a_frame(golden: Results) -> None:
    trials = golden.frame("trials", sweep="demo")
    assert len(trials) == 18
    assert str(trials["teacher_seed"].dtype) == "Int64"
    assert trials["teacher_seed"].isna().sum() == 6
    assert str(trials["t_squared"].dtype) == "boolean"
    assert trials["temperature"].cat.ordered
    assert list(trials["temperature"].cat.categories) == [1.0, 4.0, 10.0, 20.0]
    assert list(trials["role"].cat.categories) == ["teacher", "scratch", "distilled"]
    means = trials.groupby(["role", "temperature"], observed=True)["accuracy"].mean()
    assert [index[1] for index in means.index] == [1.0, 4.0, 10.0, 20.0]
    assert list(golden.frame("class_metrics")["class_name"].cat.categories) == ["class 0", "class 1", "class 2"]


def test_the_comparisons_are_a_frame_although_not_all_are_about_a_class(tmp_path: Path) -> None:
    """Guard: rows about a whole model have no class, and pandas takes no null as a category."""
    results = golden_results(tmp_path)
    compare(results, "demo")
    frame = results.frame("comparisons")
    assert list(frame["class_name"].cat.categories) == ["class 0", "class 1", "class 2"]
    assert frame["class_name"].isna().any()


@pytest.mark.parametrize("table", ["trials", "class_metrics", "epochs"])
def test_each_axis_is_a_column_of_its_own_type(table: str, several_axes: Results) -> None:
    frame = several_axes.frame(table)
    distilled = frame[frame["role"] == "distilled"]
    assert set(distilled["training.optimizer.lr"]) == {0.1, 1.0}
    assert str(distilled["training.optimizer.lr"].dtype) == "float64"
    assert str(distilled["training.batch_size"].dtype) == "Int64"
    assert str(distilled["training.optimizer.nesterov"].dtype) == "boolean"
    assert set(distilled["training.augmentation"]) == {"none", "flip"}
    assert len(frame.drop_duplicates()) == len(frame) == several_axes.table(table).num_rows


def test_a_frame_of_no_rows_has_its_columns(store: Store) -> None:
    assert store.local_root is not None
    store.local_root.mkdir()
    assert list(Results(store).frame("trials")["role"].cat.categories) == ["teacher", "scratch", "distilled"]


def test_predictions_join_labels_and_groups(golden: Results) -> None:
    trials = golden.frame("trials")
    row = trials[trials["role"] == "distilled"].iloc[0]
    frame = golden.predictions(row["trial_id"])
    assert len(frame) == row["num_test"] == 120
    assert frame["is_correct"].mean() == pytest.approx(row["accuracy"])
    assert (frame["is_correct"] == (frame["label"].astype(str) == frame["predicted"].astype(str))).all()
    assert set(frame["color"].cat.categories) == {"red", "blue", "green"}


def test_a_metric_frame_agrees_with_the_tables(golden: Results) -> None:
    trial_id = golden.frame("trials")["trial_id"].iloc[-1]
    groups = golden.frame("group_metrics").query("trial_id == @trial_id and feature == 'color'")
    for name in ("class 0", "class 2"):
        found = golden.metric_frame(trial_id, "color", positive_class=name)
        ours = groups[groups["positive_class"] == name].set_index("group")
        for metric in ("selection_rate", "true_positive_rate", "false_positive_rate"):
            assert found.by_group[metric].to_dict() == pytest.approx(ours[metric].to_dict())
    overall = golden.metric_frame(trial_id, "color")
    assert overall.by_group["accuracy"].to_dict() == pytest.approx(ours["accuracy"].to_dict())
    assert overall.by_group["count"].to_dict() == ours["n"].to_dict()


def test_several_features_give_the_groups_of_their_intersection(golden: Results) -> None:
    trial_id = golden.frame("trials")["trial_id"].iloc[-1]
    found = golden.metric_frame(trial_id, ["color", "texture"])
    assert list(found.by_group.index.names) == ["color", "texture"]
    assert found.by_group["count"].sum() == 120
    own = golden.metric_frame(trial_id, "texture", positive_class="class 1", metrics={"fnr": fl.false_negative_rate})
    assert list(own.by_group.columns) == ["fnr"]


def test_a_sample_counts_in_each_of_its_groups(store: Store) -> None:
    membership_NG = np.zeros((12, 2), dtype=np.bool_)
    membership_NG[:6, 0] = membership_NG[4:8, 1] = True
    groups = {"community": Groups(names=("a", "b"), membership_NG=membership_NG)}
    record = make_record(make_spec())
    write_samples(store, record.spec.dataset_id, make_samples(sensitive_features=groups))
    commit_record(store, record)
    found = Results(store).metric_frame(record.trial_id, "community")
    assert found.by_group["count"].to_dict() == {"a": 6, "b": 4}
    assert Results(store).predictions(record.trial_id)["community"].iloc[[0, 4, 9]].tolist() == [("a",), ("a", "b"), ()]


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("0123456789abcdef", "color"), "no complete trial '0123456789abcdef'"),
        ((None, "colour"), "no sensitive feature 'colour'; valid: color, texture"),
        ((None, "color", "dog"), "no class 'dog'; valid: class 0, class 1, class 2"),
    ],
)
def test_what_does_not_exist_is_refused(asked: tuple[str | None, ...], message: str, golden: Results) -> None:
    trial_id, feature, *positive = asked
    trial_id = trial_id or golden.frame("trials")["trial_id"].iloc[0]
    with pytest.raises(QueryError, match=re.escape(message)):
        golden.metric_frame(str(trial_id), str(feature), positive_class=positive[0] if positive else None)


def test_functions_of_the_module_take_a_store(golden: Results, tmp_path: Path) -> None:
    frame = kd_ray.results.frame("trials", sweep="demo", store=golden.store.url)
    pd.testing.assert_frame_equal(frame, golden.frame("trials", sweep="demo"))
    trial_id = frame["trial_id"].iloc[0]
    assert len(kd_ray.results.predictions(trial_id, store=golden)) == 120
    assert kd_ray.results.metric_frame(trial_id, "color", store=golden).overall["count"] == 120
    with pytest.raises(QueryError, match="no such folder"):
        kd_ray.results.frame("trials", store=tmp_path / "nothing")
