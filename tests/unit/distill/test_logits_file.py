"""Logits that a user gives in a file: both kinds of file give the same array, and whatever does not fit is named."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd_ray.distill.logits_file import read_logits
from kd_ray.errors import DataError

CLASSES = ("cat", "dog", "eel")
IDS = ("a.png", "b.png", "c.png", "d.png")
LOGITS_NC = np.array([[1, -2, 0.5], [0, 3, -1], [-4, 2, 0.1], [7, 0, 0]], dtype=np.float32)


def npy(array: npt.NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def parquet(columns: dict[str, Any]) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer)
    return buffer.getvalue()


def read(content: bytes) -> npt.NDArray[np.float32]:
    return read_logits(content, source="x.yaml: teacher.logits: f", num_samples=4, class_names=CLASSES, ids=lambda: IDS)


def lists(order: list[int]) -> list[list[float]]:
    return [LOGITS_NC[n].tolist() for n in order]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.float16])
def test_an_array_is_taken_in_its_order(dtype: type[np.floating]) -> None:
    found = read(npy(LOGITS_NC.astype(dtype)))
    assert found.dtype == np.float32
    assert np.array_equal(found, LOGITS_NC.astype(dtype).astype(np.float32))


def test_an_array_in_columns_is_the_same() -> None:
    assert np.array_equal(read(npy(np.asfortranarray(LOGITS_NC))), LOGITS_NC)


@pytest.mark.parametrize(
    "kind",
    [pa.list_(pa.float32()), pa.list_(pa.float64()), pa.large_list(pa.float32()), pa.list_(pa.float32(), 3)],
    ids=str,
)
def test_rows_of_a_table_find_their_places_and_those_of_other_samples_are_left_out(kind: pa.DataType) -> None:
    order = [2, 0, 3, 1]
    values = [*lists(order), [0.0, 0.0, 0.0]]
    names = [*(IDS[n] for n in order), "of the validation split.png"]
    assert np.array_equal(read(parquet({"sample_id": names, "logits": pa.array(values, kind)})), LOGITS_NC)


def test_a_column_for_each_class_is_found_by_its_name() -> None:
    columns = {name: pa.array(LOGITS_NC[:, c]) for c, name in enumerate(CLASSES)}
    assert np.array_equal(read(parquet({"eel": columns["eel"], "sample_id": IDS, **columns})), LOGITS_NC)


def test_numbers_of_rows_may_be_integers() -> None:
    content = parquet({"sample_id": [3, 2, 1, 0], "logits": lists([3, 2, 1, 0])})
    ids = ["0", "1", "2", "3"]
    found = read_logits(content, source="f", num_samples=4, class_names=CLASSES, ids=lambda: ids)
    assert np.array_equal(found, LOGITS_NC)


def changed(row: int, column: int, value: float) -> npt.NDArray[np.float64]:
    array = LOGITS_NC.astype(np.float64)
    array[row, column] = value
    return array


def softmax(logits_NC: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    exp_NC = np.exp(logits_NC)
    probabilities_NC: npt.NDArray[np.float32] = exp_NC / exp_NC.sum(axis=1, keepdims=True)
    return probabilities_NC


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is neither an .npy nor a Parquet file"),
        (b"a,b\n1,2\n", "is neither an .npy nor a Parquet file"),
        (npy(LOGITS_NC)[:-1], "teacher.logits: f: "),
        (npy(LOGITS_NC[:3]), r"has the shape \(3, 3\), and the sweep needs \(4, 3\): 4 training samples × 3 classes"),
        (npy(LOGITS_NC[:, :2]), r"has the shape \(4, 2\), and the sweep needs \(4, 3\)"),
        (npy(LOGITS_NC.T), r"has the shape \(3, 4\)"),
        (npy(LOGITS_NC.astype(np.int64)), "holds int64; valid: float16, float32, float64"),
        (npy(np.array([[object()]])), "Object arrays cannot be loaded"),
        (npy(changed(2, 1, np.nan)), "the logits of training sample 2 hold nan; valid: finite numbers of 32 bits"),
        (npy(changed(1, 0, np.inf)), "the logits of training sample 1 hold inf"),
        (npy(changed(1, 0, 1e300)), "the logits of training sample 1 hold inf"),
        (npy(softmax(LOGITS_NC)), "holds probabilities; give logits, or the logarithms of these"),
        (parquet({"sample_id": IDS})[:-20], "teacher.logits: f: "),
        (parquet({"logits": lists([0, 1, 2, 3])}), "needs one column sample_id; its columns are logits"),
        (parquet({"sample_id": IDS}), "needs beside sample_id one column of lists, or one for each class: cat, dog, eel"),
        (parquet({"sample_id": IDS, "cat": [1.0] * 4, "dog": [1.0] * 4}), "one for each class: cat, dog, eel; it has cat, dog"),
        (parquet({"sample_id": IDS, "logits": lists([0, 1, 2, 3]), "note": IDS}), "it has logits, note"),
        (parquet({"sample_id": IDS, "logits": [[1.0, 2.0], *lists([1, 2, 3])]}), "logits: row 0 has 2 values, and the sweep has 3 classes"),
        (parquet({"sample_id": IDS, "logits": [*lists([0, 1, 2]), None]}), "logits: row 3 has 0 values"),
        (parquet({"sample_id": IDS, "logits": [["1", "2", "3"]] * 4}), "logits: holds string; valid: float, double"),
        (parquet({"sample_id": IDS, **{name: [1, 2, 3, 4] for name in CLASSES}}), "cat: holds int64; valid: float, double"),
        (parquet({"sample_id": IDS, "logits": [*lists([0, 1, 2]), [1.0, None, 2.0]]}), "training sample d.png hold nan"),
        (
            parquet({"sample_id": IDS[:2], "logits": lists([0, 1])}),
            "sample_id: 2 of 4 training samples have no row: c.png, d.png; it has a.png, b.png",
        ),
        (
            parquet({"sample_id": [*IDS, "b.png"], "logits": lists([0, 1, 2, 3, 1])}),
            "sample_id: 1 sample in more than one row: b.png",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message) as raised:
        read(content)
    assert str(raised.value).startswith("x.yaml: teacher.logits: f: ")
    assert "\n" not in str(raised.value)
