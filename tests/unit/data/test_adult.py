"""Adult in its original files: what is there, what is left out, and what is refused."""

import csv
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_ray.data import adult
from kd_ray.data.families import load_dataset
from kd_ray.data.row_data import RowData
from kd_ray.errors import DataError
from kd_ray.sweep.classification import LongTail
from kd_ray.sweep.datasets import AdultDataset
from tests.datasets import write_adult

HEAD = [
    *(
        "age",
        "workclass",
        "fnlwgt",
        "education",
        "education-num",
        "marital-status",
        "occupation",
        "relationship",
        "race",
        "sex",
    ),
    *("capital-gain", "capital-loss", "hours-per-week", "native-country", "income"),
]


def load(root: Path, **changes: Any) -> RowData:
    dataset = AdultDataset(name="adult", **changes)
    data = load_dataset(dataset.model_copy(update={"version": adult.fingerprint(root)}), root)
    assert isinstance(data, RowData)
    return data


def independent(path: Path) -> list[dict[str, str]]:
    """The complete rows, read with the standard library."""
    with path.open(newline="") as file:
        rows = [row for row in csv.reader(file, skipinitialspace=True) if len(row) == 15]
    return [dict(zip(HEAD, row, strict=True)) for row in rows if "?" not in row]


@pytest.fixture(scope="module")
def original(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("adult")
    (root / "adult").symlink_to(shared_data / "adult")
    return root


@pytest.mark.slow
def test_original_files_are_the_published_ones_and_agree_with_an_independent_reading(original: Path) -> None:
    data = load_dataset(AdultDataset(name="adult"), original)
    assert isinstance(data, RowData)
    # UCI's adult.names gives 30,162 and 15,060 without unknown values.
    assert (len(data.train), len(data.test)) == (30_162, 15_060)
    assert data.notes == ("rows with missing values left out: 2,399 of 32,561 training and 1,221 of 16,281 test rows",)
    for split, name in ((data.train, "adult.data"), (data.test, "adult.test")):
        rows = independent(original / "adult" / name)
        assert split.labels_N.tolist() == [int(row["income"].startswith(">")) for row in rows]
        for feature in ("sex", "race"):
            assert split.sensitive_features[feature].to_lists() == [[row[feature]] for row in rows]
        ages = [int(row["age"]) for row in rows]
        expected = [["<25" if age < 25 else "25-60" if age < 60 else ">=60"] for age in ages]
        assert split.sensitive_features["age"].to_lists() == expected
        # The columns of occupations are the occupations.
        chosen = [f for f, column in enumerate(data.columns) if column.startswith("occupation=")]
        found = [data.columns[chosen[f]].split("=")[1] for f in split.values_NF[:, chosen].argmax(axis=1)]
        assert found == [row["occupation"] for row in rows]
        assert (split.values_NF[:, chosen].sum(axis=1) == 1).all()
    hours_N = np.array([float(row["hours-per-week"]) for row in independent(original / "adult" / "adult.data")])
    f = data.columns.index("hours-per-week")
    assert data.train.values_NF[:, f] == pytest.approx((hours_N - hours_N.mean()) / hours_N.std(), rel=1e-5)
    assert not [column for column in data.columns if "fnlwgt" in column or "income" in column]
    assert len(data.columns) == 5 + 7 + 16 + 7 + 14 + 6 + 5 + 2 + 41


@pytest.mark.slow
def test_missing_values_can_be_a_category(original: Path) -> None:
    data = load(original, missing="category")
    assert (len(data.train), len(data.test), data.notes) == (32_561, 16_281, ())
    unknown = Counter(column for column in data.columns if column.endswith("=?"))
    assert set(unknown) == {"workclass=?", "occupation=?", "native-country=?"}


def test_sensitive_features_can_be_kept_from_the_networks(tmp_path: Path) -> None:
    root = write_adult(tmp_path)
    seen, unseen = load(root), load(root, sensitive_inputs=False)
    assert set(seen.columns) - set(unseen.columns) == {"age", "race=Black", "race=White", "sex=Female", "sex=Male"}
    assert set(unseen.test.sensitive_features) == {"sex", "race", "age"}


def test_ages_are_cut_where_the_sweep_says(tmp_path: Path) -> None:
    data = load(write_adult(tmp_path), age_edges=(30, 50))
    assert data.test.sensitive_features["age"].names == ("<30", "30-50", ">=50")


def test_a_category_of_the_test_split_alone_is_no_column(tmp_path: Path) -> None:
    data = load(write_adult(tmp_path, test0_occupation="Astronaut"))
    assert "occupation=Astronaut" not in data.columns
    occupations = [f for f, column in enumerate(data.columns) if column.startswith("occupation=")]
    assert data.test.values_NF[0, occupations].tolist() == [0, 0]


def test_long_tail_and_validation_come_before_the_standardisation(tmp_path: Path) -> None:
    root = write_adult(tmp_path)
    data = load(root, long_tail=LongTail(imbalance_factor=3), validation_fraction=0.25)
    assert data.validation is not None
    numbers = data.train.values_NF[:, data.is_number_F]
    varies_F = numbers.std(axis=0) > 0
    assert numbers.mean(axis=0) == pytest.approx(0, abs=1e-5)
    assert numbers[:, varies_F].std(axis=0) == pytest.approx(1, abs=1e-5)
    # 90 complete rows, 50 and 40 of the classes: 50 and ⌊50 / 3⌋ = 16 are kept, and a quarter of these 66 is set aside.
    assert (len(data.train), len(data.validation), len(data.test)) == (50, 16, 45)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"train3_income": "50K"}, r"adult\.data, line 4: income: '50K' is not one of <=50K, >50K"),
        ({"test3_age": "old"}, r"adult\.test, line 5: age: 'old' is not a number"),
        ({"train0_race": "White, White"}, r"adult\.data, line 1: 16 values, expected 15: age, workclass, "),
    ],
)
def test_damaged_rows_are_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write_adult(tmp_path, **changed))


def test_files_that_are_missing_or_others_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"adult: 2 of 2 files are missing; `kd-ray data prepare adult` fetches them"):
        load(tmp_path)
    root = write_adult(tmp_path)
    message = rf"'original': the published checksums differ for adult\.data, adult\.test.*{adult.fingerprint(root)}"
    with pytest.raises(DataError, match=message):
        load_dataset(AdultDataset(name="adult"), root)
