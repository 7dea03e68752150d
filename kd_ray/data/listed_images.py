"""The images of a list: files that the list names, or encoded images in a column of the list itself."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kd_ray.data.listed_columns import Lines
from kd_ray.data.prepared import Sources, files_below
from kd_ray.errors import DataError, some
from kd_ray.sweep.datasets import ListedDataset


def image_files(
    dataset: ListedDataset, root: Path, path: Path, table: pa.Table, digest: str
) -> tuple[Lines, Sources, list[str]]:
    """The rows whose image exists, their images by path below the root, and a note on the rows that are left out."""
    every = Lines(path=path, rows=range(table.num_rows))
    found, names, missing = [], [], []
    for n, name in enumerate(table.column(dataset.image).to_pylist()):
        if not name or not is_below(path.parent / name, root):
            what = f"{name!r} leads out of the data root {root}" if name else "there is no path"
            raise DataError(f"manifest: {every.place(n)}: {dataset.image}: {what}")
        full = os.path.normpath(path.parent / name)
        if Path(full).is_file():
            found.append(n)
            names.append(os.path.relpath(full, os.path.normpath(root)))
        else:
            missing.append(f"{name} ({every.place(n, short=True)})")
    if missing and dataset.missing == "refuse":
        raise DataError(
            f"manifest: {path}: {len(missing):,} of {table.num_rows:,} image files do not exist: {some(missing)}; "
            "`dataset.missing: leave_out` leaves these rows out"
        )
    if not found:
        raise DataError(f"manifest: {path}: none of its {table.num_rows:,} image files exists")
    notes = [f"{len(missing):,} of {table.num_rows:,} rows left out, their image files do not exist: {some(missing)}"]
    images = files_below(Path(os.path.normpath(root)), names, {"list": digest})
    return Lines(path=path, rows=found), images, notes if missing else []


def image_side(dataset: ListedDataset) -> int:
    """Side of the images in pixels."""
    assert dataset.size is not None  # checked with the sweep file: a list of images has a size
    return dataset.size


def image_column(dataset: ListedDataset, lines: Lines, table: pa.Table, digest: str) -> Sources:
    """Images that stand in the list itself."""
    column = table.column(dataset.image)
    kind = column.type
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if is_list and pa.types.is_uint8(kind.value_type):
        # With this header the bytes are an image file (PPM), which `decoding` reads.
        size = image_side(dataset)
        header, length = f"P6 {size} {size} 255\n".encode(), 3 * size**2
    elif pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        header, length = b"", None
    else:
        raise DataError(
            f"manifest: {lines.path}: column {dataset.image!r} is {kind}; expected paths, encoded images (binary), or lists of uint8"
        )

    def read(n: int) -> bytes:
        value = column[n].as_py()
        if value is None or (length is not None and len(value) != length):
            what = (
                "there is none" if value is None else f"{len(value):,} bytes, expected 3 · {dataset.size}² = {length:,}"
            )
            raise DataError(f"manifest: {lines.place(n)}: {dataset.image}: {what}")
        return header + bytes(value)

    names = [f"row {n + 1}" for n in range(table.num_rows)]
    return Sources(names=names, read=read, stamp=f"{digest} {dataset.image}", lists={"list": digest})


def check_leaks(lines: Lines, names: Sequence[str], split_N: npt.NDArray[np.int64]) -> None:
    """Raises DataError when one image is in two splits."""
    first: dict[str, int] = {}
    for n, name in enumerate(names):
        other = first.setdefault(name, n)
        if split_N[other] != split_N[n]:
            raise DataError(
                f"manifest: {lines.place(n)}: the image of {lines.place(other, short=True)} again, in another split"
            )


def is_below(path: Path, root: Path) -> bool:
    """Whether a path leads below the root; links are not followed."""
    top, full = os.path.normpath(root), os.path.normpath(path)
    return os.path.commonpath([Path(top).absolute(), Path(full).absolute()]) == str(Path(top).absolute())
