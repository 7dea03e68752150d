"""Arrays, frames and folders that become the data set of a sweep: what is read is what was given."""

import gzip
import json
import re
import struct
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from PIL import Image

import kd_ray
from kd_ray.data.families import load_dataset
from kd_ray.data.image_data import ImageData
from kd_ray.data.modalities import Data
from kd_ray.data.row_data import RowData
from kd_ray.data.written import dataset, read_idx
from kd_ray.errors import DataError, SweepError
from kd_ray.sweep.load import parse_dataset
from tests.datasets import pixels, write_bert

SPLIT = ["train", "train", "train", "train", "test", "test"]
LABELS = [0, 1, 0, 1, 0, 1]


def load(root: Path, section: dict[str, Any]) -> Data:
    assert json.loads(json.dumps(section)) == section
    overrides = [f"{key}={json.dumps(value)}" for key, value in section.items() if key != "name"]
    return load_dataset(parse_dataset("manifest", overrides), root)


def images_of(root: Path, section: dict[str, Any]) -> npt.NDArray[np.uint8]:
    data = load(root, section)
    assert isinstance(data, ImageData)
    return np.concatenate([data.train.images_NHWC, data.test.images_NHWC])


def test_arrays_of_colors_are_read_as_they_are(tmp_path: Path) -> None:
    images_NHWC = pixels(6, 20, 20, 3)
    section = dataset("things", images=images_NHWC, labels=np.array(LABELS), split=SPLIT, data_root=tmp_path,
                      features={"place": ["a", "b", None, "a", "a", "b"]})  # fmt: skip
    assert section == {
        "name": "manifest", "path": "things.parquet", "title": "things", "image": "image", "size": 20, "channels": "last",
        "classes": ["0", "1"], "target": "label", "features": ["place"], "split": "split", "version": section["version"],
    }  # fmt: skip
    assert np.array_equal(images_of(tmp_path, section), images_NHWC)
    data = load(tmp_path, section)
    assert data.train.labels_N.tolist() == [0, 1, 0, 1]
    assert data.train.sensitive_features["place"].to_lists() == [["a"], ["b"], [], ["a"]]


@pytest.mark.parametrize("shape", [(6, 18, 18), (6, 18, 18, 1)])
def test_grey_images_have_three_equal_channels(shape: tuple[int, ...], tmp_path: Path) -> None:
    grey = pixels(*shape)
    found = images_of(tmp_path, dataset("grey", images=grey, labels=LABELS, split=SPLIT, data_root=tmp_path))
    for channel in range(3):
        assert np.array_equal(found[..., channel], grey.reshape(6, 18, 18))


def test_small_and_oblong_images_are_resized(tmp_path: Path) -> None:
    section = dataset("small", images=pixels(6, 8, 8), labels=LABELS, split=SPLIT, data_root=tmp_path)
    assert images_of(tmp_path, section).shape == (6, 16, 16, 3)
    section = dataset("long", images=pixels(6, 20, 30, 3), labels=LABELS, split=SPLIT, data_root=tmp_path, size=16)
    assert images_of(tmp_path, section).shape == (6, 16, 16, 3)


def idx(array: npt.NDArray[np.uint8]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def test_idx_files_are_read(tmp_path: Path) -> None:
    images, labels = pixels(6, 16, 16), np.array(LABELS, dtype=np.uint8)
    (tmp_path / "images.gz").write_bytes(gzip.compress(idx(images)))
    (tmp_path / "labels").write_bytes(idx(labels))
    section = dataset(
        "mnist", images=tmp_path / "images.gz", labels=tmp_path / "labels", split=SPLIT, data_root=tmp_path
    )
    assert np.array_equal(images_of(tmp_path, section)[..., 0], images)
    (tmp_path / "short").write_bytes(idx(images)[:-1])
    for name, message in (("short", "is no IDX file of bytes"), ("gone", "cannot be read as an IDX file")):
        with pytest.raises(DataError, match=message):
            read_idx(tmp_path / name)


def write_tree(root: Path, *folders: str) -> npt.NDArray[np.uint8]:
    images = pixels(len(folders), 16, 16, 3)
    for k, folder in enumerate(folders):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(images[k]).save(root / folder / f"{k}.png")
    return images


def test_a_tree_of_class_folders_with_a_table_of_attributes(tmp_path: Path) -> None:
    images = write_tree(tmp_path / "tree", *["cat", "dog"] * 3)
    table = pd.DataFrame({"file": [f"{k}.png" for k in range(6)], "age": [10, 20, 30, 40, 50, 60]})
    section = dataset("pets", images=tmp_path / "tree", features=table, size=16, data_root=tmp_path, test_fraction=0.5,
                      bins=[{"column": "age", "edges": [35]}])  # fmt: skip
    assert (section["classes"], section["features"], section["test_fraction"]) == (["cat", "dog"], ["age"], 0.5)
    found = images_of(tmp_path, section)
    assert {it.tobytes() for it in found} == {it.tobytes() for it in images}
    data = load(tmp_path, section)
    assert isinstance(data, ImageData)
    for image, groups in zip(data.test.images_NHWC, data.test.sensitive_features["age"].to_lists(), strict=True):
        (k,) = [k for k in range(6) if np.array_equal(images[k], image)]
        assert groups == ["<35" if table["age"][k] < 35 else ">=35"]
    with pytest.raises(DataError, match=r"features lack 1 of 6 images: cat/0\.png"):
        dataset("pets", images=tmp_path / "tree", features=table[1:], size=16, data_root=tmp_path)


def test_a_tree_may_have_its_splits(tmp_path: Path) -> None:
    write_tree(tmp_path / "tree", "train/cat", "train/dog", "val/cat", "test/cat", "test/dog")
    data = load(tmp_path, dataset("pets", images=tmp_path / "tree", size=16, data_root=tmp_path))
    assert (len(data.train), len(data.validation or ()), len(data.test)) == (2, 1, 2)


def test_a_frame_gives_inputs_labels_and_features(tmp_path: Path) -> None:
    frame = pd.DataFrame({
        "income": [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "job": ["x", "y", "x", "y", "x", "y"], "own": [True, False] * 3,
        "good": ["no", "yes"] * 3, "sex": pd.Categorical(["f", "m", None, "m", "f", "m"]), "part": SPLIT,
    })  # fmt: skip
    section = dataset("loans", rows=frame, labels="good", features=["sex"], split="part", data_root=tmp_path)
    assert (section["columns"], section["categorical"]) == (["income", "job", "own"], ["job", "own"])
    data = load(tmp_path, section)
    assert isinstance(data, RowData)
    assert data.class_names == ("no", "yes")
    assert data.columns == ("income", "job=x", "job=y", "own=false", "own=true")
    assert data.test.sensitive_features["sex"].to_lists() == [["f"], ["m"]]
    numbers = dataset("numbers", rows=np.arange(12.0).reshape(6, 2), labels=LABELS, split=SPLIT, data_root=tmp_path)
    assert load(tmp_path, numbers).train.num_inputs == 2


def test_the_fingerprint_stands_for_the_content(tmp_path: Path) -> None:
    images = pixels(6, 16, 16)
    given: dict[str, Any] = {"labels": LABELS, "split": SPLIT, "data_root": tmp_path}
    first = dataset("things", images=images, **given)
    assert dataset("things", images=images, **given) == first
    with pytest.raises(DataError, match=r"things.parquet exists with another content; .*overwrite=True"):
        dataset("things", images=images[::-1], **given)
    again = dataset("things", images=images[::-1], overwrite=True, **given)
    assert again["version"] != first["version"]
    with pytest.raises(DataError, match="version"):
        load(tmp_path, first)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.zeros((6, 16, 16))}, r"float64, expected uint8; for numbers from 0 to 1: \(255 \* images\)"),
        ({"images": np.zeros((6, 3, 16, 16), np.uint8)}, r"6×3×16×16, .*images.transpose\(0, 2, 3, 1\)"),
        ({"images": np.zeros((6, 16, 16, 4), np.uint8)}, "expected N × height × width, with 1 or 3 channels"),
        ({"images": None}, "give one of images, rows and texts"),
        ({"labels": LABELS[1:]}, "label has 5 values, expected 6"),
        ({"labels": [0.5] * 6}, r"labels must be texts or integers, got 0\.5"),
        ({"labels": [1, "1"] * 3}, "labels are of several types: int, str"),
        ({"labels": None}, "labels are required"),
        ({"features": {"a": [1]}}, "a has 1 values, expected 6"),
        ({"features": {"label": LABELS}}, "two columns are named 'label'"),
        ({"features": ["a"]}, "names of columns only with rows"),
        ({"images": None, "rows": pd.DataFrame({"a": LABELS}), "labels": "b"}, "no column 'b'; they have a"),
        ({"images": None, "rows": np.array(["x"])}, "expected N × F numbers"),
    ],
)
def test_what_cannot_be_used_is_named_before_anything_is_written(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    given = {"images": pixels(6, 16, 16), "labels": LABELS, "split": SPLIT, **changes}
    with pytest.raises(DataError, match=message):
        dataset("things", data_root=tmp_path, **given)
    assert not list(tmp_path.iterdir())


def test_settings_are_checked_as_in_a_sweep_file(tmp_path: Path) -> None:
    with pytest.raises(SweepError, match="tokenizer: is required for texts"):
        dataset("posts", texts=["a", "b"], labels=[0, 1], data_root=tmp_path)
    with pytest.raises(SweepError, match=r"dataset\.sizes: "):
        kd_ray.dataset("things", images=pixels(6, 16, 16), labels=LABELS, data_root=tmp_path, sizes=3)
    assert not list(tmp_path.iterdir())


def test_own_means_and_deviations(tmp_path: Path) -> None:
    given: dict[str, Any] = {"images": pixels(6, 16, 16), "labels": LABELS, "split": SPLIT, "data_root": tmp_path}
    own = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    data = load(tmp_path, dataset("things", normalization=own, **given))
    assert isinstance(data, ImageData)
    assert (data.mean, data.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    with pytest.raises(SweepError, match="greater than 0"):
        dataset("things", normalization={"mean": [0, 0, 0], "std": [1, 0, 1]}, **given)


DOCS = (Path(__file__).resolve().parents[3] / "docs" / "own-data.md").read_text()
BLOCKS = [it for it in re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL) if "kd_ray.dataset(" in it]


def test_the_examples_of_the_docs_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (example, _) = BLOCKS
    exec(example, {})
    assert sorted(it.name for it in (tmp_path / "data").glob("*.*")) == ["loans.parquet", "noise.parquet"]


@pytest.mark.slow
def test_the_example_of_texts_fills_the_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("transformers", reason="the extra `text` is not installed")
    monkeypatch.chdir(tmp_path)
    write_bert(tmp_path / "data")
    exec(BLOCKS[1].replace("hf:minilm", "hf:tiny-bert"), {})
    trials = kd_ray.open_store(tmp_path / "kd_ray_store").frame("trials", sweep="remarks")
    assert sorted(trials["role"]) == ["distilled", "scratch", "teacher"]
    assert set(trials["dataset"]) == {"remarks"}
