"""A teacher's logits that the user gives in a file: checked, and put into the order of the training split. Does not import torch."""

import io
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kd_ray.errors import DataError, count_of, some
from kd_ray.results.parquet import decode_table

Logits = npt.NDArray[np.float32]

SAMPLE_ID = "sample_id"
"""Column of a Parquet file with the names of the samples."""
_PARQUET, _NUMPY = b"PAR1", b"\x93NUMPY"
"""How a file of each kind begins."""
_LISTS = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


def read_logits(
    content: bytes, *, source: str, num_samples: int, class_names: Sequence[str], ids: Callable[[], Sequence[str]]
) -> Logits:
    """Logits (N, C) of the training samples, in the order of the training split.

    An `.npy` file has that shape and order; the rows of a Parquet file find their places by `ids`, the names of the training samples. Its
    rows for other samples, such as those of a validation split, are left out.

    Raises:
        DataError: it is not such a file, has another shape, or lacks, repeats or leaves undefined what a sample needs. The message begins
            with `source`.
    """
    try:
        is_table = content.startswith(_PARQUET)
        names = ids() if is_table else [str(n) for n in range(num_samples)]
        logits_NC = (
            _of_table(content, class_names, names) if is_table else _of_array(content, (num_samples, len(class_names)))
        )
        _check_values(logits_NC, names)
    except (ValueError, EOFError, OSError, MemoryError, OverflowError, pa.ArrowException) as error:
        raise DataError(f"{source}: {str(error) or type(error).__name__}") from error
    return logits_NC


def _of_array(content: bytes, shape: tuple[int, int]) -> Logits:
    if not content.startswith(_NUMPY):
        raise ValueError("is neither an .npy nor a Parquet file")
    array = np.load(io.BytesIO(content), allow_pickle=False)
    if not np.issubdtype(array.dtype, np.floating):
        raise ValueError(f"holds {array.dtype}; valid: float16, float32, float64")
    if array.shape != shape:
        what = f"{shape[0]:,} training samples × {shape[1]:,} classes"
        raise ValueError(f"has the shape {array.shape}, and the sweep needs {shape}: {what}")
    with np.errstate(over="ignore"):
        return np.ascontiguousarray(array, dtype=np.float32)


def _of_table(content: bytes, class_names: Sequence[str], wanted: Sequence[str]) -> Logits:
    table = decode_table(content)
    columns = [name for name in table.column_names if name != SAMPLE_ID]
    if len(columns) != len(table.column_names) - 1:
        raise ValueError(f"needs one column {SAMPLE_ID}; its columns are {some(table.column_names)}")
    is_list = len(columns) == 1 and any(holds(table.schema.field(columns[0]).type) for holds in _LISTS)
    if not is_list and sorted(columns) != sorted(class_names):
        raise ValueError(
            f"needs beside {SAMPLE_ID} one column of lists, or one for each class: {some(class_names)}; it has {some(columns)}"
        )
    if is_list:
        logits_NC = _lists(table.column(columns[0]), columns[0], len(class_names))
    else:
        logits_NC = np.stack([_floats(table.column(name), name) for name in class_names], axis=1)
    names = [str(name) for name in table.column(SAMPLE_ID).to_pylist()]
    places = {name: place for place, name in enumerate(names)}
    if len(places) < len(names):
        repeated = list(dict.fromkeys(name for place, name in enumerate(names) if places[name] != place))
        raise ValueError(f"{SAMPLE_ID}: {count_of(len(repeated), 'sample')} in more than one row: {some(repeated)}")
    if missing := [name for name in wanted if name not in places]:
        raise ValueError(
            f"{SAMPLE_ID}: {len(missing):,} of {len(wanted):,} training samples have no row: {some(missing)}; it has {some(names)}"
        )
    return logits_NC[[places[name] for name in wanted]]


def _lists(column: pa.ChunkedArray, name: str, num_classes: int) -> Logits:
    lists = column.cast(pa.large_list(column.type.value_type)).combine_chunks()
    lengths = lists.value_lengths().to_pylist()
    if wrong := [(row, length) for row, length in enumerate(lengths) if length != num_classes]:
        row, length = wrong[0]
        raise ValueError(f"{name}: row {row:,} has {length or 0:,} values, and the sweep has {num_classes:,} classes")
    return _floats(pa.chunked_array([lists.flatten()]), name).reshape(-1, num_classes)


def _floats(column: pa.ChunkedArray, name: str) -> Logits:
    if not pa.types.is_floating(column.type):
        raise ValueError(f"{name}: holds {column.type}; valid: float, double")
    # A null becomes NaN, which is refused.
    with np.errstate(over="ignore"):
        values: Logits = column.to_numpy().astype(np.float32)
    return values


def _check_values(logits_NC: Logits, names: Sequence[str]) -> None:
    is_finite_N = np.isfinite(logits_NC).all(axis=1)
    if not is_finite_N.all():
        row = int(np.argmin(is_finite_N))
        value = next(float(value) for value in logits_NC[row] if not np.isfinite(value))
        raise ValueError(f"the logits of training sample {names[row]} hold {value}; valid: finite numbers of 32 bits")
    if logits_NC.min() >= 0 and np.allclose(logits_NC.sum(axis=1), 1, atol=1e-3):
        raise ValueError("holds probabilities; give logits, or the logarithms of these")
