import hashlib
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_ray.data import cifar10
from kd_ray.data.family import Loading
from kd_ray.data.image_data import ImageData
from kd_ray.data.normalization import NORMALIZATIONS
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import Cifar10Dataset

NAMES = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch", "batches.meta"]
PROTOCOLS = [2, 4]


@pytest.fixture(scope="module")
def real_root() -> Path:
    """4,000 real training images in the original layout: not the published files."""
    default = Path(__file__).resolve().parents[3].parent / "shared" / "data"
    root = Path(os.environ.get("KD_RAY_TEST_DATA", default)) / "cifar10-lossless-4000"
    if not root.is_dir():
        pytest.skip(f"no real CIFAR-10 subset at {root}; set KD_RAY_TEST_DATA to the folder that contains {root.name}")
    return root


def _batch(count: int, *, seed: int) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        "labels": rng.integers(0, 10, count).tolist(),
        "data": rng.integers(0, 256, (count, 3072), dtype=np.uint8),
        "filenames": [f"{n}.png" for n in range(count)],
    }


def _write(root: Path, *, protocol: int = 2, **replaced: Any) -> Path:
    """A small set in the layout of the original; `replaced` gives other contents for a file, with _ for its dot."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    for seed, name in enumerate(NAMES):
        content: Any = (
            _batch(6, seed=seed) if "batch_" in name or name == "test_batch" else {"label_names": [*"abcdefghij"]}
        )
        content = replaced.get(name.replace(".", "_"), content)
        (folder / name).write_bytes(content if isinstance(content, bytes) else pickle.dumps(content, protocol=protocol))
    return root


def _read(root: Path, **settings: Any) -> ImageData:
    return cifar10.load(Cifar10Dataset(name="cifar10", **settings), Loading(root=root))


def _load(root: Path) -> Any:
    return _read(root, version=cifar10.fingerprint(root))


def _independent(path: Path) -> dict[str, Any]:
    with path.open("rb") as file:
        return dict(pickle.load(file, encoding="latin1"))


def test_load_real_files_as_an_independent_reader_does(real_root: Path) -> None:
    data = _load(real_root)
    folder = real_root / "cifar-10-batches-py"
    batches = [_independent(folder / name) for name in NAMES[:6]]
    pixels = np.concatenate([batch["data"] for batch in batches[:5]])
    assert data.train.images_NHWC.shape == (3200, 32, 32, 3)
    assert data.test.images_NHWC.shape == (800, 32, 32, 3)
    assert data.validation is None
    assert data.train.labels_N.tolist() == [label for batch in batches[:5] for label in batch["labels"]]
    assert data.test.labels_N.tolist() == batches[5]["labels"]
    for n in (0, 1, 639, 640, 3199):
        for channel in range(3):
            plane = pixels[n, 1024 * channel : 1024 * (channel + 1)].reshape(32, 32)
            assert np.array_equal(data.train.images_NHWC[n, :, :, channel], plane)
    assert data.class_names == tuple(_independent(folder / "batches.meta")["label_names"])
    assert data.class_names[0] == "airplane"
    assert data.train.sensitive_features == {}


def test_load_real_files_label_counts(real_root: Path) -> None:
    data = _load(real_root)
    counts = np.bincount(data.train.labels_N, minlength=10) + np.bincount(data.test.labels_N, minlength=10)
    assert counts.sum() == 4000
    assert counts.min() > 350  # the original is balanced: 400 ± 19
    assert counts.max() < 450


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_load_reads_what_python_3_wrote(tmp_path: Path, protocol: int) -> None:
    data = _load(_write(tmp_path, protocol=protocol))
    first = _batch(6, seed=0)
    assert len(data.train) == 30
    assert data.train.labels_N[:6].tolist() == first["labels"]
    assert np.array_equal(data.train.images_NHWC[:6].transpose(0, 3, 1, 2).reshape(6, 3072), first["data"])


def test_load_reads_fortran_order(tmp_path: Path) -> None:
    first = _batch(6, seed=0)
    data = _load(_write(tmp_path, data_batch_1={**first, "data": np.asfortranarray(first["data"])}))
    assert np.array_equal(data.train.images_NHWC[:6].transpose(0, 3, 1, 2).reshape(6, 3072), first["data"])


def test_normalizations() -> None:
    assert NORMALIZATIONS["cifar10"] == ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616))
    assert NORMALIZATIONS["imagenet"] == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def test_load_uses_the_normalization_named(tmp_path: Path) -> None:
    root = _write(tmp_path)
    data = _read(root, version=cifar10.fingerprint(root), normalization="imagenet")
    assert (data.mean, data.std) == NORMALIZATIONS["imagenet"]


def test_fingerprint_changes_with_every_file(tmp_path: Path) -> None:
    prints = {cifar10.fingerprint(_write(tmp_path / "as it is"))}
    for name in NAMES:
        root = _write(tmp_path / name)
        with (root / "cifar-10-batches-py" / name).open("ab") as file:
            file.write(b"x")
        prints.add(cifar10.fingerprint(root))
    assert len(prints) == 8
    assert all(len(value) == 16 and int(value, 16) >= 0 for value in prints)


def test_fingerprint_changes_when_files_swap_names(tmp_path: Path) -> None:
    swapped: dict[str, Any] = {"data_batch_1": _batch(6, seed=1), "data_batch_2": _batch(6, seed=0)}
    assert cifar10.fingerprint(_write(tmp_path / "a")) != cifar10.fingerprint(_write(tmp_path / "b", **swapped))


def test_original_means_the_published_checksums(tmp_path: Path) -> None:
    root = _write(tmp_path)
    folder = root / "cifar-10-batches-py"
    published = {name: hashlib.md5((folder / name).read_bytes()).hexdigest() for name in NAMES}
    dataset = Cifar10Dataset(name="cifar10")
    assert len(cifar10.load(dataset, Loading(root=root), published=published).train) == 30


def test_version_mismatch_says_what_to_write(real_root: Path) -> None:
    found = cifar10.fingerprint(real_root)
    with pytest.raises(DataError, match="does not hold version 'original'") as caught:
        _read(real_root)
    message = str(caught.value)
    assert str(real_root / "cifar-10-batches-py") in message
    assert "checksums differ for data_batch_1, data_batch_2" in message
    assert f"dataset.version: '{found}'" in message
    with pytest.raises(DataError, match=f"version '0123456789abcdef'.*{found}"):
        _read(real_root, version="0123456789abcdef")


def test_missing_files_are_listed_with_their_place(tmp_path: Path) -> None:
    folder = _write(tmp_path) / "cifar-10-batches-py"
    (folder / "data_batch_3").unlink()
    (folder / "batches.meta").unlink()
    with pytest.raises(
        DataError, match="2 of 7 files are missing; `kd-ray data prepare cifar10` fetches them, or unpack"
    ) as caught:
        _read(tmp_path)
    message = str(caught.value)
    assert str(folder / "data_batch_3") in message
    assert str(folder / "batches.meta") in message
    assert "data_batch_1" not in message
    with pytest.raises(DataError, match="7 of 7 files are missing"):
        cifar10.fingerprint(tmp_path / "nowhere")


class _Call:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., Any], *args: Any) -> None:
        self.reduced = (function, args)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return self.reduced


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("name", ["data_batch_2", "batches_meta"])
def test_malicious_pickle_is_refused(tmp_path: Path, protocol: int, name: str) -> None:
    witness = tmp_path / "executed"
    content = {"labels": _Call(os.mkdir, str(witness))}
    root = _write(tmp_path, protocol=protocol, **{name: content})
    with pytest.raises(DataError, match=rf"{name.replace('_meta', '.meta')} asks for \w+\.mkdir, .*refused"):
        _load(root)
    assert not witness.exists()


@pytest.mark.parametrize(
    "content",
    [
        {"labels": _Call(eval, "1")},
        {"labels": _Call(getattr, "x", "upper")},
        {"labels": _Call(np.load, "x", None, True)},
        {"data": np.array([1, "x"], dtype=object), "labels": [_Call(len, "x")]},
    ],
)
def test_other_functions_are_refused(tmp_path: Path, content: Any) -> None:
    with pytest.raises(DataError, match="refused"):
        _load(_write(tmp_path, test_batch=content))


@pytest.mark.parametrize("length", [0, 10, 1000, 15000])
def test_truncated_file_is_named(tmp_path: Path, length: int) -> None:
    whole = pickle.dumps(_batch(6, seed=0), protocol=2)
    with pytest.raises(DataError, match=r"data_batch_4 is damaged or not a CIFAR-10 file"):
        _load(_write(tmp_path, data_batch_4=whole[:length]))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([1, 2], "holds a list, expected a dict"),
        ({"labels": [1]}, "data is not a two-dimensional array of bytes"),
        ({**_batch(6, seed=0), "labels": [1]}, r"data has shape \(6, 3072\), expected \(1, 3072\)"),
        ({**_batch(6, seed=0), "labels": [0, 1, 2, 3, 4, 10]}, r"integers in 0\.\.9"),
        ({**_batch(6, seed=0), "data": np.zeros((6, 3072), dtype=np.float32)}, "not a two-dimensional array of bytes"),
        ({**_batch(6, seed=0), "data": np.zeros(3072, dtype=np.uint8)}, "not a two-dimensional array of bytes"),
        ({**_batch(6, seed=0), "data": np.zeros((6, 3071), dtype=np.uint8)}, r"data has shape \(6, 3071\)"),
        (b"\xff\xfe not a pickle", "UnpicklingError"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    with pytest.raises(DataError, match=rf"test_batch is damaged or not a CIFAR-10 file: .*{message}"):
        _load(_write(tmp_path, test_batch=content))


def test_class_names_must_be_names(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"batches\.meta .*label_names is not a list of names"):
        _load(_write(tmp_path, batches_meta={"label_names": [1, 2]}))
