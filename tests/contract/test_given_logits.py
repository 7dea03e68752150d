"""Students of a teacher that is a file of logits: the bits are those of the teacher itself, and nothing is said of what is not known."""

import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import kd_ray
from kd_ray.cluster.launch import launch, resume_file
from kd_ray.distill.teacher import forward
from kd_ray.distill.worker import Worker
from kd_ray.errors import DataError
from kd_ray.housekeeping.adopt import adopt
from kd_ray.housekeeping.verify import verify
from kd_ray.results.query import Results
from kd_ray.results.record import read_record, sha256
from kd_ray.results.store import Store, open_store, pretrained_key
from kd_ray.sweep.load import SweepFile
from tests.crashing import crasher
from tests.sweeps import assert_same_tables, tiny_sweep
from tests.unit.serve.asked import ask

pytestmark = pytest.mark.slow

SMALL = ("grid.seed=[0]", "grid.temperature=[4]", "training.epochs=2", "training.augmentation=none")
DOCS = (Path(__file__).resolve().parents[2] / "docs" / "own-models.md").read_text()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, finished_tiny: Store, trifeature_root: Path) -> Path:
    """Weights of the tiny sweep's teacher, and its logits of the plain training images, as `l.npy` and, shuffled, as `l.parquet`."""
    folder = tmp_path_factory.mktemp("logits")
    (row,) = Results(finished_tiny).query("SELECT trial_id FROM trials WHERE role = 'teacher'").to_pylist()
    record = read_record(finished_tiny, row["trial_id"])
    assert record is not None
    (folder / "teacher.safetensors").write_bytes(finished_tiny.get(record.weights_key) or b"")
    worker = Worker(finished_tiny, tiny_sweep(trifeature_root).sweep.placement, launch_id="test")
    data = worker.data(record.spec.dataset)
    train = data.resident.train
    every_N = torch.arange(len(train))
    teacher = worker.teacher(record.spec.trial_id, data, "none", tabled=False)
    logits_NC = forward(teacher.model, train.inputs(every_N, torch.zeros_like(every_N), "none")).numpy()
    np.save(folder / "l.npy", logits_NC)
    assert data.samples.ids is not None
    ids = sorted(set(range(1000)) - {int(name) for name in data.samples.ids})
    order_N = np.random.default_rng(0).permutation(len(ids))
    table = pa.table({"sample_id": [ids[n] for n in order_N], "logits": list(logits_NC[order_N])})
    pq.write_table(table, folder / "l.parquet")
    return folder


def given(root: Path, path: Path, *overrides: str) -> SweepFile:
    return tiny_sweep(root, f"teacher={{logits: '{path}'}}", *SMALL, *overrides)


def students(store: Store) -> Mapping[str, str]:
    """SHA-256 of the weights of the distilled and the scratch student, by role."""
    found = {}
    for row in Results(store).query("SELECT trial_id, role FROM trials WHERE role != 'teacher'").to_pylist():
        record = read_record(store, row["trial_id"])
        assert record is not None
        found[row["role"]] = record.weights_sha256
    assert set(found) == {"distilled", "scratch"}
    return found


@pytest.fixture(scope="module")
def from_npy(folder: Path, trifeature_root: Path) -> Store:
    store = open_store(folder / "npy")
    assert launch(given(trifeature_root, folder / "l.npy"), store, runner="local").exit_code == 0
    return store


def test_the_bits_are_those_of_the_teacher_itself(folder: Path, from_npy: Store, trifeature_root: Path) -> None:
    weights, table = (open_store(folder / name) for name in ("weights", "parquet"))
    teacher = f"teacher={{model: resnet20, weights: '{folder / 'teacher.safetensors'}'}}"
    assert launch(tiny_sweep(trifeature_root, teacher, *SMALL), weights, runner="local").exit_code == 0
    assert launch(given(trifeature_root, folder / "l.parquet"), table, runner="local").exit_code == 0
    assert students(weights) == students(table) == students(from_npy)


def test_another_launch_finds_everything_done_without_the_file(
    folder: Path, from_npy: Store, trifeature_root: Path, tmp_path: Path
) -> None:
    shutil.copytree(from_npy.url, tmp_path / "store")
    store = open_store(tmp_path / "store")
    moved = shutil.copy(folder / "l.npy", tmp_path / "l.npy")
    assert launch(given(trifeature_root, Path(moved)), store, runner="local").exit_code == 0
    Path(moved).unlink()
    file, weights = resume_file(store, "tiny", ["grid.seed=[0, 1]"])
    report = launch(file, store, runner="local", weights=weights)
    assert (report.exit_code, len(report.trials)) == (0, 4)
    distilled = [trial for trial in report.trials if trial.role == "distilled"]
    assert [trial.state for trial in distilled] == ["complete", "complete"]


@pytest.mark.long
def test_a_killed_launch_continues_to_the_same_tables(
    folder: Path, from_npy: Store, trifeature_root: Path, store: Store
) -> None:
    overrides = (f"teacher={{logits: '{folder / 'l.npy'}'}}", *SMALL)
    with crasher() as server:
        # The proof of the store, the file, the manifest and leases come before the checkpoints.
        assert server.launch(store, trifeature_root, overrides, crash_at=12, mode="after") == "killed"
    assert any("/checkpoint/" in entry.key for entry in store.entries("trials"))
    file, weights = resume_file(store, "tiny")
    assert launch(file, store, runner="local", weights=weights).exit_code == 0
    assert students(store) == students(from_npy)
    assert_same_tables(store, from_npy)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((500, 9), np.float32), r"has the shape \(500, 9\), and the sweep needs \(500, 10\)"),
        (np.full((500, 10), np.nan, np.float32), "the logits of training sample 0 hold nan"),
    ],
)
def test_a_launch_refuses_a_wrong_file_before_it_writes(
    array: np.ndarray, message: str, store: Store, trifeature_root: Path, tmp_path: Path
) -> None:
    np.save(tmp_path / "wrong.npy", array)
    with pytest.raises(DataError, match=rf"tiny.yaml: teacher.logits: {tmp_path}/wrong.npy: {message}"):
        launch(given(trifeature_root, tmp_path / "wrong.npy"), store, runner="local")
    assert not list(store.entries(""))


def test_what_is_shown_says_what_is_not_known(folder: Path, from_npy: Store, tmp_path: Path) -> None:
    name = f"logits:{sha256((folder / 'l.npy').read_bytes())[:8]}"
    (row,) = Results(from_npy).query("SELECT * FROM trials WHERE role = 'distilled'").to_pylist()
    assert (row["teacher"], row["teacher_seed"], row["teacher_trial_id"]) == (name, None, None)
    found = kd_ray.compare("tiny", Results(from_npy))
    unknown = (
        "Against the teacher: for T=4 only its logits of the training samples are given; its accuracy and fairness on the test samples, "
        "and the students' disagreement with it, are not known."
    )
    assert unknown in " ".join(found.verdict.not_tested)
    assert {comparison.contrast for comparison in found.rows if comparison.contrast} == {"scratch_vs_distilled"}
    report = kd_ray.report("tiny", Results(from_npy), tmp_path / "report")
    assert f"{name} → lenet5" in report.page.read_text()
    pages = ask(
        from_npy, "/sweeps/tiny", "/sweeps/tiny/conditions", "/sweeps/tiny/differences", "/sweeps/tiny/classes",
        f"/sweeps/tiny/trials/{row['trial_id']}",
    )  # fmt: skip
    assert [page.status for page in pages] == [200] * len(pages)
    assert f"taught by {name}, a file of logits of the training samples" in pages[-1].words


def test_the_store_is_sound_and_can_be_adopted(folder: Path, from_npy: Store, store: Store) -> None:
    assert not verify(from_npy).problems
    adopt(from_npy, store)
    assert store.get(pretrained_key(sha256((folder / "l.npy").read_bytes()))) == (folder / "l.npy").read_bytes()
    assert students(store) == students(from_npy)


def test_the_example_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    example = next(it for it in re.findall(r"```python\n(.*?)```", DOCS, flags=re.DOTALL) if "kd_ray.launch(" in it)
    exec(example, {})
    trials = kd_ray.open_store(tmp_path / "kd_ray_store").frame("trials", sweep="bars")
    assert sorted(trials["role"]) == ["distilled", "distilled", "scratch", "scratch"]
    assert trials.loc[trials["role"] == "distilled", "teacher"].str.startswith("logits:").all()
