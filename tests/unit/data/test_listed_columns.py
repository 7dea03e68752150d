"""Rows of numbers from a list of the user's own: every row is used or named."""

import csv
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet
from pydantic import TypeAdapter, ValidationError

from kd_ray.data import listed
from kd_ray.data.families import load_dataset
from kd_ray.data.family import Loading
from kd_ray.data.row_data import RowData
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import ListedDataset, table_name
from kd_ray.sweep.source import read_yaml
from tests.datasets import write_table

TABLE: dict[str, Any] = {
    "name": "manifest",
    "path": "table/loans.csv",
    "columns": ["income", "job", "age"],
    "categorical": ["job"],
    "classes": ["no", "yes"],
    "features": ["sex", "age"],
    "bins": [{"column": "age", "edges": [40]}],
    "split": "split",
}


def make(**changes: Any) -> ListedDataset:
    """`changes` of None remove a field."""
    fields = {name: value for name, value in {**TABLE, **changes}.items() if value is not None}
    return TypeAdapter(ListedDataset).validate_json(json.dumps(fields))


def load(root: Path, **changes: Any) -> RowData:
    dataset = make(**changes)
    data = load_dataset(dataset.model_copy(update={"version": listed.fingerprint(dataset, Loading(root=root))}), root)
    assert isinstance(data, RowData)
    return data


def test_columns_labels_and_groups_are_those_of_the_list(tmp_path: Path) -> None:
    data = load(write_table(tmp_path))
    with (tmp_path / "table" / "loans.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert data.columns == ("income", "job=clerk", "job=cook", "job=pilot", "age")
    train = [row for row in rows if row["split"] == "train"]
    for split, name in ((data.train, "train"), (data.test, "test")):
        mine = [row for row in rows if row["split"] == name]
        assert [data.class_names[label] for label in split.labels_N] == [row["label"] for row in mine]
        assert split.sensitive_features["sex"].to_lists() == [[row["sex"]] for row in mine]
        assert split.sensitive_features["age"].to_lists() == [
            ["<40" if int(row["age"]) < 40 else ">=40"] for row in mine
        ]
        for column in ("income", "age"):
            numbers = np.array([float(row[column]) for row in train])
            expected = [(float(row[column]) - numbers.mean()) / numbers.std() for row in mine]
            assert split.values_NF[:, data.columns.index(column)] == pytest.approx(expected, abs=1e-5)
        jobs = [data.columns[1 + int(f)].removeprefix("job=") for f in split.values_NF[:, 1:4].argmax(axis=1)]
        assert jobs == [row["job"] for row in mine]


def test_parquet_gives_what_csv_gives_and_holds_lists(tmp_path: Path) -> None:
    root = write_table(tmp_path)
    expected = load(root)
    with (root / "table" / "loans.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    columns["income"] = [float(value) for value in columns["income"]]
    columns["age"] = [int(value) for value in columns["age"]]
    columns["pair"] = [[income, age] for income, age in zip(columns["income"], columns["age"], strict=True)]
    parquet.write_table(pa.table(columns), root / "table" / "loans.parquet")
    found = load(root, path="table/loans.parquet")
    assert np.array_equal(found.train.values_NF, expected.train.values_NF)
    assert found.columns == expected.columns
    lists = load(root, path="table/loans.parquet", columns=["pair"], categorical=[])
    assert lists.columns == ("pair[0]", "pair[1]")
    assert np.array_equal(lists.test.values_NF, expected.test.values_NF[:, [0, 4]])
    columns["pair"][7] = [1.0]
    parquet.write_table(pa.table(columns), root / "table" / "loans.parquet")
    with pytest.raises(DataError, match=r"loans\.parquet, row 8: pair: 1 numbers, and the first row has 2"):
        load(root, path="table/loans.parquet", columns=["pair"], categorical=[])
    with pytest.raises(DataError, match=r"row 1: pair: a list cannot be a category"):
        load(root, path="table/loans.parquet", columns=["pair"], categorical=["pair"])
    columns["pair"][7] = [1.0, float("inf")]
    parquet.write_table(pa.table(columns), root / "table" / "loans.parquet")
    with pytest.raises(DataError, match=r"row 8: pair: has values that are not finite numbers"):
        load(root, path="table/loans.parquet", columns=["pair"], categorical=[])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"row3_income": "much"}, r"loans\.csv, line 5: income: 'much' is not a number; `dataset\.categorical` names"),
        ({"row3_income": "inf"}, r"line 5: income: 'inf' is not a finite number"),
        (
            {"row3_income": "nan", "row4_job": ""},
            r"2 of 36 rows lack a value in one of dataset\.columns: income \(line 5\), job \(line 6\); `dataset\.missing: leave_out`",
        ),
        ({"row3_label": "maybe"}, r"line 5: label: 1 row is in none of the classes \(no, yes\): maybe"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write_table(tmp_path, **changed))


def test_rows_without_a_value_can_be_left_out_and_are_listed(tmp_path: Path) -> None:
    root = write_table(tmp_path, row3_income="", row4_job="NA")
    data = load(root, missing="leave_out", missing_values=["NA"])
    assert len(data.train) + len(data.test) == 34
    assert data.notes == ("2 of 36 rows left out, which lack a value: income (line 5), job (line 6)",)
    data = load(root, missing="leave_out")
    assert "job=NA" in data.columns
    assert (
        data.notes[1] == "job: NA counts as a value; if it means that there is none, name it in dataset.missing_values"
    )
    path = root / "table" / "loans.csv"
    path.write_text(path.read_text().replace(",cook,", ",,").replace(",pilot,", ",,").replace(",clerk,", ",,"))
    with pytest.raises(DataError, match="none of its 36 rows has a value in every column"):
        load(root, missing="leave_out", missing_values=["NA"])


def test_a_column_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no column 'wage'; its columns: income, job, age, sex, label, split"):
        load(write_table(tmp_path), columns=["wage"], categorical=[])


def test_version_follows_the_list(tmp_path: Path) -> None:
    root = write_table(tmp_path)
    found = listed.fingerprint(make(), Loading(root=root))
    with pytest.raises(DataError, match=rf"loans\.csv needs a version.*`dataset\.version: '{found}'`"):
        load_dataset(make(), root)
    path = root / "table" / "loans.csv"
    path.write_text(path.read_text().replace("yes", "no", 1))
    assert listed.fingerprint(make(), Loading(root=root)) != found


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image": "picture"}, "image.*has no effect with columns, which are standardised numbers"),
        ({"size": 32}, "size.*has no effect with columns"),
        ({"normalization": "half"}, "normalization.*has no effect with columns"),
        ({"categorical": ["sex"]}, "must name some of columns, each once, got .'sex'."),
        ({"columns": None, "categorical": None}, "is required for images"),
        ({"columns": None, "size": 32}, "must name some of columns"),
        ({"columns": ["income", "label"], "categorical": []}, "columns, target and split must be different columns"),
        ({"columns": ["income", "income"], "categorical": []}, "columns, target and split must be different columns"),
        ({"title": "cifar10"}, "is the name of another data set, got 'cifar10'"),
        ({"title": "My Loans"}, "title"),
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, Any], message: str) -> None:
    make()
    with pytest.raises(ValidationError) as caught:
        make(**changes)
    (found,) = caught.value.errors()
    assert re.search(message, f"{found.get('ctx', {}).get('field', found['loc'])} {found['msg']}")


def test_the_list_of_the_docs_is_one(tmp_path: Path) -> None:
    docs = (Path(__file__).resolve().parents[3] / "docs" / "own-data.md").read_text()
    (text,) = [block for block in re.findall(r"```yaml\n(.*?)```", docs, flags=re.DOTALL) if "columns:" in block]
    raw, _ = read_yaml(text, "own-data.md")
    shown = TypeAdapter(ListedDataset).validate_json(json.dumps(raw["dataset"]))
    found = listed.fingerprint(shown, Loading(root=write_table(tmp_path)))
    data = load_dataset(shown.model_copy(update={"version": found}), tmp_path)
    assert (len(data.train), len(data.test)) == (24, 12)


def test_tables_tell_titled_lists_apart() -> None:
    assert [table_name(make()), table_name(make(title="loans"))] == ["manifest", "loans"]


def test_control_character_in_a_name_is_refused_with_its_line(tmp_path: Path) -> None:
    root = write_table(tmp_path)
    path = root / "table" / "loans.csv"
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    rows[2]["sex"] = "fe\x1fmale"
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    with pytest.raises(DataError, match=r"line 4: sex: 'fe\\x1fmale' holds the control character \\x1f"):
        load(root)
