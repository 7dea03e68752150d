"""CIFAR-100 as torchvision reads it; what goes wrong in a file is tested with CIFAR-10, which is read by the same code."""

import hashlib
import os
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

from kd_ray.data import cifar10, cifar100
from kd_ray.data.family import Loading
from kd_ray.data.image_data import ImageData
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import Cifar100Dataset
from tests.datasets import write_cifar100

pytestmark = pytest.mark.slow


class _Unchecked(CIFAR100):  # type: ignore[misc]  # it has no types
    train_list: ClassVar = [[name, None] for name, _ in CIFAR100.train_list]
    test_list: ClassVar = [[name, None] for name, _ in CIFAR100.test_list]
    meta: ClassVar = {**CIFAR100.meta, "md5": None}


def _read(root: Path, **settings: Any) -> ImageData:
    return cifar100.load(Cifar100Dataset(name="cifar100", **settings), Loading(root=root))


def test_load_reads_what_torchvision_reads(tmp_path: Path) -> None:
    root = write_cifar100(tmp_path)
    data = _read(root, version=cifar100.fingerprint(root))
    for split, is_train in ((data.train, True), (data.test, False)):
        reference = _Unchecked(str(root), train=is_train)
        assert np.array_equal(split.images_NHWC, reference.data)
        assert split.labels_N.tolist() == reference.targets
        assert list(data.class_names) == reference.classes


def test_coarse_labels_are_the_superclasses(tmp_path: Path) -> None:
    root = write_cifar100(tmp_path)
    data = _read(root, target="coarse", version=cifar100.fingerprint(root))
    assert data.train.labels_N[:12].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2]
    assert data.class_names[19] == "coarse 19"


def test_checksums_are_those_that_torchvision_ships() -> None:
    for published, mine in ((CIFAR10, cifar10.ORIGINAL_MD5), (CIFAR100, cifar100.ORIGINAL_MD5)):
        files = dict((*published.train_list, *published.test_list))
        assert {**files, published.meta["filename"]: published.meta["md5"]} == mine


def test_original_means_the_published_checksums(tmp_path: Path) -> None:
    root = write_cifar100(tmp_path)
    with pytest.raises(DataError, match=r"cifar100: .* does not hold version 'original'.*differ for train, test, meta"):
        _read(root)
    folder = root / cifar100.FOLDER
    md5 = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in cifar100.FILES}
    dataset = Cifar100Dataset(name="cifar100")
    assert len(cifar100.load(dataset, Loading(root=root), published=md5).train) == 200


def test_missing_files_and_foreign_calls_are_refused(tmp_path: Path) -> None:
    with pytest.raises(
        DataError,
        match=r"cifar100: 3 of 3 files are missing; `kd-ray data prepare cifar100` fetches them, or unpack cifar-100-python",
    ):
        _read(tmp_path)

    class Call:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "executed"),)

    root = write_cifar100(tmp_path, test={"fine_labels": Call()})
    with pytest.raises(DataError, match=r"test asks for \w+\.mkdir, which no CIFAR-100 file contains; refused"):
        _read(root, version=cifar100.fingerprint(root))
    assert not (tmp_path / "executed").exists()
