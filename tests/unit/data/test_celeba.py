import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CelebA

from kd_ray.data import celeba
from kd_ray.data.decoding import decode
from kd_ray.data.family import Loading
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import CELEBA_ATTRIBUTES, CelebaDataset
from tests.datasets import write_celeba

pytestmark = pytest.mark.slow


class _Unchecked(CelebA):  # type: ignore[misc]  # it has no types
    def _check_integrity(self) -> bool:
        return True


def _load(root: Path, **changes: Any) -> Any:
    settings: dict[str, Any] = {"size": 32, **changes}
    dataset = CelebaDataset(name="celeba", **settings)
    loading = Loading(root=root)
    return celeba.load(dataset.model_copy(update={"version": celeba.fingerprint(dataset, loading)}), loading)


def _reference(root: Path, split: str) -> Any:
    """torchvision opens lists that are not needed here; it gets empty ones."""
    for name, columns in (("identity_CelebA", 1), ("list_bbox_celeba", 4), ("list_landmarks_align_celeba", 10)):
        path = root / "celeba" / f"{name}.txt"
        names = [line.split()[0] for line in (root / "celeba" / "list_eval_partition.txt").read_text().splitlines()]
        header = "" if columns == 1 else f"{len(names)}\n{' '.join('x' * columns)}\n"
        path.write_text(header + "".join(f"{name} {' '.join('0' * columns)}\n" for name in names))
    return _Unchecked(str(root), split=split)


def _agree(data: Any, root: Path, target: str) -> None:
    for split, name in ((data.train, "train"), (data.validation, "valid"), (data.test, "test")):
        reference = _reference(root, name)
        a = reference.attr_names.index(target)
        assert split.labels_N.tolist() == reference.attr[:, a].tolist()
        for feature, groups in split.sensitive_features.items():
            assert groups.names == (f"not {feature}", feature)
            has_N = reference.attr[:, reference.attr_names.index(feature)].numpy()
            assert groups.membership_NG[:, 1].tolist() == (has_N == 1).tolist()
            assert (groups.membership_NG.sum(axis=1) == 1).all()
        files = [root / "celeba" / "img_align_celeba" / file for file in reference.filename]
        assert np.array_equal(split.images_NHWC, np.stack([decode(file.read_bytes(), size=32) for file in files]))


def test_load_reads_what_torchvision_reads(tmp_path: Path) -> None:
    root = write_celeba(tmp_path)
    data = _load(root, validation="official")
    assert data.class_names == ("not Smiling", "Smiling")
    assert set(data.train.sensitive_features) == set(CELEBA_ATTRIBUTES) - {"Smiling"}
    _agree(data, root, "Smiling")


def test_real_images_and_attributes(tmp_path: Path, shared_data: Path) -> None:
    """32 real rows; all are of the training split, so they are dealt anew."""
    shutil.copytree(shared_data / "celeba-mini" / "celeba", tmp_path / "celeba")
    (tmp_path / "celeba").chmod(0o755)
    partition = tmp_path / "celeba" / "list_eval_partition.txt"
    names = [line.split()[0] for line in partition.read_text().splitlines()]
    partition.chmod(0o644)
    partition.unlink()
    partition.write_text("".join(f"{name} {n % 3}\n" for n, name in enumerate(names)))
    (tmp_path / "celeba" / "identity_CelebA.txt").unlink()
    data = _load(tmp_path, target="Male", validation="official")
    _agree(data, tmp_path, "Male")
    male = sum(int((split.labels_N == 1).sum()) for split in (data.train, data.validation, data.test))
    assert male == 13


def test_checksums_are_those_that_torchvision_ships() -> None:
    published = {name: md5 for _, md5, name in CelebA.file_list}
    assert {name: published[name] for name in celeba.ORIGINAL_MD5} == celeba.ORIGINAL_MD5


def test_balance_cuts_only_the_splits_it_names(tmp_path: Path) -> None:
    root = write_celeba(tmp_path)
    counts = {
        balance: [np.bincount(split.labels_N).tolist() for split in (data.train, data.validation, data.test)]
        for balance in ("none", "train", "train_and_test")
        for data in [_load(root, balance=balance, validation="official")]
    }
    assert counts["none"] == [[15, 5], [15, 5], [15, 5]]
    assert counts["train"] == [[5, 5], [5, 5], [15, 5]]
    assert counts["train_and_test"] == [[5, 5], [5, 5], [5, 5]]
    plain, first = _load(root), _load(root, balance="train")
    assert np.array_equal(first.test.images_NHWC, plain.test.images_NHWC)
    again, other = _load(root, balance="train"), _load(root, balance="train", balance_seed=1)
    assert np.array_equal(first.train.images_NHWC, again.train.images_NHWC)
    assert not np.array_equal(first.train.images_NHWC, other.train.images_NHWC)


def test_crop_keeps_the_middle(tmp_path: Path) -> None:
    root = write_celeba(tmp_path, count=12)
    data = _load(root, size=64, crop=64)
    file = root / "celeba" / "img_align_celeba" / "000009.jpg"
    assert np.array_equal(data.test.images_NHWC[0], np.asarray(Image.open(file))[77:141, 57:121])


def test_original_is_told_by_number_and_checksums(tmp_path: Path) -> None:
    dataset, loading = CelebaDataset(name="celeba", size=16), Loading(root=write_celeba(tmp_path))
    with pytest.raises(
        DataError, match=r"'original': it lists 60 images, not 202,599. Its fingerprint is [0-9a-f]{16}"
    ):
        celeba.load(dataset, loading)
    with pytest.raises(DataError, match=r"differ for list_attr_celeba.txt, list_eval_partition.txt"):
        celeba.load(dataset, loading, num_images=60)


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("list_attr_celeba.txt", "000002.jpg", "../2.jpg", r"list_attr_celeba\.txt:4: expected a file and 40 times"),
        ("list_attr_celeba.txt", "000003.jpg ", "000003.jpg 0 ", r"list_attr_celeba\.txt:5: expected a file and 40"),
        ("list_eval_partition.txt", "000004.jpg 0", "000004.jpg 3", r"list_eval_partition\.txt:4: expected a file"),
        ("list_eval_partition.txt", "000004.jpg 0", "", r"list_eval_partition\.txt has no row for 000004\.jpg"),
        ("list_eval_partition.txt", " 2", " 1", r"the test split of .* has 0 images without and 0 with Smiling"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, file: str, old: str, new: str, message: str) -> None:
    path = write_celeba(tmp_path) / "celeba" / file
    path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
    with pytest.raises(DataError, match=message):
        _load(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"celeba: 2 of 2 files are missing; .*unpack img_align_celeba\.zip"):
        _load(tmp_path)
    root = write_celeba(tmp_path)
    (root / "celeba" / "img_align_celeba" / "000007.jpg").unlink()
    with pytest.raises(DataError, match=r"1 of 60 image files are missing: 000007\.jpg"):
        _load(root)
