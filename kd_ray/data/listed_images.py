"""The images of a list: files that the list names, or encoded images in a column of the list itself."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kd_ray.data.listed_columns import Lines
from kd_ray.data.prepared import Sources, files_below
from kd_ray.errors import DataError, some
from kd_ray.sweep.datasets import ListedDataset

_BEGINNINGS = (b"\xff\xd8\xff", b"\x89PNG", b"RIFF", b"BM", b"GIF8", b"II*\0", b"MM\0*", b"P5", b"P6")
"""How image files begin."""
_STRUCT = {"bytes", "path"}
"""Fields of an image column of Hugging Face `datasets`."""
_LOOKED_AT = 64
"""Images that are looked at for the order of channels."""
_MUCH_SMOOTHER = 0.6
"""Photographs give about 0.5 where red comes first, and more than 1 where it does not; noise gives 1, grey noise 0.67."""


def image_files(
    dataset: ListedDataset,
    root: Path,
    path: Path,
    table: pa.Table,
    line_of: Sequence[int] | None,
    facts: Mapping[str, str],
) -> tuple[Lines, Sources, list[str]]:
    """The rows whose image exists, their images by path below the root, and a note on the rows that are left out."""
    every = Lines(path=path, rows=range(table.num_rows), line_of=line_of)
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
    images = files_below(Path(os.path.normpath(root)), names, facts)
    return Lines(path=path, rows=found, line_of=line_of), images, notes if missing else []


def without_structs(dataset: ListedDataset, table: pa.Table) -> pa.Table:
    """The table with the images of a column as Hugging Face writes it, `struct<bytes, path>`, as a column of bytes, or of paths.

    A set that was written with its images has the bytes, and the path is the name that a file once had. One that was written without
    them has paths alone.
    """
    import pyarrow.compute as pc

    place = table.column_names.index(dataset.image) if dataset.modality == "images" else -1
    kind = table.schema.types[place] if place >= 0 else None
    if kind is None or not pa.types.is_struct(kind) or {kind.field(k).name for k in range(kind.num_fields)} != _STRUCT:
        return table
    column = table.column(place).combine_chunks()
    bytes_N, path_N = (pc.struct_field(column, name) for name in ("bytes", "path"))
    images = path_N if bytes_N.null_count == len(bytes_N) and path_N.null_count < len(path_N) else bytes_N
    return table.set_column(place, dataset.image, images)


def image_side(dataset: ListedDataset) -> int:
    """Side of the images in pixels."""
    assert dataset.size is not None  # checked with the sweep file: a list of images has a size
    return dataset.size


def image_column(dataset: ListedDataset, lines: Lines, table: pa.Table, facts: Mapping[str, str]) -> Sources:
    """Images that stand in the list itself: encoded, or 3 · size² bytes each."""
    column = table.column(dataset.image)
    kind = column.type
    size = image_side(dataset)
    is_binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if is_list and pa.types.is_uint8(kind.value_type):
        is_pixels = True
    elif is_binary:
        is_pixels = _holds_pixels(column, 3 * size**2)
    else:
        raise DataError(
            f"manifest: {lines.path}: column {dataset.image!r} is {kind}; expected paths, encoded images (binary), or lists of uint8"
        )
    if not is_pixels and dataset.channels is not None:
        raise DataError(f"manifest: {lines.path}: dataset.channels has no effect on encoded images; remove it")
    if is_pixels and dataset.channels is None:
        _check_channels_are_last(lines, column, size)

    def read(n: int) -> bytes:
        value = column[n].as_py()
        if value is None or (is_pixels and len(value) != 3 * size**2):
            what = "there is none" if value is None else f"{len(value):,} bytes, expected 3 · {size}² = {3 * size**2:,}"
            raise DataError(f"manifest: {lines.place(n)}: {dataset.image}: {what}")
        if dataset.channels == "first":
            value = np.array(list(value), dtype=np.uint8).reshape(3, size, size).transpose(1, 2, 0).tobytes()
        # With this header the bytes are an image file (PPM), which `decoding` reads.
        return f"P6 {size} {size} 255\n".encode() + bytes(value) if is_pixels else bytes(value)

    names = [f"row {n + 1}" for n in range(table.num_rows)]
    stamp = " ".join([*facts.values(), dataset.image, *([dataset.channels] if dataset.channels else [])])
    return Sources(names=names, read=read, stamp=stamp, lists=facts)


def _holds_pixels(column: pa.ChunkedArray, length: int) -> bool:
    """Whether the bytes of a binary column are pixels: all have the length of pixels, and some begin as no image file does."""
    first = next((scalar.as_py() for scalar in column if scalar.is_valid), b"")
    if len(first) != length:
        return False
    values = [value for value in column.to_pylist() if value is not None]
    return all(len(value) == length for value in values) and not all(value.startswith(_BEGINNINGS) for value in values)


def _check_channels_are_last(lines: Lines, column: pa.ChunkedArray, size: int) -> None:
    """Raises DataError for pixels whose neighbours are far more alike when all of red is taken to come first.

    The differences between neighbours in rows and columns, summed, fall by much more than half where pixels are read in the right order.
    """
    values = [
        value for value in column.slice(0, _LOOKED_AT).to_pylist() if value is not None and len(value) == 3 * size**2
    ]
    if not values:
        return
    pixels_NP = np.array([list(value) for value in values], dtype=np.float64)
    last_NCHW = pixels_NP.reshape(-1, size, size, 3).transpose(0, 3, 1, 2)
    as_last, as_first = (
        np.abs(np.diff(each_NCHW, axis=2)).mean() + np.abs(np.diff(each_NCHW, axis=3)).mean()
        for each_NCHW in (last_NCHW, pixels_NP.reshape(-1, 3, size, size))
    )
    if as_first < _MUCH_SMOOTHER * as_last:
        raise DataError(
            f"manifest: {lines.path}: the pixels of {len(values)} images look as if all of red came first, then green, then blue; write "
            "`dataset.channels: first` in the sweep file, or `last` if they do not"
        )


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
