"""The main verb: bring the store to the state that a sweep asks for.

    check everything ──▶ prepare data ──▶ manifest ──▶ run what is missing ──▶ fold tables ──▶ report

Launching the same sweep again does whatever is still missing, and nothing when nothing is.
"""

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kd_ray.cluster.display import Display, QuietDisplay
from kd_ray.cluster.queue import PackQueue
from kd_ray.cluster.runner import Interrupts, Job, Observer, Runner, cpu_count
from kd_ray.data.load import load_dataset
from kd_ray.distill.pack import PackProgress
from kd_ray.errors import InvalidInputError, KdRayError
from kd_ray.results import ledger
from kd_ray.results.manifest import Manifest, read_manifest, write_manifest
from kd_ray.results.status import Plan, TrialView, file_digest, plan, sweep_status
from kd_ray.results.store import Store, given_weights_key
from kd_ray.results.tables import FoldReport, fold
from kd_ray.sweep.load import SweepFile, axis_path, parse_sweep
from kd_ray.sweep.plan import Pack, PlannedTrial, make_packs
from kd_ray.sweep.spec import TrialState

logger = logging.getLogger("kd_ray")

FOLD_EVERY_S = 15.0
"""Least time between two folds while a sweep runs."""
POLL_S = 2.0
"""How often trials held by another launch are looked at."""


@dataclass(frozen=True, kw_only=True)
class LaunchReport:
    """How a launch ended."""

    sweep: str
    store: str
    trials: tuple[TrialView, ...]
    """Every trial of the sweep, as the store says at the end."""
    num_trained: int
    """Trials that became complete during this launch."""
    elapsed_s: float
    interrupted: bool
    problems: tuple[str, ...]
    """Records that the tables lack because they cannot be read."""

    def counts(self) -> dict[str, int]:
        """Trials by state."""
        return {state.value: sum(trial.state == state.value for trial in self.trials) for state in TrialState}

    @property
    def exit_code(self) -> int:
        """0 everything is complete, 1 some trials failed, 130 interrupted."""
        if self.interrupted:
            return 130
        return 0 if all(trial.state == TrialState.COMPLETE for trial in self.trials) and not self.problems else 1


def launch(
    file: SweepFile,
    store: Store,
    *,
    runner: Literal["ray", "local"] = "ray",
    address: str | None = None,
    retry_failed: bool = False,
    only: str | None = None,
    display: Display | None = None,
    verbose: bool = False,
    weights: Mapping[str, str] | None = None,
) -> LaunchReport:
    """Run every trial of a sweep that is not complete, then bring its tables up to date.

    `only` is a trial_id, or the beginning of one: that trial and the teacher it needs. `weights` are known digests of given weights.

    Raises:
        InvalidInputError: the sweep, its data, its weights or `only` cannot be used; nothing has been written then.
        StoreError: the store cannot be read or written.
    """
    started = time.monotonic()
    display = display or QuietDisplay()
    before = plan(file, store, retry_failed=retry_failed, weights=weights)
    planned = _select(before.planned, only)
    file = _with_absolute_paths(file)
    todo = _todo(before, planned)
    if address is None:
        _prepare_data(todo, Path(file.sweep.placement.data_root), display)
    manifest = write_manifest(
        store, file.sweep, before.planned, sweep_yaml=file.to_yaml(), weights=_store_weights(file, store, weights)
    )
    if retry_failed:
        for view in before.trials:
            if view.state == TrialState.FAILED:
                ledger.clear_error(store, view.trial_id)
    interrupts = Interrupts()
    with interrupts.watch(), display:
        display.begin(before, todo)
        if todo:
            _run(file, store, manifest, planned, _runner(runner, address, verbose), display, interrupts)
        report = fold(store, manifest)
        after = sweep_status(store, file.sweep.name)
    done_before = before.counts()[TrialState.COMPLETE]
    num_trained = sum(trial.state == TrialState.COMPLETE for trial in after.trials) - done_before
    asked = {trial.trial_id for trial in planned}
    return LaunchReport(
        sweep=file.sweep.name,
        store=store.url,
        trials=after.trials if only is None else tuple(trial for trial in after.trials if trial.trial_id in asked),
        num_trained=num_trained,
        elapsed_s=time.monotonic() - started,
        interrupted=interrupts.requested(),
        problems=report.problems,
    )


def resume_file(store: Store, sweep: str, overrides: Sequence[str] = ()) -> tuple[SweepFile, dict[str, str]]:
    """The sweep file that a sweep in the store was launched with, and the digests of its given weights.

    `overrides` are applied to it, as `load_sweep` takes them.

    Raises:
        InvalidInputError: the store has no such sweep.
    """
    manifest = read_manifest(store, sweep)
    file = parse_sweep(manifest.sweep_yaml, source=f"sweep {sweep} in {store.url}", overrides=overrides)
    return file, dict(manifest.weights)


def _select(planned: tuple[PlannedTrial, ...], only: str | None) -> tuple[PlannedTrial, ...]:
    """The trials that `only` asks for: itself, and its teacher."""
    if only is None:
        return planned
    chosen = [trial for trial in planned if trial.trial_id.startswith(only)]
    if len(chosen) != 1:
        what = "no trial" if not chosen else f"{len(chosen)} trials"
        raise InvalidInputError(f"--only {only}: {what} of this sweep begin with it; `kd-ray plan` lists the trial ids")
    teacher = chosen[0].spec.teacher
    return tuple(trial for trial in planned if trial is chosen[0] or (teacher and trial.trial_id == teacher.trial_id))


def _todo(before: Plan, planned: Collection[PlannedTrial]) -> tuple[PlannedTrial, ...]:
    scheduled = {trial.trial_id for pack in before.packs for trial in pack.trials}
    return tuple(trial for trial in planned if trial.trial_id in scheduled)


def _with_absolute_paths(file: SweepFile) -> SweepFile:
    """The same sweep with paths that mean the same from every folder, as the manifest keeps them."""
    raw: dict[str, Any] = {**file.raw, "placement": dict(file.raw.get("placement") or {})}
    root = str(Path(file.sweep.placement.data_root).expanduser().resolve())
    raw["placement"]["data_root"] = root
    if "weights" in (raw.get("teacher") or {}):
        raw["teacher"] = {**raw["teacher"], "weights": str(Path(raw["teacher"]["weights"]).expanduser().resolve())}
    raw["grid"] = {
        axis: [str(Path(value).expanduser().resolve()) for value in values]
        if axis_path(axis) == "teacher.weights"
        else values
        for axis, values in raw["grid"].items()
    }
    return replace(file, raw=raw, sweep=parse_sweep(replace(file, raw=raw).to_yaml(), source=file.source).sweep)


def _store_weights(file: SweepFile, store: Store, known: Mapping[str, str] | None) -> dict[str, str]:
    """Put given weights into the store under their digest, where every worker finds them; returns digests by path."""
    teacher = file.raw.get("teacher") or {}
    paths = [teacher["weights"]] if "weights" in teacher else list(file.raw["grid"].get("teacher.weights", ()))
    digests = {}
    for path in paths:
        digests[path] = (known or {}).get(path) or file_digest(path, file.source)
        if not store.exists(given_weights_key(digests[path])):
            store.put(given_weights_key(digests[path]), Path(path).read_bytes())
    return digests


def _prepare_data(todo: Collection[PlannedTrial], root: Path, display: Display) -> None:
    """Load every data set once before anything is written: what is wrong with it shows now, and generated ones are in the cache."""
    for dataset in {trial.spec.dataset_id: trial.spec.dataset for trial in todo}.values():
        load_dataset(dataset, root, processes=cpu_count(), on_progress=display.preparing(dataset.name))


def _runner(name: Literal["ray", "local"], address: str | None, verbose: bool) -> Runner:
    if name == "local":
        if address is not None:
            raise InvalidInputError(f"--address {address} has no effect with --runner local")
        from kd_ray.cluster.local import LocalRunner

        return LocalRunner()
    from kd_ray.cluster.ray_tune import RayRunner

    return RayRunner(address=address, verbose=verbose)


def _run(
    file: SweepFile,
    store: Store,
    manifest: Manifest,
    planned: tuple[PlannedTrial, ...],
    runner: Runner,
    display: Display,
    interrupts: Interrupts,
) -> None:
    """Run until nothing is left that this launch could do; trials held by another launch are waited for."""
    placement = file.sweep.placement
    job = Job(store=store, placement=placement, launch_id=ledger.new_launch_id())
    waiter = threading.Event()
    with _BackgroundFold(store, manifest) as folder:
        observer = _Observers(display, folder)
        while not interrupts.requested():
            states = ledger.scan(store, [trial.trial_id for trial in planned])
            done = {trial_id for trial_id, status in states.items() if status.state is TrialState.COMPLETE}
            held = {trial_id for trial_id, status in states.items() if status.state is TrialState.RUNNING}
            failed = {trial_id for trial_id, status in states.items() if status.state is TrialState.FAILED}
            packs = make_packs(planned, pack_size=placement.pack_size, done=done | held | failed)
            queue = PackQueue.of(packs, done, placement.max_retries)
            if not queue.is_exhausted():
                runner.run(queue, job, observer, interrupts)
            elif held:
                display.waiting(len(held))
                waiter.wait(POLL_S)
            else:
                return


class _BackgroundFold:
    """Folds while the sweep runs, so that a query sees committed trials soon; never in the way of the scheduler."""

    def __init__(self, store: Store, manifest: Manifest) -> None:
        self._fold: Callable[[], FoldReport] = lambda: fold(store, manifest)
        self._due = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._work, name="kd_ray-fold", daemon=True)

    def __enter__(self) -> "_BackgroundFold":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._due.set()
        self._thread.join()

    def request(self) -> None:
        """There are new records."""
        self._due.set()

    def _work(self) -> None:
        while not self._stop.wait(FOLD_EVERY_S):
            self._due.wait()
            self._due.clear()
            if self._stop.is_set():
                return
            try:
                self._fold()
            except KdRayError as error:
                # The fold at the end tries again, and its failure ends the launch.
                logger.warning("cannot bring the tables up to date: %s", error)


class _Observers(Observer):
    """The display, and the fold that follows new records."""

    def __init__(self, display: Display, folder: _BackgroundFold) -> None:
        self._display = display
        self._folder = folder

    def started(self, pack: Pack) -> None:
        self._display.started(pack)

    def progressed(self, progress: PackProgress) -> None:
        self._display.progressed(progress)

    def ended(self, pack: Pack, committed: int, failed: int) -> None:
        self._display.ended(pack, committed, failed)
        if committed:
            self._folder.request()
