"""Hands packs out to Tune, and books how each ended."""

import time
from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import FIFOScheduler
from ray.tune.search import Searcher

from kd_ray import telemetry
from kd_ray.cluster.queue import PackQueue
from kd_ray.cluster.ray_tune.deaths import cause_of, death_of, died_with_its_node, was_told_to_end
from kd_ray.cluster.ray_tune.worker import ENDED, Shelf, progress_of
from kd_ray.cluster.runner import Interrupts, Job, Observer
from kd_ray.errors import KdRayError, StoreError
from kd_ray.results import ledger
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.plan import Pack
from kd_ray.sweep.spec import TrialState

_ROOM_LASTS_S = 5.0


def nodes() -> list[dict[str, float]]:
    """Resources of the nodes that are alive."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]


def slots(placement: Placement) -> int:
    """How many packs fit on the cluster at once."""
    return sum(packs_on(node, placement) for node in nodes())


def packs_on(node: Mapping[str, float], placement: Placement) -> int:
    """How many packs fit on a node with these resources at once."""
    return int(min(node.get(name, 0) / amount for name, amount in request_of(placement).items()))


def request_of(placement: Placement) -> dict[str, float]:
    """What Ray is asked for a pack, by Ray's names; memory in bytes."""
    memory = placement.memory_gb_per_pack * 1e9
    request = {"CPU": float(placement.cpus_per_pack), "GPU": placement.gpus_per_pack, "memory": float(int(memory))}
    return {name: amount for name, amount in (request | placement.resources_per_pack).items() if amount}


class Room:
    """How many packs Tune is given at once: one for each slot of the cluster, no more.

    Tune lets a pack that waits for a new actor take an actor that has just become free, and ends the new one. With packs that take less
    time than an actor's start, no second actor would ever come up if others waited beside them.
    """

    def __init__(self, placement: Placement, *, grows: bool) -> None:
        """On a cluster that `grows`, one pack more waits, as demand for a new node."""
        self._placements = {is_teacher: placement.of(is_teacher=is_teacher) for is_teacher in (False, True)}
        self._extra = int(grows)
        self._slots: dict[bool, int] = {}
        self._seen_at = -_ROOM_LASTS_S

    def for_another(self, packs: Collection[Pack], another: Pack) -> bool:
        """Whether there is room beside these packs: each takes the share of the cluster of one of its slots."""
        if not self._has_room(packs, another) and time.monotonic() - self._seen_at > _ROOM_LASTS_S:
            self._slots = {is_teacher: slots(placement) for is_teacher, placement in self._placements.items()}
            self._seen_at = time.monotonic()
        return self._has_room(packs, another)

    def _has_room(self, packs: Collection[Pack], another: Pack) -> bool:
        if not (most := self._slots.get(another.is_teacher, 0)):
            return len(packs) < self._extra
        taken = sum(Fraction(1, max(1, self._slots[pack.is_teacher])) for pack in packs)
        return taken + Fraction(1 - self._extra, most) <= 1


class _NotKept:
    """Tune pickles what it is given into a state that nobody reads; objects of this process stay out of it."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class Handout(_NotKept, Searcher):
    """Gives Tune the next pack that may start, and books how each ended.

    Tune would wrap an exception raised in here; it is kept instead, ends the experiment, and the runner raises it.
    """

    def __init__(
        self,
        queue: PackQueue,
        job: Job,
        observer: Observer,
        interrupts: Interrupts,
        shelf: Shelf,
        limit: int,
        room: Room,
    ) -> None:
        super().__init__(metric=None, mode=None)
        self.left = limit
        """Packs that may still be handed out."""
        self._queue = queue
        self._shelf = shelf
        self._room = room
        self._store_errors = 0
        self._job = job
        self._observer = observer
        self._interrupts = interrupts
        self.packs: dict[str, Pack] = {}
        """Packs that Tune has, by Tune's id."""
        self.error: KdRayError | None = None

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:  # type: ignore[override]  # FINISHED is a str
        """The next pack, None while there is nothing to start, or the end."""
        if self.error or self._interrupts.requested() or self._queue.is_exhausted() or not self.left:
            return str(Searcher.FINISHED)
        pack = self._queue.take(lambda pack: self._room.for_another(self.packs.values(), pack))
        if pack is None:
            return None
        self.left -= 1
        self.packs[trial_id] = pack
        return self._shelf.order(pack)

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """A pack has ended with its last result."""
        # After an error the callback follows, which knows it.
        if not error:
            self.book(trial_id, result or {}, None)

    def book(self, trial_id: str, result: Mapping[str, Any], death: Exception | None) -> None:
        """A pack has ended, with its last result or with the death of its worker."""
        pack = self.packs.pop(trial_id, None)
        if pack is None:
            return
        try:
            self._book(pack, result, death)
        except KdRayError as problem:
            self.error = problem

    def _book(self, pack: Pack, result: Mapping[str, Any], death: Exception | None) -> None:
        crashed = death is not None or "cause" in result
        cause = cause_of(death, result.get("node_ip")) if death else str(result.get("cause"))
        states: dict[str, ledger.TrialStatus] = {}
        if result.get("done") and not crashed:
            committed, failed = progress_of(result).committed, progress_of(result).failed
        else:
            # The worker died, or was told to stop: what it achieved stands in the store.
            states = ledger.scan_few(self._job.store, [trial.trial_id for trial in pack.trials])
            committed = tuple(trial_id for trial_id, status in states.items() if status.state is TrialState.COMPLETE)
            failed = tuple(trial_id for trial_id, status in states.items() if status.state is TrialState.FAILED)
        self._store_errors = self._store_errors + 1 if result.get("store") else 0
        if self._store_errors > self._job.placement.max_retries:
            # The client has tried for minutes each time: nothing is wrong with the trials, and nothing can be done here.
            raise StoreError(f"{cause.removeprefix('StoreError: ')} ({self._store_errors} packs in a row)")
        is_innocent = death and (was_told_to_end(death) or died_with_its_node(death, result.get("node_ip")))
        at_fault = not (result.get("store") or is_innocent)
        is_too_large = bool(result.get("is_too_large"))
        self._queue.end(
            pack, committed=committed, failed=failed, crashed=crashed, at_fault=at_fault, is_too_large=is_too_large
        )
        if crashed or is_too_large:
            telemetry.record(
                telemetry.PACK_RETRIES, cause=_kind_of(result, death, is_too_large=is_too_large, at_fault=at_fault)
            )
        if crashed:
            self._observer.warn(f"{cause}; what is left of pack {pack.pack_id} goes on from its checkpoints")
        for trial in pack.trials:
            if trial.trial_id in self._queue.given_up and not self._is_held_elsewhere(states.get(trial.trial_id)):
                failed = (*failed, trial.trial_id)
                ledger.write_error(
                    self._job.store,
                    trial.trial_id,
                    cause=f"{cause} ({pack.retries + 1} times)",
                    traceback=str(result.get("traceback", death or "")),
                    host="unknown",
                    launch_id=self._job.launch_id,
                )
        self._observer.ended(pack, len(committed), len(failed))

    def _is_held_elsewhere(self, status: "ledger.TrialStatus | None") -> bool:
        """Whether another launch is at work on a trial."""
        return bool(status and status.lease and status.lease.launch_id != self._job.launch_id)

    def save(self, checkpoint_path: str) -> None:
        """Nothing to keep: the store is the ledger."""

    def save_to_dir(self, checkpoint_dir: str, session_str: str = "default") -> None:
        """Nothing to keep: the store is the ledger."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing was kept: the store is the ledger."""


def _kind_of(result: Mapping[str, Any], death: Exception | None, *, is_too_large: bool, at_fault: bool) -> str:
    """What ended a pack before its time, in a word."""
    if is_too_large:
        return "memory"
    if death:
        return "worker" if at_fault else "node"
    return "store" if result.get("store") else "error"


def _forget_metrics(trial: Any) -> None:
    """Drop Tune's running statistics of a pack that has ended: tens of kilobytes each, kept to the end of the sweep, read by nobody."""
    trial.metric_analysis.clear()
    trial.metric_n_steps.clear()


class InTurn(_NotKept, FIFOScheduler):
    """Packs start in the order in which they are handed out."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Nothing out of turn: a free actor goes to the newest pack, and one that waits for its own actor keeps it (see `Room`)."""


class StopOnInterrupt(_NotKept, tune.Stopper):
    """Ends the experiment when the user asks to stop, or the driver cannot go on."""

    def __init__(self, handout: Handout, interrupts: Interrupts) -> None:
        self._handout = handout
        self._interrupts = interrupts

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Whether this pack ends here."""
        return self.stop_all()

    def stop_all(self) -> bool:
        """Whether all of them do."""
        return self._interrupts.requested() or self._handout.error is not None


class Relay(_NotKept, tune.Callback):
    """Passes what happens on to the observer."""

    def __init__(self, handout: Handout, observer: Observer) -> None:
        self._handout = handout
        self._observer = observer

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A pack has its actor."""
        if pack := self._handout.packs.get(trial.trial_id):
            self._observer.started(pack)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """A pack has ended; `Handout` has booked it."""
        _forget_metrics(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """The worker of a pack is gone."""
        self._handout.book(trial.trial_id, trial.last_result or {}, death_of(trial))
        _forget_metrics(trial)

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """A pack says how far it is."""
        if trial.trial_id in self._handout.packs:
            self._observer.progressed(progress_of(result))
            if result.get(ENDED):
                self._handout.book(trial.trial_id, {**result, "done": True}, None)
