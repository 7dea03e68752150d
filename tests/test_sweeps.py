"""The sweep files that come with the project: each passes `plan`, and each of the papers' runs in a cut-down form on real data."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from kd_ray.cluster.launch import launch
from kd_ray.data import cifar10
from kd_ray.data.families import fingerprint, load_dataset
from kd_ray.errors import DataError
from kd_ray.models import build_model
from kd_ray.results.launch_plan import plan
from kd_ray.results.query import Results
from kd_ray.results.schema import TABLES
from kd_ray.results.store import Store
from kd_ray.sweep.distillation import OBJECTIVES
from kd_ray.sweep.initial import pretrained_files
from kd_ray.sweep.load import load_sweep
from kd_ray.sweep.networks import TrainedTeacher
from kd_ray.sweep.plan import expand, is_file
from kd_ray.sweep.spec import TrialSpec
from tests.datasets import (
    write_adult,
    write_bert,
    write_celeba,
    write_cifar10,
    write_cifar100,
    write_hatexplain,
    write_imagenet,
    write_svhn,
    write_tiny_imagenet,
    write_utkface,
)

SWEEPS = Path(__file__).resolve().parents[1] / "sweeps"
QUICKEST = ("adult", "cifar10-lt-quick", "hatexplain-gender", "svhn-quick", "celeba-quick")
"""Sweeps whose tiny form `make test` runs; `make test-long` runs the others."""
QUICK = ("cifar10", "cifar100", "cifar100-lt", "svhn", "tiny-imagenet", "celeba")


@pytest.mark.parametrize(
    ("name", "num_trials"),
    [
        # Teachers + scratch students + seeds × temperatures.
        ("trifeature-quick", 1 + 5 + 5 * 2),
        ("trifeature-color", 5 + 5 + 5 * 13),
        ("trifeature-texture", 5 + 5 + 5 * 13),
        ("cifar10", 5 + 5 + 5 * 9),
        ("cifar100-resnet", 5 + 5 + 5 * 12),
        ("cifar100-densenet", 5 + 5 + 5 * 9),
        ("cifar100-lt", 5 + 5 + 5 * 3),
        ("svhn", 5 + 5 + 5 * 9),
        ("tiny-imagenet", 5 + 5 + 5 * 9),
        ("celeba-young", 5 + 5 + 5 * 13),
        ("celeba-male", 5 + 5 + 5 * 13),
        ("imagenet-resnet", 1 + 5 + 5 * 12),
        ("imagenet-vit", 1 + 5 + 5 * 9),
        ("imagenet-lt", 1 + 5 + 5 * 3),
        ("utkface", 1 + 5 + 5 * 4),
        ("adult", 1 + 5 + 5 * 4),
        *((f"{name}-quick", 1 + 3 + 3 * 3) for name in QUICK),
        ("cifar10-lt-quick", 1 + 5 + 5 * 4),
        ("utkface-quick", 3 + 3 + 3 * 3),
        ("objectives", 1 + 3 + 3 * (2 * 17 + 2)),
        ("hatexplain-gender", 5 + 5 + 5 * 13),
        ("hatexplain-race", 5 + 5 + 5 * 13),
        ("hatexplain-minilm", 1 + 2 + 2 * 3),
    ],
)
def test_sweep_file_passes_plan(name: str, num_trials: int, bert_root: Path, tmp_path: Path) -> None:
    folders = [f"placement.data_root={tmp_path}"]
    if name.startswith("hatexplain"):
        folders = [f"placement.data_root={bert_root}", "dataset.max_length=16"]
    file = load_sweep(SWEEPS / f"{name}.yaml", folders)
    for path in pretrained_files(file):
        # A plan fetches nothing, and names trials by the content of their weights.
        Path(path).parent.mkdir(parents=True)
        Path(path).write_bytes(b"weights")
    assert file.sweep.name == name
    planned = plan(file, None).planned
    assert len(planned) == num_trials
    # What a record keeps of a spec is read back as the same trial.
    assert all(
        TrialSpec.model_validate_json(trial.spec.model_dump_json()).trial_id == trial.trial_id for trial in planned
    )


def test_every_sweep_file_is_tested() -> None:
    # The second of a pair has the trials of the first.
    run_below = {"trifeature-color", "trifeature-texture", "cifar10", "celeba-male", "objectives", *TINY_FORMS}
    assert {path.stem for path in SWEEPS.glob("*.yaml")} == {"trifeature-quick", *run_below}
    assert set(QUICKEST) <= TINY_FORMS.keys()


@pytest.mark.parametrize("pair", [("trifeature-color", "trifeature-texture"), ("celeba-young", "celeba-male")])
def test_two_sweeps_about_one_data_set_have_the_same_trials(pair: tuple[str, str]) -> None:
    files = [load_sweep(SWEEPS / f"{name}.yaml") for name in pair]
    first, second = ({trial.trial_id for trial in plan(file, None).planned} for file in files)
    assert first == second
    assert files[0].sweep.sensitive_features != files[1].sweep.sensitive_features


@pytest.mark.parametrize("path", sorted(SWEEPS.glob("*.yaml")), ids=lambda path: str(path.stem))
def test_head_says_how_many_trials_and_the_table_of_sweeps_agrees(path: Path) -> None:
    count = len(expand(load_sweep(path), lambda name: "0" * (64 if is_file(name) else 16)))
    lines = path.read_text().splitlines()
    head = " ".join(line.removeprefix("# ") for line in lines if line.startswith("#"))
    assert f"{count} trials" in head
    (row,) = [line for line in (SWEEPS / "README.md").read_text().splitlines() if line.startswith(f"| `{path.stem}` |")]
    assert row.split(" | ")[2] == str(count)


@pytest.mark.parametrize(
    ("name", "models", "temperatures"),
    [
        ("cifar100-resnet", ("resnet56", "resnet20"), (*range(2, 11), 20, 30, 40)),
        ("cifar100-densenet", ("densenet169-cifar", "densenet121-cifar"), tuple(range(2, 11))),
        ("svhn", ("resnet56", "resnet20"), tuple(range(2, 11))),
        ("celeba-young", ("resnet50-imagenet", "resnet18-imagenet"), (*range(1, 11), 20, 30, 40)),
        ("celeba-male", ("resnet50-imagenet", "resnet18-imagenet"), (*range(1, 11), 20, 30, 40)),
        ("trifeature-texture", ("resnet20", "lenet5"), (*range(1, 11), 20, 30, 40)),
        ("imagenet-resnet", ("resnet50-imagenet", "resnet18-imagenet"), (*range(2, 11), 20, 30, 40)),
        ("hatexplain-gender", ("hf:bert-base-uncased", "hf:distilbert-base-uncased"), (*range(1, 11), 20, 30, 40)),
        ("hatexplain-race", ("hf:bert-base-uncased", "hf:distilbert-base-uncased"), (*range(1, 11), 20, 30, 40)),
    ],
)
def test_grid_and_pair_are_the_papers(name: str, models: tuple[str, str], temperatures: tuple[int, ...]) -> None:
    file = load_sweep(SWEEPS / f"{name}.yaml")
    assert isinstance(file.sweep.teacher, TrainedTeacher)
    assert (file.sweep.teacher.model, file.sweep.student.model) == models
    assert file.axes["temperature"] == temperatures
    assert len(file.axes["seed"]) == 5


def _write_hatexplain_and_networks(root: Path) -> Path:
    """Networks of 16 units per layer under the names that the sweep files give."""
    write_hatexplain(root)
    write_bert(root, "minilm", layers=6)
    write_bert(root, "bert-base-uncased", layers=3)
    return write_bert(root, "distilbert-base-uncased", kind="distilbert", layers=2)


@pytest.fixture(scope="module")
def bert_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("transformers", reason="the extra `text` is not installed")
    return _write_hatexplain_and_networks(tmp_path_factory.mktemp("texts"))


TINY_FORMS: dict[str, tuple[Callable[[Path], Path], list[str]]] = {
    "cifar100-resnet": (lambda root: write_cifar100(root, num_train=40, num_test=20), []),
    "cifar100-densenet": (lambda root: write_cifar100(root, num_train=8, num_test=10), []),
    "cifar100-lt": (
        lambda root: write_cifar100(root, num_train=400, num_test=20),
        ["dataset.long_tail.imbalance_factor=4"],
    ),
    "svhn": (write_svhn, []),
    "tiny-imagenet": (write_tiny_imagenet, ["dataset.num_classes=4", "dataset.size=16"]),
    "celeba-young": (write_celeba, ["dataset.size=33"]),
    "imagenet-resnet": (write_imagenet, ["dataset.num_classes=3", "dataset.size=33", "placement.resident_gb=0"]),
    "imagenet-vit": (
        lambda root: write_vit(write_imagenet(root)),
        [
            "dataset.num_classes=3",
            "dataset.size=32",
            "placement.resident_gb=0",
            "teacher={model: 'timm:vit_tiny_patch16_224', weights: DATA/vit.pt}",
        ],
    ),
    "imagenet-lt": (
        write_imagenet,
        [
            "dataset.num_classes=3",
            "dataset.size=33",
            "placement.resident_gb=0",
            "dataset.long_tail={imbalance_factor: 3}",
        ],
    ),
    "utkface": (write_utkface, ["dataset.size=16"]),
    "adult": (write_adult, []),
    "cifar10-quick": (write_cifar10, []),
    "cifar10-lt-quick": (
        lambda root: write_cifar10(root, num_train=400),
        ["dataset.long_tail.imbalance_factor=4", "grid.objective=[ada_alpha]"],
    ),
    "utkface-quick": (write_utkface, ["dataset.size=33"]),
    "cifar100-quick": (lambda root: write_cifar100(root, num_train=40, num_test=20), []),
    "cifar100-lt-quick": (
        lambda root: write_cifar100(root, num_train=400, num_test=20),
        ["dataset.long_tail.imbalance_factor=4"],
    ),
    "svhn-quick": (write_svhn, []),
    "tiny-imagenet-quick": (write_tiny_imagenet, ["dataset.num_classes=4", "dataset.size=16"]),
    "celeba-quick": (write_celeba, ["dataset.size=16"]),
    "hatexplain-gender": (
        _write_hatexplain_and_networks,
        ["dataset.max_length=16", "teacher.training=null"],
    ),
    "hatexplain-race": (_write_hatexplain_and_networks, ["dataset.max_length=16", "teacher.training=null"]),
    "hatexplain-minilm": (_write_hatexplain_and_networks, ["dataset.max_length=16"]),
}
"""Sweep file → how its data set is made, and what makes it small; the networks are those of the file, but for a given ViT-B."""
WARNINGS = {
    "adult": (
        "adult: rows with missing values left out: 30 of 120 training and 15 of 60 test rows",
        "adult: constant in the training rows, so 0 everywhere: capital-loss",
        r"adult: \d+ of 45 test rows are also in train",
    ),
}


def write_vit(root: Path) -> Path:
    """Weights of a small vision transformer, vit.pt."""
    torch.manual_seed(0)
    model = build_model("timm:vit_tiny_patch16_224", num_classes=3, image_size=32)
    torch.save(model.state_dict(), root / "vit.pt")
    return root


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICKEST else pytest.mark.long) for name in TINY_FORMS]
)
def test_sweep_file_in_a_tiny_form_fills_every_table(name: str, store: Store, tmp_path: Path) -> None:
    write, smaller = TINY_FORMS[name]
    root = write(tmp_path / "data")
    overrides = [
        *(each.replace("DATA", str(root)) for each in smaller),
        "training.epochs=1", "training.schedule={name: constant}", "training.optimizer.lr=0.001", "grid.seed=[0]",
        "grid.temperature=[4]", "placement.gpus_per_pack=0", "placement.cpus_per_pack=1", f"placement.data_root={root}",
        *(["teacher.training=null"] if name.endswith("-quick") else []),
    ]  # fmt: skip
    version = fingerprint(load_sweep(SWEEPS / f"{name}.yaml", overrides).sweep.dataset, root)
    file = load_sweep(SWEEPS / f"{name}.yaml", [*overrides, f"dataset.version='{version}'"])
    report = launch(file, store, runner="local")
    assert (report.exit_code, len(report.trials)) == (0, 3)
    assert report.problems == ()
    for warning, expected in zip(report.warnings, WARNINGS.get(name, ()), strict=True):
        assert re.fullmatch(expected, warning), warning
    results = Results(store)
    of_groups = set() if file.sweep.sensitive_features else {"group_metrics", "fairness_metrics"}
    for table in set(TABLES) - of_groups:
        assert results.table(table, sweep=file.sweep.name).num_rows > 0, table
    data = load_dataset(file.sweep.dataset, root)
    labels = results.query("SELECT label FROM samples ORDER BY sample_index")["label"].to_pylist()
    assert labels == data.test.labels_N.tolist()
    features = results.query("SELECT DISTINCT feature FROM fairness_metrics ORDER BY 1")["feature"].to_pylist()
    joint = [" & ".join(names) for names in file.sweep.intersections]
    assert features == sorted([*file.sweep.sensitive_features, *joint])


def test_launch_warns_of_what_a_manifest_leaves_out(store: Store, tmp_path: Path) -> None:
    root = write_utkface(tmp_path)
    overrides = [
        "dataset.size=16", "dataset.min_group_size=4", "intersections=null", "teacher=null", "distillation=null", "grid.temperature=null",
        "student.model=lenet5", "training.epochs=1", "grid.seed=[0]", "placement={cpus_per_pack: 1}", f"placement.data_root={root}",
    ]  # fmt: skip
    with pytest.raises(DataError, match=r"utkface\.csv needs a version") as caught:
        launch(load_sweep(SWEEPS / "utkface.yaml", overrides), store, runner="local")
    assert not (tmp_path / "store").exists()
    version = str(caught.value).split("`dataset.version: '")[1][:16]
    report = launch(
        load_sweep(SWEEPS / "utkface.yaml", [*overrides, f"dataset.version='{version}'"]), store, runner="local"
    )
    assert report.exit_code == 0
    start = "groups with fewer than 4 test samples left out:"
    assert report.warnings == (
        f"utkface: age: {start} <18 (n = 3), 18-30 (n = 1), 30-45 (n = 2)",
        f"utkface: race: {start} Black (n = 3), Others (n = 3)",
    )
    for table in ("trials", "samples", "class_metrics"):
        assert Results(store).query(f"SELECT DISTINCT dataset FROM {table}")["dataset"].to_pylist() == ["utkface"]
    sql = "SELECT DISTINCT \"group\" AS name FROM group_metrics WHERE feature = 'race' ORDER BY 1"
    assert Results(store).query(sql)["name"].to_pylist() == ["Asian", "Indian", "White"]


def test_objectives_sweep_has_every_objective_of_ours() -> None:
    planned = plan(load_sweep(SWEEPS / "objectives.yaml"), None).planned
    assert {trial.spec.objective for trial in planned} == {*OBJECTIVES, "cross_entropy"} - {"imported"}


def test_trifeature_grid_is_the_papers() -> None:
    file = load_sweep(SWEEPS / "trifeature-color.yaml")
    assert file.axes["temperature"] == (1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 20, 30, 40)
    assert len(file.axes["seed"]) == 5
    assert isinstance(file.sweep.teacher, TrainedTeacher)
    assert (file.sweep.teacher.model, file.sweep.student.model) == ("resnet20", "lenet5")
    assert file.sweep.sensitive_features == ("color",)


def test_cifar10_grid_is_the_papers() -> None:
    file = load_sweep(SWEEPS / "cifar10.yaml")
    assert file.axes["temperature"] == (2, 3, 4, 5, 6, 7, 8, 9, 10)
    assert isinstance(file.sweep.teacher, TrainedTeacher)
    assert (file.sweep.teacher.model, file.sweep.student.model) == ("resnet56", "resnet20")


@pytest.mark.long
def test_trifeature_in_a_cut_down_form(store: Store, trifeature_root: Path) -> None:
    """The file's own generator, models and losses; fewer images, epochs, seeds and temperatures."""
    file = load_sweep(
        SWEEPS / "trifeature-color.yaml",
        [
            "dataset.size=32", "dataset.images_per_combination=1", "dataset.test_fraction=0.8", "training.epochs=1",
            "training.schedule={name: constant}",
            "grid.seed=[0]", "grid.temperature=[1, 40]", f"placement.data_root={trifeature_root}",
            "sensitive_features=[color, texture]", "intersections=[[color, texture]]",
        ],
    )  # fmt: skip
    assert launch(file, store, runner="local").exit_code == 0
    macro = Results(store).query("SELECT DISTINCT feature FROM fairness_metrics ORDER BY 1")
    assert macro["feature"].to_pylist() == ["color", "color & texture", "texture"]


@pytest.mark.long
def test_cifar10_in_a_cut_down_form_on_real_images(store: Store, cifar10_root: Path) -> None:
    """Teacher and student of the file on the 4,000 original images, one epoch of each."""
    root = cifar10_root
    file = load_sweep(
        SWEEPS / "cifar10.yaml",
        [
            f"dataset.version='{cifar10.fingerprint(root)}'", "training.epochs=1", "training.schedule={name: constant}",
            "teacher.model=resnet20", "student.model=lenet5", "grid.seed=[0]", "grid.temperature=[2, 10]",
            "placement={cpus_per_pack: 2}", f"placement.data_root={root}",
        ],
    )  # fmt: skip
    assert launch(file, store, runner="local").exit_code == 0
    counts = (
        Results(store)
        .query("SELECT sum(n) AS n, count(*) AS classes FROM class_metrics WHERE role = 'teacher'")
        .to_pylist()
    )
    assert counts == [{"n": 800, "classes": 10}]


def test_the_page_says_which_sweep_needs_which_extra() -> None:
    needed: dict[str, set[str]] = {"text": set(), "models": set()}
    for path in SWEEPS.glob("*.yaml"):
        networks = re.findall(r"\b(hf|timm):", path.read_text())
        for name in networks:
            needed["text" if name == "hf" else "models"].add(path.stem)
    (said,) = re.findall(
        r"\*\*Two kinds of sweep need more(.*?)\n\n", (SWEEPS / "README.md").read_text(), flags=re.DOTALL
    )
    first, second = said.split("the extra `text`")
    assert set(re.findall(r"`([a-z]+-[a-z]+)`", first)) == needed["text"]
    assert set(re.findall(r"`([a-z]+-[a-z]+)`", second)) == needed["models"]
