"""Copies of finished trials in MLflow or Weights & Biases, for groups that look there. Off unless a launch asks for it.

A mirror is never on the way: a thread reads records that are committed already, one after another, and a service that does not answer costs
a warning and the copies that it did not take. Truth stays in the store.
"""

import importlib.util
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

from kd_ray.errors import InvalidInputError, KdRayError
from kd_ray.results.record import Epoch, read_record, read_samples
from kd_ray.results.rows import RowSettings, trial_rows
from kd_ray.results.store import Store
from kd_ray.sweep.plan import Pack

_MOST_WAITING = 10_000
"""Trial ids that wait; the oldest are given up beyond."""
_REST_S = 60.0
"""Pause after a service did not answer."""
_GRACE_S = 5.0
"""How long the end of a launch waits for a mirror that gets nothing done."""
_TAGS = ("sweep", "trial_id", "role", "dataset", "target", "model", "teacher", "objective", "device", "git_commit")
_PARAMS = ("seed", "teacher_seed", "temperature", "alpha", "t_squared", "epochs")


@dataclass(frozen=True, kw_only=True)
class Copy:
    """What a mirror gets of a trial."""

    sweep: str
    trial_id: str
    name: str
    """For people."""
    tags: Mapping[str, str]
    params: Mapping[str, str]
    metrics: Mapping[str, float]
    epochs: tuple[Epoch, ...]


class Mirror(Protocol):
    """One service."""

    def write(self, copy: Copy) -> None:
        """Keep a trial there, once, however often it is written. Raises whatever the service's client raises."""


def check_mirrors(names: Collection[str]) -> None:
    """Refuse services that are unknown, or whose client is not installed.

    Raises:
        InvalidInputError: naming it.
    """
    for name in names:
        if name not in MIRRORS:
            raise InvalidInputError(f"--mirror {name}: unknown service; valid: {', '.join(MIRRORS)}")
        if importlib.util.find_spec(name) is None:
            raise InvalidInputError(f"--mirror {name}: its client is not installed; pip install 'kd_ray[{name}]'")


class Mirroring:
    """Copies the trials of packs that have ended, while the sweep runs."""

    def __init__(
        self, mirrors: Mapping[str, Callable[[], Mirror]], store: Store, sweep: str, warn: Callable[[str], None]
    ) -> None:
        """`mirrors` make the clients, by name, on the thread that uses them."""
        self._copies = [_Copying(name, make, store, sweep, warn) for name, make in mirrors.items()]

    def __enter__(self) -> Self:
        for copying in self._copies:
            copying.thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for copying in self._copies:
            copying.finish()

    def add(self, pack: Pack) -> None:
        """Trials of this pack may be complete now."""
        for copying in self._copies:
            copying.add([trial.trial_id for trial in pack.trials])


class _Copying:
    """One mirror, its thread, and what waits for it."""

    def __init__(
        self, name: str, make: Callable[[], Mirror], store: Store, sweep: str, warn: Callable[[str], None]
    ) -> None:
        self.thread = threading.Thread(target=self._work, name=f"kd_ray-mirror-{name}", daemon=True)
        self._name = name
        self._make = make
        self._store = store
        self._sweep = sweep
        self._warn = warn
        self._waiting: deque[str] = deque(maxlen=_MOST_WAITING)
        self._due = threading.Event()
        self._ending = threading.Event()
        self._is_failing = False
        self._last_sign = time.monotonic()

    def add(self, trial_ids: Sequence[str]) -> None:
        self._waiting.extend(trial_ids)
        self._due.set()

    def finish(self) -> None:
        """Let it finish what it gets done at once, and leave the rest."""
        self._last_sign = time.monotonic()
        self._ending.set()
        self._due.set()
        while self.thread.is_alive() and not self._is_failing and time.monotonic() - self._last_sign < _GRACE_S:
            self.thread.join(0.05)

    def _work(self) -> None:
        mirror: Mirror | None = None
        while self._waiting or not self._ending.is_set():
            if not self._waiting:
                self._due.wait()
                self._due.clear()
                continue
            trial_id = self._waiting[0]
            try:
                mirror = mirror or self._make()
                if (copy := _copy_of(self._store, self._sweep, trial_id)) is not None:
                    mirror.write(copy)
            except Exception as error:  # noqa: BLE001 (a client of somebody else's, which must not matter here)
                if not self._is_failing:
                    self._warn(
                        f"mirror {self._name} does not take trials: {type(error).__name__}: {_brief(error)}; "
                        "the sweep goes on, and copies wait until it does or the launch ends"
                    )
                self._is_failing = True
                if self._ending.wait(_REST_S):
                    return
            else:
                self._is_failing = False
                self._last_sign = time.monotonic()
                self._waiting.popleft()


def _copy_of(store: Store, sweep: str, trial_id: str) -> Copy | None:
    """The trial as its row in `trials` has it; None while it is not complete, or cannot be read, which others say."""
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
    return Copy(
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
        # Its client repeats requests for minutes by itself; here the next attempt is a minute later anyway.
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
        from mlflow.tracking import MlflowClient

        self._client = MlflowClient()
        self._experiments: dict[str, str] = {}

    def write(self, copy: Copy) -> None:
        """See `Mirror`."""
        from mlflow.entities import Metric, Param, RunTag

        experiment = self._experiment(f"kd_ray/{copy.sweep}")
        found = self._client.search_runs([experiment], f"tags.`kd_ray.trial_id` = '{copy.trial_id}'", max_results=1)
        if found and found[0].info.status == "FINISHED":
            return
        run = found[0] if found else self._client.create_run(experiment, run_name=copy.name)
        now = int(time.time() * 1000)
        history = [
            Metric(f"epoch_{name}", value, now, epoch.epoch)
            for epoch in copy.epochs
            for name, value in _curve(epoch).items()
        ]
        final = [Metric(name, value, now, 0) for name, value in copy.metrics.items()]
        for start in range(0, len(history), 900):  # a request takes a thousand
            self._client.log_batch(run.info.run_id, metrics=history[start : start + 900])
        self._client.log_batch(
            run.info.run_id,
            metrics=final,
            params=[Param(name, value) for name, value in copy.params.items()],
            tags=[RunTag(f"kd_ray.{name}", value) for name, value in copy.tags.items()],
        )
        self._client.set_terminated(run.info.run_id)

    def _experiment(self, name: str) -> str:
        if name not in self._experiments:
            known = self._client.get_experiment_by_name(name)
            self._experiments[name] = known.experiment_id if known else self._client.create_experiment(name)
        return self._experiments[name]


class WandbMirror:
    """A run per trial, grouped by sweep, in the project `WANDB_PROJECT` (default `kd_ray`); `WANDB_MODE=offline` writes to disk only."""

    def write(self, copy: Copy) -> None:
        """See `Mirror`."""
        import wandb

        run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "kd_ray"),
            group=copy.sweep,
            id=copy.trial_id,  # the same run, however often it is written
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


def _curve(epoch: Epoch) -> dict[str, float]:
    """What of an epoch is drawn as a curve."""
    curve = {"loss": epoch.loss, "train_accuracy": epoch.train_accuracy, "lr": epoch.lr}
    return curve if epoch.validation_accuracy is None else {**curve, "validation_accuracy": epoch.validation_accuracy}


MIRRORS: dict[str, Callable[[], Mirror]] = {"mlflow": MlflowMirror, "wandb": WandbMirror}
"""Clients by the name of their service."""
