"""A trial's complete description, and its identity.

`TrialSpec` holds everything that determines a result and nothing that does not: no path, device, worker count or pack size. The same spec
in two sweeps is one trial.
"""

import hashlib
import json
import operator
from collections import OrderedDict
from collections.abc import Callable
from functools import cache, cached_property, lru_cache
from typing import Annotated, Any, Literal

from pydantic import Field
from pydantic.fields import FieldInfo

from kd_ray.shown import shown_number
from kd_ray.sweep.architectures import ModelName
from kd_ray.sweep.by_object import by_object, drop_oldest
from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.distillation import Distillation
from kd_ray.sweep.fields import Added, Config, Seed
from kd_ray.sweep.objective_settings import LogitPrecision
from kd_ray.sweep.parts import Evaluation
from kd_ray.sweep.training import Training
from kd_ray.sweep.trial_states import Role as Role  # noqa: PLC0414
from kd_ray.sweep.trial_states import TrialState as TrialState  # noqa: PLC0414

SPEC_VERSION = 1
"""Raised whenever the same settings would train to other numbers."""

LOGITS = "logits:"
"""Begins the name of a teacher of which only a file of logits is given."""
TrialId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def content_hash(model: Config) -> str:
    """First 16 hex digits of SHA-256 over the canonical JSON of `model`: sorted keys, no spaces, every field spelled out.

    Fields that were added later are left out where their value means the behaviour before they were added (`fields.Added`). The
    numbers -0.0 and 0.0 are one.
    """
    return _digest(_canonical(model))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _canonical(model: Config) -> str:
    content = model.model_dump(mode="json")
    _leave_out_added(model, content)
    text = _CANONICAL.encode(content)
    if "-0.0" in text:
        text = _CANONICAL.encode(_without_negative_zeros(content))
    return text


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True)
_canonical_part = by_object(_canonical)
"""The same of a part that trials share."""
_canonical_value = lru_cache(maxsize=1024, typed=True)(_CANONICAL.encode)
"""The same of a number, a text or None. Types are told apart, because 1 and 1.0 are equal."""


def _without_negative_zeros(content: Any) -> Any:
    match content:
        case dict():
            return {name: _without_negative_zeros(value) for name, value in content.items()}
        case list():
            return [_without_negative_zeros(value) for value in content]
        case float():
            return content + 0.0
    return content


def _leave_out_added(model: Config, content: dict[str, Any]) -> None:
    for name, before in _added_fields(type(model)):
        if name in content and content[name] == before:
            del content[name]
    for name, value in content.items():
        if isinstance(value, dict) and isinstance(part := getattr(model, name), Config):
            _leave_out_added(part, value)


@cache
def _added_fields(kind: type[Config]) -> tuple[tuple[str, Any], ...]:
    """Name and former value of each field that was added later."""
    return tuple(
        (name, mark.before)
        for name, field in kind.model_fields.items()
        for mark in field.metadata
        if isinstance(mark, Added)
    )


def identity_of(spec: "TrialSpec") -> str:
    """The identity of a trial: what does nothing but group test samples does not count, unless training uses these groups.

    It is the content hash of the spec with such a data set. The trials of a cell differ in their seed and their teacher, so the text of the
    other fields is made once: 20,000 trials are planned in two thirds of the time.
    """
    texts = list(_shared_texts(spec))
    for place, name, is_left_out in _own_fields():
        if not is_left_out(value := getattr(spec, name)):
            texts[place] = _field_text(name, value)
    return _digest(f"{{{','.join(filter(None, texts))}}}")


_OWN = ("seed", "teacher")
"""The fields in which the trials of a cell differ."""
_made: OrderedDict[tuple[int, ...], tuple[tuple[Any, ...], list[str]]] = OrderedDict()
"""The last texts of shared fields, by which objects these are; the objects stay alive with them, so that no other one gets their ids."""
_MOST_MADE = 64


def _shared_texts(spec: "TrialSpec") -> list[str]:
    """The text of each field in the order of canonical JSON; empty for what is left out, and for the fields of one trial alone."""
    shared = _shared_fields()(spec.__dict__)
    key = tuple(map(id, shared))
    # Another thread may drop what was found, so it is looked up once.
    found = _made.get(key)
    if found is None:
        found = _made[key] = (shared, _new_texts(spec))
        drop_oldest(_made, _MOST_MADE)
    return found[1]


@cache
def _shared_fields() -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    return operator.itemgetter(*(name for name in TrialSpec.model_fields if name not in _OWN))


def _new_texts(spec: "TrialSpec") -> list[str]:
    dataset, objective = spec.dataset, spec.distillation
    # An imported objective may use any groups.
    if not spec.groups_in_id and not (objective and objective.import_path):
        dataset = _without_grouping(dataset, getattr(objective, "feature", None))
    counted = {**spec.__dict__, "dataset": dataset, "groups_in_id": False}
    return [
        "" if name in _OWN or is_left_out(counted[name]) else _field_text(name, counted[name])
        for name, is_left_out in _counted_fields()
    ]


def _field_text(name: str, value: Any) -> str:
    if type(value) is int:
        # A seed: each is asked for once, and the encoder takes ten times longer.
        return f'"{name}":{value}'
    return f'"{name}":{_canonical_part(value) if isinstance(value, Config) else _canonical_value(value)}'


@cache
def _own_fields() -> tuple[tuple[int, str, Callable[[Any], bool]], ...]:
    """Place, name and what is left out of each field in which the trials of a cell differ."""
    return tuple((place, *field) for place, field in enumerate(_counted_fields()) if field[0] in _OWN)


@by_object
def _without_grouping(dataset: Dataset, used: str | None) -> Dataset:
    return dataset.without_grouping(used)


@cache
def _counted_fields() -> tuple[tuple[str, Callable[[Any], bool]], ...]:
    """The fields of a spec in the order of canonical JSON, and which values of each are left out there."""

    def left_out(name: str, field: FieldInfo) -> Callable[[Any], bool]:
        former = [before for added, before in _added_fields(TrialSpec) if added == name]
        return field.exclude_if or (lambda value: value in former)

    return tuple((name, left_out(name, field)) for name, field in sorted(TrialSpec.model_fields.items()))


@by_object
def dataset_id_of(dataset: Dataset) -> str:
    """The content hash of a data set, of which many trials share few."""
    return content_hash(dataset)


class TeacherRef(Config):
    """The trial that teaches; model and seed are repeated here so that a record can be read alone."""

    trial_id: TrialId
    model: ModelName
    seed: Seed | None
    """Seed the teacher was trained with; none for pretrained weights."""


class Encoder(Config):
    """The initial state of a network of the transformers library."""

    version: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    """Fingerprint of its folder: configuration and weights."""
    init: Literal["pretrained", "random", "teacher"]
    """Its weights, those of the teacher's trial, or random ones; a new head is always random."""
    layers: tuple[int, ...] | None = None
    """Which of its layers there are; None for all."""


class TrialSpec(Config):
    """One training run, complete."""

    spec_version: int = SPEC_VERSION
    role: Role
    dataset: Dataset
    model: ModelName
    initial_weights: Sha256 | None = None
    """SHA-256 of the file of pretrained weights, which training starts from, if there is any; none for a seeded random initialisation."""
    encoder: Annotated[Encoder | None, Added(None)] = None
    """For `hf:` models."""
    training: Training | None
    """None for pretrained weights that are only evaluated."""
    distillation: Distillation | None = None
    """None for plain cross-entropy."""
    teacher: TeacherRef | None = None
    given_logits: Annotated[Sha256 | None, Field(exclude_if=operator.not_)] = None
    """SHA-256 of the file with its teacher's logits, where they are given in place of a teacher."""
    seed: Seed | None
    """Initialisation, data order and augmentation draw named streams from it; none for pretrained weights."""
    evaluation: Annotated[Evaluation | None, Added(None)] = None
    """Optional measurements that apply to this trial."""
    groups_in_id: Annotated[bool, Field(exclude_if=operator.not_)] = False
    """Whether settings of the data set that only group test samples are part of the identity, as in every trial of kd_ray 0.1, and in a
    sweep whose grid varies them."""

    @cached_property
    def trial_id(self) -> str:
        """16 hex digits that stand for this spec."""
        return identity_of(self)

    def named(self, trial_id: str) -> "TrialSpec":
        """The same trial, with the identity under which kd_ray 0.1 stored it if that is `trial_id`."""
        former = self.changed(groups_in_id=True)
        return former if identity_of(former) == trial_id != identity_of(self) else self

    def changed(self, **fields: Any) -> "TrialSpec":
        """A copy with other values, which are not checked."""
        copy = self.model_copy(update=fields)
        copy.__dict__.pop("trial_id", None)  # the cached identity of this one
        # A set of its own would be half of what a copy holds, and a large sweep has 100,000.
        object.__setattr__(copy, "__pydantic_fields_set__", self.__pydantic_fields_set__)
        return copy

    @property
    def dataset_id(self) -> str:
        """16 hex digits that stand for the data set with its version, target and splits."""
        return dataset_id_of(self.dataset)

    @property
    def epochs(self) -> int:
        """Epochs to train; 0 for pretrained weights."""
        return self.training.epochs if self.training else 0

    @property
    def objective(self) -> str:
        """Name of the training loss, as the tables show it."""
        return self.distillation.objective if self.distillation else "cross_entropy"

    @property
    def temperature(self) -> float | None:
        """T of the distillation term, where there is one."""
        value: float | None = getattr(self.distillation, "temperature", None)
        return value

    @property
    def alpha(self) -> float | None:
        """Weight of the distillation term, where there is one."""
        value: float | None = getattr(self.distillation, "alpha", None)
        return value

    @property
    def t_squared(self) -> bool | None:
        """Whether the distillation term is multiplied by T², where there is one."""
        value: bool | None = getattr(self.distillation, "t_squared", None)
        return value

    @property
    def teacher_name(self) -> str | None:
        """Architecture of its teacher, `logits:` and the first 8 digits of the file where logits are given; None without a teacher."""
        if self.given_logits is not None:
            return f"{LOGITS}{self.given_logits[:8]}"
        return self.teacher.model if self.teacher else None

    @property
    def given_files(self) -> tuple[str, ...]:
        """SHA-256 of the files that the store has to hold for it."""
        return tuple(digest for digest in (self.initial_weights, self.given_logits) if digest is not None)

    @property
    def teacher_logits(self) -> LogitPrecision:
        """Precision of the teacher's logits."""
        value: LogitPrecision = getattr(self.distillation, "teacher_logits", "fp32")
        return value

    def stream_key(self) -> tuple[object, ...]:
        """Trials with equal keys see the same batches in the same order, so one stream can serve them side by side."""
        training = _canonical_part(self.training) if self.training else None
        return (self.role, self.dataset_id, self.model, self.initial_weights, self.seed, training)

    def describe(self) -> str:
        """One short line for people: `distilled lenet5 T=4 alpha=0.9 seed=1`."""
        words = [self.role.value, self.model]
        words += [f"layers={list(self.encoder.layers)}"] if self.encoder and self.encoder.layers else []
        words += _loss_words(self.distillation) if self.distillation else ()
        if self.teacher and self.teacher.seed is not None and self.teacher.seed != self.seed:
            words.append(f"teacher_seed={self.teacher.seed}")
        if self.seed is not None:
            words.append(f"seed={self.seed}")
        return " ".join(words)


@by_object
def _loss_words(loss: Distillation) -> tuple[str, ...]:
    temperature, alpha = getattr(loss, "temperature", None), getattr(loss, "alpha", None)
    words = [] if loss.objective == "kd" else [loss.objective]
    words += [] if temperature is None else [f"T={shown_number(temperature)}"]
    words += [] if alpha is None else [f"alpha={shown_number(alpha)}"]
    words += ["no T²"] if getattr(loss, "t_squared", None) is False else []
    return tuple(words)


def twin_of(spec: TrialSpec, teacher_of: Callable[[str], TrialSpec]) -> str:
    """trial_id of the same training that is evaluated on the other of test and validation split; `teacher_of` gives a teacher's spec."""

    def turned(own: TrialSpec) -> TrialSpec:
        other = "test" if own.dataset.evaluated_on == "validation" else "validation"
        return own.changed(dataset=own.dataset.model_copy(update={"evaluated_on": other}))

    twin = turned(spec)
    if spec.teacher is not None:
        teacher_id = turned(teacher_of(spec.teacher.trial_id)).trial_id
        twin = twin.changed(teacher=spec.teacher.model_copy(update={"trial_id": teacher_id}))
    return twin.trial_id
