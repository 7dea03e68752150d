"""Data from a function: the example of docs/own-data.md, installed as a distribution would be, and what is refused."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from pydantic import TypeAdapter, ValidationError

from kd_ray.cli import cli
from kd_ray.cluster.launch import launch
from kd_ray.data import factory
from kd_ray.data.factory import OwnData
from kd_ray.data.families import load_dataset
from kd_ray.data.family import Loading
from kd_ray.data.image_data import ImageData
from kd_ray.errors import DataError
from kd_ray.results.launch_plan import plan
from kd_ray.results.query import Results
from kd_ray.results.store import Store
from kd_ray.sweep.datasets import FactoryDataset
from kd_ray.sweep.load import parse_sweep
from kd_ray.sweep.source import read_yaml

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "own-data.md").read_text()
FUNCTION = "my_data.rings:load"
(SWEEP,) = [block for block in re.findall(r"```yaml\n(.*?)```", DOCS, flags=re.DOTALL) if FUNCTION in block]
OTHERS = """
import numpy as np
from kd_ray.data.factory import OwnData

def images(root, parameters):
    inputs = np.arange(8 * 16 * 16 * 3).astype(np.uint8).reshape(8, 16, 16, 3)
    inputs[0, 0, 0, 0] = len(parameters)
    return OwnData(inputs=inputs, labels_N=np.arange(8) % 2, split_N=["train", "validation", "test", "train"] * 2,
                   features={"tag": [["a"], ["a", "b"], [], "b"] * 2})

def fails(root, parameters):
    raise RuntimeError("no such sensor")

def other(root, parameters):
    return {"inputs": 3}

def wrong(root, parameters):
    return OwnData(inputs=np.zeros((2, 1)), labels_N=np.array([0, 1]), split_N=["train"])
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with the example and others, as an installer would leave it."""
    source = re.search(r"```python\n(# my_data/rings\.py\n.*?)```", DOCS, flags=re.DOTALL)
    declared = re.search(r"```toml\n(.*?)```", DOCS, flags=re.DOTALL)
    assert source
    assert declared
    assert declared.group(1) == f'[project.entry-points."{factory.GROUP}"]\nrings = "{FUNCTION}"\n'
    package, info = tmp_path / "site" / "my_data", tmp_path / "site" / "my_data-1.0.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text("")
    (package / "rings.py").write_text(source.group(1))
    (package / "others.py").write_text(OTHERS)
    (package / "secret.py").write_text("raise SystemExit('imported')\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-data\nVersion: 1.0\n")
    offered = {"rings": FUNCTION, "gone": "my_data.rings:gone"}
    offered |= {name: f"my_data.others:{name}" for name in ("images", "fails", "other", "wrong")}
    lines = [f"{name} = {path}" for name, path in offered.items()]
    (info / "entry_points.txt").write_text("\n".join([f"[{factory.GROUP}]", *lines]) + "\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "my_data"]:
        del sys.modules[name]


def make(**changes: Any) -> FactoryDataset:
    """The data set of the example; `changes` of None remove a field."""
    raw, _ = read_yaml(SWEEP, "own-data.md")
    fields = {name: value for name, value in {**raw["dataset"], **changes}.items() if value is not None}
    return TypeAdapter(FactoryDataset).validate_json(json.dumps(fields))


IMAGES: dict[str, Any] = {
    "function": "my_data.others:images", "parameters": None, "samples": "images", "size": 16, "classes": ["a", "b"],
    "features": ["tag"], "returns_validation": True,
}  # fmt: skip


@pytest.mark.slow
def test_the_example_of_the_docs_fills_every_table(installed: Path, store: Store) -> None:
    (installed / "rings.yaml").write_text(SWEEP)
    checked = CliRunner().invoke(cli, ["data", "check", str(installed / "rings.yaml")])
    assert checked.exit_code == 1
    assert f"{FUNCTION}: 400 train, 200 test rows of 2 numbers in 2 classes" in checked.stdout
    version = checked.stdout.split("`dataset.version: '")[1][:16]
    file = parse_sweep(SWEEP, source="rings.yaml", overrides=[f"dataset.version='{version}'"])
    assert launch(file, store, runner="local").exit_code == 0
    results = Results(store)
    sql = "SELECT DISTINCT dataset, target, model FROM trials WHERE role = 'distilled'"
    assert results.query(sql).to_pylist() == [{"dataset": FUNCTION, "target": "ring", "model": "mlp-4"}]
    sql = 'SELECT avg(accuracy) AS a FROM group_metrics WHERE role = \'distilled\' GROUP BY "group" ORDER BY "group"'
    exact, noisy = results.query(sql)["a"].to_pylist()
    assert exact > noisy + 0.05
    samples = results.query("SELECT DISTINCT dataset FROM samples").to_pylist()
    assert samples == [{"dataset": FUNCTION}]


def test_planning_a_sweep_imports_nothing(installed: Path) -> None:
    file = parse_sweep(SWEEP.replace(FUNCTION, "my_data.secret:load"), source="rings.yaml")
    assert len(plan(file, None).planned) == 7
    assert not [name for name in sys.modules if name.startswith("my_data")]


def test_what_no_distribution_offers_is_not_imported(installed: Path) -> None:
    message = (
        r"offers 'my_data\.secret:load' as an entry point of 'kd_ray\.datasets'; offered: my_data\.others:fails, my"
    )
    with pytest.raises(DataError, match=message):
        load_dataset(make(function="my_data.secret:load"), installed)
    assert "my_data.secret" not in sys.modules
    with pytest.raises(DataError, match=r"offers 'os:system'"):
        load_dataset(make(function="os:system"), installed)
    with pytest.raises(DataError, match=r"my_data\.rings:gone cannot be imported: "):
        load_dataset(make(function="my_data.rings:gone"), installed)


def test_images_groups_and_validation_are_as_returned(installed: Path) -> None:
    dataset = make(**IMAGES)
    data = load_dataset(make(**IMAGES, version=factory.fingerprint(dataset, Loading(root=installed))), installed)
    assert isinstance(data, ImageData)
    assert data.validation is not None
    assert [len(data.train), len(data.validation), len(data.test)] == [4, 2, 2]
    assert data.train.sensitive_features["tag"].to_lists() == [["a"], ["b"], ["a"], ["b"]]
    assert data.test.sensitive_features["tag"].to_lists() == [[], []]
    expected = np.arange(8 * 16 * 16 * 3).astype(np.uint8).reshape(8, 16, 16, 3)
    assert np.array_equal(data.test.images_NHWC, expected[[2, 6]])


@pytest.mark.slow
def test_version_stands_for_all_that_is_returned(installed: Path) -> None:
    found = factory.fingerprint(make(), Loading(root=installed))
    assert found == factory.fingerprint(make(), Loading(root=installed))
    with pytest.raises(DataError, match=rf"returns needs a version, .*`dataset\.version: '{found}'`"):
        load_dataset(make(), installed)
    with pytest.raises(DataError, match=rf"is not version 0123456789abcdef; .*{found}"):
        load_dataset(make(version="0123456789abcdef"), installed)
    assert factory.fingerprint(make(parameters={"count": 600, "noise": 0.9}), Loading(root=installed)) != found
    prints = {factory.fingerprint(make(**IMAGES), Loading(root=installed))}
    prints.add(factory.fingerprint(make(**{**IMAGES, "parameters": {"x": 1}}), Loading(root=installed)))
    assert len(prints) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"function": "my_data.others:fails"}, "my_data.others:fails failed: RuntimeError: no such sensor"),
        ({"function": "my_data.others:other"}, "returned dict, expected kd_ray.data.factory.OwnData"),
        ({"function": "my_data.others:wrong"}, "failed: ValueError: split_N has 1 values, expected 2"),
        ({"features": ["sensor", "color"]}, "no feature 'color', which dataset.features names; it returned sensor"),
        ({"samples": "images", "size": 16}, "inputs of shape (600, 2), and the sweep file means images of 16 × 16"),
        ({**IMAGES, "samples": "rows", "size": None}, "the sweep file means rows of numbers"),
        ({**IMAGES, "returns_validation": None}, "a validation split, and dataset.returns_validation says otherwise"),
        ({"returns_validation": True}, "no validation split, and dataset.returns_validation says otherwise"),
    ],
)
def test_what_is_other_than_the_sweep_says_is_refused(installed: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=re.escape(message)):
        load_dataset(make(**changes), installed)


OWN: dict[str, Any] = {
    "inputs": np.zeros((3, 2)),
    "labels_N": np.array([0, 1, 0]),
    "split_N": ["train", "train", "test"],
}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": np.full((3, 2), np.nan)}, "expected uint8 images"),
        ({"inputs": np.zeros((3, 4, 4, 1), np.uint8)}, r"shape \(3, 4, 4, 1\) and dtype uint8, expected"),
        ({"inputs": np.zeros((3, 0))}, "expected uint8 images"),
        (
            {"labels_N": np.array([0.0, 1.0, 0.0])},
            r"labels have shape \(3,\) and dtype float64, expected \(3,\) integers",
        ),
        ({"split_N": ["train", "dev", "test"]}, "split_N has 'dev', expected train, validation, test"),
        ({"features": {"g": ["a", "b"]}}, "g has 2 values, expected 3"),
        ({"features": {"g": ["a", 5, "b"]}}, "feature 'g' has 5, expected the name of a group"),
        ({"features": {"g": ["a", ["b", None], "b"]}}, r"feature 'g' has \['b', None\]"),
    ],
)
def test_own_data_that_does_not_match_is_refused(changes: dict[str, Any], message: str) -> None:
    OwnData(**OWN)
    with pytest.raises(ValueError, match=message):
        OwnData(**{**OWN, **changes})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"function": "rings"}, "String should match pattern"),
        ({"size": 32}, "has no effect on rows of numbers"),
        ({"normalization": "half"}, "has no effect on rows of numbers, which are standardised"),
        ({"samples": "images"}, "is required for images"),
        ({"classes": ["a", "a"]}, "repeats a value"),
        ({"features": ["a", "a"]}, "repeats a value"),
        ({"returns_validation": True, "validation_fraction": 0.5}, "has no effect with returns_validation"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        make(**changes)
