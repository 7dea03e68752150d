"""`kd-ray data` as a person meets it."""

import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from kd_ray.cli import cli
from kd_ray.data import adult
from kd_ray.errors import DataError
from kd_ray.sweep.classification import Classification
from kd_ray.sweep.datasets import DATASET_NAMES, Dataset, FactoryDataset, TrifeatureDataset
from kd_ray.sweep.load import parse_dataset
from tests import datasets
from tests.datasets import encoded, write_adult, write_celeba, write_people, write_svhn, write_table
from tests.processes import run_cli_here

SWEEP = """
name: people
dataset:
  name: manifest
  path: people/people.csv
  classes: ['no', 'yes']
  features: [race, age]
  separator: ;
  bins: [{column: age, edges: [30, 60]}]
  split: split
  size: 16
  min_group_size: 3
sensitive_features: [race]
student: {model: lenet5}
training: {epochs: 1, batch_size: 8, optimizer: {lr: 0.1}, schedule: {name: constant}}
grid: {seed: [0]}
placement: {data_root: DATA}
"""

UNREACHABLE = "http://127.0.0.1:1/"
"""A proxy that does not exist, so that no test reaches the servers of data sets."""


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, arguments, catch_exceptions=True)


def test_check_describes_the_data_set_of_a_sweep(tmp_path: Path) -> None:
    root = write_people(tmp_path / "data", row5_race="c")
    sweep = tmp_path / "people.yaml"
    sweep.write_text(SWEEP.replace("DATA", str(root)))
    done = run_cli_here("data", "check", "people.yaml", "-o", "sheet.png", cwd=tmp_path)
    assert done.returncode == 1
    version = done.stdout.split("`dataset.version: '")[1][:16]
    assert f"a launch would refuse them: manifest: {root}/people/people.csv needs a version" in done.stdout
    assert (tmp_path / "sheet.png").read_bytes().startswith(b"\x89PNG")
    done = run_cli_here("data", "check", "people.yaml", "--set", f"dataset.version={version}", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "manifest: 32 train, 16 test images of 16 × 16 pixels in 2 classes",
        f"fingerprint {version}",
        "note: race: groups with fewer than 3 test samples left out: c (n = 1)",
        "",
        "class  train  test",
        "no        16     8",
        "yes       16     8",
        "",
        "race: DPD of the test labels 7.14 %, one-vs-rest mean over classes",
        "group  train  test  smallest test cell",
        "a         16     8              4 (no)",
        "b         16     7              3 (no)",
        "5 test images are in no group",
    ]


def test_small_joint_groups_are_left_out_named_or_refused(tmp_path: Path) -> None:
    root = write_people(tmp_path / "data")
    sweep = tmp_path / "people.yaml"
    joint = SWEEP.replace("sensitive_features: [race]", "sensitive_features: [race, age]\nintersections: [[race, age]]")
    sweep.write_text(joint.replace("DATA", str(root)))
    version = invoke("data", "check", str(sweep)).output.split("`dataset.version: '")[1][:16]
    named = ("data", "check", str(sweep), "--set", f"dataset.version={version}")
    done = invoke(*named)
    assert done.exit_code == 0
    note = "race & age: joint groups with fewer than 3 test samples left out: a & 30-60 (n = 2), b & >=60 (n = 2)"
    assert f"note: {note}" in done.output
    refused = invoke(*named, "--set", "dataset.min_group_size=4")
    assert isinstance(refused.exception, DataError)
    assert str(refused.exception).startswith(
        "intersections: race & age has fewer than two joint groups with at least 4 test samples (too small: a & <30 (n = 3), "
    )
    done = invoke(
        "launch", str(sweep), "--set", f"dataset.version={version}", "--runner", "local", "--store", str(tmp_path / "s")
    )
    assert note in " ".join(done.output.split())
    groups = invoke(
        "query",
        "SELECT DISTINCT \"group\" FROM group_metrics WHERE feature = 'race & age'",
        "--store",
        str(tmp_path / "s"),
        "--format",
        "csv",
    )
    assert set(groups.output.split("\n")[1:-1]) == {"a & <30", "a & >=60", "b & <30", "b & 30-60"}
    assert "small groups, which may decide DPD and EOD alone: race" in done.output


def test_check_as_json(tmp_path: Path) -> None:
    root = write_celeba(tmp_path)
    done = invoke("data", "check", "celeba", "--set", "size=16", "--data-root", str(root), "--json")
    assert done.exit_code == 1
    words = json.loads(done.stdout)
    assert words["splits"] == {"train": 20, "test": 20}
    assert words["classes"]["Smiling"] == {"train": 5, "test": 5}
    assert len(words["features"]) == 39
    assert len(words["fingerprint"]) == 16
    assert "it lists 60 images, not 202,599" in words["refusal"]


def test_sheet_of_faces_has_four_captions_at_most(tmp_path: Path) -> None:
    root = write_celeba(tmp_path)
    sheet = tmp_path / "sheet.png"
    done = invoke("data", "show", "celeba", "--set", "size=16", "--data-root", str(root), "-o", str(sheet))
    assert done.stdout == f"20 test images in 2 classes; sheet written to {sheet}\n"
    # Two rows of a 72-pixel cell, four lines of 12 pixels and a margin of 6; and a margin below.
    with Image.open(sheet) as image:
        assert image.height == 2 * (72 + 4 * 12 + 6) + 6


def test_check_describes_rows_and_draws_no_sheet(tmp_path: Path) -> None:
    root = write_adult(tmp_path)
    done = invoke("data", "check", "adult", "--data-root", str(root))
    assert done.exit_code == 1
    assert done.stdout.splitlines()[0] == "adult: 90 train, 45 test rows of 18 numbers in 2 classes"
    assert "adult.data, adult.test" in done.stdout
    sex = next(n for n, line in enumerate(done.stdout.splitlines()) if line.startswith("sex: DPD of the test labels"))
    counted = [line.split() for line in done.stdout.splitlines()[sex + 2 : sex + 4]]
    assert [line[0] for line in counted] == ["Female", "Male"]
    assert sum(int(line[1]) for line in counted) == 90
    for command in ("check", "show"):
        refused = invoke("data", command, "adult", "--data-root", str(root), "-o", str(tmp_path / "sheet.png"))
        assert "has no effect: a contact sheet shows images, and this data set has none" in str(refused.exception)
    assert not (tmp_path / "sheet.png").exists()
    words = json.loads(invoke("data", "check", "adult", "--data-root", str(root), "--json").stdout)
    assert (words["image_size"], words["num_columns"]) == (None, 18)


def test_check_calls_a_list_by_its_title(tmp_path: Path) -> None:
    root = write_table(tmp_path)
    settings = [
        "path=table/loans.csv", "title=loans", "columns=[income, job]", "categorical=[job]", "classes=['no', 'yes']", "split=split",
        "features=[sex]",
    ]  # fmt: skip
    overrides = [word for setting in settings for word in ("--set", setting)]
    done = invoke("data", "check", "manifest", "--data-root", str(root), *overrides)
    assert done.stdout.splitlines()[0] == "loans: 24 train, 12 test rows of 4 numbers in 2 classes"


def test_prepare_adult_says_what_it_could_not_reach_and_what_to_put_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("https_proxy", UNREACHABLE)
    message = str(invoke("data", "prepare", "adult", "--data-root", str(tmp_path)).exception)
    assert f"{adult.URL}adult.data: cannot be fetched to" in message
    assert f"put its two files there:\n  {tmp_path}/adult/adult.data" in message
    done = invoke("data", "prepare", "adult", "--data-root", str(write_adult(tmp_path)))
    assert "adult: 90 training and 45 test rows; a launch would refuse them: " in done.stdout


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("cifar10", (), ": cannot be fetched to "),
        ("cifar100", (), ": cannot be fetched to "),
        ("svhn", (), ": cannot be fetched to "),
        ("tiny_imagenet", (), "Unpack tiny-imagenet-200.zip"),
        ("imagenet", (), "Unpack ILSVRC2012_img_train.tar"),
        ("celeba", (), "put these:"),
        ("adult", (), "put its two files there:"),
        ("hatexplain", ("tokenizer=hf:bert-base-uncased",), "put these:"),
        ("manifest", ("path=x.csv", "classes=[a, b]", "size=16", "split=s"), "x.csv cannot be read: "),
        (
            "factory",
            ("function=a.b:c", "samples=rows", "classes=[a, b]"),
            "no distribution installed here offers 'a.b:c'",
        ),
        ("utkface", (), "Unpack the aligned and cropped faces"),
    ],
)
def test_prepare_without_files_says_what_is_missing_of_every_set(
    name: str, settings: tuple[str, ...], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for protocol in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(protocol, UNREACHABLE)
    overrides = [word for setting in settings for word in ("--set", setting)]
    done = invoke("data", "prepare", name, "--data-root", str(tmp_path), *overrides)
    assert isinstance(done.exception, DataError)
    assert message in str(done.exception)


def test_plan_names_the_files_of_the_data_that_are_missing(tmp_path: Path) -> None:
    sweep = tmp_path / "people.yaml"
    sweep.write_text(SWEEP.replace("DATA", str(tmp_path / "data")))
    planned = ("plan", str(sweep), "--set", "dataset.version=0123456789abcdef", "--store", str(tmp_path / "store"))
    list_ = tmp_path / "data" / "people" / "people.csv"
    assert json.loads(invoke(*planned, "--json").output)["missing_files"] == [str(list_)]
    said = "".join(invoke(*planned).output.split())
    assert f"missing:{list_};`kd-raydatacheck`saysmore" in said
    write_people(tmp_path / "data")
    assert "missing:" not in invoke(*planned).output


def test_every_set_with_files_names_them_for_a_quick_look() -> None:
    without = {it for it in get_args(get_args(Dataset)[0]) if it.files is Classification.files}
    assert without == {TrifeatureDataset, FactoryDataset}


@pytest.mark.parametrize(
    ("name", "write", "count"),
    [
        ("cifar10", datasets.write_cifar10, 7),
        ("cifar100", datasets.write_cifar100, 3),
        ("tiny_imagenet", datasets.write_tiny_imagenet, 3),
        ("imagenet", datasets.write_imagenet, 2),
        ("celeba", datasets.write_celeba, 3),
        ("adult", datasets.write_adult, 2),
        ("hatexplain", datasets.write_hatexplain, 2),
        pytest.param("svhn", datasets.write_svhn, 2, marks=pytest.mark.slow),
    ],
)
def test_these_are_the_files_that_are_read(name: str, write: Callable[[Path], Any], count: int, tmp_path: Path) -> None:
    write(tmp_path)
    files = parse_dataset(name, ["tokenizer=hf:a"] if name == "hatexplain" else []).files
    assert len(files) == count
    assert all((tmp_path / file).exists() for file in files)


def test_the_sets_whose_files_may_be_missing_are_all_but_the_one_that_is_drawn() -> None:
    (mark,) = test_prepare_without_files_says_what_is_missing_of_every_set.pytestmark  # type: ignore[attr-defined]
    assert {name for name, *_ in mark.args[1]} == {*DATASET_NAMES, "utkface"} - {"trifeature"}


def test_check_of_many_classes_counts_the_rest(tmp_path: Path) -> None:
    from tests.datasets import write_cifar100

    done = invoke("data", "check", "cifar100", "--data-root", str(write_cifar100(tmp_path)))
    assert "… and 70 more; every class has 2 to 2 train, 1 to 1 test" in done.stdout


def test_prepare_decodes_what_is_there_and_names_its_version(tmp_path: Path) -> None:
    root = write_celeba(tmp_path)
    done = invoke("data", "prepare", "celeba", "--set", "size=16", "--data-root", str(root))
    assert done.exit_code == 1
    assert "celeba: 20 training and 20 test images; a launch would refuse them: " in done.stdout
    version = done.stdout.split("`dataset.version: '")[1][:16]
    done = invoke(
        "data", "prepare", "celeba", "--set", "size=16", "--set", f"version={version}", "--data-root", str(root)
    )
    assert (done.exit_code, done.stdout) == (0, f"celeba: 20 training and 20 test images; fingerprint {version}\n")


def test_prepare_says_what_to_put_where(tmp_path: Path) -> None:
    done = run_cli_here("data", "prepare", "celeba", cwd=tmp_path)
    assert done.returncode == 2
    assert "celeba: 2 of 2 files are missing" in done.stderr
    assert "data/celeba/list_eval_partition.txt" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_prepare_leaves_files_that_are_there(tmp_path: Path) -> None:
    done = invoke("data", "prepare", "svhn", "--data-root", str(write_svhn(tmp_path)))
    assert "svhn: 40 training and 20 test images; a launch would refuse them: " in done.stdout


def test_prepare_utkface_writes_a_list_that_a_sweep_can_use(tmp_path: Path, shared_data: Path) -> None:
    with zipfile.ZipFile(shared_data / "utkface-4000" / "UTKFace-4000.zip") as archive:
        names = [name for name in archive.namelist() if name.endswith(".jpg")][::100]
        for name in names:
            archive.extract(name, tmp_path / "utkface")
        labels = dict(line.split(",", 1) for line in archive.read(_labels(archive)).decode().split())
    (tmp_path / "utkface" / "UTKFace" / "39_1_20170116174525125.jpg.chip.jpg").write_bytes(encoded())
    done = invoke("data", "prepare", "utkface", "--data-root", str(tmp_path))
    assert done.exit_code == 0, done.output
    assert "left out, because their names do not say age, gender and race: UTKFace/39_1_2017" in done.stdout
    rows = [line.split(",") for line in (tmp_path / "utkface" / "utkface.csv").read_text().splitlines()]
    assert rows[0] == ["file", "age", "gender", "race"]
    assert len(rows) == 1 + len(names) == 41
    for file, age, gender, race in rows[1:]:
        codes = (
            f"{age},{['male', 'female'].index(gender)},{['White', 'Black', 'Asian', 'Indian', 'Others'].index(race)}"
        )
        assert labels[Path(file).name] == codes
    done = invoke("data", "check", "sweeps/utkface.yaml", "--data-root", str(tmp_path))
    assert done.exit_code == 1, done.output
    assert "race: DPD of the test labels" in done.stdout


def _labels(archive: zipfile.ZipFile) -> str:
    return next(name for name in archive.namelist() if name.endswith("labels.csv"))


def test_prepare_utkface_takes_no_settings_and_wants_images(tmp_path: Path) -> None:
    assert "no effect with utkface" in str(invoke("data", "prepare", "utkface", "--set", "size=3").exception)
    missing = invoke("data", "prepare", "utkface", "--data-root", str(tmp_path)).exception
    assert f"below {tmp_path}/utkface, so that files such as" in str(missing)
