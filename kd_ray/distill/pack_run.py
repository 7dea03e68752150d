"""One pack, from leases to records: the life of the trials that one worker trains side by side.

    lease ──▶ load data and teachers ──▶ restore or start students ──▶ fit ──▶ evaluate ──▶ weights, then record (the commit point)

A failed trial does not end the others. When a pack ends early, every trial still in training writes a checkpoint if possible.
This module does not import torch: a `PackWorker` trains.
"""

import functools
import logging
import platform
import subprocess
import time
import traceback
from collections.abc import Callable, Generator, Iterator
from concurrent import futures
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

from kd_ray import telemetry
from kd_ray.distill.leases import HeldLeases
from kd_ray.distill.worker_protocol import PackProgress, PackTraining, PackWorker, TrialResult
from kd_ray.errors import (
    CorruptObjectError,
    DataError,
    LostTeacherError,
    NonFiniteLossError,
    OutOfMemoryError,
    StoreError,
)
from kd_ray.results import ledger
from kd_ray.results.checkpoints import Checkpoints
from kd_ray.results.ledger import LEASE_TTL_S, Lease
from kd_ray.results.quarantine import quarantine_trial
from kd_ray.results.record import Provenance, Record, commit_record, encode_record, sha256
from kd_ray.results.store import stop_key, weights_key
from kd_ray.sweep.packs import Pack
from kd_ray.sweep.spec import TrialSpec

T = TypeVar("T")

_SHOWN = ("epoch", "epochs", "accuracy", "images_per_s")
"""What a lease tells `kd-ray status` of the progress."""
_WRITERS = 16
"""Trials of a pack whose objects are written at once."""

logger = logging.getLogger("kd_ray")


def run_pack(pack: Pack, worker: PackWorker, *, most: int | None = None) -> Generator[PackProgress, None, None]:
    """Train and commit the trials of a pack, except those that are complete or held by another launch.

    Closing the iterator early stops the pack: its students write checkpoints and their leases are released. A pack of more than `most`
    trials is given back to be halved, before anything is done.

    Raises:
        StoreError: an operation of the store failed. No trial is marked as failed then, and the pack can be started again.
    """
    epochs = pack.until_epoch or pack.trials[0].spec.epochs
    if most is not None and len(pack.trials) > most:
        yield PackProgress(epoch=0, epochs=epochs, done=True, is_too_large=True)
        return
    run = _Run(pack, worker)
    is_too_large = False
    with run.leases, run.writing():
        run.acquire()
        try:
            yield from run.train()
        except OutOfMemoryError as error:
            is_too_large = True
            run.warn(
                f"pack {pack.pack_id} is too large: {error}; its unfinished trials continue in two packs of half its size"
            )
    yield PackProgress(
        epoch=epochs,
        epochs=epochs,
        warning=run.take_warning(),
        done=True,
        committed=(*run.leases.complete, *run.stopped),
        failed=tuple(run.failed),
        is_too_large=is_too_large,
    )


class _Run:
    """One pack in one worker."""

    def __init__(self, pack: Pack, worker: PackWorker) -> None:
        self.failed: list[str] = []
        self.stopped: list[str] = []
        """Trials that have reached the pack's `until_epoch`."""
        self.leases = HeldLeases(worker, self.warn)
        self._pack = pack
        self._worker = worker
        self._store = worker.store
        self._started_at = datetime.now(UTC)
        self._num_trials = 0
        self._checkpoints: dict[str, Checkpoints] = {}
        self._saving: dict[str, Future[None]] = {}
        self._writers = ThreadPoolExecutor(max_workers=_WRITERS, thread_name_prefix="kd_ray-writer")
        """Writes to the store, while other trials are trained or evaluated."""
        self._is_between_steps = False
        self._warning: str | None = None

    def take_warning(self) -> str | None:
        """The last warning, if it has not been taken yet."""
        warning, self._warning = self._warning, None
        return warning

    def warn(self, message: str) -> None:
        """Log an error that does not end the pack, and keep it for the next report."""
        logger.warning("%s", message)
        self._warning = message

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Inside, the pack may write. Writes that a store has not finished at the end are abandoned."""
        try:
            yield
        finally:
            self._writers.shutdown(wait=False, cancel_futures=True)

    def acquire(self) -> None:
        """Acquire the leases of the trials that are free, in the order of the pack."""
        trial_ids = [trial.trial_id for trial in self._pack.trials]
        # Exhausted, so that an error of any of them is raised.
        list(self._writers.map(self.leases.acquire, trial_ids))
        until = self._pack.until_epoch
        for trial_id in list(self.leases.held) if until is not None else ():
            if self._store.exists(stop_key(trial_id, until or 0)):
                self.stopped.append(trial_id)
                self.leases.release(trial_id)

    def train(self) -> Iterator[PackProgress]:
        """Train the trials whose leases are held, commit them, and release their leases."""
        specs = [trial.spec for trial in self._pack.trials if trial.trial_id in self.leases.held]
        self._num_trials = len(specs)
        if not specs:
            return
        try:
            training = self._worker.begin(specs, self._load_state, self._fail)
        except DataError as error:
            for spec in specs:
                self._fail(spec, error)
            return
        self._steps = {trial.spec.trial_id: trial.step() for trial in training.trials}
        placement, saved_at, saved_epoch = self._worker.placement, time.monotonic(), 0
        try:
            for progress in () if self._has_stopped(training) else training.fit():
                self._is_between_steps = True
                for trial in list(training.trials):
                    if trial.spec.trial_id not in self.leases.held:
                        training.drop(trial.spec.trial_id)
                every = placement.checkpoint_every_epochs
                is_due = time.monotonic() - saved_at >= placement.checkpoint_interval_s or (
                    every is not None and progress.end_of_epoch and progress.epoch - saved_epoch >= every
                )
                if is_due and progress.epoch < progress.epochs:
                    self._save(training, wait=False)
                    saved_at, saved_epoch = time.monotonic(), progress.epoch
                self.leases.progress = {name: getattr(progress, name) for name in _SHOWN}
                yield replace(progress, warning=self.take_warning())
                if progress.end_of_epoch and self._has_stopped(training):
                    break
                self._is_between_steps = False
            self._is_between_steps = True
            if self._pack.until_epoch is not None:
                self._save(training, wait=True)
            self._commit_all(training)
        except BaseException:
            # When its driver has died, Ray ends a worker by SystemExit, often within a step. A state within a step is not saved, because
            # weights may be a step ahead of the count; the last checkpoint stays valid.
            # Between two steps all trials are saved, also those that are fully trained and could not be committed.
            if self._is_between_steps:
                self._save(training, wait=True)
            raise

    def _has_stopped(self, training: PackTraining) -> bool:
        """Whether all trials have reached the epoch after which this pack stops."""
        until = self._pack.until_epoch
        return until is not None and all(len(trial.history()) >= until for trial in training.trials)

    def _load_state(self, spec: TrialSpec, decode: Callable[[bytes], T]) -> T | None:
        lease = self.leases.held.get(spec.trial_id)
        # A trial that another worker has taken over meanwhile is dropped before its first checkpoint.
        return self._checkpoints_of(lease).load(decode) if lease else None

    def _checkpoints_of(self, lease: Lease) -> Checkpoints:
        if lease.trial_id not in self._checkpoints:
            self._checkpoints[lease.trial_id] = Checkpoints(self._store, lease)
        return self._checkpoints[lease.trial_id]

    def _save(self, training: PackTraining, *, wait: bool) -> None:
        """Write a checkpoint of every trial that has taken steps since its last one. A checkpoint that cannot be written is a warning.

        With `wait`, all are written on return. Otherwise training waits only while the checkpoint before is still being written, and not
        longer than a lease lasts.
        """
        patience_until = time.monotonic() + LEASE_TTL_S
        for trial in training.trials:
            trial_id, step = trial.spec.trial_id, trial.step()
            lease = self.leases.held.get(trial_id)
            if lease is None or step <= self._steps[trial_id]:
                continue
            if self._is_written(trial_id, patience_until):
                self._saving[trial_id] = self._writers.submit(self._write_state, lease, step, trial.state())
        if wait:
            futures.wait(self._saving.values(), timeout=max(0.0, patience_until - time.monotonic()))

    def _is_written(self, trial_id: str, patience_until: float) -> bool:
        """Whether the last checkpoint of a trial is written. Raises an unexpected error of writing it."""
        before = self._saving.get(trial_id)
        if before is None:
            return True
        if not futures.wait([before], timeout=max(0.0, patience_until - time.monotonic())).done:
            return False
        before.result()
        return True

    def _write_state(self, lease: Lease, step: int, state: bytes) -> None:
        try:
            self._checkpoints_of(lease).save(step, state)
            self._steps[lease.trial_id] = step
        except StoreError as error:
            self.warn(f"no checkpoint of {lease.trial_id} at step {step}: {error}")

    def _commit_all(self, training: PackTraining) -> None:
        """Evaluate trial after trial, and write each while the next is evaluated.

        Raises:
            StoreError: some could not be written; the others are.
        """
        writing = []
        try:
            for trial in training.trials:
                try:
                    result = trial.finish()
                except StoreError:
                    raise
                except Exception as error:  # noqa: BLE001 (named in the store, with its traceback)
                    self._fail(trial.spec, error)
                else:
                    is_stop = self._pack.until_epoch is not None and len(result.epochs) < trial.spec.epochs
                    write = self._write_stop if is_stop else self._commit
                    writing.append(self._writers.submit(write, trial.spec, result))
        finally:
            futures.wait(writing)
        for future in writing:
            future.result()

    def _write_stop(self, spec: TrialSpec, result: TrialResult) -> None:
        """Write how a trial does after the epoch at which this pack stops. Its weights are those of its checkpoint."""
        lease = self.leases.held.get(spec.trial_id)
        if lease is not None and not self.leases.is_lost(spec.trial_id):
            record = self._record(spec, result, lease, weights_sha256="")
            self._store.put_new(stop_key(spec.trial_id, len(result.epochs)), encode_record(record), durable=True)
            self.stopped.append(spec.trial_id)

    def _record(self, spec: TrialSpec, result: TrialResult, lease: Lease, *, weights_sha256: str) -> Record:
        return Record(
            spec=spec,
            epochs=result.epochs,
            test=result.test,
            weights_key=weights_key(spec.trial_id, lease.generation),
            weights_sha256=weights_sha256,
            num_parameters=result.num_parameters,
            provenance=self._provenance(lease, result),
            per_class=result.per_class,
        )

    def _commit(self, spec: TrialSpec, result: TrialResult) -> None:
        """Write the weights of a trial, then its record. Nothing is written for a trial that another worker has taken over."""
        with telemetry.about(spec.trial_id):
            # The heartbeat may drop the lease at any moment from here on.
            lease = self.leases.held.get(spec.trial_id)
            if lease is None or self.leases.is_lost(spec.trial_id):
                return
            key = weights_key(spec.trial_id, lease.generation)
            self._store.put(key, result.weights, durable=True)
            record = self._record(spec, result, lease, weights_sha256=sha256(result.weights))
            if commit_record(self._store, record):
                logger.info("%s is complete after %.1f s of training", spec.describe(), result.elapsed_s)
                # The trial is complete. If an error leaves checkpoints behind, `kd-ray gc` deletes them.
                with suppress(StoreError):
                    if (saving := self._saving.get(spec.trial_id)) is not None:
                        futures.wait([saving])
                    self._checkpoints_of(lease).delete_all()
            else:
                self._store.delete(key)
            self.leases.committed(lease)

    def _provenance(self, lease: Lease, result: TrialResult) -> Provenance:
        images = len(result.epochs) * result.num_train
        return Provenance(
            launch_id=self._worker.launch_id,
            generation=lease.generation,
            restarts=result.restarts,
            retries=self._pack.retries,
            host=platform.node(),
            device=self._worker.device_name,
            threads=self._worker.placement.cpus_per_pack,
            pack_size=self._num_trials,
            started_at=self._started_at,
            finished_at=datetime.now(UTC),
            elapsed_s=result.elapsed_s,
            images_per_s=images / result.elapsed_s if result.elapsed_s else 0.0,
            git_commit=git_commit(),
            versions={**package_versions(), **result.versions},
        )

    def _fail(self, spec: TrialSpec, error: Exception) -> None:
        """Record the failure in the store, and release the trial. A student whose teacher is lost is only released.

        Raises:
            OutOfMemoryError: memory is too small for the trial beside the others of the pack.
            StoreError: the trial is not at fault, the store is.
        """
        lease = self.leases.held.get(spec.trial_id)
        if lease is None or self.leases.is_lost(spec.trial_id):
            # Its new holder records the outcome.
            return
        if isinstance(error, OutOfMemoryError) and len(self.leases.held) > 1:
            raise error
        if isinstance(error, LostTeacherError):
            self.warn(f"{error}; it is trained again")
            # Under a name of its own: this launch may be training the teacher again already.
            quarantine_trial(self._store, error.teacher, launch_id=ledger.new_launch_id())
        elif isinstance(error, StoreError) and not isinstance(error, CorruptObjectError):
            raise error
        else:
            if isinstance(error, NonFiniteLossError):
                # They may hold the weights that led to the error, so that another try starts from the beginning.
                with suppress(StoreError):
                    self._checkpoints_of(lease).delete_all()
            self.failed.append(spec.trial_id)
            with telemetry.about(spec.trial_id):
                logger.error("%s failed: %s: %s", spec.describe(), type(error).__name__, error)
            ledger.write_error(
                self._store,
                spec.trial_id,
                cause=f"{type(error).__name__}: {error}",
                traceback="".join(traceback.format_exception(error)),
                host=platform.node(),
                launch_id=self._worker.launch_id,
            )
        self.leases.release(spec.trial_id)


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions that a result may depend on."""
    found = {"python": platform.python_version()}
    for name in ("kd_ray", "torch", "numpy", "ray", "pyarrow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@functools.cache
def git_commit() -> str | None:
    """Commit of the checkout kd_ray runs from, with `+` when files differ from it; None for an installed package."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        git = functools.partial(subprocess.run, cwd=folder, capture_output=True, text=True, check=True, timeout=10)
        commit = git(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        return commit + ("+" if git(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return None
