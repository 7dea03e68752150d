"""From one record to its rows, by hand and against scikit-learn and fairlearn."""

from collections.abc import Mapping
from typing import Any

import fairlearn.metrics as fl
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from sklearn.metrics import accuracy_score, precision_score, recall_score

from kd_ray.groups import Groups
from kd_ray.results.record import Record, Samples
from kd_ray.results.rows import RowSettings, compared_groups, sample_rows, trial_rows
from kd_ray.results.schema import KEYS, TABLES, TIMING_NAMES
from tests.fakes import make_record, make_samples, make_spec

SETTINGS = RowSettings(sweep="demo", sensitive_features=("color", "texture"), intersections=(("color", "texture"),))
ALL_CIRCLE_N = np.zeros(12, dtype=np.int32)


def rows(
    record: Record | None = None,
    samples: Samples | None = None,
    settings: RowSettings = SETTINGS,
    axes: Mapping[str, str] | None = None,
) -> dict[str, pa.Table]:
    return trial_rows(record or make_record(), samples or make_samples(), settings, axes or {})


def select(table: pa.Table, **where: Any) -> list[dict[str, Any]]:
    return [row for row in table.to_pylist() if all(row[name] == value for name, value in where.items())]


def only(table: pa.Table, **where: Any) -> dict[str, Any]:
    (row,) = select(table, **where)
    return row


def count_nan(array: pa.Array | pa.ChunkedArray) -> int:
    """NaN values of a column, also inside its lists."""
    if pa.types.is_list(array.type):
        return count_nan(array.combine_chunks().flatten() if isinstance(array, pa.ChunkedArray) else array.flatten())
    return int(pc.sum(pc.is_nan(array)).as_py() or 0) if pa.types.is_floating(array.type) else 0


def test_every_table_has_its_schema_and_no_nan() -> None:
    record = make_record(predictions_N=ALL_CIRCLE_N)
    tables = {**rows(record), "samples": sample_rows("0123456789abcdef", make_samples(), "demo")}
    assert tables.keys() == TABLES.keys()
    for name, table in tables.items():
        assert table.schema.equals(TABLES[name].arrow_schema)
        table.validate(full=True)
        assert {column: count_nan(table[column]) for column in table.column_names if count_nan(table[column])} == {}


def test_every_row_starts_with_the_keys() -> None:
    for name, table in rows().items():
        assert table.column_names[: len(KEYS)] == [column.name for column in KEYS]
        for row in table.select([column.name for column in KEYS]).to_pylist():
            assert row == {
                "sweep": "demo",
                "trial_id": make_spec().trial_id,
                "role": "distilled",
                "dataset": "trifeature",
                "target": "shape",
                "model": "lenet5",
                "teacher": "resnet20",
                "teacher_seed": 0,
                "objective": "kd",
                "temperature": 4.0,
                "alpha": 0.9,
                "t_squared": True,
                "seed": 0,
            }, name


def test_keys_of_a_scratch_student_are_null_where_there_is_no_teacher() -> None:
    row = only(rows(make_record(make_spec(role="scratch", distillation=None, teacher=None)))["trials"])
    assert [
        row[name] for name in ("teacher", "teacher_seed", "temperature", "alpha", "t_squared", "teacher_trial_id")
    ] == [None] * 6
    assert (row["role"], row["objective"], row["seed"]) == ("scratch", "cross_entropy", 0)


def test_keys_of_given_weights() -> None:
    spec = make_spec(
        role="teacher", training=None, distillation=None, teacher=None, seed=None, initial_weights="ab" * 32
    )
    tables = rows(make_record(spec))
    assert (only(tables["trials"])["epochs"], only(tables["trials"])["seed"]) == (0, None)
    assert tables["epochs"].num_rows == 0


def test_number_of_rows() -> None:
    assert {name: table.num_rows for name, table in rows().items()} == {
        "trials": 1,
        "class_metrics": 3,
        "group_metrics": 33,
        "fairness_metrics": 12,
        "epochs": 4,
        "predictions": 1,
    }


def test_trials_row_by_hand() -> None:
    record = make_record()
    row = only(rows(record, axes={"b.x": "2", "a": "flip"})["trials"])
    assert row["settings"] == '{"a": "flip", "b.x": "2"}'
    assert (row["accuracy"], row["worst_class_accuracy"], row["num_test"], row["epochs"]) == (0.75, 0.75, 12, 4)
    assert (row["loss"], row["expected_calibration_error"], row["individual_fairness"]) == (0.75, 0.0625, 0.5)
    assert (row["individual_fairness_hard"], row["individual_fairness_p95"]) == (0.25, 1.5)
    assert row["individual_fairness_max"] is None
    assert (row["num_parameters"], row["dataset_id"]) == (61706, record.spec.dataset_id)
    assert row["teacher_trial_id"] == "0123456789abcdef"
    assert (row["device"], row["host"], row["git_commit"], row["restarts"], row["generation"]) == (
        "cpu",
        "host",
        None,
        0,
        1,
    )
    assert (row["elapsed_s"], row["images_per_s"], row["pack_size"], row["threads"]) == (50.5, 1234.5, 2, 1)
    assert row["versions"] == '{"python": "3.12.3", "torch": "2.6.0"}'
    assert row["weights"] == f"trials/{record.trial_id}/weights-000001.safetensors"
    assert row["started_at"].replace(tzinfo=None).isoformat() == "2024-05-06T07:08:09.123456"


def test_class_rows_by_hand() -> None:
    columns = [
        "class_index",
        "class_name",
        "n",
        "num_correct",
        "num_predicted",
        "accuracy",
        "relative_accuracy",
        "precision",
    ]
    assert [list(row.values()) for row in rows()["class_metrics"].select(columns).to_pylist()] == [
        [0, "circle", 4, 3, 4, 0.75, 1.0, 0.75],
        [1, "square", 4, 3, 4, 0.75, 1.0, 0.75],
        [2, "star", 4, 3, 4, 0.75, 1.0, 0.75],
    ]
    table = rows(make_record(predictions_N=ALL_CIRCLE_N))["class_metrics"]
    assert [list(row.values()) for row in table.select(columns).to_pylist()] == [
        [0, "circle", 4, 4, 12, 1.0, 3.0, 1 / 3],
        [1, "square", 4, 0, 0, 0.0, 0.0, None],
        [2, "star", 4, 0, 0, 0.0, 0.0, None],
    ]


def test_class_without_test_samples_is_null_with_n_zero() -> None:
    samples = make_samples(class_names=("circle", "square", "star", "heart"))
    row = only(rows(samples=samples)["class_metrics"], class_name="heart")
    assert (row["n"], row["accuracy"], row["relative_accuracy"], row["precision"]) == (0, None, None, None)
    assert only(rows(samples=samples)["trials"])["worst_class_accuracy"] == 0.75


def test_nothing_right_has_no_relative_accuracy() -> None:
    record = make_record(predictions_N=np.roll(make_samples().labels_N, 4).astype(np.int32))
    assert rows(record)["class_metrics"]["relative_accuracy"].to_pylist() == [None] * 3


def test_group_rows_by_hand() -> None:
    table = rows()["group_metrics"]
    names = ("n", "num_positives", "accuracy", "selection_rate", "true_positive_rate", "false_positive_rate")

    def values(**where: str) -> list[Any]:
        row = only(table, **where)
        return [row[name] for name in names]

    assert values(feature="color", group="red", positive_class="circle") == [6, 2, 5 / 6, 1 / 2, 1.0, 1 / 4]
    assert values(feature="color", group="blue", positive_class="circle") == [6, 2, 4 / 6, 1 / 6, 1 / 2, 0.0]
    assert values(feature="color", group="red", positive_class="star") == [6, 2, 5 / 6, 1 / 6, 1 / 2, 0.0]
    assert values(feature="color", group="green", positive_class="star") == [0, 0, None, None, None, None]
    assert values(feature="texture", group="dots", positive_class="star") == [6, 2, 5 / 6, 1 / 2, 1.0, 1 / 4]


def test_intersections_have_rows_of_their_own() -> None:
    table = rows()["group_metrics"]
    assert [row["group"] for row in select(table, feature="color & texture", positive_class="circle")] == [
        "red & dots",
        "red & stripes",
        "blue & dots",
        "blue & stripes",
        "green & dots",
        "green & stripes",
    ]
    row = only(table, feature="color & texture", group="red & stripes", positive_class="circle")
    assert (row["n"], row["accuracy"], row["selection_rate"], row["false_positive_rate"]) == (3, 2 / 3, 2 / 3, 1 / 2)
    row = only(rows()["fairness_metrics"], feature="color & texture", positive_class=None)
    assert (row["num_groups"], row["worst_group_accuracy"]) == (4, 2 / 3)


def test_joint_groups_below_the_least_size_are_left_out() -> None:
    samples = make_samples()
    sizes = {
        least: {
            name: groups.membership_NG.sum(axis=0).tolist()
            for name, groups in compared_groups(samples, SETTINGS, least)
        }
        for least in (1, 4)
    }
    assert sizes[1]["color & texture"] == [3, 3, 3, 3, 0, 0]
    assert sizes[4]["color & texture"] == []
    assert sizes[4]["color"] == sizes[1]["color"]


def test_fairness_rows_by_hand() -> None:
    names = (
        "demographic_parity_difference",
        "equalized_odds_difference",
        "demographic_parity_ratio",
        "equalized_odds_ratio",
    )
    found = {row["positive_class"]: row for row in select(rows()["fairness_metrics"], feature="color")}
    assert list(found) == ["circle", "square", "star", None]
    expected = {
        "circle": [1 / 3, 1 / 2, 1 / 3, 0.0],
        "square": [0.0, 1 / 2, 1.0, 0.0],
        "star": [1 / 3, 1 / 2, 1 / 3, 0.0],
        None: [2 / 9, 1 / 2, 5 / 9, 0.0],
    }
    for positive_class, values in expected.items():
        assert [found[positive_class][name] for name in names] == pytest.approx(values, rel=1e-12)
        assert found[positive_class]["label_demographic_parity_difference"] == 0.0
        assert (found[positive_class]["num_groups"], found[positive_class]["worst_group_accuracy"]) == (2, 4 / 6)


def test_classes_called_all_and_macro_are_apart_from_the_totals() -> None:
    """Guard: the total of a table had such a name, and the class was merged with it."""
    samples = make_samples(class_names=("all", "macro", "star"))
    found = rows(samples=samples)
    assert [row["positive_class"] for row in select(found["fairness_metrics"], feature="color")] == [
        "all",
        "macro",
        "star",
        None,
    ]
    assert [row["class_name"] for row in found["class_metrics"].to_pylist()] == ["all", "macro", "star"]


def test_macro_rows_are_the_mean_of_the_class_rows() -> None:
    rng = np.random.default_rng(3)
    for _ in range(5):
        table = rows(make_record(predictions_N=rng.integers(0, 3, 12).astype(np.int32)))["fairness_metrics"]
        for feature in ("color", "texture", "color & texture"):
            *classes, macro = select(table, feature=feature)
            for name in (
                "demographic_parity_difference",
                "demographic_parity_ratio",
                "label_demographic_parity_difference",
            ):
                defined = [row[name] for row in classes if row[name] is not None]
                assert macro[name] == pytest.approx(np.mean(defined), rel=1e-12)


def test_fairness_of_identical_groups_is_zero() -> None:
    samples = make_samples(sensitive_features={"color": Groups.from_codes(np.arange(12) % 2, ["a", "b"])})
    record = make_record(predictions_N=np.repeat(np.array([0, 0, 1, 1, 2, 2], dtype=np.int32), 2))
    settings = RowSettings(sweep="demo", sensitive_features=("color",))
    row = only(rows(record, samples, settings)["fairness_metrics"], positive_class=None)
    assert (row["demographic_parity_difference"], row["equalized_odds_difference"]) == (0.0, 0.0)


def test_feature_with_one_group_that_has_samples_is_null() -> None:
    samples = make_samples(sensitive_features={"color": Groups.from_codes(np.zeros(12, dtype=np.int64), ["a", "b"])})
    settings = RowSettings(sweep="demo", sensitive_features=("color",))
    for row in rows(samples=samples, settings=settings)["fairness_metrics"].to_pylist():
        assert row["num_groups"] == 1
        assert row["demographic_parity_difference"] is row["equalized_odds_difference"] is None


def test_sweep_without_features_has_no_fairness_rows() -> None:
    tables = rows(settings=RowSettings(sweep="demo"))
    assert tables["group_metrics"].num_rows == tables["fairness_metrics"].num_rows == 0


def test_epoch_rows_by_hand() -> None:
    columns = [
        "epoch",
        "loss",
        "cross_entropy",
        "distillation",
        "train_accuracy",
        "validation_accuracy",
        "lr",
        "elapsed_s",
    ]
    table = rows()["epochs"].select(columns)
    assert list(table.to_pylist()[1].values()) == [2, 0.5, 0.2, 0.3, 0.4, None, 0.1, 0.5]
    assert table["epoch"].to_pylist() == [1, 2, 3, 4]
    scratch = rows(make_record(make_spec(role="scratch", distillation=None, teacher=None)))["epochs"]
    assert scratch["distillation"].to_pylist() == [None] * 4


def test_predictions_row_holds_every_sample() -> None:
    record = make_record()
    row = only(rows(record)["predictions"])
    assert row["predictions"] == [0, 0, 0, 1, 1, 1, 2, 1, 2, 0, 2, 2]
    assert row["confidences"] == record.test.confidences_N.tolist()
    assert row["true_probabilities"] == record.test.true_probabilities_N.tolist()
    assert row["dataset_id"] == record.spec.dataset_id


def test_sample_rows_by_hand() -> None:
    table = sample_rows("0123456789abcdef", make_samples(), "demo")
    assert table.num_rows == 12
    assert table.to_pylist()[7] == {
        "sweep": "demo",
        "dataset": "trifeature",
        "target": "shape",
        "dataset_id": "0123456789abcdef",
        "sample_index": 7,
        "sample_id": None,
        "label": 1,
        "label_name": "square",
        "sensitive_features": '{"color": ["blue"], "texture": ["stripes"]}',
    }


def test_sample_in_several_groups_or_none_keeps_them() -> None:
    membership_NG = np.zeros((12, 2), dtype=np.bool_)
    membership_NG[0] = True
    samples = make_samples(sensitive_features={"community": Groups(names=("a", "b"), membership_NG=membership_NG)})
    column = sample_rows("0123456789abcdef", samples, "demo")["sensitive_features"].to_pylist()
    assert column[:2] == ['{"community": ["a", "b"]}', '{"community": []}']


def test_same_record_gives_the_same_rows() -> None:
    assert {name: table.equals(rows()[name]) for name, table in rows().items()} == dict.fromkeys(rows(), True)


def test_record_with_an_unknown_scalar_is_refused() -> None:
    with pytest.raises(ValueError, match=r"trials: columns \['extra'\] are missing or unknown"):
        rows(make_record(scalars={**make_record().test.scalars, "extra": 1.0}))


def test_schema_explains_every_column() -> None:
    for table in TABLES.values():
        names = [column.name for column in table.columns]
        assert len(set(names)) == len(names)
        assert all(column.meaning for column in table.columns)
        assert table.one_row_per
    assert {"elapsed_s", "started_at", "host", "versions"} < TIMING_NAMES
    assert not TIMING_NAMES & {"accuracy", "loss", "settings", *(column.name for column in KEYS)}


# --- another implementation --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def binary() -> tuple[Samples, Record]:
    """200 samples of two classes and two groups, about 70 % right."""
    rng = np.random.default_rng(11)
    labels_N = rng.integers(0, 2, 200)
    codes_N = rng.integers(0, 2, 200)
    predictions_N = np.where(rng.random(200) < 0.7 - 0.2 * codes_N, labels_N, 1 - labels_N).astype(np.int32)
    samples = make_samples(
        class_names=("no", "yes"), labels_N=labels_N, sensitive_features={"sex": Groups.from_codes(codes_N, ["f", "m"])}
    )
    floats_N = np.full(200, 0.5, dtype=np.float32)
    record = make_record(predictions_N=predictions_N, confidences_N=floats_N, true_probabilities_N=floats_N)
    return samples, record


def test_class_rows_agree_with_scikit_learn(binary: tuple[Samples, Record]) -> None:
    samples, record = binary
    tables = rows(record, samples, RowSettings(sweep="demo", sensitive_features=("sex",)))
    y, z = samples.labels_N, record.test.predictions_N
    table = tables["class_metrics"]
    np.testing.assert_allclose(table["accuracy"].to_numpy(), recall_score(y, z, average=None), rtol=1e-12)
    np.testing.assert_allclose(table["precision"].to_numpy(), precision_score(y, z, average=None), rtol=1e-12)
    assert only(tables["trials"])["accuracy"] == pytest.approx(accuracy_score(y, z), rel=1e-12)


def test_fairness_rows_agree_with_fairlearn(binary: tuple[Samples, Record]) -> None:
    samples, record = binary
    tables = rows(record, samples, RowSettings(sweep="demo", sensitive_features=("sex",)))
    y, z = samples.labels_N, record.test.predictions_N
    sex = [groups[0] for groups in samples.sensitive_features["sex"].to_lists()]
    row = only(tables["fairness_metrics"], positive_class="yes")
    for name in (
        "demographic_parity_difference",
        "demographic_parity_ratio",
        "equalized_odds_difference",
        "equalized_odds_ratio",
    ):
        assert row[name] == pytest.approx(getattr(fl, name)(y, z, sensitive_features=sex), rel=1e-12)
        assert 0 < row[name] < 1
    macro = only(tables["fairness_metrics"], positive_class=None)
    assert macro["equalized_odds_difference"] == pytest.approx(row["equalized_odds_difference"], rel=1e-12)
    for name in ("selection_rate", "true_positive_rate", "false_positive_rate"):
        frame = fl.MetricFrame(metrics=getattr(fl, name), y_true=y, y_pred=z, sensitive_features=sex)
        for group, expected in frame.by_group.items():
            assert only(tables["group_metrics"], group=group, positive_class="yes")[name] == pytest.approx(
                expected, rel=1e-12
            )
