import hashlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.io import savemat
from torchvision.datasets import SVHN

from kd_ray.data import svhn
from kd_ray.data.family import Loading
from kd_ray.data.image_data import ImageData
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import SvhnDataset
from tests.datasets import pixels, write_svhn

pytestmark = pytest.mark.slow


class _Unchecked(SVHN):  # type: ignore[misc]  # it has no types
    split_list: ClassVar = {name: [url, file, None] for name, (url, file, _) in SVHN.split_list.items()}


def _read(root: Path, **settings: Any) -> ImageData:
    return svhn.load(SvhnDataset(name="svhn", **settings), Loading(root=root))


def _agree(split: Any, folder: Path, name: str) -> None:
    reference = _Unchecked(str(folder), split=name)
    assert np.array_equal(split.images_NHWC, reference.data.transpose(0, 2, 3, 1))
    assert split.labels_N.tolist() == reference.labels.tolist()


def test_load_reads_what_torchvision_reads(tmp_path: Path) -> None:
    root = write_svhn(tmp_path)
    data = _read(root, version=svhn.fingerprint(root))
    _agree(data.train, root / "svhn", "train")
    _agree(data.test, root / "svhn", "test")
    assert data.test.labels_N[:11].tolist() == [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert data.class_names[0] == "0"


def test_real_images_have_the_labels_of_an_independent_list(tmp_path: Path, shared_data: Path) -> None:
    root = write_svhn(tmp_path)
    (root / "svhn" / "test_32x32.mat").write_bytes((shared_data / "svhn-mini" / "test_32x32.mat").read_bytes())
    data = _read(root, version=svhn.fingerprint(root))
    _agree(data.test, root / "svhn", "test")
    labels = np.load(shared_data / "svhn-mini" / "test_labels_full.npz")
    assert data.test.labels_N.tolist() == (labels[labels.files[0]][:100].reshape(-1) % 10).tolist()


def test_extra_images_follow_those_of_train(tmp_path: Path) -> None:
    root = write_svhn(tmp_path, extra=30)
    without, extra = svhn.fingerprint(root), svhn.fingerprint(root, extra=True)
    assert without != extra
    data = _read(root, extra=True, version=extra)
    assert len(data.train) == 70
    assert np.array_equal(data.train.images_NHWC[:40], _read(root, version=without).train.images_NHWC)
    (root / "svhn" / "extra_32x32.mat").unlink()
    with pytest.raises(DataError, match=r"svhn: 1 of 3 files are missing; .*extra_32x32\.mat"):
        _read(root, extra=True)


def test_original_means_the_checksums_that_torchvision_ships(tmp_path: Path) -> None:
    assert {file: md5 for _, file, md5 in SVHN.split_list.values()} == svhn.ORIGINAL_MD5
    root = write_svhn(tmp_path)
    with pytest.raises(
        DataError, match=r"does not hold version 'original'.*differ for train_32x32.mat, test_32x32.mat"
    ):
        _read(root)
    md5 = {path.name: hashlib.md5(path.read_bytes()).hexdigest() for path in (root / "svhn").iterdir()}
    dataset = SvhnDataset(name="svhn")
    assert len(svhn.load(dataset, Loading(root=root), published=md5).train) == 40


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"X": pixels(32, 32, 3, 4)}, "KeyError"),
        ({"X": pixels(32, 32, 3, 4), "y": np.array([1, 2, 3, 11])}, r"y holds something else than 1\.\.10"),
        ({"X": pixels(32, 32, 3, 4), "y": np.array([1, 2, 3, np.nan])}, r"y holds something else than 1\.\.10"),
        ({"X": pixels(32, 32, 3, 4), "y": np.array([0, 2, 3, 4])}, r"y holds something else than 1\.\.10"),
        (
            {"X": pixels(32, 32, 3, 4), "y": np.array([1, 2, 3])},
            r"X is uint8 of shape \(32, 32, 3, 4\), expected .* 3\)",
        ),
        ({"X": pixels(32, 32, 3, 4) / 255, "y": np.array([1, 2, 3, 4])}, "X is float64"),
        (b"not a mat file", "is damaged or not an SVHN file"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, arrays: Any, message: str) -> None:
    root = write_svhn(tmp_path)
    path = root / "svhn" / "train_32x32.mat"
    path.write_bytes(arrays) if isinstance(arrays, bytes) else savemat(path, arrays)
    with pytest.raises(DataError, match=rf"train_32x32\.mat is damaged or not an SVHN file: .*{message}|{message}"):
        _read(root, version=svhn.fingerprint(root))
