"""From a sweep to its trials: `expand` is the grid made explicit. `packs.py` groups them."""

import functools
import itertools
import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from kd_ray.errors import SweepError
from kd_ray.sweep.architectures import is_text_model
from kd_ray.sweep.axes import AXIS_PATHS, OBJECTIVE_PATH, ObjectiveEntry, axis_path
from kd_ray.sweep.claims import Claim
from kd_ray.sweep.config import Sweep
from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.distillation import Distillation
from kd_ray.sweep.encoders import TOKENIZER_OF
from kd_ray.sweep.initial import initial_files
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.networks import LogitsTeacher, PretrainedTeacher, StudentSettings, TrainedTeacher
from kd_ray.sweep.parts import Evaluation
from kd_ray.sweep.spec import Encoder, Role, TeacherRef, TrialSpec, dataset_id_of, identity_of
from kd_ray.sweep.training import StepSchedule, Training

WeightsDigest = Callable[[str], str]
"""Path of weights or logits → their SHA-256 in hex; `hf:NAME` → the version of its folder, `tokenizer of hf:NAME` → of its tokenizer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PlannedTrial:
    """A trial of this sweep."""

    spec: TrialSpec
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Values of the grid axes other than those every table row carries (temperature, alpha, t_squared, objective, seed)."""
    regrouped: Dataset | None = None
    """The data set as the sweep asks for it, where the trial is in the store with other groups of test samples."""
    trial_id: str = field(init=False)
    """The spec's identity. Kept here, because a spec with a cached identity takes twice the memory, and a driver holds many specs."""
    description: str = field(init=False)
    """One short line for people, with the values of the other axes."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "trial_id", identity_of(self.spec))
        words = [self.spec.describe(), *(f"{axis}={value}" for axis, value in settings_json(self.settings).items())]
        object.__setattr__(self, "description", " ".join(words))

    @property
    def dataset(self) -> Dataset:
        """The data set as the sweep asks for it."""
        return self.regrouped or self.spec.dataset

    @property
    def dataset_id(self) -> str:
        """16 hex digits that stand for it."""
        return dataset_id_of(self.dataset)

    def is_chosen_by(self, claim: Claim) -> bool:
        """Whether the claim is about this trial, a distilled one."""
        spec = self.spec
        return spec.role is Role.DISTILLED and claim.chooses(
            temperature=spec.temperature,
            alpha=spec.alpha,
            t_squared=spec.t_squared,
            objective=spec.objective,
            settings=settings_json(self.settings),
        )


def expand(file: SweepFile, weights_digest: WeightsDigest, *, groups_in_id: bool = False) -> tuple[PlannedTrial, ...]:
    """All trials of a sweep, each once: teachers first, then scratch students, then distilled ones, in the order of the grid.

    With `groups_in_id` they have the identities of kd_ray 0.1, in which settings count that only group test samples.

    Raises:
        OSError: pretrained weights cannot be read (through `weights_digest`).
        SweepError: a cell of the grid is not valid, or a claim is about no trial.
    """
    # Cells share their initial weights.
    weights_digest = functools.cache(weights_digest)
    axes = {name: values for name, values in file.axes.items() if name != "seed"}
    groups_in_id |= _varies_groups(file)
    found: dict[str, PlannedTrial] = {}
    for values in itertools.product(*axes.values()):
        settings = dict(zip(axes, values, strict=True))
        sweep = _with_tokenizer(file.cell(settings), weights_digest)
        extra: dict[str, Any] = {}
        for name, value in settings.items():
            if axis_path(name) == OBJECTIVE_PATH:
                extra |= {
                    f"distillation.{own}": setting for own, setting in ObjectiveEntry.of(value).parameters.items()
                }
            elif name not in AXIS_PATHS:
                extra[name] = value
        for trial in _cell_trials(sweep, file.axes["seed"], extra, weights_digest, groups_in_id=groups_in_id):
            found.setdefault(trial.trial_id, trial)
    _check_claims(file, found.values())
    order = list(Role)
    return tuple(sorted(found.values(), key=lambda trial: order.index(trial.spec.role)))


def datasets_of(file: SweepFile) -> tuple[Dataset, ...]:
    """The data sets of a sweep, one for each value of the axes that vary them; the other axes have their first value."""
    first = {name: values[0] for name, values in file.axes.items() if name != "seed"}
    varied = {name: values for name, values in file.axes.items() if name.split(".", maxsplit=1)[0] == "dataset"}
    return tuple(
        file.cell({**first, **dict(zip(varied, values, strict=True))}).dataset
        for values in itertools.product(*varied.values())
    )


def _varies_groups(file: SweepFile) -> bool:
    """Whether data sets of the grid differ only in how they group test samples."""
    datasets = set(datasets_of(file))
    return len({dataset.without_grouping() for dataset in datasets}) < len(datasets)


def _check_claims(file: SweepFile, trials: Iterable[PlannedTrial]) -> None:
    """Refuse a condition whose values all exist, but in no trial together."""
    trials = tuple(trials)
    problems = [
        f"{file.source}: claims[{i}].condition: no trial of the sweep has all of it, got {claim.condition}"
        for i, claim in enumerate(file.sweep.claims)
        if not any(trial.is_chosen_by(claim) for trial in trials)
    ]
    if problems:
        raise SweepError("\n".join(problems))


def _cell_trials(
    sweep: Sweep,
    seeds: Iterable[int],
    settings: Mapping[str, Any],
    weights_digest: WeightsDigest,
    *,
    groups_in_id: bool,
) -> Iterable[PlannedTrial]:
    """Teachers, scratch and distilled students of one cell, all seeds."""

    def planned(spec: TrialSpec) -> PlannedTrial:
        relevant = {axis: value for axis, value in settings.items() if _concerns(axis, spec.role, sweep)}
        return PlannedTrial(spec=spec, settings=relevant)

    seeds = tuple(seeds)
    learns = sweep.distillation is not None and sweep.distillation.NEEDS_TEACHER
    logits = weights_digest(sweep.teacher.logits) if learns and isinstance(sweep.teacher, LogitsTeacher) else None
    has_teachers = learns and logits is None
    teachers = _teachers(sweep, seeds, weights_digest, groups_in_id=groups_in_id) if has_teachers else {}
    distinct = {spec.trial_id: spec for specs in teachers.values() for spec in specs}
    refs = {key: TeacherRef(trial_id=key, model=spec.model, seed=spec.seed) for key, spec in distinct.items()}
    for spec in distinct.values():
        yield planned(spec)
    digest = _initial_digest(sweep, "student.init", weights_digest)
    encoder = _encoder(sweep.student, weights_digest)
    fixed: dict[str, Any] = {"digest": digest, "encoder": encoder, "groups_in_id": groups_in_id, "given_logits": logits}
    student = _others_like(functools.partial(_student, sweep, **fixed))
    for seed in seeds:
        if "scratch" in sweep.baselines:
            # With `init: teacher`, a scratch student starts from the weights of its teacher; otherwise it has no teacher.
            start = refs[teachers[seed][0].trial_id] if sweep.student.init == "teacher" else None
            yield planned(student(Role.SCRATCH, seed, teacher=start))
        for teacher in teachers.get(seed, ()):
            yield planned(student(Role.DISTILLED, seed, teacher=refs[teacher.trial_id]))
        if sweep.distillation is not None and not has_teachers:
            yield planned(student(Role.DISTILLED, seed))


def _others_like(first: Callable[..., TrialSpec]) -> Callable[..., TrialSpec]:
    """A function of role, seed and teacher. It makes one spec of a role, whose fields are checked, and copies it for the other seeds."""
    made: dict[Role, TrialSpec] = {}

    def spec(role: Role, seed: int, teacher: TeacherRef | None = None) -> TrialSpec:
        if role not in made:
            made[role] = first(role, seed, teacher=teacher)
        return made[role].changed(seed=seed, teacher=teacher)

    return spec


def _with_tokenizer(sweep: Sweep, digest: WeightsDigest) -> Sweep:
    """The sweep with the version of its tokenizer filled in."""
    tokenizing = sweep.dataset.tokenizing
    if tokenizing is None or tokenizing.version is not None:
        return sweep
    version = digest(f"{TOKENIZER_OF}{tokenizing.tokenizer}")
    filled = sweep.dataset.model_copy(update={"tokenizer_version": version})
    return sweep.model_copy(update={"dataset": filled})


def is_file(name: str) -> bool:
    """Whether what `WeightsDigest` was asked for is a file of weights or logits; the others are networks of texts, and tokenizers."""
    return not is_text_model(name) and not name.startswith(TOKENIZER_OF)


def _encoder(network: StudentSettings | TrainedTeacher | PretrainedTeacher, digest: WeightsDigest) -> Encoder | None:
    if not is_text_model(network.model):
        return None
    # Which words there are was checked with the sweep.
    init: Any = "random" if isinstance(network, PretrainedTeacher) else network.init or "pretrained"
    layers = None if isinstance(network, PretrainedTeacher) else network.layers
    return Encoder(version=digest(network.model), init=init, layers=layers)


def _teachers(
    sweep: Sweep, seeds: tuple[int, ...], weights_digest: WeightsDigest, *, groups_in_id: bool
) -> dict[int, tuple[TrialSpec, ...]]:
    """The teachers each student seed learns from."""
    teacher = sweep.teacher
    assert teacher is not None
    assert not isinstance(teacher, LogitsTeacher)
    if isinstance(teacher, PretrainedTeacher):
        digest = weights_digest(initial_files(sweep)["teacher.weights"][1])
        given = TrialSpec(
            role=Role.TEACHER,
            dataset=sweep.dataset,
            model=teacher.model,
            encoder=_encoder(teacher, weights_digest),
            initial_weights=digest,
            training=None,
            seed=None,
            evaluation=evaluation_of(sweep.evaluation, None),
            groups_in_id=groups_in_id,
        )
        return dict.fromkeys(seeds, (given,))
    training = teacher.training or sweep.training
    encoder = _encoder(teacher, weights_digest)
    initial = _initial_digest(sweep, "teacher.init", weights_digest)

    def trained(seed: int) -> TrialSpec:
        return TrialSpec(
            role=Role.TEACHER,
            dataset=sweep.dataset,
            model=teacher.model,
            initial_weights=initial,
            encoder=encoder,
            training=training,
            seed=seed,
            evaluation=evaluation_of(sweep.evaluation, None),
            groups_in_id=groups_in_id,
        )

    if teacher.seed == "paired":
        return {seed: (trained(seed),) for seed in seeds}
    fixed = tuple(trained(seed) for seed in teacher.seed)
    return dict.fromkeys(seeds, fixed)


def _initial_digest(sweep: Sweep, field: str, weights_digest: WeightsDigest) -> str | None:
    """Of the weights that this field starts from, if it names any."""
    found = initial_files(sweep).get(field)
    return weights_digest(found[1]) if found else None


def _student(
    sweep: Sweep,
    role: Role,
    seed: int,
    *,
    digest: str | None,
    encoder: Encoder | None,
    groups_in_id: bool,
    teacher: TeacherRef | None = None,
    given_logits: str | None = None,
) -> TrialSpec:
    """The first student of a role in a cell."""
    settings = sweep.distillation if role is Role.DISTILLED else None
    return TrialSpec(
        role=role,
        dataset=sweep.dataset,
        model=sweep.student.model,
        initial_weights=digest,
        encoder=encoder,
        training=longer(sweep.training, settings.epoch_factor) if settings else sweep.training,
        distillation=settings,
        teacher=teacher,
        given_logits=given_logits if role is Role.DISTILLED else None,
        seed=seed,
        evaluation=evaluation_of(sweep.evaluation, settings),
        groups_in_id=groups_in_id,
    )


def evaluation_of(asked: Evaluation | None, settings: Distillation | None) -> Evaluation | None:
    """Drop evaluation options that this objective cannot use, so that its trial_id is unchanged."""
    is_rescaled = settings is not None and settings.IS_BY_SAMPLE and not settings.takes_steps_of_its_own
    if asked is None or (asked.pgd is None and not is_rescaled):
        return None
    return asked.model_copy(update={"gradient_rescaling": asked.gradient_rescaling and is_rescaled})


def longer(training: Training, factor: int) -> Training:
    """The same training, stretched: `factor` times the epochs, with warm-up and milestones at the same shares of them."""
    if factor == 1:
        return training
    schedule = training.schedule
    stretched: dict[str, Any] = {"warmup_epochs": schedule.warmup_epochs * factor}
    if isinstance(schedule, StepSchedule):
        stretched["milestones"] = tuple(epoch * factor for epoch in schedule.milestones)
    return training.model_copy(
        update={"epochs": training.epochs * factor, "schedule": schedule.model_copy(update=stretched)}
    )


def _concerns(axis: str, role: Role, sweep: Sweep) -> bool:
    """Whether an axis changes trials of this role."""
    root = axis.split(".", maxsplit=1)[0]
    if root == "dataset":
        return True
    if role is Role.TEACHER:
        trains_as_students = isinstance(sweep.teacher, TrainedTeacher) and sweep.teacher.training is None
        return root == "teacher" or (root == "training" and trains_as_students)
    if role is not Role.DISTILLED or sweep.distillation is None:
        return root in ("training", "student")
    if root == "distillation":
        return axis.split(".")[1] in type(sweep.distillation).model_fields
    return root in ("training", "student") or sweep.distillation.NEEDS_TEACHER


def settings_json(settings: Mapping[str, Any]) -> dict[str, str]:
    """Axis values as text for a table's map column: strings as they are, everything else as JSON."""
    return {axis: value if isinstance(value, str) else json.dumps(value) for axis, value in settings.items()}
