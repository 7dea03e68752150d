"""Adult (Becker & Kohavi 1996, UCI, CC BY 4.0): people of the US census of 1994, and whether they earn more than 50,000 dollars a year."""

from pathlib import Path

import numpy as np

from kd_ray.data.family import Family, Loading, OnBytes
from kd_ray.data.fetch import download
from kd_ray.data.originals import check_version, fingerprint_of, read_files
from kd_ray.data.row_data import Column, RowData, RowSplit, encoded
from kd_ray.errors import DataError
from kd_ray.groups import Groups
from kd_ray.sweep.datasets import AdultDataset
from kd_ray.sweep.fields import bin_names

FOLDER = "adult"
ORIGINAL_MD5 = {
    "adult.data": "5d7c39d7b8804f071cdd1f2a7c460872",
    "adult.test": "35238206dfdf7f1fe215bbb874adecdc",
}
"""MD5 of the files as UCI has them."""
URL = "https://archive.ics.uci.edu/ml/machine-learning-databases/adult/"

_NUMBERS = ("age", "education-num", "capital-gain", "capital-loss", "hours-per-week")
_COLUMNS = (
    *("age", "workclass", "fnlwgt", "education", "education-num", "marital-status", "occupation", "relationship"),
    *("race", "sex", "capital-gain", "capital-loss", "hours-per-week", "native-country", "income"),
)
"""In the order of the files, which have no head."""
_NO_INPUTS = ("fnlwgt", "income")
_CLASSES = ("<=50K", ">50K")
_UNKNOWN = "?"

_Row = dict[str, str]


def fingerprint(root: Path) -> str:
    """16 hex digits that stand for the two files. Raises DataError when one is missing."""
    return fingerprint_of(_contents(root))


def load(dataset: AdultDataset, loading: Loading) -> RowData:
    """The published split, not standardised yet.

    Raises DataError for files that are missing, damaged, or not the version that `dataset` names.
    """
    root = loading.root
    contents = _contents(root)
    check_version("adult", root / FOLDER, contents, dataset.version, ORIGINAL_MD5)
    train, test = (_rows(root / FOLDER / name, content) for name, content in contents.items())
    notes = []
    train_ids, test_ids = (
        [str(n) for n, row in enumerate(rows) if dataset.missing != "leave_out" or _UNKNOWN not in row.values()]
        for rows in (train, test)
    )
    if dataset.missing == "leave_out":
        counts = []
        for rows in (train, test):
            before = len(rows)
            rows[:] = [row for row in rows if _UNKNOWN not in row.values()]
            counts.append(f"{before - len(rows):,} of {before:,}")
        notes = [f"rows with missing values left out: {counts[0]} training and {counts[1]} test rows"]
    rows = [*train, *test]
    is_train_N = np.arange(len(rows)) < len(train)
    unseen = () if dataset.sensitive_inputs else dataset.sensitive_feature_names
    columns = [
        Column(name=name, values=_numbers(rows, name) if name in _NUMBERS else [row[name] for row in rows])
        for name in _COLUMNS
        if name not in (*_NO_INPUTS, *unseen)
    ]
    values_NF, names, is_number_F = encoded(columns, is_train_N)
    labels_N = np.array([_CLASSES.index(row["income"]) for row in rows], dtype=np.int64)
    every = RowSplit(values_NF=values_NF, labels_N=labels_N, sensitive_features=_features(rows, dataset))
    return RowData(
        train=every.take(np.flatnonzero(is_train_N)),
        test=every.take(np.flatnonzero(~is_train_N)),
        class_names=_CLASSES,
        columns=names,
        is_number_F=is_number_F,
        notes=tuple(notes),
        test_ids=test_ids,
        train_ids=train_ids,
    )


def fetch(root: Path, on_bytes: OnBytes | None, *, url: str = URL) -> None:
    """Fetch the files that are missing from UCI."""
    for name, md5 in ORIGINAL_MD5.items():
        if not (root / FOLDER / name).is_file():
            download(url + name, root / FOLDER / name, md5=md5, on_bytes=on_bytes)


def _contents(root: Path) -> dict[str, bytes]:
    return read_files(
        "adult", root / FOLDER, tuple(ORIGINAL_MD5), how="`kd-ray data prepare adult` fetches them, or put them there"
    )


def _rows(path: Path, content: bytes) -> list[_Row]:
    """The rows of a file by column. The labels of adult.test end with a full stop, and its first line is a remark."""
    rows = []
    for number, line in enumerate(content.decode("utf-8", errors="replace").splitlines(), start=1):
        if not line.strip() or line.startswith("|"):
            continue
        values = [value.strip() for value in line.split(",")]
        if len(values) != len(_COLUMNS):
            raise DataError(
                f"adult: {path}, line {number}: {len(values)} values, expected {len(_COLUMNS)}: {', '.join(_COLUMNS)}"
            )
        row = dict(zip(_COLUMNS, values, strict=True))
        row["income"] = row["income"].removesuffix(".")
        if row["income"] not in _CLASSES:
            raise DataError(
                f"adult: {path}, line {number}: income: {row['income']!r} is not one of {', '.join(_CLASSES)}"
            )
        if wrong := [name for name in _NUMBERS if not row[name].isdigit()]:
            raise DataError(f"adult: {path}, line {number}: {wrong[0]}: {row[wrong[0]]!r} is not a number")
        rows.append(row)
    return rows


def _numbers(rows: list[_Row], name: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    return np.array([float(row[name]) for row in rows])


def _features(rows: list[_Row], dataset: AdultDataset) -> dict[str, Groups]:
    texts = {name: np.array([row[name] for row in rows], dtype=np.str_) for name in ("sex", "race")}
    features = {}
    for name, texts_N in texts.items():
        names = [str(group) for group in np.unique(texts_N)]
        features[name] = Groups.from_codes(np.searchsorted(names, texts_N), names)
    ages_N = np.searchsorted(dataset.age_edges, _numbers(rows, "age"), side="right")
    return {**features, "age": Groups.from_codes(ages_N, bin_names(dataset.age_edges))}


FAMILY = Family[AdultDataset](
    load=load,
    fingerprint=lambda _, loading: fingerprint(loading.root),
    fetch=lambda _, root, on_bytes: fetch(root, on_bytes),
    advice=lambda _, root: (
        f"Adult is free (CC BY 4.0) and is fetched from {URL}; if it cannot be fetched, put its two files there:\n"
        f"  {root / FOLDER}/adult.data\n  {root / FOLDER}/adult.test"
    ),
)
