"""Data of the user's own from Python: arrays, frames and folders become a Parquet file below the data root, and a section of a sweep."""

import gzip
import io
import json
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from kd_ray.data.families import fingerprint
from kd_ray.errors import DataError, some
from kd_ray.sweep.load import parse_dataset

_SPLITS = {"train": "train", "test": "test", "validation": "validation", "val": "validation"}
_SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".png", ".pgm", ".ppm", ".tif", ".tiff", ".webp"})
_SMALLEST = 16
"""Least side of images in a sweep, in pixels."""


def dataset(
    title: str,
    *,
    images: Any = None,
    rows: Any = None,
    texts: Sequence[str] | None = None,
    labels: Any = None,
    features: Any = None,
    split: Any = None,
    test_fraction: float = 0.2,
    classes: Sequence[str] | None = None,
    data_root: str | Path = "./data",
    overwrite: bool = False,
    **settings: Any,
) -> dict[str, Any]:
    """Write `<data_root>/<title>.parquet`, and return the section `dataset` of a sweep for it, fingerprint included.

    Give one of:
        images: uint8 array N × height × width, or with 1 or 3 channels at the end (grey ones become three equal channels); path of an IDX
            file (`.gz` too); or a folder with a folder of images for each class, or such folders in `train`, `test` and `validation`.
        rows: a pandas frame, or an array N × F of numbers. Columns of text or truth values are categories.
        texts: N texts; `tokenizer="hf:NAME"` is needed, too.

    Args:
        title: name of the set in the tables and of its file.
        labels: N labels, the path of an IDX file, or the name of a column of `rows`; not needed for a folder.
        features: sensitive features: a mapping or frame of N groups, or of N lists of groups; or names of columns of `rows`, which are no
            inputs then. For a folder, a frame whose column `file`, or whose index, names the images.
        split: `train`, `validation` or `test` for each sample, or the name of a column of `rows`; left out, the test split is drawn at
            random.
        test_fraction: share of a random test split.
        classes: the labels, in the order of class indices; left out, they are sorted.
        settings: other fields of the section, such as `size`, `bins`, `normalization` or `validation_fraction`.

    Raises:
        DataError: the samples cannot be used, or the file exists with another content and `overwrite` is not given.
        SweepError: a setting is wrong.
    """
    if sum(it is not None for it in (images, rows, texts)) != 1:
        raise DataError("dataset: give one of images, rows and texts")
    columns: dict[str, Any] = {}
    found: dict[str, Any] = {"path": f"{title}.parquet", "title": title}
    names: list[str] | None = None
    if images is not None:
        columns["image"], shape, names, in_tree = _images(images, settings.get("size"))
        found |= {"image": "image", **shape}
        labels = in_tree.get("label", labels) if labels is None else labels
        split = in_tree.get("split", split) if split is None else split
    elif texts is not None:
        columns["text"] = pa.array(list(texts), pa.string())
        found |= {"text": "text"}
    else:
        inputs, labels, features, split = _rows(rows, labels, features, split)
        columns |= inputs
        found |= {"columns": list(inputs)}
        if words := [name for name, column in inputs.items() if not _holds_numbers(column.type)]:
            found |= {"categorical": words}
    count = len(next(iter(columns.values())))
    label_N, ordered = _labels(labels)
    columns = _added(columns, "label", pa.array(label_N))
    groups = _features(features, names)
    for name, values in groups.items():
        columns = _added(columns, name, pa.array(values, from_pandas=True))
    if split is not None:
        columns = _added(columns, "split", pa.array([str(it) for it in split]))
    for name, column in columns.items():
        if len(column) != count:
            raise DataError(
                f"dataset {title}: {name} has {len(column):,} values, expected {count:,}, one for each sample"
            )
    binned = "label" in [it["column"] for it in settings.get("bins", ())]
    found |= {} if binned else {"classes": list(classes) if classes is not None else ordered}
    found |= {"target": "label", "features": list(groups)}
    found |= {"split": "split"} if split is not None else {"test_fraction": test_fraction}
    section = {"name": "manifest", **found, **settings}
    known = parse_dataset("manifest", [f"{key}={json.dumps(value)}" for key, value in section.items() if key != "name"])
    root = Path(data_root)
    _write(root / f"{title}.parquet", pa.table(columns), overwrite=overwrite)
    return section | {"version": fingerprint(known, root)}


def _write(path: Path, table: pa.Table, *, overwrite: bool) -> None:
    """Write the file as a whole, unless it is there."""
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    if path.exists():
        if path.read_bytes() == buffer.getvalue():
            return
        if not overwrite:
            raise DataError(f"dataset: {path} exists with another content; give another title, or overwrite=True")
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.part")
    partial.write_bytes(buffer.getvalue())
    partial.replace(path)


def _added(columns: Mapping[str, Any], name: str, column: Any) -> dict[str, Any]:
    if name in columns:
        raise DataError(f"dataset: two columns are named {name!r}; a feature that is an input, too, needs another name")
    return {**columns, name: column}


def _labels(labels: Any) -> tuple[list[str], list[str]]:
    """The labels as texts, and all of them in order."""
    if labels is None:
        raise DataError("dataset: labels are required")
    if isinstance(labels, str | Path):
        labels = read_idx(Path(labels))
    values = labels.tolist() if hasattr(labels, "tolist") else list(labels)
    wrong = next((it for it in values if not isinstance(it, str | int)), None)
    if wrong is not None:
        raise DataError(f"dataset: labels must be texts or integers, got {wrong!r}")
    kinds = {type(it) for it in values}
    if len(kinds) > 1:
        raise DataError(f"dataset: labels are of several types: {', '.join(sorted(it.__name__ for it in kinds))}")
    return [str(it) for it in values], [str(it) for it in sorted(set(values))]


def _features(features: Any, names: Sequence[str] | None) -> dict[str, Any]:
    """The values of each feature, in the order of the samples."""
    if features is None:
        return {}
    if names is not None:
        features = _of_images(features, names)
    if isinstance(features, list | tuple):
        raise DataError(
            "dataset: features are names of columns only with rows that are a frame; else a mapping or a frame"
        )
    return {str(name): list(features[name]) for name in features}


def _of_images(features: Any, names: Sequence[str]) -> Any:
    """The rows of a frame for images of these names: paths below the folder, or bare file names."""
    if not hasattr(features, "columns"):
        raise DataError("dataset: features of a folder of images must be a frame that names the images")
    frame = features.set_index("file") if "file" in features.columns else features
    place = {str(name): k for k, name in enumerate(frame.index)}
    if len(place) != len(frame):
        raise DataError("dataset: features name an image twice")
    places = [place.get(name, place.get(Path(name).name)) for name in names]
    missing = [name for name, k in zip(names, places, strict=True) if k is None]
    if missing:
        raise DataError(f"dataset: features lack {len(missing):,} of {len(names):,} images: {some(missing)}")
    return frame.iloc[places]


# --- images ---------------------------------------------------------------------------------------------------------------------------


def _images(images: Any, size: int | None) -> tuple[pa.Array, dict[str, Any], list[str] | None, dict[str, list[str]]]:
    """A column of images, its settings, and for a folder the names of the images with their labels and splits."""
    if isinstance(images, str | Path) and Path(images).is_dir():
        if size is None:
            raise DataError("dataset: size, the side of the images in pixels, is required for a folder")
        return _tree(Path(images))
    pixels = read_idx(Path(images)) if isinstance(images, str | Path) else np.asarray(images)
    if pixels.dtype != np.uint8:
        advice = "; for numbers from 0 to 1: (255 * images).round().astype('uint8')" if pixels.dtype.kind == "f" else ""
        raise DataError(f"dataset: images have dtype {pixels.dtype}, expected uint8{advice}")
    if pixels.ndim == 3:
        pixels = pixels[..., None]
    if pixels.ndim != 4 or pixels.shape[3] not in (1, 3):
        shape = "×".join(map(str, pixels.shape))
        is_first = pixels.ndim == 4 and pixels.shape[1] in (1, 3)
        advice = "; move the channels to the end: images.transpose(0, 2, 3, 1)" if is_first else ""
        raise DataError(
            f"dataset: images are {shape}, expected N × height × width, with 1 or 3 channels at the end or none{advice}"
        )
    pixels = np.broadcast_to(pixels, (*pixels.shape[:3], 3))
    height, width = pixels.shape[1:3]
    side = size or max(height, width, _SMALLEST)
    if (height, width) == (side, side):
        values = [image.tobytes() for image in pixels]
        return pa.array(values, pa.binary(3 * side**2)), {"size": side, "channels": "last"}, None, {}
    return pa.array([_png(image) for image in pixels], pa.binary()), {"size": side}, None, {}


def _png(image_HWC: npt.NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(image_HWC)).save(buffer, "PNG")
    return buffer.getvalue()


def _tree(folder: Path) -> tuple[pa.Array, dict[str, Any], list[str], dict[str, list[str]]]:
    parts = sorted(it for it in folder.iterdir() if it.is_dir())
    has_splits = bool(parts) and all(it.name in _SPLITS for it in parts)
    of_class = [it for part in parts for it in sorted(part.iterdir()) if it.is_dir()] if has_splits else parts
    files = [file for it in of_class for file in sorted(it.rglob("*")) if file.suffix.lower() in _SUFFIXES]
    if not files:
        raise DataError(f"dataset: {folder} has no images in a folder for each class")
    names = [file.relative_to(folder).as_posix() for file in files]
    level = 1 if has_splits else 0
    found = {"label": [Path(name).parts[level] for name in names]}
    if has_splits:
        found["split"] = [_SPLITS[Path(name).parts[0]] for name in names]
    return pa.array([file.read_bytes() for file in files], pa.binary()), {}, names, found


def read_idx(path: Path) -> npt.NDArray[np.uint8]:
    """The array of bytes in an IDX file, as MNIST has them; compressed with gzip or not.

    Raises:
        DataError: it cannot be read, or holds something else.
    """
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        zeros, kind, num_axes = struct.unpack_from(">HBB", data)
        shape = struct.unpack_from(f">{num_axes}I", data, 4)
    except (OSError, EOFError, gzip.BadGzipFile, struct.error) as error:
        raise DataError(f"dataset: {path} cannot be read as an IDX file: {error}") from error
    values = np.frombuffer(data, np.uint8, offset=4 + 4 * num_axes)
    if zeros != 0 or kind != 0x08 or len(values) != np.prod(shape, dtype=np.int64):
        raise DataError(f"dataset: {path} is no IDX file of bytes")
    return values.reshape(shape)


# --- rows -----------------------------------------------------------------------------------------------------------------------------


def _rows(rows: Any, labels: Any, features: Any, split: Any) -> tuple[dict[str, Any], Any, Any, Any]:
    """The input columns of a frame or an array, and labels, features and split, where they are columns of the frame."""
    if not hasattr(rows, "columns"):
        values_NF = np.asarray(rows)
        if values_NF.ndim != 2 or values_NF.dtype.kind not in "fiu":
            raise DataError(f"dataset: rows are {values_NF.dtype} with {values_NF.ndim} axes, expected N × F numbers")
        return {"x": pa.array(values_NF.astype(np.float64).tolist())}, labels, features, split
    named = list(features) if isinstance(features, list | tuple) else []
    taken = [*named, *(it for it in (labels, split) if isinstance(it, str))]
    if unknown := [name for name in taken if name not in rows.columns]:
        raise DataError(
            f"dataset: rows have no column {unknown[0]!r}; they have {some([str(it) for it in rows.columns])}"
        )
    inputs = {str(name): pa.array(rows[name].tolist(), from_pandas=True) for name in rows.columns if name not in taken}
    inputs = {name: it.cast(pa.string()) if pa.types.is_boolean(it.type) else it for name, it in inputs.items()}
    if not inputs:
        raise DataError("dataset: rows have no columns that are inputs")
    return (
        inputs,
        rows[labels] if isinstance(labels, str) else labels,
        rows[named] if named else features,
        rows[split] if isinstance(split, str) else split,
    )


def _holds_numbers(kind: pa.DataType) -> bool:
    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_list(kind))
