import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision import datasets
from torchvision.transforms import v2

from kd_ray.data.families import load_dataset
from kd_ray.data.family import Loading
from kd_ray.data.image_folders import FAMILIES, ImageFolder
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import ImagenetDataset
from tests.datasets import write_imagenet

IMAGENET = FAMILIES["imagenet"]


def _load(root: Path, folder: str = "imagenet", size: int = 32) -> Any:
    dataset, loading = ImagenetDataset(name="imagenet", folder=folder, size=size), Loading(root=root)
    version = IMAGENET.fingerprint(dataset, loading)
    return IMAGENET.load(dataset.model_copy(update={"version": version}), loading)


def _agree(split: Any, folder: Path, size: int) -> None:
    """The images and labels are those of torchvision's ImageFolder."""

    def square(image: Any) -> Any:
        return v2.Resize([size, size])(v2.CenterCrop(min(image.size))(image))

    reference = datasets.ImageFolder(str(folder), transform=square)
    assert split.labels_N.tolist() == reference.targets
    assert np.array_equal(split.images_NHWC, np.stack([np.asarray(image) for image, _ in reference]))


def test_load_reads_what_torchvision_reads(tmp_path: Path) -> None:
    data = _load(write_imagenet(tmp_path))
    assert (len(data.train), len(data.test)) == (18, 6)
    assert data.class_names == ("n00000000", "n00000001", "n00000002")
    _agree(data.train, tmp_path / "imagenet" / "train", 32)
    _agree(data.test, tmp_path / "imagenet" / "val", 32)


def test_real_images_of_full_size(tmp_path: Path, shared_data: Path) -> None:
    with zipfile.ZipFile(shared_data / "imagenet-sample-100" / "imagenet-sample-100.zip") as archive:
        images = sorted(name for name in archive.namelist() if name.lower().endswith((".jpeg", ".jpg")))[:12]
        for name in images:
            wnid = name.split("/")[-2]
            for split in ("train", "val"):
                path = tmp_path / "sample" / split / wnid / Path(name).name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(archive.read(name))
    data = _load(tmp_path, "sample", 48)
    assert len(data.class_names) == len(data.test) == 12
    _agree(data.test, tmp_path / "sample" / "val", 48)


def test_original_means_the_published_counts(tmp_path: Path) -> None:
    dataset, loading = ImagenetDataset(name="imagenet", size=16), Loading(root=write_imagenet(tmp_path))
    with pytest.raises(DataError, match="it holds 18 and 6 images of 3 classes, not 1,281,167 and 50,000 of 1,000"):
        IMAGENET.load(dataset, loading)
    small = ImageFolder(name="imagenet", counts=(3, 18, 6), terms="").family()
    assert len(small.load(dataset, loading).train) == 18


def test_other_files_are_not_looked_at(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path)
    dataset, loading = ImagenetDataset(name="imagenet", size=16), Loading(root=root)
    before = IMAGENET.fingerprint(dataset, loading)
    (root / "imagenet" / "train" / "n00000000" / "notes.txt").write_text("no image")
    (root / "imagenet" / "train" / "README").write_text("no class")
    assert IMAGENET.fingerprint(dataset, loading) == before


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"imagenet/train cannot be read \(No such file.*expected .*<class>/<image>"):
        _load(tmp_path)
    root = write_imagenet(tmp_path)
    (root / "imagenet" / "val" / "n7").mkdir()
    with pytest.raises(DataError, match=r"val: the classes n7 have no images"):
        _load(root)
    source = next((root / "imagenet" / "val" / "n00000000").iterdir())
    (root / "imagenet" / "val" / "n7" / "a.JPEG").write_bytes(source.read_bytes())
    with pytest.raises(DataError, match=r"val has classes that train lacks: n7"):
        _load(root)


def test_files_that_are_left_out_are_counted_and_named(tmp_path: Path) -> None:
    root = write_imagenet(tmp_path)
    plain = _load(root)
    assert plain.notes == ()
    train = root / "imagenet" / "train"
    first = train / "n00000000"
    image = next(first.iterdir()).read_bytes()
    for path in ("@eaDir/a.jpg", ".ipynb_checkpoints/a.png", "n00000000/part2/a.png"):
        (train / path).parent.mkdir()
        (train / path).write_bytes(image)
    for path in (".DS_Store", "n00000000/._a.png", "n00000000/more.gif"):
        (train / path).write_bytes(image)
    (first / "gone.png").symlink_to("/nowhere.png")
    data = _load(root)
    assert data.class_names == plain.class_names
    assert len(data.train) == len(plain.train)
    (note,) = data.notes
    assert note == (
        "7 of the files and folders left out: train/.DS_Store (outside the classes), train/.ipynb_checkpoints (no class), train/@eaDir "
        "(no class), train/n00000000/._a.png (a file of the system), train/n00000000/gone.png (a link to nothing) and 2 more"
    )


@pytest.mark.parametrize("where", ["train/n00000000/caf\udce9.png", "train/caf\udce9"])
def test_names_that_are_not_utf_8_are_refused(tmp_path: Path, where: str) -> None:
    root = write_imagenet(tmp_path)
    (root / "imagenet" / where).mkdir()
    with pytest.raises(DataError, match=r"the name caf\\xe9(\.png)? is not UTF-8; rename it"):
        _load(root)


def test_classes_in_two_unicode_forms_are_explained(tmp_path: Path) -> None:
    """A Mac writes é as e and an accent, and archives of it keep that."""
    root = write_imagenet(tmp_path)
    imagenet = root / "imagenet"
    for split, name in (("train", "caf\xe9"), ("val", "cafe\u0301")):
        (imagenet / split / "n00000000").rename(imagenet / split / name)
    with pytest.raises(
        DataError, match=r"val has classes that train lacks: .*'cafe\\u0301'.*look the same.*rename one"
    ):
        _load(root)
    for image in (imagenet / "val" / "cafe\u0301").iterdir():
        for split in ("train", "val"):
            for name in ("caf\xe9", "cafe\u0301"):
                (imagenet / split / name).mkdir(exist_ok=True)
                (imagenet / split / name / image.name).write_bytes(image.read_bytes())
    with pytest.raises(DataError, match="look the same and have different characters"):
        dataset = ImagenetDataset(name="imagenet", size=16, num_classes=4)
        version = IMAGENET.fingerprint(dataset, Loading(root=root))
        load_dataset(dataset.model_copy(update={"version": version}), root)
