"""CIFAR-10 from its original python files, read without executing what is in them.

The files are pickles of the Python 2 era. A restricted unpickler admits the few constructors that an array of bytes needs and refuses
everything else.
"""

import hashlib
import io
import pickle
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_ray.data.images import ImageData, Split
from kd_ray.errors import DataError

FOLDER = "cifar-10-batches-py"
"""Name of the unpacked archive, below the data root."""

ORIGINAL_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
"""Published checksums of the original files."""

NORMALISATIONS = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Channel means and deviations, for pixels in 0..1."""

_ROW_BYTES = 3 * 32 * 32


def load(*, root: Path, version: str = "original", normalization: str = "cifar10") -> ImageData:
    """Train and test split as the files hold them, `original` or the version with the fingerprint that is asked for.

    Raises:
        DataError: files are missing, damaged, or not that version.
    """
    contents = _read_files(root)
    _check_version(root, contents, version)
    meta = _unpickle(contents["batches.meta"], root / FOLDER / "batches.meta")
    train = [_batch(contents[f"data_batch_{i}"], root / FOLDER / f"data_batch_{i}") for i in range(1, 6)]
    test = _batch(contents["test_batch"], root / FOLDER / "test_batch")
    mean, std = NORMALISATIONS[normalization]
    return ImageData(
        train=Split(
            images_NHWC=np.concatenate([images for images, _ in train]), labels_N=np.concatenate([labels for _, labels in train])
        ),
        test=Split(images_NHWC=test[0], labels_N=test[1]),
        class_names=tuple(str(name) for name in meta["label_names"]),
        mean=mean,
        std=std,
    )


def fingerprint(root: Path) -> str:
    """16 hex digits that stand for the content of the seven files.

    Raises:
        DataError: files are missing.
    """
    return _fingerprint(_read_files(root))


def _fingerprint(contents: Mapping[str, bytes]) -> str:
    digest = hashlib.sha256()
    for name in sorted(contents):
        digest.update(f"{name} {len(contents[name])}\n".encode())
        digest.update(contents[name])
    return digest.hexdigest()[:16]


def _read_files(root: Path) -> dict[str, bytes]:
    folder = root / FOLDER
    missing = [name for name in ORIGINAL_MD5 if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"cifar10: {folder} lacks {', '.join(missing)}; unpack cifar-10-python.tar.gz (https://www.cs.toronto.edu/~kriz/cifar.html) "
            f"into {root}, or set placement.data_root to the folder that holds {FOLDER}"
        )
    return {name: (folder / name).read_bytes() for name in ORIGINAL_MD5}


def _check_version(root: Path, contents: Mapping[str, bytes], version: str) -> None:
    if version == "original":
        wrong = [
            name for name, md5 in ORIGINAL_MD5.items() if hashlib.md5(contents[name], usedforsecurity=False).hexdigest() != md5
        ]
        if wrong:
            raise DataError(
                f"cifar10: {', '.join(wrong)} in {root / FOLDER} are not the original files; if they are meant, "
                f"write `version: {_fingerprint(contents)}` in the sweep's dataset section"
            )
    elif version != (found := _fingerprint(contents)):
        raise DataError(f"cifar10: dataset.version asks for {version}, but the files in {root / FOLDER} are version {found}")


def _batch(data: bytes, path: Path) -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]:
    content = _unpickle(data, path)
    images, labels = content.get("data"), content.get("labels")
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 2 or images.shape[1] != _ROW_BYTES:
        raise DataError(f"cifar10: {path}: `data` is not an array of rows of {_ROW_BYTES} bytes")
    if not isinstance(labels, list) or len(labels) != len(images):
        raise DataError(f"cifar10: {path}: `labels` is not a list of {len(images)} numbers")
    images_NHWC = images.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    return np.ascontiguousarray(images_NHWC), np.array(labels, dtype=np.int64)


class _RestrictedUnpickler(pickle.Unpickler):
    """Admits what an array of bytes is made of, by its old and new module names."""

    _ADMITTED = {
        ("numpy.core.multiarray", "_reconstruct"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("numpy", "ndarray"),
        ("numpy", "dtype"),
        ("_codecs", "encode"),
    }

    def __init__(self, data: bytes, path: Path) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        if (module, name) not in self._ADMITTED:
            raise DataError(f"cifar10: {self._path} asks for {module}.{name}, which no CIFAR file needs; it was not loaded")
        # The old module name warns in NumPy 2.
        found: Callable[..., Any] = super().find_class(module.replace("numpy.core", "numpy._core"), name)
        return found


def _unpickle(data: bytes, path: Path) -> dict[str, Any]:
    try:
        content = _RestrictedUnpickler(data, path).load()
    except (pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError, AttributeError, TypeError) as error:
        raise DataError(f"cifar10: {path} is damaged: {error}") from error
    if not isinstance(content, dict):
        raise DataError(f"cifar10: {path} holds {type(content).__name__}, expected a mapping")
    return content
