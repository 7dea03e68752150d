"""Texts of one's own, listed in a file: what they become, from the list to the tables, and what is refused."""

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_ray.data.families import fingerprint, load_dataset
from kd_ray.data.text_data import TextData
from kd_ray.errors import DataError, SweepError
from kd_ray.results.query import Results
from kd_ray.results.store import Store
from kd_ray.sweep.datasets import ListedDataset
from kd_ray.sweep.load import parse_dataset, parse_sweep
from tests.datasets import WORDS, write_bert

pytest.importorskip("transformers", reason="the extra `text` is not installed")

SETTINGS = (
    "path=posts.csv", "text=post", "tokenizer='hf:tiny-bert'", "max_length=16", "classes=[fine, rude]", "features=[place]",
    "separator='|'", "split=part",
)  # fmt: skip
PLACES = ("north", "south", "north|south", "")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """48 posts of harmless words, whose first word tells the label."""
    write_bert(tmp_path)
    random = np.random.default_rng(0)
    with (tmp_path / "posts.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["post", "label", "place", "part"])
        for n in range(48):
            label = ("fine", "rude")[n % 2]
            words = [{"fine": "good", "rude": "bad"}[label], *random.choice(WORDS[3:], size=2 + n % 7)]
            writer.writerow([" ".join(words), label, PLACES[n // 2 % 4], ("train", "train", "test")[n // 4 % 3]])
    return tmp_path


def dataset(root: Path, *overrides: str) -> ListedDataset:
    """The set with its version filled in."""
    found = parse_dataset("manifest", [*SETTINGS, *overrides])
    assert isinstance(found, ListedDataset)
    return found.model_copy(update={"version": fingerprint(found, root)})


@pytest.mark.slow
def test_texts_labels_groups_and_splits_are_those_of_the_list(root: Path) -> None:
    data = load_dataset(dataset(root), root)
    assert isinstance(data, TextData)
    with (root / "posts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    vocabulary = (root / "models" / "tiny-bert" / "vocab.txt").read_text().split()
    for name, split in (("train", data.train), ("test", data.test)):
        mine = [row for row in rows if row["part"] == name]
        assert len(split) == len(mine)
        for n, row in enumerate(mine):
            tokens = [vocabulary[token] for token in split.ids_NL[n, : split.lengths_N[n]]]
            assert tokens == ["[CLS]", *row["post"].split(), "[SEP]"]
            assert data.class_names[split.labels_N[n]] == row["label"]
            groups = split.sensitive_features["place"]
            found = {group for group, is_in in zip(groups.names, groups.membership_NG[n], strict=True) if is_in}
            assert found == set(filter(None, row["place"].split("|")))


@pytest.mark.slow
def test_a_sweep_of_own_texts_fills_the_tables(root: Path, store: Store) -> None:
    from kd_ray.cluster.launch import launch

    version = dataset(root).version
    sweep = f"""
name: posts
dataset: {{name: manifest, title: posts, version: '{version}', {", ".join(each.replace("=", ": ", 1) for each in SETTINGS)}}}
sensitive_features: [place]
teacher: {{model: "hf:tiny-bert", seed: [0]}}
student: {{model: "hf:tiny-bert", init: teacher, layers: [1]}}
training: {{epochs: 2, batch_size: 8, optimizer: {{name: adamw, lr: 1e-3}}, schedule: {{name: linear}}, clip_norm: 1.0}}
distillation: {{alpha: 0.5, t_squared: true}}
grid: {{seed: [0], temperature: [2]}}
placement: {{data_root: '{root}'}}
"""
    # A title is part of the identity, not of the contents.
    report = launch(parse_sweep(sweep, source="posts.yaml"), store, runner="local")
    assert (report.exit_code, report.num_trained, report.warnings) == (0, 3, ())
    results = Results(store)
    assert results.query("SELECT DISTINCT dataset FROM trials")["dataset"].to_pylist() == ["posts"]
    sql = "SELECT DISTINCT \"group\" AS name FROM group_metrics WHERE feature = 'place' ORDER BY 1"
    assert results.query(sql)["name"].to_pylist() == ["north", "south"]


def test_a_row_without_text_is_refused_or_left_out(root: Path) -> None:
    lines = (root / "posts.csv").read_text().splitlines()
    lines[5] = " ," + lines[5].split(",", 1)[1]
    (root / "posts.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(
        DataError, match=r"1 of 48 rows lack a value in post: post \(line 6\); `dataset\.missing: leave"
    ):
        dataset(root)
    data = load_dataset(dataset(root, "missing=leave_out"), root)
    assert len(data.train) + len(data.test) == 47
    assert data.notes == ("1 of 48 rows left out, which lack a value: post (line 6)",)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tokenizer=null", "tokenizer: is required for texts"),
        ("text=null", "size: is required for images"),
        ("size=32", "size: has no effect with text; remove it"),
        ("columns=[age]", "text: has no effect with columns; keep one of them"),
        ("target=post", "target: text, target and split must be different columns"),
        ("max_length=4", "max_length: should be greater than or equal to 8, got 4"),
    ],
)
def test_settings_that_do_not_fit_texts_are_refused(override: str, message: str) -> None:
    settings: dict[str, Any] = dict(each.split("=", 1) for each in (*SETTINGS, override))
    with pytest.raises(SweepError) as error:
        parse_dataset("manifest", [f"{key}={value}" for key, value in settings.items() if value != "null"])
    assert message in str(error.value)


def test_a_network_for_images_is_refused_for_texts(root: Path) -> None:
    with pytest.raises(SweepError, match="resnet20 takes images, and manifest holds texts; use hf:NAME"):
        parse_sweep(
            f"""
name: posts
dataset: {{name: manifest, {", ".join(each.replace("=", ": ", 1) for each in SETTINGS)}}}
student: {{model: resnet20}}
training: {{epochs: 2, batch_size: 8, optimizer: {{lr: 1e-3}}, schedule: {{name: constant}}}}
grid: {{seed: [0]}}
""",
            source="posts.yaml",
        )


def test_labels_without_a_class_name_are_refused(root: Path) -> None:
    data = load_dataset(dataset(root), root)
    assert isinstance(data, TextData)
    with pytest.raises(ValueError, match=r"train labels lie in 0\.\.1, expected 0\.\.0"):
        TextData(train=data.train, test=data.test, class_names=("fine",))
