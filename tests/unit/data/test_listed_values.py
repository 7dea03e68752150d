"""Values of any type of Arrow, and CSV files as programs write them."""

import datetime
import hashlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import TypeAdapter

from kd_ray.data import listed
from kd_ray.data.families import load_dataset
from kd_ray.data.family import Loading
from kd_ray.data.image_data import ImageData
from kd_ray.data.row_data import RowData
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import ListedDataset
from tests.datasets import encoded, pixels

ROWS: dict[str, Any] = {
    "name": "manifest", "path": "list.parquet", "columns": ["x"], "classes": ["a", "b"], "features": ["g"], "split": "split",
}  # fmt: skip
COUNT = 12


def make(**changes: Any) -> ListedDataset:
    fields = {name: value for name, value in {**ROWS, **changes}.items() if value is not None}
    return TypeAdapter(ListedDataset).validate_json(json.dumps(fields))


def load(root: Path, **changes: Any) -> Any:
    dataset = make(**changes)
    found = listed.fingerprint(dataset, Loading(root=root))
    return load_dataset(dataset.model_copy(update={"version": found}), root)


def write(root: Path, **columns: Any) -> None:
    table = {
        "x": np.arange(COUNT) % 5.0,
        "label": ["a", "b"] * (COUNT // 2),
        "split": ["train"] * 6 + ["test"] * 6,
        "g": ["u", "v"] * (COUNT // 2),
        **columns,
    }
    parquet.write_table(pa.table(table), root / "list.parquet")


def repeated(values: list[Any], kind: pa.DataType | None = None) -> pa.Array:
    return pa.array([values[n % len(values)] for n in range(COUNT)], kind)


@pytest.mark.parametrize(
    ("column", "groups"),
    [
        (repeated([0.1, 0.2], pa.float32()), [["0.1"], ["0.2"]]),
        (repeated([1.0, 2.0, float("nan")], pa.float32()), [["1"], ["2"], []]),
        (repeated([1, 2, None]), [["1"], ["2"], []]),
        (repeated([True, False, None]), [["True"], ["False"], []]),
        (repeated([b"f", b"m"]), [["f"], ["m"]]),
        (repeated([b"f", b"m"], pa.binary(1)), [["f"], ["m"]]),
        (repeated([Decimal("1.0"), Decimal("2.5")]), [["1.0"], ["2.5"]]),
        (repeated([datetime.date(2020, 1, 1), datetime.date(2020, 1, 2)]), [["2020-01-01"], ["2020-01-02"]]),
        (repeated(["u", "v", None]).dictionary_encode(), [["u"], ["v"], []]),
        (repeated(["u", "v", None], pa.string_view()), [["u"], ["v"], []]),
        (repeated(["u", "v", None], pa.large_string()), [["u"], ["v"], []]),
        (repeated([["en"], ["en", "fr"], [], None]), [["en"], ["en", "fr"], [], []]),
        (repeated([[0.5], [0.1, 0.5]], pa.large_list(pa.float32())), [["0.5"], ["0.1", "0.5"]]),
        (repeated(["None", "NA", "", None]), [["None"], ["NA"], [], []]),
    ],
)
def test_groups_are_the_values_whatever_their_type(tmp_path: Path, column: pa.Array, groups: list[list[str]]) -> None:
    write(tmp_path, g=column)
    data = load(tmp_path)
    assert isinstance(data, RowData)
    found = data.train.sensitive_features["g"].to_lists() + data.test.sensitive_features["g"].to_lists()
    assert found == [groups[n % len(groups)] for n in range(COUNT)]


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (repeated([{"sex": "f"}, {"sex": "m"}]), r"list\.parquet: g is struct<sex: string>, expected a text, number"),
        (
            repeated([[("a", 1)], [("b", 2)]], pa.map_(pa.string(), pa.int64())),
            r"g is map<string, int64.*>, expected a text",
        ),
        (repeated([[["a"]], [["b"]]]), "g, inside its lists, is list<element: string>, expected a text"),
        (repeated([b"\xff", b"m"]), "g holds bytes that are no text in UTF-8"),
    ],
)
def test_what_is_no_group_is_refused(tmp_path: Path, column: pa.Array, message: str) -> None:
    write(tmp_path, g=column)
    with pytest.raises(DataError, match=message):
        load(tmp_path)
    with pytest.raises(DataError, match="label is list<element: string>, expected a text"):
        write(tmp_path, label=repeated([["a"], ["b"]]))
        load(tmp_path)


def test_missing_values_are_named_by_the_sweep(tmp_path: Path) -> None:
    write(tmp_path, g=repeated(["None", "f", "?", "m"]))
    data = load(tmp_path)
    assert data.train.sensitive_features["g"].names == ("?", "None", "f", "m")
    assert data.notes == (
        "g: ?, None counts as a value; if it means that there is none, name it in dataset.missing_values",
    )
    data = load(tmp_path, missing_values=["None", "?"])
    assert data.train.sensitive_features["g"].names == ("f", "m")
    assert data.notes == ()


@pytest.mark.parametrize(("group", "is_as_before"), [("v", True), ("None", False), ("NULL", False)])
def test_only_lists_that_mean_something_else_than_before_have_another_fingerprint(
    tmp_path: Path, group: str, is_as_before: bool
) -> None:
    """Versions that knew no `missing_values` left such groups out."""
    text = "\n".join(csv_rows()).replace(",v", f",{group}")
    (tmp_path / "list.csv").write_text(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    before = hashlib.sha256(f"list {digest}\n".encode()).hexdigest()[:16]
    assert (listed.fingerprint(make(path="list.csv"), Loading(root=tmp_path)) == before) is is_as_before


def test_float32_numbers_lie_in_the_bins_that_they_are_shown_in(tmp_path: Path) -> None:
    """The float32 number 0.7 is less than the float64 number 0.7."""
    write(tmp_path, g=repeated([0.7, 0.3], pa.float32()))
    data = load(tmp_path, bins=[{"column": "g", "edges": [0.7]}])
    assert data.test.sensitive_features["g"].to_lists() == [[">=0.7"], ["<0.7"]] * 3


# --- CSV -------------------------------------------------------------------------------------------------------------------------------


def csv_rows(count: int = COUNT) -> list[str]:
    return [
        "x,label,split,g",
        *(f"{n % 5},{'ab'[n % 2]},{'train' if n < 6 else 'test'},{'uv'[n // 2 % 2]}" for n in range(count)),
    ]


def test_a_long_value_in_a_column_that_is_not_used(tmp_path: Path) -> None:
    lines = [f"{line},{'x' * (3_000_000 if n == 4 else 5)}" for n, line in enumerate(csv_rows())]
    lines[0] = f"{csv_rows()[0]},page"
    (tmp_path / "list.csv").write_text("\n".join(lines))
    assert len(load(tmp_path, path="list.csv").train) == 6


@pytest.mark.parametrize("line", ['1,a,train,"u', '"1,a,train,u', '1,a,train,"u"v'])
def test_a_quote_that_is_not_closed_is_refused(tmp_path: Path, line: str) -> None:
    lines = csv_rows()
    (tmp_path / "list.csv").write_text("\n".join([*lines[:3], line, *lines[3:]]))
    with pytest.raises(DataError, match=r"list\.csv, line (4|14): .*is there a quote that is not closed"):
        load(tmp_path, path="list.csv")


def test_lines_are_those_of_an_editor(tmp_path: Path) -> None:
    lines = csv_rows()
    lines[5] = lines[5].replace(",a,", ",c,").replace(",b,", ",c,")
    text = "\n\n".join([lines[0].replace("g", "g,note"), *(f'{line},"two\nlines"' for line in lines[1:])])
    (tmp_path / "list.csv").write_text(text)
    expected = text.splitlines().index(next(line for line in text.splitlines() if ",c," in line)) + 1
    with pytest.raises(DataError, match=rf"line {expected + 1}: label: 1 row is in none of the classes \(a, b\): c"):
        load(tmp_path, path="list.csv")


@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_endings_of_lines_and_a_byte_order_mark(tmp_path: Path, ending: str) -> None:
    (tmp_path / "list.csv").write_bytes(b"\xef\xbb\xbf" + (ending.join(csv_rows()) + ending).encode())
    data = load(tmp_path, path="list.csv")
    assert (len(data.train), len(data.test)) == (6, 6)


# --- images in the list ----------------------------------------------------------------------------------------------------------------

IMAGES: dict[str, Any] = {"columns": None, "image": "image", "size": 16}


@pytest.mark.parametrize("kind", [pa.binary(), pa.binary(768), pa.large_binary(), pa.binary_view()])
def test_pixels_in_a_binary_column(tmp_path: Path, kind: pa.DataType) -> None:
    images_NHWC = pixels(COUNT, 16, 16, 3)
    write(tmp_path, image=pa.array([image.tobytes() for image in images_NHWC], pa.binary()).cast(kind))
    data = load(tmp_path, **IMAGES)
    assert isinstance(data, ImageData)
    assert np.array_equal(data.train.images_NHWC, images_NHWC[:6])


def photographs() -> Any:
    """Smooth and colourful."""
    y, x = np.mgrid[0:16, 0:16] / 16
    waves = [[np.sin(5 * x + n), np.cos(4 * y + 2 * n), np.sin(3 * x + 3 * y - n)] for n in range(COUNT)]
    return np.round(127 + 120 * np.array(waves)).astype(np.uint8)


@pytest.mark.parametrize("is_list", [True, False])
def test_channels_that_come_first_are_noticed(tmp_path: Path, is_list: bool) -> None:
    images_NCHW = photographs()
    images_NHWC = images_NCHW.transpose(0, 2, 3, 1)

    def write_images(images: Any) -> None:
        values = [image.reshape(-1).tolist() if is_list else image.tobytes() for image in images]
        write(tmp_path, image=pa.array(values, pa.list_(pa.uint8()) if is_list else pa.binary()))

    write_images(images_NHWC)
    assert np.array_equal(load(tmp_path, **IMAGES).test.images_NHWC, images_NHWC[6:])
    write_images(images_NCHW)
    with pytest.raises(DataError, match=r"look as if all of red came first.*`dataset\.channels: first`"):
        load(tmp_path, **IMAGES)
    assert np.array_equal(load(tmp_path, **IMAGES, channels="first").test.images_NHWC, images_NHWC[6:])
    as_they_stand = np.ascontiguousarray(images_NCHW).reshape(COUNT, 16, 16, 3)
    assert np.array_equal(load(tmp_path, **IMAGES, channels="last").test.images_NHWC, as_they_stand[6:])


def test_images_that_cannot_be_used_are_left_out_where_the_sweep_says_so(tmp_path: Path) -> None:
    images = [encoded(16, 16, seed=n, suffix="png") for n in range(COUNT)]
    images[2], images[9] = b"", b"<html>403</html>"
    write(tmp_path, image=[*images[:4], None, *images[5:]])
    with pytest.raises(
        DataError, match=r"3 of 12 images cannot be used: row 3 \(it is empty\), row 5 .*row 10 \(it is an HTML page"
    ):
        load(tmp_path, **IMAGES)
    data = load(tmp_path, **IMAGES, missing="leave_out")
    assert (len(data.train), len(data.test)) == (4, 5)
    assert data.train.labels_N.tolist() == [0, 1, 1, 1]
    assert data.notes[0].startswith("3 of 12 rows left out, their images cannot be used: row 3 (it is empty), row 5 (")
