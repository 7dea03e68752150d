"""Features are joined to a finished sweep by the names of its samples, without training."""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from kd_ray.analysis.compare import compare
from kd_ray.cluster.regroup import read_features, regroup
from kd_ray.errors import InvalidInputError
from kd_ray.housekeeping.adopt import adopt
from kd_ray.housekeeping.audit import audit
from kd_ray.housekeeping.verify import verify
from kd_ray.results.aggregate import aggregate
from kd_ray.results.inventory import committed
from kd_ray.results.launch_plan import plan
from kd_ray.results.manifest import read_manifest
from kd_ray.results.query import Results
from kd_ray.results.samples import read_samples, write_samples
from kd_ray.results.store import Store, features_key, open_store, part_key
from tests.fakes import commit_trials, make_samples, make_sweep, plan_trials, write_sweep
from tests.golden.make import golden_results

IDS = tuple(f"images/{n}.png" for n in range(12))
LIGHT = ["dark", "bright"] * 6


@pytest.fixture
def finished(store: Store) -> Store:
    """The demo sweep with tables; its samples have names."""
    trials = plan_trials(make_sweep())
    write_samples(store, trials[0].dataset_id, make_samples(ids=IDS))
    commit_trials(store, trials)
    write_sweep(store, make_sweep())
    aggregate(store, "demo")
    return store


def table(path: Path, columns: Mapping[str, Sequence[Any]]) -> Path:
    """A CSV or Parquet file."""
    if path.suffix == ".parquet":
        parquet.write_table(pa.table(dict(columns)), path)
        return path
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([list(columns), *zip(*columns.values(), strict=True)])
    return path


def features(store: Store, tables: Iterable[str] = ("group_metrics", "fairness_metrics")) -> list[set[str]]:
    return [set(Results(store).table(name)["feature"].to_pylist()) for name in tables]


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["csv", pytest.param("parquet", marks=pytest.mark.long)])
def test_every_table_knows_the_new_feature(suffix: str, finished: Store, tmp_path: Path) -> None:
    before = committed(finished)
    path = table(tmp_path / f"t.{suffix}", {"file": [*IDS, "unknown"], "light": [*LIGHT, "dark"]})
    report = regroup(finished, "demo", path, id_column="file")
    assert (report.features, report.num_samples, report.tables.num_trials) == (("light",), 12, 8)
    assert committed(finished) == before
    assert features(finished) == [{"color", "texture", "color & texture", "light"}] * 2
    rows = Results(finished).query("SELECT DISTINCT \"group\", n FROM group_metrics WHERE feature = 'light' ORDER BY 1")
    assert rows.to_pylist() == [{"group": "bright", "n": 6}, {"group": "dark", "n": 6}]
    sql = "SELECT sample_id FROM samples WHERE list_contains((sensitive_features -> 'light')::VARCHAR[], 'bright')"
    assert Results(finished).query(sql)["sample_id"].to_pylist() == list(IDS[1::2])
    assert audit(finished, ["demo"]).disagreements == ()
    assert [it for it in verify(finished).problems if "weights" not in it.key] == []


@pytest.mark.slow
def test_python_knows_the_new_feature(finished: Store, tmp_path: Path) -> None:
    regroup(finished, "demo", table(tmp_path / "t.csv", {"file": IDS, "light": LIGHT}), id_column="file")
    results = Results(finished)
    trial_id = results.table("trials")["trial_id"][0].as_py()
    ours = results.query(
        f"SELECT \"group\", any_value(accuracy) a FROM group_metrics WHERE trial_id = '{trial_id}' AND feature = 'light' GROUP BY 1"
    )
    expected = dict(zip(ours["group"].to_pylist(), ours["a"].to_pylist(), strict=True))
    assert results.metric_frame(trial_id, "light").by_group["accuracy"].to_dict() == pytest.approx(expected)
    frame = results.predictions(trial_id)
    assert list(frame["sample_id"]) == list(IDS)
    assert list(frame["light"]) == LIGHT


@pytest.mark.long
@pytest.mark.slow
def test_compare_knows_the_new_feature(tmp_path: Path) -> None:
    results = golden_results(tmp_path / "store")
    (dataset_id,) = {line.dataset_id for line in read_manifest(results.store, "demo").trials}
    samples = read_samples(results.store, dataset_id)
    assert samples is not None
    ids = [str(n) for n in range(len(samples.labels_N))]
    write_samples(results.store, dataset_id, replace(samples, ids=ids))
    regroup(results.store, "demo", table(tmp_path / "t.csv", {"n": ids, "light": LIGHT * 10}), id_column="n")
    assert {row.sensitive_feature for row in compare(results, "demo").rows} >= {"color", "texture", "light"}
    assert audit(results.store, ["demo"]).disagreements == ()


@pytest.mark.slow
def test_a_later_launch_keeps_the_feature(finished: Store, tmp_path: Path) -> None:
    regroup(finished, "demo", table(tmp_path / "t.csv", {"file": IDS, "light": LIGHT}), id_column="file")
    wider = make_sweep(overrides=["grid.temperature=[1, 4, 8]"])
    assert {line.state for line in plan(make_sweep(), finished).trials} == {"complete"}
    commit_trials(finished, plan_trials(wider)[-3:])
    manifest = write_sweep(finished, wider)
    aggregate(finished, "demo")
    assert manifest.row_settings.sensitive_features == ("color", "texture", "light")
    assert "light" in features(finished)[0]
    assert read_manifest(finished, "demo") == manifest


@pytest.mark.slow
def test_a_feature_can_be_replaced(finished: Store, tmp_path: Path) -> None:
    first = table(tmp_path / "a.csv", {"file": IDS, "light": LIGHT})
    second = table(tmp_path / "b.csv", {"file": IDS, "light": ["a"] * 4 + ["b"] * 8, "ignored": ["x"] * 12})
    regroup(finished, "demo", first, id_column="file")
    regroup(finished, "demo", second, id_column="file", columns=["light"])
    rows = Results(finished).query("SELECT DISTINCT \"group\", n FROM group_metrics WHERE feature = 'light' ORDER BY 1")
    assert rows.to_pylist() == [{"group": "a", "n": 4}, {"group": "b", "n": 8}]
    assert len(read_manifest(finished, "demo").row_settings.added) == 1


@pytest.mark.slow
def test_a_sample_can_be_in_several_groups_or_in_none(finished: Store, tmp_path: Path) -> None:
    lists = [["a"], ["a", "b"], [], ["b"]] * 3
    regroup(finished, "demo", table(tmp_path / "t.parquet", {"file": IDS, "community": lists}), id_column="file")
    rows = Results(finished).query(
        "SELECT DISTINCT \"group\", n FROM group_metrics WHERE feature = 'community' ORDER BY 1"
    )
    assert rows.to_pylist() == [{"group": "a", "n": 6}, {"group": "b", "n": 6}]


@pytest.mark.slow
def test_a_merge_brings_added_features(finished: Store, tmp_path: Path) -> None:
    regroup(finished, "demo", table(tmp_path / "t.csv", {"file": IDS, "light": LIGHT}), id_column="file")
    target = open_store(tmp_path / "target")
    (added,) = read_manifest(finished, "demo").row_settings.added
    adopt(finished, target)
    assert target.exists(features_key(added.digest))
    assert read_manifest(target, "demo").row_settings.added == (added,)


@pytest.mark.slow
def test_a_table_that_is_lost_is_named(finished: Store, tmp_path: Path) -> None:
    """Guard: the samples are whole, so no launch loads their data set for it."""
    path = table(tmp_path / "t.csv", {"file": IDS, "light": LIGHT})
    regroup(finished, "demo", path, id_column="file")
    (added,) = read_manifest(finished, "demo").row_settings.added
    finished.delete(features_key(added.digest))
    finished.delete(part_key("trials", "demo", 0))
    report = aggregate(finished, "demo")
    assert report.damaged_samples == ()
    assert any("is missing, or its content is not what its name says" in problem for problem in report.problems)
    regroup(finished, "demo", path, id_column="file")
    assert aggregate(finished, "demo").problems == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        (
            {"file": IDS[:10], "light": LIGHT[:10]},
            {},
            "has no row for test samples .*: 2 of 12, such as 'images/10.png'",
        ),
        ({"file": [*IDS, IDS[3]], "light": [*LIGHT, "dark"]}, {}, "line 14: the id 'images/3.png' is in line 5, too"),
        ({"file": [*IDS, ""], "light": [*LIGHT, "dark"]}, {}, "line 14: has no id"),
        ({"file": IDS, "light": ["dark"] * 12}, {}, "'light' puts the test samples into fewer than two groups: dark"),
        ({"file": IDS, "color": LIGHT}, {}, "has a feature 'color'; rename the column"),
        ({"file": IDS, "light": ["dark\x1b[2J", *LIGHT[1:]]}, {}, "the group of light .* holds the control character"),
        (
            {"file": IDS, "light": ["caf\u00e9", "cafe\u0301", *LIGHT[2:]]},
            {},
            "look the same and have different characters",
        ),
        ({"file": IDS}, {}, "has no column of groups beside the id column 'file'"),
        (
            {"file": IDS, "light": LIGHT},
            {"id_column": "name"},
            "--id name: .* has no such column; its columns: file, light",
        ),
        ({"file": IDS, "light": LIGHT}, {"columns": ["age"]}, "--column age: .* has no such column"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_joined_is_refused(
    columns: dict[str, Any], options: dict[str, Any], message: str, finished: Store, tmp_path: Path
) -> None:
    path = table(tmp_path / "t.csv", columns)
    before = sorted(item.key for item in finished.entries(""))
    with pytest.raises(InvalidInputError, match=message) as error:
        regroup(finished, "demo", path, **{"id_column": "file", **options})
    assert str(path) in str(error.value)
    assert sorted(item.key for item in finished.entries("")) == before


def test_a_table_is_read_as_lists_of_data_are(tmp_path: Path) -> None:
    """Guards: `read_list` and `texts_of`; a long value is no error, and Arrow's types are the texts that a person would write."""
    long = "x" * 3_000_000
    (tmp_path / "a.csv").write_text(f"file,note,light\na.png,{long},dark\n\nb.png,,bright\n")
    found = read_features(tmp_path / "a.csv", id_column="file", columns=["light"])
    assert (found.ids, found.places) == (["a.png", "b.png"], ["line 2", "line 4"])
    assert found.features == {"light": [["dark"], ["bright"]]}
    columns = {
        "file": pa.array(["a", "b"]).dictionary_encode(),
        "float": pa.array([0.1, 2.0], pa.float32()),
        "bytes": pa.array([b"f", None]),
        "lists": pa.array([["x", "y"], None]),
    }
    parquet.write_table(pa.table(columns), tmp_path / "a.parquet")
    found = read_features(tmp_path / "a.parquet", id_column="file")
    assert found.features == {"float": [["0.1"], ["2"]], "bytes": [["f"], []], "lists": [["x", "y"], []]}
    assert found.places == ["row 1", "row 2"]


@pytest.mark.slow
def test_a_file_that_cannot_be_read_is_refused(finished: Store, tmp_path: Path) -> None:
    for name, content in (("a.csv", b"file,light\nx\n"), ("a.parquet", b"no"), ("b.csv", b"file,l\xff\n")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InvalidInputError, match=re.escape(f"{name}: cannot be read")):
            regroup(finished, "demo", tmp_path / name, id_column="file")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        regroup(finished, "demo", tmp_path / "nothing.csv", id_column="file")


def test_samples_get_names_when_their_data_set_is_loaded_again(store: Store) -> None:
    """As for a store of kd_ray 0.1."""
    write_samples(store, "0" * 16, make_samples())
    write_samples(store, "0" * 16, make_samples(ids=IDS))
    found = read_samples(store, "0" * 16)
    assert found is not None
    assert found.ids == list(IDS)
    write_samples(store, "0" * 16, make_samples())
    again = read_samples(store, "0" * 16)
    assert again is not None
    assert again.ids == list(IDS)


def test_a_feature_may_have_the_name_of_the_column_of_names(store: Store) -> None:
    groups = make_samples().sensitive_features["color"]
    write_samples(store, "0" * 16, make_samples(ids=IDS, sensitive_features={"id": groups, "id_": groups}))
    found = read_samples(store, "0" * 16)
    assert found is not None
    assert found.ids == list(IDS)
    assert np.array_equal(found.sensitive_features["id"].membership_NG, groups.membership_NG)
