"""Images of the user's own: every row is used or named."""

import csv
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pyarrow import parquet
from pydantic import TypeAdapter, ValidationError

from kd_ray.data import listed, listing
from kd_ray.data.decoding import decode
from kd_ray.data.family import Loading
from kd_ray.data.image_data import ImageData
from kd_ray.data.listed_columns import Lines
from kd_ray.errors import DataError
from kd_ray.groups import Groups
from kd_ray.sweep.datasets import Bins, ListedDataset
from kd_ray.sweep.spec import content_hash
from tests.datasets import encoded, pixels, write_people

PEOPLE: dict[str, Any] = {
    "name": "manifest",
    "path": "people/people.csv",
    "classes": ["no", "yes"],
    "features": ["race", "age"],
    "separator": ";",
    "bins": [{"column": "age", "edges": [30, 60]}],
    "split": "split",
    "size": 16,
}


LINES = Lines(path=Path("x.csv"), rows=range(20))


def make(**changes: Any) -> ListedDataset:
    """`changes` of None remove a field."""
    fields = {name: value for name, value in {**PEOPLE, **changes}.items() if value is not None}
    return TypeAdapter(ListedDataset).validate_json(json.dumps(fields))


def load(root: Path, **changes: Any) -> ImageData:
    dataset = make(**changes)
    dataset = dataset.model_copy(update={"version": listed.fingerprint(dataset, Loading(root=root))})
    data = listed.load(dataset, Loading(root=root))
    assert isinstance(data, ImageData)
    return data


def rows_of(path: Path) -> list[dict[str, str]]:
    """An independent reading of the list."""
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_load_reads_what_the_list_says(tmp_path: Path) -> None:
    data = load(write_people(tmp_path))
    rows = rows_of(tmp_path / "people" / "people.csv")
    assert (data.class_names, data.validation) == (("no", "yes"), None)
    for split, name in ((data.train, "train"), (data.test, "test")):
        mine = [row for row in rows if row["split"] == name]
        assert [data.class_names[label] for label in split.labels_N] == [row["label"] for row in mine]
        expected = [[part for part in row["race"].split(";") if part] for row in mine]
        assert split.sensitive_features["race"].to_lists() == expected
        ages = [["<30" if int(row["age"]) < 30 else "30-60" if int(row["age"]) < 60 else ">=60"] for row in mine]
        assert split.sensitive_features["age"].to_lists() == ages
        files = [tmp_path / "people" / row["file"] for row in mine]
        assert np.array_equal(split.images_NHWC, np.stack([decode(file.read_bytes(), size=16) for file in files]))
    assert data.notes == ()


@pytest.mark.slow
def test_utkface_as_its_file_names_say(tmp_path: Path, shared_data: Path) -> None:
    """Real images; labels come from the list, and the names of the files say the same."""
    folder = tmp_path / "utkface"
    with zipfile.ZipFile(shared_data / "utkface-4000" / "UTKFace-4000.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][::40]
        for name in names:
            archive.extract(name, folder)
    lines = ["file,gender,age,race", *(",".join([name, *_utk(name)]) for name in names)]
    (folder / "utkface.csv").write_text("\n".join(lines) + "\n")
    data = load(
        tmp_path, path="utkface/utkface.csv", target="gender", classes=["0", "1"], features=["age", "race"], separator=None,
        bins=[{"column": "age", "edges": [20, 40, 60]}], split=None, test_fraction=0.4, min_group_size=2, size=32,
    )  # fmt: skip
    assert (len(data.train), len(data.test)) == (60, 40)
    names_of_pixels = {decode((folder / name).read_bytes(), size=32).tobytes(): name for name in names}
    for split in (data.train, data.test):
        for n, image_HWC in enumerate(split.images_NHWC):
            gender, age, race = _utk(names_of_pixels[image_HWC.tobytes()])
            assert str(split.labels_N[n]) == gender
            assert split.sensitive_features["race"].to_lists()[n] == [race]
            low = max(edge for edge in (0, 20, 40, 60) if int(age) >= edge)
            expected = {0: "<20", 20: "20-40", 40: "40-60", 60: ">=60"}[low]
            assert split.sensitive_features["age"].to_lists()[n] == [expected]


def _utk(name: str) -> tuple[str, str, str]:
    age, gender, race, *_ = Path(name).name.split("_")
    return gender, age, race


def test_parquet_gives_what_csv_gives(tmp_path: Path) -> None:
    root = write_people(tmp_path)
    expected = load(root)
    rows = rows_of(root / "people" / "people.csv")
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    columns["race"] = [race or None for race in columns["race"]]
    columns["age"] = [float(age) for age in columns["age"]]
    columns["bytes"] = [(root / "people" / row["file"]).read_bytes() for row in rows]
    parquet.write_table(pa.table(columns), root / "people" / "people.parquet")
    for image in ("file", "bytes"):
        data = load(root, path="people/people.parquet", image=image)
        for mine, other in ((data.train, expected.train), (data.test, expected.test)):
            assert np.array_equal(mine.images_NHWC, other.images_NHWC)
            assert mine.labels_N.tolist() == other.labels_N.tolist()
            for feature, groups in mine.sensitive_features.items():
                assert groups.to_lists() == other.sensitive_features[feature].to_lists()


def test_image_columns_of_hugging_face_are_read(tmp_path: Path) -> None:
    """`struct<bytes, path>`; `datasets` writes this type for its feature Image."""
    root = write_people(tmp_path)
    expected = load(root)
    rows = rows_of(root / "people" / "people.csv")
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    stored = [{"bytes": (root / "people" / row["file"]).read_bytes(), "path": "gone.png"} for row in rows]
    columns["stored"] = pa.array(stored, kind)
    columns["named"] = pa.array([{"bytes": None, "path": row["file"]} for row in rows], kind)
    columns["other"] = pa.array([{"x": 1} for _ in rows])
    columns["hole"] = pa.array([None, *stored[1:]], kind)
    parquet.write_table(pa.table(columns), root / "people" / "people.parquet")
    for image in ("stored", "named"):
        data = load(root, path="people/people.parquet", image=image)
        assert np.array_equal(data.train.images_NHWC, expected.train.images_NHWC)
        assert np.array_equal(data.test.images_NHWC, expected.test.images_NHWC)
    with pytest.raises(DataError, match=r"column 'other' is struct<x: int64>; expected paths"):
        load(root, path="people/people.parquet", image="other")
    with pytest.raises(DataError, match=r"row 1: hole: there is none"):
        load(root, path="people/people.parquet", image="hole")


def test_parquet_holds_arrays_of_pixels(tmp_path: Path) -> None:
    images_NHWC = pixels(6, 16, 16, 3)
    columns = {
        "pixels": pa.array([image.reshape(-1).tolist() for image in images_NHWC], pa.list_(pa.uint8())),
        "label": [0, 1, 0, 1, 0, 1],
        "split": ["train", "train", "train", "validation", "test", "test"],
        "number": [1, 2, 3, 4, 5, 6],
    }
    parquet.write_table(pa.table(columns), tmp_path / "arrays.parquet")
    settings: dict[str, Any] = {
        "path": "arrays.parquet", "image": "pixels", "classes": ["0", "1"], "features": [], "bins": [], "separator": None,
    }  # fmt: skip
    data = load(tmp_path, **settings)
    assert np.array_equal(data.train.images_NHWC, images_NHWC[:3])
    assert data.validation is not None
    assert np.array_equal(data.validation.images_NHWC, images_NHWC[3:4])
    assert data.test.labels_N.tolist() == [0, 1]
    with pytest.raises(DataError, match=r"row 1: pixels: 768 bytes, expected 3 · 20² = 1,200"):
        load(tmp_path, **settings, size=20)
    with pytest.raises(
        DataError, match=r"column 'number' is int64; expected paths, encoded images \(binary\), or lists"
    ):
        load(tmp_path, **{**settings, "image": "number"})
    with pytest.raises(DataError, match=r"has validation rows, so validation_fraction must be 0"):
        load(tmp_path, **settings, validation_fraction=0.5)


def test_version_is_required_and_told(tmp_path: Path) -> None:
    root = write_people(tmp_path)
    found = listed.fingerprint(make(), Loading(root=root))
    with pytest.raises(DataError, match=rf"people\.csv needs a version.*`dataset\.version: '{found}'`"):
        listed.load(make(), Loading(root=root))
    with pytest.raises(DataError, match=rf"is not version 0123456789abcdef; .*{found}"):
        listed.load(make(version="0123456789abcdef"), Loading(root=root))
    shutil.copytree(root / "people", tmp_path / "elsewhere" / "people")
    assert listed.fingerprint(make(), Loading(root=tmp_path / "elsewhere")) == found


def test_identity_of_a_list_without_columns_and_title_is_what_it_was() -> None:
    """Guard: fields that came later do not enter it; the literal is from before there were any."""
    dataset = make(version="0123456789abcdef")
    assert content_hash(dataset) == "88421ba142d1bba4"
    assert content_hash(make(version="0123456789abcdef", title="people")) != "88421ba142d1bba4"


def test_version_changes_with_rows_and_images(tmp_path: Path) -> None:
    root = write_people(tmp_path)
    prints = {listed.fingerprint(make(), Loading(root=root))}
    (root / "people" / "images" / "0.jpeg").write_bytes(encoded(seed=77))
    prints.add(listed.fingerprint(make(), Loading(root=root)))
    path = root / "people" / "people.csv"
    path.write_text(path.read_text().replace("yes", "no", 1))
    prints.add(listed.fingerprint(make(), Loading(root=root)))
    assert len(prints) == 3


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"row3_label": "maybe"}, r"line 5: label: 1 row is in none of the classes \(no, yes\): maybe \(1 ×\)"),
        ({"row3_label": ""}, r"line 5: label: 1 row .*: no label \(1 ×\)"),
        ({"row3_label": "nan", "row7_label": "nan"}, r"line 5: label: 2 rows .*: nan \(2 ×\)"),
        ({"row3_split": "dev"}, r"line 5: split: 'dev' is not one of train, validation, test"),
        ({"row3_age": "old"}, r"line 5: age: 'old' is not a number, and it has bins"),
        ({"row3_age": '"31,5"'}, r"line 5: age: '31,5' is not a number, and it has bins; write a decimal point"),
        (
            {"row3_file": "images/none.png"},
            r"1 of 48 image files do not exist: images/none\.png \(line 5\); .*leave_out",
        ),
        ({"row3_file": ""}, r"line 5: file: there is no path"),
        ({"row3_file": "../../secret.png"}, r"line 5: file: '../../secret\.png' leads out of the data root"),
        ({"row3_file": "/etc/passwd"}, r"line 5: file: '/etc/passwd' leads out of the data root"),
        (
            {"row3_file": "people.csv"},
            r"image people/people\.csv cannot be used: it is no image in one of the formats JPEG, PNG",
        ),
        ({"row2_file": "images/0.jpeg"}, r"line 4: the image of line 2 again, in another split"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, changed: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        load(write_people(tmp_path, **changed))


def test_paths_may_leave_the_folder_of_the_list_but_not_the_root(tmp_path: Path) -> None:
    root = write_people(tmp_path, row3_file="../other.png", row4_file=str(tmp_path / "other2.png"))
    for name in ("other.png", "other2.png"):
        (root / name).write_bytes(encoded(suffix="png", seed=len(name)))
    assert len(load(root).train) == 32
    with pytest.raises(DataError, match=r"\.\./people\.csv leads out of the data root"):
        load(root / "people", path="../people.csv")


def test_missing_files_can_be_left_out_and_are_listed(tmp_path: Path) -> None:
    root = write_people(tmp_path)
    for n in (3, 4):
        next((root / "people" / "images").glob(f"{n}.*")).unlink()
    data = load(root, missing="leave_out")
    assert len(data.train) + len(data.test) == 46
    assert data.notes == (
        "2 of 48 rows left out, their image files do not exist: images/3.gif (line 5), images/4.jpeg (line 6)",
    )
    path = root / "people" / "people.csv"
    path.write_text(path.read_text().replace("images/8.png,no", "images/8.png,perhaps"))
    with pytest.raises(DataError, match=r"line 10: label: 1 row"):
        load(root, missing="leave_out")
    shutil.rmtree(root / "people" / "images")
    with pytest.raises(DataError, match="none of its 48 image files exists"):
        load(root, missing="leave_out")


def test_small_and_empty_groups_are_left_out_and_listed(tmp_path: Path) -> None:
    rare: dict[str, Any] = {"row2_race": "c", "row5_race": "c", "row0_race": "d"}
    data = load(write_people(tmp_path, **rare), min_group_size=3)
    groups = data.test.sensitive_features["race"]
    assert groups.names == ("a", "b")
    assert data.notes == ("race: groups with fewer than 3 test samples left out: c (n = 2), d (n = 0)",)
    assert len(data.test) == 16
    assert load(tmp_path).notes == ("race: groups with fewer than 1 test samples left out: d (n = 0)",)
    with pytest.raises(
        DataError, match=r"feature race has fewer than two groups with at least 9 test samples \(left: none"
    ):
        load(tmp_path, min_group_size=9)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("file,label,race,age\na,b,c,d\n", r"has no column 'split'; its columns: file, label, race, age"),
        ("file,label,split,race,age,race\na,b,c,d,e,f\n", r"has more than one column 'race'"),
        ("file,label,split,race,age\n", "has no rows"),
        ("", r"people\.csv is empty"),
        ("file,label,split,race,age\na,b\n", r"people\.csv, line 2: 2 values, expected 5"),
        ("file;label;split;race;age\na;b;c;d;e\n", r"separated by commas, and these seem to be by ';'"),
        ("file,label,split,race,age\n\na,b,c,d,e\n\n\na,b\n", r"people\.csv, line 6: 2 values, expected 5"),
        (
            'file,label,split,race,age\na,b,c,d,e\n"a,b,c,d,e\na,b,c,d,e\n',
            r"line 4: .*is there a quote that is not closed",
        ),
        ("file,label,split,race,age\na,b,c,caf\xe9,e\n", "it is not UTF-8"),
    ],
)
def test_other_lists_are_refused(tmp_path: Path, content: str, message: str) -> None:
    root = write_people(tmp_path)
    (root / "people" / "people.csv").write_bytes(content.encode("latin-1"))
    with pytest.raises(DataError, match=message):
        load(root)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_list_of_a_spreadsheet_in_utf_16_says_what_to_do(tmp_path: Path, encoding: str) -> None:
    root = write_people(tmp_path)
    path = root / "people" / "people.csv"
    path.write_bytes(path.read_text().encode(encoding))
    with pytest.raises(DataError, match=r"it is not UTF-8.*save it as UTF-8, as with `iconv -f UTF-16 -t UTF-8`"):
        load(root)


@pytest.mark.parametrize("start", [b"\x1f\x8b\x08", b"PK\x03\x04", b"BZh9"])
def test_compressed_list_says_what_to_do(tmp_path: Path, start: bytes) -> None:
    root = write_people(tmp_path)
    (root / "people" / "people.csv").write_bytes(start + b"\xff\x00")
    with pytest.raises(DataError, match="it looks compressed: unpack it, or save a workbook as CSV"):
        load(root)


def test_label_in_another_unicode_form_is_explained(tmp_path: Path) -> None:
    """A Mac writes é as e and an accent."""
    root = write_people(tmp_path)
    path = root / "people" / "people.csv"
    path.write_text(path.read_text().replace("yes", "cafe\u0301"))
    with pytest.raises(
        DataError,
        match=r"\('cafe\\u0301'\) and .* \('caf\\xe9'\) look the same and have different characters: write both in",
    ):
        load(root, classes=["no", "caf\u00e9"])
    assert load(root, classes=["no", "cafe\u0301"]).class_names == ("no", "cafe\u0301")


def test_lists_that_are_not_there_or_no_parquet_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"people\.csv cannot be read: .*No such file"):
        load(tmp_path)
    (tmp_path / "x.parquet").write_bytes(b"no parquet")
    with pytest.raises(DataError, match=r"x\.parquet cannot be read"):
        load(tmp_path, path="x.parquet")


def test_classes_without_samples_are_told(tmp_path: Path) -> None:
    data = load(write_people(tmp_path), classes=["no", "yes", "maybe"])
    assert data.notes == ("classes without train samples: maybe", "classes without test samples: maybe")


def test_target_may_have_bins(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"target": "age", "classes": None, "features": ["race"]}
    data = load(write_people(tmp_path), **settings)
    assert data.class_names == ("<30", "30-60", ">=60")
    assert np.bincount(data.train.labels_N).tolist() == [10, 10, 12]
    with pytest.raises(DataError, match=r"line 2: age: 1 row is in none of the classes"):
        load(write_people(tmp_path, row0_age=""), **settings)


@pytest.mark.slow
@given(
    st.lists(st.floats(-1e6, 1e6).map(lambda edge: round(edge, 2)), min_size=1, max_size=6, unique=True).map(sorted),
    st.lists(st.one_of(st.none(), st.floats(-2e6, 2e6)), min_size=1, max_size=20),
)
def test_bins_hold_what_lies_between_their_edges(edges: list[float], values: list[float | None]) -> None:
    bins = Bins(column="x", edges=tuple(edges))
    assert len(bins.names) == len(edges) + 1
    codes = listing._bin_codes(LINES, bins, ["" if value is None else repr(value) for value in values])
    for code, value in zip(codes, values, strict=True):
        if value is None:
            assert code == -1
        else:
            assert code == sum(edge <= value for edge in edges)


def test_bin_names_and_groups() -> None:
    bins = Bins(column="age", edges=(18, 40.5))
    assert bins.names == ("<18", "18-40.5", ">=40.5")
    assert Bins(column="x", edges=(1e6, 1e6 + 1, 1e6 + 2)).names == (
        "<1000000", "1000000-1000001", "1000001-1000002", ">=1000002",
    )  # fmt: skip
    assert Bins(column="x", edges=(1000001.5, 1000002.5)).names == ("<1000001.5", "1000001.5-1000002.5", ">=1000002.5")
    assert Bins(column="x", edges=(1_600_000_000, 1_600_003_600)).names[1] == "1600000000-1600003600"
    assert Bins(column="x", edges=(0.1, 0.1 + 2**-50, 0.5)).names[1] == "0.1-0.1000000000000009"
    codes_N = listing._bin_codes(LINES, bins, ["17.99", "18", "40.5", "NaN", "inf", "-inf"])
    assert codes_N.tolist() == [0, 1, 2, -1, 2, 0]
    assert Groups.from_codes(codes_N, bins.names).to_lists()[3] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": None},
        {"classes": ["no", "no"]},
        {"classes": ["no"]},
        {"target": "age", "features": ["race"]},
        {"features": ["race", "age", "label"]},
        {"features": ["race", "age", "split"]},
        {"features": ["race", "age", "file"]},
        {"target": "split"},
        {"image": "label"},
        {"features": ["race"]},
        {"features": ["age"]},
        {"bins": [{"column": "age", "edges": [60, 30]}]},
        {"bins": [{"column": "age", "edges": [30]}, {"column": "age", "edges": [60]}]},
        {"test_fraction": 0.5},
        {"split": None},
        {"split_seed": 3},
        {"path": "people.txt"},
        {"version": "original"},
    ],
)
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    make()
    with pytest.raises(ValidationError):
        make(**changes)


def test_a_decoded_image_of_the_list_can_be_looked_at(tmp_path: Path) -> None:
    """A greyscale PNG: three equal channels of its central square."""
    data = load(write_people(tmp_path))
    grey = Image.open(tmp_path / "people" / "images" / "1.png")
    side = min(grey.size)
    expected = grey.convert("RGB").crop(
        (
            round((grey.width - side) / 2),
            round((grey.height - side) / 2),
            round((grey.width + side) / 2),
            round((grey.height + side) / 2),
        )
    )
    assert np.array_equal(data.train.images_NHWC[1], np.asarray(expected.resize((16, 16), Image.Resampling.BILINEAR)))


def test_test_samples_have_names(tmp_path: Path) -> None:
    """The image's file as the list has it, or the value of a column."""
    root = write_people(tmp_path)
    tested = [row for row in rows_of(root / "people" / "people.csv") if row["split"] == "test"]
    assert load(root).test_ids == [row["file"] for row in tested]
    assert load(root, features=["race"], id="age", bins=None).test_ids == [row["age"] for row in tested]


@pytest.mark.parametrize(
    ("age", "message"),
    [("", "line 7: age: is empty; each row needs an id"), ("4", "line 7: age: '4' is also in line 4; each row needs")],
)
def test_an_id_that_is_missing_or_double_is_refused(age: str, message: str, tmp_path: Path) -> None:
    root = write_people(tmp_path, row5_age=age)
    with pytest.raises(DataError, match=message):
        load(root, features=["race"], id="age", bins=None)


def test_other_features_keep_the_version(tmp_path: Path) -> None:
    """Guard: the word `none` changes the fingerprint of a list, and groups are not part of a trial's identity."""
    root = write_people(tmp_path, row3_race="none")
    loading = Loading(root=root)
    without, with_race = make(features=["age"], separator=None), make()
    versions = [listed.fingerprint(dataset, loading) for dataset in (without, with_race)]
    assert versions[0] != versions[1]
    for dataset in (without, with_race):
        for version in versions:
            data = listed.load(dataset.model_copy(update={"version": version}), loading)
            assert list(data.test.sensitive_features) == list(dataset.features)
    with pytest.raises(DataError, match="is not version"):
        listed.load(make(version="0123456789abcdef"), loading)
    labels = make(bins=[{"column": "age", "edges": [30.1234567]}], target="age", classes=None, features=["race"])
    with pytest.raises(DataError, match="is not version"):
        listed.load(labels.model_copy(update={"version": versions[0]}), loading)
