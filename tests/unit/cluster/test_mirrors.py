"""Copies of trials elsewhere: they arrive once and whole, and a service that is away costs nothing."""

import threading
import time
from pathlib import Path

import pytest

from kd_ray.cluster import mirrors
from kd_ray.cluster.launch import launch
from kd_ray.cluster.mirrors import (
    Copied,
    MirrorThreads,
    MlflowMirror,
    TrialCopy,
    WandbMirror,
    check_mirrors,
    copy_complete,
)
from kd_ray.errors import InvalidInputError, MirrorError
from kd_ray.results.record import commit_record, write_samples
from kd_ray.results.store import Store
from kd_ray.sweep.packs import Pack
from tests.fakes import commit_trials, make_record, make_samples, make_sweep, plan_trials, write_sweep


@pytest.fixture
def pack(store: Store) -> Pack:
    """Two students that are complete; the third of the pack failed."""
    trials = [trial for trial in plan_trials(make_sweep()) if trial.spec.role == "distilled"][:3]
    for trial in trials[:2]:
        write_samples(store, trial.spec.dataset_id, make_samples())
        commit_record(store, make_record(trial.spec))
    return Pack(trials=tuple(trials))


class Album:
    """A mirror that keeps what it gets."""

    def __init__(self) -> None:
        self.copies: list[TrialCopy] = []

    def write(self, copy: TrialCopy) -> bool:
        self.copies.append(copy)
        return True


def test_the_complete_trials_of_a_pack_are_copied_with_tags_params_and_metrics(store: Store, pack: Pack) -> None:
    album, warnings = Album(), list[str]()
    with MirrorThreads({"album": lambda: album}, store, "demo", warnings.append) as mirroring:
        mirroring.add(pack)
    assert [copy.trial_id for copy in album.copies] == [trial.trial_id for trial in pack.trials[:2]]
    copy = album.copies[0]
    assert copy.tags["sweep"] == "demo"
    assert copy.tags["role"] == "distilled"
    assert copy.params["temperature"] == "1.0"
    assert copy.metrics["accuracy"] == 0.75
    assert [epoch.epoch for epoch in copy.epochs] == [1, 2, 3, 4]
    assert warnings == []


class Away:
    """A service that refuses every connection."""

    attempts = 0

    def write(self, copy: TrialCopy) -> bool:
        Away.attempts += 1
        raise ConnectionError("nobody\nlistens")


def test_a_service_that_is_away_is_said_once_and_not_waited_for(store: Store, pack: Pack) -> None:
    Away.attempts = 0
    said = threading.Event()
    warnings: list[str] = []

    def warn(warning: str) -> None:
        warnings.append(warning)
        said.set()

    with MirrorThreads({"away": Away}, store, "demo", warn) as mirroring:
        for _ in range(100):
            mirroring.add(pack)
        assert said.wait(30)
        began = time.monotonic()
    assert time.monotonic() - began < 2
    assert Away.attempts == 1, "it rests before it asks again"
    assert warnings == [
        "mirror away cannot copy trials: ConnectionError: nobody listens; the sweep continues, "
        "and the mirror is tried again every minute",
        f"mirror away: {100 * len(pack.trials)} trials are not copied",
    ]


def test_a_service_that_hangs_holds_nothing_up(store: Store, pack: Pack) -> None:
    release, reached = threading.Event(), threading.Event()

    class Hanging:
        def write(self, copy: TrialCopy) -> bool:
            reached.set()
            return release.wait(60)

    warnings: list[str] = []
    with MirrorThreads({"hanging": Hanging}, store, "demo", warnings.append, grace_s=0.2) as mirroring:
        mirroring.add(pack)
        assert reached.wait(30)
        began = time.monotonic()
    assert time.monotonic() - began < 10
    assert warnings == [f"mirror hanging: {len(pack.trials)} trials are not copied"]
    release.set()


def test_a_launch_that_is_over_before_the_client_is_there_copies_its_trials(store: Store, pack: Pack) -> None:
    """Guard: `_is_overdue`; the import of a client takes longer than the wait for one copy, and nothing was copied or said."""
    release, album = threading.Event(), Album()
    warnings: list[str] = []

    def make() -> Album:
        release.wait(60)
        return album

    with MirrorThreads({"slow": make}, store, "demo", warnings.append, grace_s=2.0) as mirroring:
        mirroring.add(pack)
        threading.Timer(2.5, release.set).start()
    assert [copy.trial_id for copy in album.copies] == [trial.trial_id for trial in pack.trials[:2]]
    assert warnings == []


@pytest.mark.slow
def test_mlflow_has_each_trial_once_with_its_curves(
    store: Store, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="kd_ray[mlflow] is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    warnings: list[str] = []
    for _ in range(2):
        with MirrorThreads({"mlflow": MlflowMirror}, store, "demo", warnings.append) as mirroring:
            mirroring.add(pack)
            for copying in mirroring._copies:
                _until_done(copying)
    assert warnings == []
    client = tracking.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("kd_ray/demo").experiment_id])
    assert {run.data.tags["kd_ray.trial_id"] for run in runs} == {trial.trial_id for trial in pack.trials[:2]}
    assert len(runs) == 2
    assert all(run.info.status == "FINISHED" for run in runs)
    assert {run.data.metrics["accuracy"] for run in runs} == {0.75}
    curve = client.get_metric_history(runs[0].info.run_id, "epoch_loss")
    assert [(point.step, point.value) for point in curve] == [(1, 1.0), (2, 0.5), (3, pytest.approx(1 / 3)), (4, 0.25)]


@pytest.mark.long
def test_weights_and_biases_has_each_trial_in_its_offline_files(
    store: Store, pack: Pack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="kd_ray[wandb] is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    wandb.teardown()  # it reads the environment once
    warnings: list[str] = []
    with MirrorThreads({"wandb": WandbMirror}, store, "demo", warnings.append) as mirroring:
        mirroring.add(pack)
        _until_done(mirroring._copies[0])
    assert warnings == []
    written = {path.name for path in tmp_path.rglob("run-*.wandb")}
    assert written == {f"run-{trial.trial_id}.wandb" for trial in pack.trials[:2]}


@pytest.fixture
def sweep(store: Store) -> Store:
    """Eight trials asked for, seven of them complete."""
    file = make_sweep()
    write_sweep(store, file)
    commit_trials(store, plan_trials(file)[:-1])
    return store


@pytest.mark.slow
def test_complete_trials_are_copied_later_once_each(
    sweep: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a real MLflow on files: running the command twice makes no second run."""
    tracking = pytest.importorskip("mlflow.tracking", reason="kd_ray[mlflow] is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    first = copy_complete(sweep, "demo", "mlflow")
    again = copy_complete(sweep, "demo", "mlflow")
    assert first == Copied(num_copied=7, num_known=0, num_incomplete=1)
    assert again == Copied(num_copied=0, num_known=7, num_incomplete=1)
    client = tracking.MlflowClient()
    runs = client.search_runs([client.get_experiment_by_name("kd_ray/demo").experiment_id])
    assert len(runs) == 7
    # The copy of a launch is the same run.
    with MirrorThreads({"mlflow": MlflowMirror}, sweep, "demo", lambda _: None) as mirroring:
        mirroring.add(Pack(trials=plan_trials(make_sweep())[:-1]))
        _until_done(mirroring._copies[0])
    assert len(client.search_runs([client.get_experiment_by_name("kd_ray/demo").experiment_id])) == 7


@pytest.mark.slow
def test_a_run_that_was_cut_off_is_completed(sweep: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="kd_ray[mlflow] is not installed")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "runs").as_uri())
    client = tracking.MlflowClient()
    trial_id = plan_trials(make_sweep())[0].trial_id
    experiment = client.create_experiment("kd_ray/demo")
    client.create_run(experiment, tags={"kd_ray.trial_id": trial_id})
    assert copy_complete(sweep, "demo", "mlflow").num_copied == 7
    runs = client.search_runs([experiment])
    assert len(runs) == 7
    assert all(run.info.status == "FINISHED" and "accuracy" in run.data.metrics for run in runs)


@pytest.mark.slow
def test_weights_and_biases_offline_has_each_trial_once(
    sweep: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wandb = pytest.importorskip("wandb", reason="kd_ray[wandb] is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    wandb.teardown()  # it reads the environment once
    trials = plan_trials(make_sweep())[:2]
    for trial in trials:
        copy = mirrors._copy_of(sweep, "demo", trial.trial_id)
        assert copy is not None
        assert WandbMirror().write(copy)
        assert not WandbMirror().write(copy)
    assert {path.name for path in tmp_path.rglob("run-*.wandb")} == {f"run-{it.trial_id}.wandb" for it in trials}
    assert len(list(tmp_path.rglob("run-*.wandb"))) == 2


def test_a_service_that_fails_is_an_error_that_counts(sweep: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Album):
        def write(self, copy: TrialCopy) -> bool:
            if len(self.copies) == 2:
                raise OSError("quota\nexceeded")
            return super().write(copy)

    monkeypatch.setitem(mirrors.MIRRORS, "mlflow", Full)
    with pytest.raises(
        MirrorError, match="cannot copy trials: OSError: quota exceeded; it has 2 of this sweep's trials, and the same"
    ):
        copy_complete(sweep, "demo", "mlflow")
    with pytest.raises(InvalidInputError, match="--to neptune: unknown service; valid: mlflow, wandb"):
        copy_complete(sweep, "demo", "neptune")
    with pytest.raises(InvalidInputError, match="no sweep 'other'; it has: demo"):
        copy_complete(sweep, "other", "mlflow")


@pytest.mark.slow
def test_a_launch_with_nothing_to_run_names_the_command_that_copies(
    finished_tiny: Store, trifeature_root: Path
) -> None:
    pytest.importorskip("mlflow", reason="kd_ray[mlflow] is not installed")
    from tests.sweeps import tiny_sweep

    report = launch(tiny_sweep(trifeature_root), finished_tiny, runner="local", mirrors=["mlflow"])
    assert report.warnings == (
        "mirror mlflow: 7 trials were complete before this launch; "
        f"`kd-ray mirror {report.sweep} --to mlflow` copies those that it lacks",
    )


def _until_done(copying: mirrors._MirrorThread) -> None:
    """The first use imports a large client, which may take longer than the end of a launch waits."""
    for _ in range(600):
        if not copying._waiting:
            return
        copying.thread.join(0.1)


@pytest.mark.slow
def test_a_sweep_ends_as_without_mlflow_when_its_server_is_not_there(
    store: Store, trifeature_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("mlflow", reason="kd_ray[mlflow] is not installed")
    from tests.sweeps import tiny_sweep

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    short = ("grid.seed=[0]", "grid.temperature=[1]", "training.epochs=1", "training.schedule={name: constant}")
    report = launch(tiny_sweep(trifeature_root, *short), store, runner="local", mirrors=["mlflow"])
    assert (report.exit_code, report.num_trained) == (0, 3)
    first, last = [warning for warning in report.warnings if "mirror" in warning]
    assert first.startswith("mirror mlflow cannot copy trials: MlflowException")
    assert last == "mirror mlflow: 3 trials are not copied"


def test_unknown_services_are_refused_before_anything_is_written(store: Store) -> None:
    with pytest.raises(InvalidInputError, match="--mirror neptune: unknown service; valid: mlflow, wandb"):
        launch(make_sweep(), store, runner="local", mirrors=["neptune"])
    assert list(store.entries("")) == []
    check_mirrors([])
