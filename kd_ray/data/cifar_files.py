"""Python files of CIFAR-10 and CIFAR-100, read without executing anything.

The files are python-2 pickles. They are read by an unpickler that builds no object and calls no function named in a file: the few NumPy
names these files contain become inert stand-ins, whose arguments are read afterwards; any other name is refused.
"""

import io
import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from kd_ray.data.family import OnBytes
from kd_ray.data.fetch import download, unpack
from kd_ray.data.image_data import Split
from kd_ray.errors import DataError

_SIDE = 32


@dataclass(frozen=True, kw_only=True)
class CifarFile:
    """One file of a set, for messages."""

    dataset: str
    """Name in a sweep file."""
    title: str
    """Name for people."""
    path: Path

    def damaged(self, detail: str) -> DataError:
        """The error that says how this file is damaged."""
        return DataError(f"{self.dataset}: {self.path} is damaged or not a {self.title} file: {detail}")


def fetch_archive(
    class_name: Literal["CIFAR10", "CIFAR100"],
    root: Path,
    folder: str,
    names: tuple[str, ...],
    on_bytes: OnBytes | None,
    *,
    published: Any = None,
) -> None:
    """Fetch and unpack the archive unless the files exist; `published` is torchvision's class with its address and MD5."""
    if all((root / folder / name).is_file() for name in names):
        return
    if published is None:
        from torchvision import datasets  # imports torch

        published = getattr(datasets, class_name)
    archive = root / published.filename
    if not archive.is_file():
        download(published.url, archive, md5=published.tgz_md5, on_bytes=on_bytes)
    unpack(archive, root / folder, names)


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

    def __init__(self, file: CifarFile, content: bytes) -> None:
        super().__init__(io.BytesIO(content), encoding="latin1")
        self._file = file

    def find_class(self, module: str, name: str) -> type[_Inert]:
        if (module, name) not in self._ADMITTED:
            raise DataError(
                f"{self._file.dataset}: {self._file.path} asks for {module}.{name}, which no {self._file.title} file contains; refused"
            )
        return _Inert


def unpickle(file: CifarFile, content: bytes) -> dict[str, Any]:
    """The dict in a file, with arrays as inert stand-ins. Raises DataError for anything else."""
    try:
        value = _InertUnpickler(file, content).load()
    except DataError:
        raise
    except Exception as error:  # a damaged pickle may raise anything
        raise file.damaged(f"{type(error).__name__}: {error}") from error
    if not isinstance(value, dict):
        raise file.damaged(f"it holds a {type(value).__name__}, expected a dict")
    return value


def class_names(meta: dict[str, Any], file: CifarFile, *, key: str) -> tuple[str, ...]:
    """The names under `key`. Raises DataError when there are none."""
    names = meta.get(key)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise file.damaged(f"{key} is not a list of names")
    return tuple(names)


def batch(content: dict[str, Any], file: CifarFile, *, key: str, num_classes: int) -> Split:
    """Images, and the labels under `key`, in their order. Raises DataError when they do not fit each other."""
    pixels_NP = _array(content.get("data"), file)
    labels = content.get(key)
    if not isinstance(labels, list) or not all(type(label) is int and 0 <= label < num_classes for label in labels):
        raise file.damaged(f"{key} is not a list of integers in 0..{num_classes - 1}")
    if pixels_NP.shape != (len(labels), 3 * _SIDE * _SIDE):
        raise file.damaged(
            f"data has shape {pixels_NP.shape}, expected ({len(labels)}, {3 * _SIDE * _SIDE}) for its labels"
        )
    images_NHWC = np.ascontiguousarray(pixels_NP.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1))
    return Split(images_NHWC=images_NHWC, labels_N=np.array(labels, dtype=np.int64))


def _array(value: Any, file: CifarFile) -> npt.NDArray[np.uint8]:
    """The uint8 matrix that a pickled array describes: state = (version, shape, dtype, is Fortran order, bytes)."""
    match value:
        case _Inert(state=(_, (int(rows), int(columns)), _Inert(args=("u1", *_)), fortran, data)):
            pass
        case _:
            raise file.damaged("data is not a two-dimensional array of bytes")
    match data:
        case _Inert(args=(str(text), "latin1")) | str(text):
            try:
                raw = text.encode("latin1")
            except UnicodeEncodeError as error:
                raise file.damaged(f"data is text, not bytes: {error}") from error
        case bytes(raw):
            pass
        case _:
            raise file.damaged("data has no bytes")
    if min(rows, columns) < 0 or len(raw) != rows * columns:
        raise file.damaged(f"data has {len(raw)} bytes, expected {rows} × {columns}")
    return np.frombuffer(raw, dtype=np.uint8).reshape(rows, columns, order="F" if fortran else "C")
