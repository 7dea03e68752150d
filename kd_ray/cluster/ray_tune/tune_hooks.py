"""Objects that Ray Tune calls: they give it the next pack, and record in the queue how each pack ended."""

from collections.abc import Mapping
from typing import Any

from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from kd_ray import telemetry
from kd_ray.cluster.interrupts import Interrupts
from kd_ray.cluster.pack_queue import PackQueue
from kd_ray.cluster.ray_tune.capacity import FreeSlots
from kd_ray.cluster.ray_tune.trainable import ENDED
from kd_ray.cluster.ray_tune.trial_chunks import TrialChunks
from kd_ray.cluster.ray_tune.worker_errors import describe, died_with_its_node, error_of, was_told_to_end
from kd_ray.cluster.runner import LaunchContext, Observer
from kd_ray.errors import KdRayError, StoreError, count_of
from kd_ray.results import ledger
from kd_ray.sweep.packs import Pack
from kd_ray.sweep.spec import TrialState


class _NotPickled:
    """Pickles as empty. Tune pickles its hooks into a state that is never read; objects of this process must stay out of it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class PackSearcher(_NotPickled, Searcher):
    """Gives Tune the next pack that may start, and records how each pack ended.

    Tune would wrap an exception that is raised here. It is kept in `error` instead: the experiment ends, and the runner raises it.
    """

    def __init__(
        self,
        queue: PackQueue,
        context: LaunchContext,
        observer: Observer,
        interrupts: Interrupts,
        trial_chunks: TrialChunks,
        limit: int,
        free_slots: FreeSlots,
    ) -> None:
        super().__init__(metric=None, mode=None)
        self.num_left = limit
        """Packs that this experiment may still start."""
        self.packs: dict[str, Pack] = {}
        """Running packs by Tune's id."""
        self.error: KdRayError | None = None
        self._queue = queue
        self._context = context
        self._observer = observer
        self._interrupts = interrupts
        self._trial_chunks = trial_chunks
        self._free_slots = free_slots
        self._num_store_errors = 0
        """Packs in a row that ended because of the store."""

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        """The next pack; None while none can start; FINISHED at the end."""
        if self.error or self._interrupts.requested() or self._queue.is_exhausted() or not self.num_left:
            return str(Searcher.FINISHED)
        pack = self._queue.take(lambda pack: self._free_slots.has_room_for(pack, self.packs.values()))
        if pack is None:
            return None
        self.num_left -= 1
        self.packs[trial_id] = pack
        return self._trial_chunks.order(pack)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A pack has ended with its last result."""
        # After an error Tune also calls `ProgressCallback.on_trial_error`, which has the exception.
        if not error:
            self.record_end(trial_id, result or {}, None)

    def record_end(self, trial_id: str, result: Mapping[str, Any], death: Exception | None) -> None:
        """A pack has ended, with its last result, or by the `death` of its worker."""
        pack = self.packs.pop(trial_id, None)
        if pack is None:
            return
        try:
            self._record_end(pack, result, death)
        except KdRayError as problem:
            self.error = problem

    def _record_end(self, pack: Pack, result: Mapping[str, Any], death: Exception | None) -> None:
        crashed = death is not None or "cause" in result
        node_ip = result.get("node_ip")
        cause = describe(death, node_ip) if death else str(result.get("cause"))
        states: dict[str, ledger.TrialStatus] = {}
        if result.get("done") and not crashed:
            committed, failed = result["progress"].committed, result["progress"].failed
        else:
            # The worker died or was stopped, so there is no last report; the states are read from the store.
            states = ledger.scan_few(self._context.store, [trial.trial_id for trial in pack.trials])
            committed = tuple(trial_id for trial_id, status in states.items() if status.state is TrialState.COMPLETE)
            failed = tuple(trial_id for trial_id, status in states.items() if status.state is TrialState.FAILED)
        self._num_store_errors = self._num_store_errors + 1 if result.get("store") else 0
        if self._num_store_errors > self._context.placement.max_retries:
            # The store's client has repeated its requests for minutes each time. The trials are not at fault.
            raise StoreError(
                f"{cause.removeprefix('StoreError: ')} ({count_of(self._num_store_errors, 'pack')} in a row)"
            )
        is_from_outside = death is not None and (was_told_to_end(death) or died_with_its_node(death, node_ip))
        at_fault = not (result.get("store") or is_from_outside)
        is_too_large = "progress" in result and result["progress"].is_too_large
        self._queue.end(
            pack, committed=committed, failed=failed, crashed=crashed, at_fault=at_fault, is_too_large=is_too_large
        )
        if crashed or is_too_large:
            label = _cause_label(result, death, is_too_large=is_too_large, at_fault=at_fault)
            telemetry.record(telemetry.PACK_RETRIES, cause=label)
        if crashed:
            self._observer.warn(
                f"{cause}; the unfinished trials of pack {pack.pack_id} continue from their checkpoints"
            )
        for trial in pack.trials:
            if trial.trial_id in self._queue.given_up and not self._is_held_elsewhere(states.get(trial.trial_id)):
                failed = (*failed, trial.trial_id)
                ledger.write_error(
                    self._context.store,
                    trial.trial_id,
                    cause=f"{cause} ({pack.retries + 1} times)",
                    traceback=str(result.get("traceback", death or "")),
                    host="unknown",
                    launch_id=self._context.launch_id,
                )
        self._observer.ended(pack, len(committed), len(failed))

    def _is_held_elsewhere(self, status: ledger.TrialStatus | None) -> bool:
        """Whether another launch holds the lease of a trial."""
        return bool(status and status.lease and status.lease.launch_id != self._context.launch_id)

    def save(self, checkpoint_path: str) -> None:
        """Saves nothing: the store is the ledger."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Saves nothing: the store is the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Restores nothing: the store is the ledger."""


def _cause_label(result: Mapping[str, Any], death: Exception | None, *, is_too_large: bool, at_fault: bool) -> str:
    """The cause of a pack's early end, as a label of the metric `PACK_RETRIES`."""
    if is_too_large:
        return "memory"
    if death:
        return "worker" if at_fault else "node"
    return "store" if result.get("store") else "error"


class InOrderScheduler(_NotPickled, FIFOScheduler):
    """Packs start in the order in which `PackSearcher` gives them."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """None: Tune starts the newest pack when an actor is free, and a pack that waits for its own actor keeps it (see `FreeSlots`)."""


class StopOnInterrupt(_NotPickled, tune.Stopper):
    """Ends the experiment after an interrupt, or after an error of the driver."""

    def __init__(self, searcher: PackSearcher, interrupts: Interrupts) -> None:
        self._searcher = searcher
        self._interrupts = interrupts

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this pack ends now."""
        return self.stop_all()

    def stop_all(self) -> bool:
        """Whether all packs end now."""
        return self._interrupts.requested() or self._searcher.error is not None


class ProgressCallback(_NotPickled, tune.Callback):
    """Reports Tune's events to the observer."""

    def __init__(self, searcher: PackSearcher, observer: Observer) -> None:
        self._searcher = searcher
        self._observer = observer

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A pack has got its actor."""
        if pack := self._searcher.packs.get(trial.trial_id):
            self._observer.started(pack)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A pack reports its progress."""
        if pack := self._searcher.packs.get(trial.trial_id):
            self._observer.progressed(pack, result["progress"])
            if result.get(ENDED):
                self._searcher.record_end(trial.trial_id, {**result, "done": True}, None)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A pack has ended; `PackSearcher` has recorded it."""
        _drop_statistics(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker of a pack has died."""
        self._searcher.record_end(trial.trial_id, trial.last_result or {}, error_of(trial))
        _drop_statistics(trial)


def _drop_statistics(trial: Any) -> None:
    """Drop Tune's running statistics of an ended pack. They take tens of kilobytes, are kept to the end and are never read."""
    trial.metric_analysis.clear()
    trial.metric_n_steps.clear()
