"""A sweep that was really trained is grouped in other ways, and nothing is trained again."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from kd_ray.cluster.launch import LaunchReport, launch
from kd_ray.data import listed
from kd_ray.data.family import Loading
from kd_ray.housekeeping.audit import audit
from kd_ray.results.inventory import committed
from kd_ray.results.query import Results
from kd_ray.results.store import Store, open_store
from kd_ray.sweep.datasets import ListedDataset
from kd_ray.sweep.load import parse_sweep
from tests.datasets import write_people

PEOPLE = """
name: people
dataset:
  name: manifest
  path: people/people.csv
  classes: ["no", "yes"]
  split: split
  size: 16
sensitive_features: []
student: {model: lenet5}
training:
  epochs: 1
  batch_size: 8
  optimizer: {name: sgd, lr: 0.02}
  schedule: {name: constant}
grid: {seed: [0, 1]}
"""
RACE = ("dataset.features=[race]", "dataset.separator=;", "sensitive_features=[race]")
BOTH = (
    "dataset.features=[race, age]",
    "dataset.separator=;",
    'dataset.bins=[{"column": "age", "edges": [40]}]',
    "sensitive_features=[race, age]",
    "intersections=[[race, age]]",
)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Store, Path]:
    """Two scratch students of people, with no features at all."""
    folder = tmp_path_factory.mktemp("regrouping")
    store, root = open_store(folder / "store"), write_people(folder / "data")
    assert run(store, root, ()).num_trained == 2
    return store, root


def run(store: Store, root: Path, overrides: Sequence[str]) -> LaunchReport:
    plain = parse_sweep(PEOPLE, source="people", overrides=overrides).sweep.dataset
    assert isinstance(plain, ListedDataset)
    version = listed.fingerprint(plain, Loading(root=root))
    more = (f'dataset.version="{version}"', f"placement.data_root={root}")
    return launch(parse_sweep(PEOPLE, source="people", overrides=[*overrides, *more]), store, runner="local")


@pytest.mark.slow
def test_features_bins_and_sizes_change_without_training(trained: tuple[Store, Path]) -> None:
    store, root = trained
    records = committed(store)
    seen = []
    for overrides in (RACE, BOTH, (*BOTH, "dataset.min_group_size=5"), ()):
        report = run(store, root, overrides)
        assert (report.num_trained, report.exit_code, committed(store)) == (0, 0, records)
        assert audit(store, ["people"]).disagreements == ()
        sql = 'SELECT feature, count(DISTINCT "group") AS n FROM group_metrics GROUP BY 1 ORDER BY 1'
        seen.append({row["feature"]: row["n"] for row in Results(store).query(sql).to_pylist()})
    assert seen[:2] == [{"race": 2}, {"age": 2, "race": 2, "race & age": 4}]
    assert seen[2]["race & age"] < 4
    assert seen[3] == {}


@pytest.mark.slow
def test_a_query_finds_the_files_of_test_images(trained: tuple[Store, Path]) -> None:
    store, _ = trained
    found = Results(store).query("SELECT DISTINCT sample_id FROM samples")["sample_id"].to_pylist()
    assert len(found) == 16
    assert all(name.startswith("images/") for name in found)
