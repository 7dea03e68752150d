"""CIFAR-10 (Krizhevsky, "Learning multiple layers of features from tiny images", 2009) from its original python files.

The files are python-2 pickles. They are read by an unpickler that builds no object and calls no function named in a file: the few NumPy
names these files contain become inert stand-ins, whose arguments are read afterwards; any other name is refused. CIFAR-10 has no
sensitive features.
"""

import hashlib
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_ray.data.images import ImageData, Split
from kd_ray.errors import DataError

FOLDER = "cifar-10-batches-py"
ORIGINAL_MD5 = {
    "data_batch_1": "c99cafc152244af753f735de768cd75f",
    "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
    "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
    "data_batch_4": "634d18415352ddfa80567beed471001a",
    "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    "test_batch": "40351d587109b95175f43aff81a1287e",
    "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
}
"""File name → MD5 of the published file."""
NORMALIZATIONS: dict[str, tuple[tuple[float, float, float], tuple[float, float, float]]] = {
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)),
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
}
"""Name → (mean, std) per channel, for pixels in 0..1: of the CIFAR-10 training images, and the ones usual for ImageNet."""

_TRAIN = [name for name in ORIGINAL_MD5 if name.startswith("data_batch")]
_SIDE = 32


def fingerprint(root: Path) -> str:
    """First 16 hex digits of a SHA-256 over names and contents of the seven files. Raises DataError when one is missing."""
    return _fingerprint(_read_files(root))


def load(*, root: Path, version: str = "original", normalization: str = "cifar10") -> ImageData:
    """The images under `root`/cifar-10-batches-py, as many as the files hold, in their order.

    `version` is "original" (the published files, by checksum) or the fingerprint of other files in the same layout.

    Raises DataError for a missing or damaged file, files of another version, and an unknown normalization.
    """
    if normalization not in NORMALIZATIONS:
        raise DataError(f"cifar10: normalization is {normalization!r}, expected one of {', '.join(NORMALIZATIONS)}")
    folder = root / FOLDER
    contents = _read_files(root)
    _check_version(folder, contents, version)
    class_names = _class_names(_unpickle(folder / "batches.meta", contents["batches.meta"]), folder / "batches.meta")
    batches = {
        name: _batch(_unpickle(folder / name, contents[name]), folder / name, len(class_names))
        for name in [*_TRAIN, "test_batch"]
    }
    train = Split(
        images_NHWC=np.concatenate([batches[name].images_NHWC for name in _TRAIN]),
        labels_N=np.concatenate([batches[name].labels_N for name in _TRAIN]),
    )
    mean, std = NORMALIZATIONS[normalization]
    return ImageData(train=train, test=batches["test_batch"], class_names=class_names, mean=mean, std=std)


def _read_files(root: Path) -> dict[str, bytes]:
    folder = root / FOLDER
    missing = [name for name in ORIGINAL_MD5 if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"cifar10: {len(missing)} of {len(ORIGINAL_MD5)} files are missing; unpack cifar-10-python.tar.gz so that these exist: "
            + ", ".join(str(folder / name) for name in missing)
        )
    try:
        return {name: (folder / name).read_bytes() for name in ORIGINAL_MD5}
    except OSError as error:
        raise DataError(f"cifar10: a file of {folder} cannot be read: {error}") from error


def _fingerprint(contents: dict[str, bytes]) -> str:
    total = hashlib.sha256()
    for name, content in sorted(contents.items()):
        total.update(f"{name} {hashlib.sha256(content).hexdigest()}\n".encode())
    return total.hexdigest()[:16]


def _check_version(folder: Path, contents: dict[str, bytes], version: str) -> None:
    if version == "original":
        md5 = {name: hashlib.md5(content, usedforsecurity=False).hexdigest() for name, content in contents.items()}
        different = [name for name in ORIGINAL_MD5 if md5[name] != ORIGINAL_MD5[name]]
        if not different:
            return
        detail = f"the published checksums differ for {', '.join(different)}"
    elif version == _fingerprint(contents):
        return
    else:
        detail = "the fingerprint differs"
    found = _fingerprint(contents)
    raise DataError(
        f"cifar10: {folder} does not hold version {version!r}: {detail}. Its fingerprint is {found}; "
        f"to use these files as they are, write in the sweep file `dataset.version: {found!r}`"
    )


class _Inert:
    """Stands for whatever a pickle would build: keeps the arguments and the state, does nothing."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _InertUnpickler(pickle.Unpickler):
    """Reads lists, tuples, dicts, numbers, text and bytes; NumPy arrays become `_Inert`; everything else is refused."""

    _ADMITTED = frozenset(
        {
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
            ("_codecs", "encode"),  # how Python 3 writes bytes into a python-2 pickle
        }
    )

    def __init__(self, path: Path, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._path = path

    def find_class(self, module: str, name: str) -> type[_Inert]:
        if (module, name) not in self._ADMITTED:
            raise DataError(f"cifar10: {self._path} asks for {module}.{name}, which no CIFAR-10 file contains; refused")
        return _Inert


def _unpickle(path: Path, content: bytes) -> dict[str, Any]:
    try:
        value = _InertUnpickler(path, content).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise _damaged(path, f"{type(error).__name__}: {error}") from error
    if not isinstance(value, dict):
        raise _damaged(path, f"it holds a {type(value).__name__}, expected a dict")
    return value


def _damaged(path: Path, detail: str) -> DataError:
    return DataError(f"cifar10: {path} is damaged or not a CIFAR-10 file: {detail}")


def _class_names(meta: dict[str, Any], path: Path) -> tuple[str, ...]:
    names = meta.get("label_names")
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise _damaged(path, "label_names is not a list of names")
    return tuple(names)


def _batch(batch: dict[str, Any], path: Path, num_classes: int) -> Split:
    pixels_NP = _array(batch.get("data"), path)
    labels = batch.get("labels")
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < num_classes for label in labels):
        raise _damaged(path, f"labels is not a list of integers in 0..{num_classes - 1}")
    if pixels_NP.shape != (len(labels), 3 * _SIDE * _SIDE):
        raise _damaged(
            path, f"data has shape {pixels_NP.shape}, expected ({len(labels)}, {3 * _SIDE * _SIDE}) for its labels"
        )
    images_NHWC = np.ascontiguousarray(pixels_NP.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))
    return Split(images_NHWC=images_NHWC, labels_N=np.array(labels, dtype=np.int64))


def _array(value: Any, path: Path) -> npt.NDArray[np.uint8]:
    """The uint8 matrix that a pickled array describes: state = (version, shape, dtype, is Fortran order, bytes)."""
    match value:
        case _Inert(state=(_, (int(rows), int(columns)), _Inert(args=("u1", *_)), fortran, data)):
            pass
        case _:
            raise _damaged(path, "data is not a two-dimensional array of bytes")
    match data:
        case _Inert(args=(str(text), "latin1")) | str(text):
            try:
                raw = text.encode("latin1")
            except UnicodeEncodeError as error:
                raise _damaged(path, f"data is text, not bytes: {error}") from error
        case bytes(raw):
            pass
        case _:
            raise _damaged(path, "data has no bytes")
    if min(rows, columns) < 0 or len(raw) != rows * columns:
        raise _damaged(path, f"data has {len(raw)} bytes, expected {rows} × {columns}")
    return np.frombuffer(raw, dtype=np.uint8).reshape(rows, columns, order="F" if fortran else "C")
