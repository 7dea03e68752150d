import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from kd_ray.data import tiny_imagenet
from kd_ray.data.family import Loading
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import TinyImagenetDataset
from tests.datasets import encoded, write_tiny_imagenet


def _load(root: Path, size: int = 64) -> Any:
    dataset, loading = TinyImagenetDataset(name="tiny_imagenet", size=size), Loading(root=root)
    version = tiny_imagenet.fingerprint(dataset, loading)
    return tiny_imagenet.load(dataset.model_copy(update={"version": version}), loading)


def test_load_reads_what_torchvision_reads(tmp_path: Path) -> None:
    data = _load(write_tiny_imagenet(tmp_path))
    assert data.train.images_NHWC.shape == (24, 64, 64, 3)
    assert data.test.images_NHWC.shape == (12, 64, 64, 3)
    assert data.class_names == ("n0003", "n0002 thing 0002", "n0001 thing 0001", "n0000 thing 0000")
    reference = ImageFolder(str(tmp_path / "tiny-imagenet-200" / "train"))
    mine = [data.class_names[label].split()[0] for label in data.train.labels_N]
    # torchvision orders classes by name, the list here by falling name.
    assert mine == sorted((reference.classes[label] for _, label in reference.samples), reverse=True)
    by_class = {
        name: [np.asarray(image) for image, c in reference if reference.classes[c] == name] for name in set(mine)
    }
    expected = [image for name in dict.fromkeys(mine) for image in by_class[name]]
    assert np.array_equal(data.train.images_NHWC, np.stack(expected))


@pytest.mark.slow
def test_real_images_have_their_labels_and_pixels(tmp_path: Path, shared_data: Path) -> None:
    with zipfile.ZipFile(shared_data / "tiny-imagenet" / "tiny-imagenet-200-mini.zip") as archive:
        wnids = archive.read("tiny-imagenet-200/wnids.txt").decode().split()[:6]
        rows = [
            line.split("\t")
            for line in archive.read("tiny-imagenet-200/val/val_annotations.txt").decode().splitlines()
            if line.split("\t")[1] in wnids
        ]
        wanted = {f"tiny-imagenet-200/val/images/{row[0]}" for row in rows} | {"tiny-imagenet-200/words.txt"}
        for name in archive.namelist():
            if name in wanted or (name.startswith("tiny-imagenet-200/train") and name.split("/")[2] in wnids):
                archive.extract(name, tmp_path)
    folder = tmp_path / "tiny-imagenet-200"
    (folder / "wnids.txt").write_text("\n".join(wnids) + "\n")
    (folder / "val" / "val_annotations.txt").write_text("".join("\t".join(row) + "\n" for row in rows))
    data = _load(tmp_path)
    assert np.bincount(data.train.labels_N).tolist() == [25] * 6
    assert np.bincount(data.test.labels_N).tolist() == [10] * 6
    assert [wnids[label] for label in data.test.labels_N] == [row[1] for row in rows]
    for n in (0, 17, 59):
        image = Image.open(folder / "val" / "images" / rows[n][0]).convert("RGB")
        assert np.array_equal(data.test.images_NHWC[n], np.asarray(image))
    assert all(
        name.startswith(wnid) and len(name) > len(wnid) for name, wnid in zip(data.class_names, wnids, strict=True)
    )


def test_smaller_images_are_another_preparation_of_the_same_version(tmp_path: Path) -> None:
    root = write_tiny_imagenet(tmp_path)
    assert _load(root, 32).train.images_NHWC.shape == (24, 32, 32, 3)
    small, large = (TinyImagenetDataset(name="tiny_imagenet", size=size) for size in (32, 64))
    loading = Loading(root=root)
    assert tiny_imagenet.fingerprint(small, loading) == tiny_imagenet.fingerprint(large, loading)


def test_original_means_the_published_counts(tmp_path: Path) -> None:
    dataset, loading = TinyImagenetDataset(name="tiny_imagenet"), Loading(root=write_tiny_imagenet(tmp_path))
    with pytest.raises(DataError, match="it holds 24 and 12 images of 4 classes, not 100,000 and 10,000 of 200"):
        tiny_imagenet.load(dataset, loading)
    assert len(tiny_imagenet.load(dataset, loading, published=(4, 6, 3)).train) == 24
    with pytest.raises(DataError, match="version '0123456789abcdef': the fingerprint differs"):
        tiny_imagenet.load(dataset.model_copy(update={"version": "0123456789abcdef"}), loading)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("words.txt", None, r"1 of 3 files are missing; unpack tiny-imagenet-200\.zip .*words\.txt"),
        ("wnids.txt", "", r"wnids\.txt does not list different classes"),
        ("wnids.txt", "n0000\nn0000\n", r"wnids\.txt does not list different classes"),
        ("wnids.txt", "n0000\nn7777\n", r"n7777/images has no images \(\*\.JPEG\)"),
        ("val/val_annotations.txt", "val_0.JPEG\tn9\t0\n", r"val_annotations\.txt:1: expected a file and a class"),
        ("val/val_annotations.txt", "val_0.JPEG\n", r"val_annotations\.txt:1: expected a file and a class"),
        ("val/val_annotations.txt", "../../x\tn0000\n", r"val_annotations\.txt:1: expected a file and a class"),
        ("val/val_annotations.txt", "other.JPEG\tn0000\n", r"1 of 25 image files are missing: val/images/other\.JPEG"),
        (
            "val/images/val_3.JPEG",
            "not an image",
            r"image val/images/val_3\.JPEG cannot be used: it is no image in one of",
        ),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, file: str, content: str | None, message: str) -> None:
    path = write_tiny_imagenet(tmp_path, image=encoded()) / "tiny-imagenet-200" / file
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(DataError, match=message):
        _load(tmp_path)
