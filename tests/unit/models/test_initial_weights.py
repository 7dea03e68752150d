"""Networks that start from pretrained weights: what fits, whose head is new, and where a library's weights come from."""

import hashlib
import re
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load, load_file, save_file

from kd_ray.cluster.launch import launch
from kd_ray.errors import SweepError
from kd_ray.models import build_model
from kd_ray.models.initial_weights import fetch_pretrained, load_initial
from kd_ray.results.launch_plan import plan
from kd_ray.results.manifest import read_manifest
from kd_ray.results.query import Results
from kd_ray.results.record import read_record
from kd_ray.results.store import Store
from kd_ray.sweep.load import SweepFile, parse_sweep

SWEEP = """
name: tuned
dataset: {name: trifeature, size: 16, images_per_combination: 1, test_fraction: 0.9}
teacher:
  model: resnet20
  init: WEIGHTS/teacher.pt
  seed: [0]
  training: {epochs: 1, batch_size: 50, optimizer: {lr: 1e-30}, schedule: {name: constant}}
student: {model: lenet5, init: WEIGHTS/student.safetensors}
training: {epochs: 1, batch_size: 50, optimizer: {lr: 1e-30}, schedule: {name: constant}}
distillation: {alpha: 0.9, t_squared: true}
grid: {seed: [0, 1], temperature: [4]}
"""


def sweep(folder: Path, *overrides: str) -> SweepFile:
    return parse_sweep(SWEEP.replace("WEIGHTS", str(folder)), source="tuned.yaml", overrides=overrides)


def write_weights(folder: Path, *, classes: int = 7) -> None:
    torch.manual_seed(3)
    teacher = build_model("resnet20", num_classes=10, image_size=16).state_dict()
    torch.save({"state_dict": {f"module.{name}": each for name, each in teacher.items()}}, folder / "teacher.pt")
    student = build_model("lenet5", num_classes=classes, image_size=16).state_dict()
    save_file(student, folder / "student.safetensors")


@pytest.mark.slow
def test_a_head_for_other_classes_is_left_as_it_was_drawn() -> None:
    torch.manual_seed(0)
    model, given = (build_model("resnet18-cifar", num_classes=c, image_size=32) for c in (3, 5))
    before = {name: each.clone() for name, each in model.state_dict().items()}
    assert load_initial(model, given.state_dict()) == 5
    for name, each in model.state_dict().items():
        assert torch.equal(each, before[name] if name.startswith("fc.") else given.state_dict()[name]), name
    assert load_initial(model, build_model("resnet18-cifar", num_classes=3, image_size=32).state_dict()) is None


def test_weights_of_before_counters_fit() -> None:
    model = build_model("resnet20", num_classes=3, image_size=16)
    weights = {name: each for name, each in model.state_dict().items() if "num_batches" not in name}
    assert load_initial(model, weights) is None


@pytest.mark.slow
@pytest.mark.parametrize(
    ("model", "other", "message"),
    [
        ("resnet20", "resnet32", "0 entries are missing (none) and 72 are of no use (layer1.3.conv1.weight"),
        ("resnet32", "resnet20", "60 entries are missing (layer1.3.conv1.weight"),
        ("resnet18-cifar", "resnet18-imagenet", "1 entries have other shapes: conv1.weight (64, 3, 7, 7) for (64, 3, 3, 3)"),
    ],
)  # fmt: skip
def test_weights_of_another_network_are_refused(model: str, other: str, message: str) -> None:
    networks = [build_model(name, num_classes=3, image_size=64) for name in (model, other)]
    with pytest.raises(ValueError, match="entries") as caught:
        load_initial(networks[0], networks[1].state_dict())
    assert message in str(caught.value)


@pytest.mark.slow
def test_trials_start_from_the_files_and_are_named_by_their_content(
    store: Store, tmp_path: Path, trifeature_root: Path
) -> None:
    """At a learning rate of 1e-30 what is kept is what training began with."""
    write_weights(tmp_path)
    file = sweep(tmp_path, f"placement.data_root={trifeature_root}")
    report = launch(file, store, runner="local")
    assert (report.exit_code, len(report.trials)) == (0, 5)
    head = "student.init: .*student.safetensors has a head for 7 classes; one for 10 is drawn from each trial's seed instead"
    assert [bool(re.fullmatch(head, each)) for each in report.warnings] == [True]
    given = load_file(tmp_path / "student.safetensors")
    heads = set()
    for trial in report.trials:
        record = read_record(store, trial.trial_id)
        assert record is not None
        assert record.spec.initial_weights is not None
        assert record.spec.training is not None
        if record.spec.role == "teacher":
            continue
        kept = load(store.get(record.weights_key) or b"")
        same = {
            name for name, each in kept.items() if each.shape == given[name].shape and torch.equal(each, given[name])
        }
        assert set(kept) - same == {name for name in kept if kept[name].shape != given[name].shape}
        heads.add((record.spec.seed, kept[max(set(kept) - same)].numpy().tobytes()))
    assert len(heads) == 2
    assert launch(file, store, runner="local").num_trained == 0
    # The same content elsewhere is the same trial; other content is another.
    (tmp_path / "copy").mkdir()
    write_weights(tmp_path / "copy")
    ids = {trial.trial_id for trial in plan(file, None).planned}
    assert {trial.trial_id for trial in plan(sweep(tmp_path / "copy"), None).planned} == ids
    write_weights(tmp_path / "copy", classes=8)
    assert len({trial.trial_id for trial in plan(sweep(tmp_path / "copy"), None).planned} & ids) == 1
    assert Results(store).query("SELECT count(*) AS n FROM trials")["n"].to_pylist() == [5]


def test_files_that_do_not_fit_are_refused_before_anything_is_written(
    store: Store, tmp_path: Path, trifeature_root: Path
) -> None:
    root = f"placement.data_root={trifeature_root}"
    with pytest.raises(SweepError, match=r"tuned.yaml: teacher.init: cannot read '.*teacher.pt': No such file"):
        plan(sweep(tmp_path), None)
    write_weights(tmp_path)
    with pytest.raises(
        SweepError,
        match=r"tuned.yaml: student.init: .*student.safetensors does not fit resnet20 with 10 classes: \d+ entries",
    ):
        launch(sweep(tmp_path, root, "student.model=resnet20"), store, runner="local")
    assert not (tmp_path / "store" / "trials").exists()


def test_pretrained_needs_a_library(tmp_path: Path) -> None:
    with pytest.raises(
        SweepError, match=r"student.init: no library publishes weights of lenet5; give the path of a file"
    ):
        sweep(tmp_path, "student.init=pretrained")


def _no_network(*args: object, **kwargs: object) -> None:
    raise OSError("there is no network")


@pytest.mark.slow
def test_pretrained_weights_are_fetched_by_the_launch_or_put_there(
    store: Store, tmp_path: Path, trifeature_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", _no_network)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub"))
    write_weights(tmp_path)
    root = tmp_path / "data"
    overrides = [f"placement.data_root={root}", "student={model: 'torchvision:resnet18', init: pretrained}"]
    path = root / "pretrained" / "torchvision" / "resnet18-16px.safetensors"
    with pytest.raises(SweepError, match=rf"student.init: cannot read '{path}': .*; `kd-ray launch` fetches it"):
        plan(sweep(tmp_path, *overrides), None)
    message = (
        r"tuned.yaml: student.init: torchvision cannot fetch the weights of resnet18 \(.*there is no network.*\); "
        rf"put their state dict there yourself: {path}, from https://download.pytorch.org/models/resnet18-"
    )
    with pytest.raises(SweepError, match=message):
        launch(sweep(tmp_path, *overrides), store, runner="local")
    assert not root.exists()
    path.parent.mkdir(parents=True)
    torch.save(build_model("torchvision:resnet18", num_classes=1000, image_size=16).state_dict(), path)
    planned = plan(sweep(tmp_path, *overrides), None)
    assert str(path) in planned.weights
    assert {trial.spec.initial_weights for trial in planned.planned} == set(planned.weights.values())


@pytest.mark.slow
def test_a_network_without_pretrained_weights_is_named(tmp_path: Path) -> None:
    with pytest.raises(
        ValueError, match=r"timm cannot fetch the weights of nothing \(it has no pretrained weights\); put"
    ):
        fetch_pretrained("timm:nothing", image_size=16, path=tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_checkpoint_of_the_hub_teaches_from_the_cache_of_its_client(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The layout of a real cache; nothing is fetched."""
    constants = pytest.importorskip("huggingface_hub.constants", reason="kd_ray[models] is not installed")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    repository = tmp_path / "cache" / "models--lab--shapes"
    snapshot = repository / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("a" * 40)
    save_file(build_model("resnet20", num_classes=10, image_size=16).state_dict(), snapshot / "model.safetensors")
    settings = (
        "teacher={model: resnet20, weights: 'hub:lab/shapes'}", f"placement.data_root='{tmp_path}'",
        "student.init=null", "grid.seed=[0]", "baselines=[]",
    )  # fmt: skip
    kept = tmp_path / "pretrained" / "hub" / "lab" / "shapes" / "model.safetensors"
    with pytest.raises(SweepError, match=rf"teacher.weights: cannot read '{kept}': .*; `kd-ray launch` fetches it"):
        plan(sweep(tmp_path, *settings), store)
    assert launch(sweep(tmp_path, *settings), store, runner="local").exit_code == 0
    assert kept.read_bytes() == (snapshot / "model.safetensors").read_bytes()
    kept.unlink()
    (teacher,) = [it.trial_id for it in read_manifest(store, "tuned").trials if it.role == "teacher"]
    record = read_record(store, teacher)
    assert record is not None
    assert record.spec.initial_weights == hashlib.sha256((snapshot / "model.safetensors").read_bytes()).hexdigest()
    with pytest.raises(SweepError, match=r"teacher.weights: hub:lab/other: its model.safetensors cannot be fetched"):
        launch(sweep(tmp_path, *settings, "teacher.weights='hub:lab/other'"), store, runner="local")
    with pytest.raises(SweepError, match="a path, or a repository as in hub:ORGANISATION/NAME"):
        sweep(tmp_path, *settings, "teacher.weights='hub:shapes'")
