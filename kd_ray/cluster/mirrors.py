"""Copies finished trials to MLflow or Weights & Biases: during a launch that asks for it, or later, with `copy_complete`.

During a launch, a mirror never delays training: a thread of its own reads committed records, one after another. A service that does not
answer causes one warning, and some copies are missing there. The store stays the only source of truth.
"""

import importlib.util
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from kd_ray.errors import InvalidInputError, KdRayError, MirrorError
from kd_ray.results.manifest import read_manifest
from kd_ray.results.record import Epoch, read_record, read_samples
from kd_ray.results.row_settings import RowSettings
from kd_ray.results.rows import trial_rows
from kd_ray.results.store import Store
from kd_ray.sweep.packs import Pack

_MOST_WAITING = 10_000
"""Most trials that wait to be copied; beyond that the oldest are dropped."""
_REST_S = 60.0
"""Pause after a service failed."""
_CONNECT_S = 30.0
"""Longest wait for the first copy at the end of a launch: the import of a service's client alone takes seconds."""
_GRACE_S = 5.0
"""How long the end of a launch waits for a mirror that copies nothing."""
_WHOLE = "kd_ray-complete"
"""Name of an empty file in the folder of an offline run of Weights & Biases."""
_TAGS = ("sweep", "trial_id", "role", "dataset", "target", "model", "teacher", "objective", "device", "git_commit")
_PARAMS = ("seed", "teacher_seed", "temperature", "alpha", "t_squared", "epochs")


@dataclass(frozen=True, kw_only=True)
class TrialCopy:
    """The copy of a trial that a mirror gets."""

    sweep: str
    trial_id: str
    name: str
    """Short description of the trial."""
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    epochs: tuple[Epoch, ...]


class Mirror(Protocol):
    """One service."""

    def write(self, copy: TrialCopy) -> bool:
        """Write a trial to the service; False if it is there already, and nothing changes. Raises the errors of the service's client."""


def check_mirrors(names: Collection[str], *, option: str = "--mirror") -> None:
    """Refuse unknown services, and services whose client is not installed.

    Raises:
        InvalidInputError: a service cannot be used; the message names it.
    """
    for name in names:
        if name not in MIRRORS:
            raise InvalidInputError(f"{option} {name}: unknown service; valid: {', '.join(MIRRORS)}")
        if importlib.util.find_spec(name) is None:
            raise InvalidInputError(f"{option} {name}: its client is not installed; pip install 'kd_ray[{name}]'")


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What became of the trials of a sweep that were to be copied."""

    num_copied: int
    num_known: int
    """Trials that the service had."""
    num_incomplete: int
    """Trials that are not complete, or cannot be read."""


def copy_complete(store: Store, sweep: str, service: str) -> Copied:
    """Copy the complete trials of a sweep, one after another. Trials that the service has stay as they are there.

    Raises:
        InvalidInputError: the store has no such sweep, or the service cannot be used.
        MirrorError: the service failed; the message says how many trials it has now.
    """
    check_mirrors([service], option="--to")
    trials = read_manifest(store, sweep).active
    written: list[bool] = []
    mirror: Mirror | None = None
    for trial in trials:
        if (copy := _copy_of(store, sweep, trial.trial_id)) is None:
            continue
        try:
            mirror = mirror or MIRRORS[service]()
            written.append(mirror.write(copy))
        except Exception as error:
            raise MirrorError(
                f"mirror {service} cannot copy trials: {type(error).__name__}: {_brief(error)}; "
                f"it has {len(written):,} of this sweep's trials, and the same command continues"
            ) from error
    return Copied(
        num_copied=sum(written), num_known=len(written) - sum(written), num_incomplete=len(trials) - len(written)
    )


class MirrorThreads:
    """Threads that copy the trials of ended packs while the sweep runs, one thread per mirror."""

    def __init__(
        self,
        mirrors: Mapping[str, Callable[[], Mirror]],
        store: Store,
        sweep: str,
        warn: Callable[[str], None],
        *,
        grace_s: float = _GRACE_S,
    ) -> None:
        """`mirrors` are functions that make the clients, by name; each is called in the thread that uses the client."""
        self._copies = [_MirrorThread(name, make, store, sweep, warn, grace_s) for name, make in mirrors.items()]

    def __enter__(self) -> Self:
        for copying in self._copies:
            copying.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for copying in self._copies:
            copying.finish()

    def add(self, pack: Pack) -> None:
        """Copy the complete trials of this pack."""
        for copying in self._copies:
            copying.add([trial.trial_id for trial in pack.trials])


class _MirrorThread:
    """One mirror, its thread, and the trials that wait to be copied."""

    def __init__(
        self,
        name: str,
        make: Callable[[], Mirror],
        store: Store,
        sweep: str,
        warn: Callable[[str], None],
        grace_s: float,
    ) -> None:
        self.thread = threading.Thread(target=self._work, name=f"kd_ray-mirror-{name}", daemon=True)
        self._name = name
        self._make = make
        self._store = store
        self._sweep = sweep
        self._warn = warn
        self._grace_s = grace_s
        self._waiting: deque[str] = deque(maxlen=_MOST_WAITING)
        self._due = threading.Event()
        self._ending = threading.Event()
        self._is_failing = False
        self._is_connected = False
        self._last_success = time.monotonic()

    def add(self, trial_ids: Sequence[str]) -> None:
        self._waiting.extend(trial_ids)
        self._due.set()

    def finish(self) -> None:
        """Wait while the mirror still makes progress, then leave the remaining copies out, and say so.

        A launch may take less time than the import of the client, so the first wait begins anew when the client is there.
        """
        self._last_success = time.monotonic()
        self._ending.set()
        self._due.set()
        while self.thread.is_alive() and not self._is_failing and not self._is_overdue():
            self.thread.join(0.05)
        if left := len(self._waiting):
            self._warn(f"mirror {self._name}: {left} {'trial is' if left == 1 else 'trials are'} not copied")

    def _is_overdue(self) -> bool:
        grace_s = self._grace_s if self._is_connected else max(self._grace_s, _CONNECT_S)
        return time.monotonic() - self._last_success >= grace_s

    def _work(self) -> None:
        mirror: Mirror | None = None
        while self._waiting or not self._ending.is_set():
            if not self._waiting:
                self._due.wait()
                self._due.clear()
                continue
            trial_id = self._waiting[0]
            try:
                if mirror is None:
                    mirror = self._make()
                    self._is_connected = True
                    self._last_success = time.monotonic()
                if (copy := _copy_of(self._store, self._sweep, trial_id)) is not None:
                    mirror.write(copy)
            except Exception as error:  # noqa: BLE001 (any error of the service's client is only a warning)
                if not self._is_failing:
                    self._warn(
                        f"mirror {self._name} cannot copy trials: {type(error).__name__}: {_brief(error)}; "
                        "the sweep continues, and the mirror is tried again every minute"
                    )
                self._is_failing = True
                if self._ending.wait(_REST_S):
                    return
            else:
                self._is_failing = False
                self._last_success = time.monotonic()
                self._waiting.popleft()


def _copy_of(store: Store, sweep: str, trial_id: str) -> TrialCopy | None:
    """The trial with the values of its row in `trials`; None if it is not complete or cannot be read (aggregation reports that)."""
    try:
        record = read_record(store, trial_id)
        samples = read_samples(store, record.spec.dataset_id) if record else None
    except KdRayError:
        return None
    if record is None or samples is None:
        return None
    row: dict[str, Any] = trial_rows(record, samples, RowSettings(sweep=sweep), {})["trials"].to_pylist()[0]
    numbers = {
        name: float(value)
        for name, value in row.items()
        if isinstance(value, float | int) and not isinstance(value, bool) and name not in _PARAMS
    }
    return TrialCopy(
        sweep=sweep,
        trial_id=trial_id,
        name=record.spec.describe(),
        tags={name: str(row[name]) for name in _TAGS if row[name] is not None},
        params={name: str(row[name]) for name in _PARAMS if row[name] is not None},
        metrics=numbers,
        epochs=record.epochs,
    )


def _brief(error: Exception) -> str:
    return (" ".join(str(error).split()) or "no reason given")[:200]


class MlflowMirror:
    """A run per trial, in the experiment `kd_ray/<sweep>` of the server that `MLFLOW_TRACKING_URI` names."""

    def __init__(self) -> None:
        # By default the client repeats a request for minutes; `_MirrorThread` tries again after a minute anyway.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        self._experiments: dict[str, str] = {}

    def write(self, copy: TrialCopy) -> bool:
        """See `Mirror`."""
        from mlflow.entities import Metric, Param, RunTag

        experiment = self._experiment(f"kd_ray/{copy.sweep}")
        found = self._client.search_runs([experiment], f"tags.`kd_ray.trial_id` = '{copy.trial_id}'", max_results=1)
        if found and found[0].info.status == "FINISHED":
            return False
        run = found[0] if found else self._client.create_run(experiment, run_name=copy.name)
        now = int(time.time() * 1000)
        history = [
            Metric(f"epoch_{name}", value, now, epoch.epoch)
            for epoch in copy.epochs
            for name, value in _curve(epoch).items()
        ]
        final = [Metric(name, value, now, 0) for name, value in copy.metrics.items()]
        for start in range(0, len(history), 900):  # at most 1,000 are allowed in a request
            self._client.log_batch(run.info.run_id, metrics=history[start : start + 900])
        self._client.log_batch(
            run.info.run_id,
            metrics=final,
            params=[Param(name, value) for name, value in copy.params.items()],
            tags=[RunTag(f"kd_ray.{name}", value) for name, value in copy.tags.items()],
        )
        self._client.set_terminated(run.info.run_id)
        return True

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            known = self._client.get_experiment_by_name(name)
            self._experiments[name] = known.experiment_id if known else self._client.create_experiment(name)
        return self._experiments[name]


class WandbMirror:
    """A run per trial, grouped by sweep, in the project `WANDB_PROJECT` (default `kd_ray`); `WANDB_MODE=offline` writes to disk only.

    A trial that is written again updates the run with its id. Offline nothing can be asked, so a file beside a run says that it is whole.
    """

    def write(self, copy: TrialCopy) -> bool:
        """See `Mirror`."""
        import wandb

        if any(Path(wandb.setup().settings.wandb_dir).glob(f"offline-run-*-{copy.trial_id}/{_WHOLE}")):
            return False
        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "kd_ray"),
            group=copy.sweep,
            id=copy.trial_id,  # writing the trial again updates the same run
            name=copy.name,
            config={**copy.tags, **copy.params},
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(silent=True, console="off", init_timeout=30, x_disable_stats=True),
        )
        for epoch in copy.epochs:
            run.log(_curve(epoch), step=epoch.epoch)
        run.summary.update(dict(copy.metrics))
        run.finish()
        if run.offline:
            Path(run.settings.sync_dir, _WHOLE).touch()
        return True


def _curve(epoch: Epoch) -> dict[str, float]:
    """The values of an epoch that are shown as curves."""
    curve = {"loss": epoch.loss, "train_accuracy": epoch.train_accuracy, "lr": epoch.lr}
    return curve if epoch.validation_accuracy is None else {**curve, "validation_accuracy": epoch.validation_accuracy}


MIRRORS: dict[str, Callable[[], Mirror]] = {"mlflow": MlflowMirror, "wandb": WandbMirror}
"""Clients by the name of their service."""
