"""The main verb: bring the store to the state that a sweep asks for.

    check everything ──▶ prepare data ──▶ manifest ──▶ run what is missing ──▶ fold tables ──▶ report

Launching the same sweep again does whatever is still missing, and nothing when nothing is.
"""

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from kd_ray import telemetry
from kd_ray.cluster.display import Display, QuietDisplay
from kd_ray.cluster.following import BackgroundFold, Observers, Warnings
from kd_ray.cluster.given import fetch_pretrained_files, given_weights
from kd_ray.cluster.mirrors import MIRRORS, Mirroring, check_mirrors
from kd_ray.cluster.queue import PackQueue
from kd_ray.cluster.runner import Interrupts, Job, Runner, cpu_count, probe_students
from kd_ray.cluster.telling import LogDisplay, Metered
from kd_ray.data.load import load_dataset
from kd_ray.distill.stored_samples import samples_of
from kd_ray.errors import CorruptObjectError, DataError, InvalidInputError, StoreError, SweepError, TrialError
from kd_ray.results import ledger
from kd_ray.results.manifest import read_manifest, write_manifest
from kd_ray.results.probe import UNMEASURED, chosen_pack_size, read_probe, representative, write_probe
from kd_ray.results.record import write_samples
from kd_ray.results.repair import set_aside_trial, set_aside_trials, trial_damage
from kd_ray.results.status import Plan, TrialView, count_states, plan, planned_views
from kd_ray.results.store import Store, given_weights_key, sweep_key
from kd_ray.results.tables import FoldReport, fold
from kd_ray.sweep.architectures import library_of
from kd_ray.sweep.axes import axis_path
from kd_ray.sweep.datasets import input_size, table_name
from kd_ray.sweep.initial import FIELDS as WEIGHT_FIELDS
from kd_ray.sweep.initial import named_values
from kd_ray.sweep.load import SweepFile, parse_sweep
from kd_ray.sweep.networks import INIT_WORDS
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.plan import PlannedTrial, is_file, make_packs
from kd_ray.sweep.spec import TrialState
from kd_ray.telemetry import LogFormat

POLL_S = 2.0
"""How often trials held by another launch are looked at."""
_MAX_ROUNDS = 5
"""How often a launch begins again because of damaged objects, or because nothing came of what it ran."""


@dataclass(frozen=True, kw_only=True)
class LaunchReport:
    """How a launch ended."""

    sweep: str
    store: str
    trials: tuple[TrialView, ...]
    """The trials that were asked for, as the store says at the end."""
    seeds: tuple[int, ...]
    """The sweep's seeds."""
    has_settings: bool
    """Whether the grid has axes that have no column of their own."""
    is_selection: bool
    """Whether only some of the sweep's trials were asked for."""
    num_trained: int
    """Trials that became complete during this launch."""
    elapsed_s: float
    interrupted: bool
    problems: tuple[str, ...]
    """Records that the tables lack because they cannot be read."""
    warnings: tuple[str, ...]
    """What went wrong on the way without stopping anything."""

    def counts(self) -> dict[str, int]:
        """Trials by state."""
        return count_states(self.trials)

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
    runner: Literal["ray", "local"] | Runner = "ray",
    address: str | None = None,
    retry_failed: bool = False,
    only: str | None = None,
    display: Display | None = None,
    verbose: bool = False,
    weights: Mapping[str, str] | None = None,
    log_format: LogFormat = "text",
    mirrors: Collection[str] = (),
) -> LaunchReport:
    """Run every trial of a sweep that is not complete, then bring its tables up to date.

    `only` is a trial_id, or the beginning of one: that trial and the teacher it needs. `weights` are known digests of given weights.

    Raises:
        InvalidInputError: the sweep, its data, its weights or `only` cannot be used; nothing has been written then.
        StoreError: the store cannot be read or written.
    """
    started = time.monotonic()
    check_mirrors(mirrors)
    telemetry.log_as(log_format)
    telemetry.work_on(sweep=file.sweep.name, trial_ids=())
    display = Metered(display or (LogDisplay() if log_format == "json" else QuietDisplay()))
    file = _with_absolute_paths(file)
    fetch_pretrained_files(file, weights)
    interrupts = Interrupts()
    warnings = Warnings(display)
    done_before: set[str] | None = None
    with ExitStack() as stack:
        engine: Runner | None = None
        for _ in range(_MAX_ROUNDS):
            is_first = done_before is None
            now = plan(file, store, retry_failed=retry_failed and is_first, weights=weights)
            planned = _select(now.planned, only)
            todo = _todo(now, planned, retry_failed=retry_failed and is_first)
            given = given_weights(file, store, now, warnings)
            if todo and engine is None:
                chosen = _runner(runner, file.sweep.placement, address, verbose=verbose)
                _check_library_models(file, todo)
                # Before any cluster is touched.
                if address is None:
                    _prepare_data(todo, file.sweep.placement, display, warnings)
                engine = stack.enter_context(chosen)
                stack.enter_context(display)
            # After the engine, which may put handlers of its own in the place of ours.
            with interrupts.watch():
                # Everything has been checked and the machines are there; from here on the store is written.
                _write_inputs(file, store, now, given)
                if done_before is None:
                    done_before = {view.trial_id for view in now.trials if view.state == TrialState.COMPLETE}
                    if retry_failed:
                        _clear_errors(store, now, planned)
                    display.begin(now, todo)
                del now  # as large as the sweep, and out of date from here on
                if todo and engine is not None:
                    pack_size = _pack_size(file, store, todo, engine, warnings)
                    _run(file, store, planned, engine, display, interrupts, warnings, pack_size, log_format, mirrors)
                report = fold(store, file.sweep.name)
                if interrupts.requested() or not _repair(file, store, planned, report, warnings):
                    break
        after = planned_views(store, planned)
    assert done_before is not None
    return LaunchReport(
        sweep=file.sweep.name,
        store=store.url,
        trials=after,
        seeds=tuple(file.axes["seed"]),
        has_settings=any(trial.settings for trial in planned),
        is_selection=only is not None,
        num_trained=sum(trial.state == TrialState.COMPLETE and trial.trial_id not in done_before for trial in after),
        elapsed_s=time.monotonic() - started,
        interrupted=interrupts.requested(),
        problems=report.problems,
        warnings=tuple(warnings.said),
    )


def _write_inputs(file: SweepFile, store: Store, now: Plan, given: Mapping[str, str]) -> None:
    """Given weights and the manifest, where the store does not have them already."""
    for path, digest in given.items():
        if is_file(path) and not store.exists(given_weights_key(digest)):
            store.put(given_weights_key(digest), Path(path).expanduser().read_bytes())
    write_manifest(store, file.sweep, now.planned, sweep_yaml=file.to_yaml(), weights=given)


def _clear_errors(store: Store, now: Plan, planned: Collection[PlannedTrial]) -> None:
    asked = {trial.trial_id for trial in planned}
    for view in now.trials:
        if view.state == TrialState.FAILED and view.trial_id in asked:
            ledger.clear_error(store, view.trial_id)


def _repair(
    file: SweepFile,
    store: Store,
    planned: Collection[PlannedTrial],
    report: FoldReport,
    warnings: Warnings,
) -> bool:
    """Set damaged records aside, so that their trials run again, and write damaged samples anew; says whether anything was done."""
    done = False
    launch_id = ledger.new_launch_id()
    for trial_id, problem in zip(report.damaged_trials, report.problems, strict=False):
        if set_aside_trial(store, trial_id, launch_id=launch_id):
            warnings.add(f"{problem}; it is set aside, and the trial is trained again")
            done = True
        elif trial_damage(store, trial_id) is None:
            # Another launch was quicker; this one sees the trial through all the same.
            done = True
    datasets = {trial.spec.dataset_id: trial.spec.dataset for trial in planned}
    for dataset_id in report.damaged_samples:
        if dataset := datasets.get(dataset_id):
            data = load_dataset(
                dataset,
                Path(file.sweep.placement.data_root),
                processes=cpu_count(),
                resident_bytes=file.sweep.placement.resident_bytes,
            )
            write_samples(store, dataset_id, samples_of(dataset, data))
            warnings.add(f"the samples of data set {dataset_id} were missing or damaged; they are written again")
            done = True
    return done


def resume_file(store: Store, sweep: str, overrides: Sequence[str] = ()) -> tuple[SweepFile, dict[str, str]]:
    """The sweep file that a sweep in the store was launched with, and the digests of its given weights.

    `overrides` are applied to it, as `load_sweep` takes them.

    Raises:
        InvalidInputError: the store has no such sweep.
    """
    where = f"sweep {sweep} in {store.url}"
    try:
        manifest = read_manifest(store, sweep)
    except CorruptObjectError:
        # The sweep file beside the manifests is as good; only the digests of given weights have to be taken again.
        if (text := store.get(sweep_key(sweep))) is None:
            raise
        return parse_sweep(text.decode(errors="replace"), source=where, overrides=overrides), {}
    return parse_sweep(manifest.sweep_yaml, source=where, overrides=overrides), dict(manifest.weights)


def _select(planned: tuple[PlannedTrial, ...], only: str | None) -> tuple[PlannedTrial, ...]:
    """The trials that `only` asks for: itself, and its teacher."""
    if only is None:
        return planned
    chosen = [trial for trial in planned if trial.trial_id.startswith(only)]
    if len(chosen) != 1:
        what = "no trial of this sweep begins" if not chosen else f"{len(chosen)} trials of this sweep begin"
        raise InvalidInputError(f"--only {only}: {what} with it; `kd-ray plan` lists the trial ids")
    teacher = chosen[0].spec.teacher
    return tuple(trial for trial in planned if trial is chosen[0] or (teacher and trial.trial_id == teacher.trial_id))


def _todo(before: Plan, planned: Collection[PlannedTrial], *, retry_failed: bool) -> tuple[PlannedTrial, ...]:
    """The trials that this launch has to see through: what is not settled, also what another launch holds now."""
    open_ = {view.trial_id for view in before.trials if not view.is_settled}
    if retry_failed:
        open_ |= {view.trial_id for view in before.trials if view.state == TrialState.FAILED}
    return tuple(trial for trial in planned if trial.trial_id in open_)


def _with_absolute_paths(file: SweepFile) -> SweepFile:
    """The same sweep with paths that mean the same from every folder, as the manifest keeps them."""
    raw: dict[str, Any] = {**file.raw, "placement": dict(file.raw.get("placement") or {})}
    root = str(Path(file.sweep.placement.data_root).expanduser().resolve())
    raw["placement"]["data_root"] = root

    def absolute(value: Any) -> Any:
        return value if value in INIT_WORDS or not isinstance(value, str) else str(Path(value).expanduser().resolve())

    for field, (value, *_) in named_values(file.raw):
        section, name = field.split(".")
        if name in (raw.get(section) or {}):
            raw[section] = {**raw[section], name: absolute(value)}
    raw["grid"] = {
        axis: [absolute(value) for value in values] if axis_path(axis) in WEIGHT_FIELDS else values
        for axis, values in raw["grid"].items()
    }
    return replace(file, raw=raw, sweep=parse_sweep(replace(file, raw=raw).to_yaml(), source=file.source).sweep)


def _check_library_models(file: SweepFile, todo: Collection[PlannedTrial]) -> None:
    """Build each network of another library once: only the library knows whether it can.

    Raises:
        SweepError: it cannot, or the network is of no use for the data set.
    """
    _check_text_models(file, todo)
    specs = [trial.spec for trial in todo if library_of(trial.spec.model) and trial.spec.dataset.modality == "images"]
    wanted = {
        (spec.model, spec.dataset.num_classes, input_size(spec.dataset), spec.training is not None) for spec in specs
    }
    if not wanted:
        return
    from kd_ray.models.libraries import check_model

    for model, num_classes, image_size, trains in sorted(wanted):
        try:
            check_model(model, num_classes=num_classes, image_size=image_size, trains=trains)
        except ValueError as error:
            raise SweepError(f"{file.source}: {error}") from error


def _check_text_models(file: SweepFile, todo: Collection[PlannedTrial]) -> None:
    """The same for networks of texts, which begin from a folder."""
    wanted = {(spec.model, spec.encoder, spec.dataset.num_classes) for trial in todo if (spec := trial.spec).encoder}
    if not wanted:
        return
    from kd_ray.models.text_classifier import text_classifier

    for model, encoder, num_classes in sorted(wanted, key=str):
        assert encoder is not None
        try:
            text_classifier(model, encoder, num_classes, Path(file.sweep.placement.data_root))
        except (ValueError, DataError) as error:
            raise SweepError(f"{file.source}: {error}") from error


def _prepare_data(todo: Collection[PlannedTrial], placement: Placement, display: Display, warnings: Warnings) -> None:
    """Load every data set once before anything is written: what is wrong with it shows now, and generated ones are in the cache."""
    for dataset in {trial.spec.dataset_id: trial.spec.dataset for trial in todo}.values():
        data = load_dataset(
            dataset,
            Path(placement.data_root),
            processes=cpu_count(),
            on_progress=display.preparing(table_name(dataset)),
            resident_bytes=placement.resident_bytes,
        )
        for note in data.notes:
            warnings.add(f"{table_name(dataset)}: {note}")


def _runner(
    name: Literal["ray", "local"] | Runner, placement: Placement, address: str | None, *, verbose: bool
) -> Runner:
    if not isinstance(name, str):
        return name
    if name == "local":
        if address is not None:
            raise InvalidInputError(f"--address {address} has no effect with --runner local")
        from kd_ray.cluster.local import LocalRunner

        return LocalRunner()
    from kd_ray.cluster.ray_tune.runner import RayRunner

    return RayRunner(placement=placement, address=address, verbose=verbose)


def measure(file: SweepFile, store: Store) -> None:
    """Measure students side by side on this machine, and keep it in the store for `plan` and for launches with `pack_size: auto`.

    Raises:
        TrialError: none can be trained here.
    """
    placement = file.sweep.placement
    student = representative(plan(file, None).planned)
    if student is not None:
        sharers = max(1, cpu_count() // placement.cpus_per_pack)
        write_probe(store, student, placement, probe_students(student, placement, sharers))


def _pack_size(
    file: SweepFile, store: Store, todo: Collection[PlannedTrial], runner: Runner, warnings: Warnings
) -> int:
    """As the sweep says; with `auto`, after a measurement on a worker, which is made once per store."""
    placement, student = file.sweep.placement, representative(todo)
    probe = None
    if placement.pack_size == "auto" and student is not None and len(todo) > 1:
        probe = read_probe(store, student, placement)
        if probe is None:
            try:
                probe = runner.probe(student, placement)
            except TrialError as error:
                warnings.add(f"placement.pack_size: auto cannot be measured: {error}; packs have {UNMEASURED} students")
            else:
                write_probe(store, student, placement, probe)
    return chosen_pack_size(placement, probe, todo, done=(), slots=runner.slots())


def _run(
    file: SweepFile,
    store: Store,
    planned: tuple[PlannedTrial, ...],
    runner: Runner,
    display: Display,
    interrupts: Interrupts,
    warnings: Warnings,
    pack_size: int,
    log_format: LogFormat,
    mirrors: Collection[str],
) -> None:
    """Run until nothing is left that this launch could do; trials held by another launch are waited for.

    Raises:
        StoreError: the store cannot be used, or workers say that they committed trials that it does not show.
    """
    placement = file.sweep.placement
    job = Job(
        store=store,
        placement=placement,
        launch_id=ledger.new_launch_id(),
        sweep=file.sweep.name,
        log_format=log_format,
    )
    waiter = threading.Event()
    reported: set[str] = set()
    fruitless = 0
    chosen = {name: MIRRORS[name] for name in mirrors}
    with (
        BackgroundFold(store, file.sweep.name, warnings) as folder,
        Mirroring(chosen, store, file.sweep.name, warnings.add) as mirroring,
    ):
        observer = Observers(display, folder, warnings, mirroring)
        while not interrupts.requested():
            states = ledger.scan(store, [trial.trial_id for trial in planned])
            by_state = {state: {trial_id for trial_id, s in states.items() if s.state is state} for state in TrialState}
            done, held, failed = (
                by_state[state] for state in (TrialState.COMPLETE, TrialState.RUNNING, TrialState.FAILED)
            )
            if lost := reported - done - (set_aside_trials(store) if reported - done else set()):
                raise StoreError(
                    f"store {store.url}: workers have committed {len(lost)} trials that are not here; every node must see the same store, "
                    "so on several machines it has to be a shared folder or an object store"
                )
            blocked = {
                trial.trial_id for trial in planned if trial.spec.teacher and trial.spec.teacher.trial_id in failed
            }
            packs = make_packs(planned, pack_size=pack_size, done=done | held | failed | blocked)
            queue = PackQueue.of(packs, done, placement.max_retries)
            if not queue.is_exhausted() and fruitless < _MAX_ROUNDS:
                runner.run(queue, job, observer, interrupts)
                reported |= queue.done
                fruitless = 0 if queue.done - done or queue.given_up else fruitless + 1
            elif held:
                display.waiting(len(held))
                waiter.wait(POLL_S)
            else:
                return
