"""First step of a launch: find every problem of a sweep before anything is written and before a cluster is contacted."""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from kd_ray.cluster.launch_request import LaunchRequest, RequestedTrials
from kd_ray.cluster.pretrained import check_given_logits, check_pretrained_weights
from kd_ray.cluster.shared_data.find_sets import has_text_networks
from kd_ray.cluster.shared_data.set_files import wanted_sets
from kd_ray.data.describe import small_joint_groups
from kd_ray.data.families import load_dataset
from kd_ray.data.leaks import find_leaks
from kd_ray.data.modalities import Data
from kd_ray.errors import DataError, InvalidInputError, SweepError
from kd_ray.results.launch_plan import Plan, plan
from kd_ray.sweep.architectures import library_of, own_network
from kd_ray.sweep.axes import axis_path
from kd_ray.sweep.claim_checks import check_classes
from kd_ray.sweep.datasets import Dataset, input_size, table_name
from kd_ray.sweep.initial import FIELDS as WEIGHT_FIELDS
from kd_ray.sweep.initial import is_path, named_values
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.placement import cpu_count
from kd_ray.sweep.plan import PlannedTrial
from kd_ray.sweep.spec import TrialState


def with_absolute_paths(file: SweepFile) -> SweepFile:
    """The same sweep with absolute paths, so that the manifest means the same in every folder."""
    raw: dict[str, Any] = {**file.raw, "placement": dict(file.raw.get("placement") or {})}
    raw["placement"]["data_root"] = str(Path(file.sweep.placement.data_root).expanduser().resolve())
    if (url := file.sweep.placement.data_url) is not None and "://" not in url:
        raw["placement"]["data_url"] = str(Path(url).expanduser().resolve())

    def absolute(value: Any) -> Any:
        return str(Path(value).expanduser().resolve()) if is_path(value) else value

    for field, (value, *_) in named_values(file.raw):
        section, name = field.split(".")
        if name in (raw.get(section) or {}):
            raw[section] = {**raw[section], name: absolute(value)}
    raw["grid"] = {
        axis: [absolute(value) for value in values] if axis_path(axis) in WEIGHT_FIELDS else values
        for axis, values in raw["grid"].items()
    }
    moved = replace(file, raw=raw)
    first_cell = {axis: values[0] for axis, values in raw["grid"].items()}
    return replace(moved, sweep=moved.cell(first_cell))


def warn_of_unused_settings(request: LaunchRequest) -> None:
    """Warn of a `placement.data_url` that nothing is fetched from."""
    if request.file.sweep.placement.data_url is not None and not wanted_sets(request.file):
        request.warnings.add("placement.data_url has no effect: the data are drawn, or a function makes them")


def check(request: LaunchRequest, *, retry_failed: bool) -> tuple[Plan, RequestedTrials]:
    """Plan the sweep against the store, select the trials to run, and check the pretrained weights.

    Raises:
        InvalidInputError: the sweep, its weights or `only` cannot be used.
    """
    file = request.local_file if has_text_networks(request.file) else request.file
    now = plan(file, request.store, retry_failed=retry_failed, weights=request.weights)
    trials = _selected(now.planned, request.only)
    check_pretrained_weights(request, now)
    states = {view.trial_id: view.state for view in now.trials}
    open_ids = {view.trial_id for view in now.trials if not view.is_settled}
    if retry_failed:
        open_ids |= {trial_id for trial_id, state in states.items() if state == TrialState.FAILED}
    requested = RequestedTrials(
        trials=trials,
        to_run=tuple(trial for trial in trials if trial.trial_id in open_ids),
        complete=frozenset(trial.trial_id for trial in trials if states[trial.trial_id] == TrialState.COMPLETE),
        retries_failed=retry_failed,
    )
    return now, requested


def _selected(planned: tuple[PlannedTrial, ...], only: str | None) -> tuple[PlannedTrial, ...]:
    """The trial whose id begins with `only`, and its teacher; all trials without `only`."""
    if only is None:
        return planned
    found = [trial for trial in planned if trial.trial_id.startswith(only)]
    if len(found) != 1:
        what = "no trial of this sweep begins" if not found else f"{len(found)} trials of this sweep begin"
        raise InvalidInputError(f"--only {only}: {what} with it; `kd-ray plan` lists the trial ids")
    teacher = found[0].spec.teacher
    return tuple(trial for trial in planned if trial is found[0] or (teacher and trial.trial_id == teacher.trial_id))


def check_networks(request: LaunchRequest, trials: Collection[PlannedTrial]) -> None:
    """Build each network of a library, of the user's own for images, and of texts once: only its code knows whether it can.

    Raises:
        SweepError: a network cannot be built, or cannot be used for the data set.
    """
    # `check_model` and `text_classifier` import torch, so the driver calls them only for such networks.
    specs = {trial.trial_id: trial.spec for trial in trials}.values()
    images = {
        (spec.model, spec.dataset.num_classes, input_size(spec.dataset), spec.training is not None)
        for spec in specs
        if (library_of(spec.model) or own_network(spec.model)) and spec.dataset.modality == "images"
    }
    texts = {(spec.model, spec.encoder, spec.dataset.num_classes) for spec in specs if spec.encoder}
    try:
        for model, num_classes, image_size, trains in sorted(images):
            from kd_ray.models.libraries import check_model

            check_model(model, num_classes=num_classes, image_size=image_size, trains=trains)
        for model, encoder, num_classes in sorted(texts, key=str):
            from kd_ray.models.text_classifier import text_classifier

            assert encoder is not None
            text_classifier(model, encoder, num_classes, Path(request.local_file.sweep.placement.data_root))
    except (ValueError, DataError) as error:
        raise SweepError(f"{request.file.source}: {error}") from error


def check_data(request: LaunchRequest, trials: Collection[PlannedTrial]) -> None:
    """Load the data set of each of these trials once. Generated data sets are in the cache afterwards.

    Raises:
        DataError: a data set cannot be loaded.
        SweepError: a claim names a class that the data do not have.
    """
    placement = request.local_file.sweep.placement
    class_names: list[str] = []
    for dataset in {trial.spec.dataset_id: trial.spec.dataset for trial in trials}.values():
        data = load_dataset(
            dataset,
            Path(placement.data_root),
            processes=cpu_count(),
            on_progress=request.display.preparing(table_name(dataset)),
            resident_bytes=placement.resident_bytes,
        )
        class_names += data.class_names
        check_given_logits(request, dataset, data)
        leaks = [leak.sentence(data.modality) for leak in find_leaks(_to_compare(dataset, data), with_near=False)]
        joint = small_joint_groups(data.test, request.file.sweep.intersections, dataset.least_joint_group)
        for note in (*data.notes, *joint, *(["; ".join(leaks)] if leaks else [])):
            request.warnings.add(f"{table_name(dataset)}: {note}")
    if not any(axis.startswith("dataset.") for axis in request.file.axes):
        # With several data sets, this launch may have seen only some of their classes.
        check_classes(request.file.sweep, class_names, source=request.file.source)


def _to_compare(dataset: Dataset, data: Data) -> Data:
    """The splits in which the same samples may not stand: where trials are evaluated on the validation split, it is there twice."""
    return replace(data, validation=None) if dataset.evaluated_on == "validation" else data
