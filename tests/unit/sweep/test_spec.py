"""A trial's identity: everything that determines the result, nothing that does not."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from pydantic import BaseModel, ValidationError

from kd_ray.sweep.fields import Config
from kd_ray.sweep.load import load_sweep
from kd_ray.sweep.plan import expand
from kd_ray.sweep.spec import Role, TrialSpec, content_hash, identity_of, twin_of
from tests.fakes import SWEEP_YAML, WEIGHTS_DIGEST, make_spec, make_sweep, plan_trials
from tests.strategies import specs

SWEEPS = Path(__file__).parents[3] / "sweeps"


def test_trial_id_of_one_spec_is_known() -> None:
    """If this fails, trials of existing stores would be trained again. When training means something else now, raise
    SPEC_VERSION and renew the literal; otherwise the change of identity is a mistake."""
    assert make_spec().trial_id == "aea8a3026db19453"
    assert make_spec().dataset_id == "ff02aa7ebc9672a8"


@pytest.mark.parametrize(
    ("name", "first_trial", "dataset_id"),
    [
        ("trifeature-quick", "1ca9132d7e237fb3", "92b468d46db920a4"),
        ("trifeature-color", "4908135bec91dbf6", "7a70b2c391411a33"),
        ("cifar10", "2da300a2f12bddf0", "468a71ea90ac3b57"),
    ],
)
def test_trials_of_committed_sweeps_keep_their_identity(name: str, first_trial: str, dataset_id: str) -> None:
    """Guard: a setting that is new to a data set, such as a long tail, changes nothing while it is not used."""
    first = plan_trials(load_sweep(SWEEPS / f"{name}.yaml"))[0]
    assert (first.trial_id, first.spec.dataset_id) == (first_trial, dataset_id)


def test_negative_zero_is_zero() -> None:
    """Guard: `weight_decay: -0.0` trained every trial of a sweep again."""
    path = "training.optimizer.weight_decay"
    assert make_spec(**{path: -0.0}).trial_id == make_spec(**{path: 0.0}).trial_id
    assert make_spec(**{"distillation.alpha": -0.0}).trial_id == make_spec(**{"distillation.alpha": 0.0}).trial_id


def test_canonical_json_spells_out_every_field() -> None:
    assert json.loads(make_spec().model_dump_json()) == {
        "spec_version": 1,
        "role": "distilled",
        "dataset": {
            "name": "trifeature",
            "target": "shape",
            "size": 16,
            "images_per_combination": 10,
            "generator_seed": 0,
            "split_seed": 0,
            "test_fraction": 0.5,
            "validation_fraction": 0.0,
            "long_tail": None,
            "evaluated_on": "test",
        },
        "model": "lenet5",
        "initial_weights": None,
        "encoder": None,
        "training": {
            "epochs": 4,
            "batch_size": 8,
            "optimizer": {"name": "sgd", "lr": 0.1, "momentum": 0.9, "weight_decay": 0.0, "nesterov": False},
            "schedule": {"name": "step", "milestones": [2], "gamma": 0.1, "warmup_epochs": 0},
            "augmentation": "none",
            "execution": "loop",
            "precision": "fp32",
            "compile": False,
            "clip_norm": None,
            "label_smoothing": 0.0,
            "mixup": 0.0,
            "cutmix": 0.0,
            "ema_decay": None,
        },
        "distillation": {
            "objective": "kd",
            "temperature": 4.0,
            "alpha": 0.9,
            "t_squared": True,
            "teacher_logits": "fp32",
        },
        "teacher": {"trial_id": "0123456789abcdef", "model": "resnet20", "seed": 0},
        "seed": 0,
        "evaluation": None,
    }


CHANGES: dict[str, Any] = {
    "spec_version": 2,
    "role": "scratch",
    "dataset.target": "color",
    "dataset.size": 17,
    "dataset.images_per_combination": 11,
    "dataset.generator_seed": 1,
    "dataset.split_seed": 1,
    "dataset.test_fraction": 0.25,
    "dataset.validation_fraction": 0.1,
    "dataset.long_tail": {"imbalance_factor": 10},
    "model": "resnet20",
    "initial_weights": "ab" * 32,
    "encoder": {"version": "0123456789abcdef", "init": "random", "layers": None},
    "training.epochs": 5,
    "training.batch_size": 9,
    "training.optimizer.lr": 0.2,
    "training.optimizer.momentum": 0.8,
    "training.optimizer.weight_decay": 1e-4,
    "training.optimizer.nesterov": True,
    "training.schedule.milestones": [3],
    "training.schedule.gamma": 0.5,
    "training.schedule.warmup_epochs": 1,
    "training.augmentation": "flip",
    "training.execution": "grouped",
    "training.precision": "bf16",
    "training.compile": True,
    "training.clip_norm": 0.5,
    "training.label_smoothing": 0.1,
    "training.mixup": 0.2,
    "training.cutmix": 0.5,
    "training.ema_decay": 0.99,
    "distillation.temperature": 4.5,
    "distillation.alpha": 0.8,
    "distillation.t_squared": False,
    "distillation.teacher_logits": "fp16",
    "teacher.trial_id": "0123456789abcdee",
    "teacher.model": "resnet32",
    "teacher.seed": 1,
    "given_logits": "ab" * 32,
    "seed": 1,
    "evaluation": {"gradient_rescaling": True},
}
ONE_VALUE = {
    "dataset.name",
    "dataset.evaluated_on",
    "training.optimizer.name",
    "training.schedule.name",
    "distillation.objective",
    "groups_in_id",
}
"""Fields that can only change together with others, or cannot yet; `test_identity.py` has `groups_in_id`."""


def field_paths(model: BaseModel, prefix: str = "") -> set[str]:
    paths = set()
    for name in type(model).model_fields:
        value = getattr(model, name)
        paths |= field_paths(value, f"{prefix}{name}.") if isinstance(value, BaseModel) else {prefix + name}
    return paths


def test_changes_below_cover_every_field() -> None:
    assert set(CHANGES) | ONE_VALUE == field_paths(make_spec())


@pytest.mark.parametrize("path", CHANGES)
def test_trial_id_changes_with_every_field(path: str) -> None:
    assert make_spec(**{path: CHANGES[path]}).trial_id != make_spec().trial_id


@pytest.mark.parametrize(
    "changes",
    [
        {"training.schedule": {"name": "cosine"}},
        {"training.schedule": {"name": "constant"}},
        {"dataset": {"name": "cifar10"}},
        {"distillation": None},
        {"teacher": None},
        {"training": None},
        {"seed": None},
    ],
)
def test_trial_id_changes_with_every_part(changes: dict[str, Any]) -> None:
    assert make_spec(**changes).trial_id != make_spec().trial_id


def as_one_text(spec: TrialSpec) -> str:
    """The identity from the JSON of the whole spec, as its definition says."""
    dataset = spec.dataset.without_grouping(getattr(spec.distillation, "feature", None))
    return content_hash(spec.model_copy(update={"dataset": dataset, "groups_in_id": False}))


@given(specs())
def test_identity_from_parts_is_that_of_the_whole_spec(spec: TrialSpec) -> None:
    assert identity_of(spec) == as_one_text(spec)


@pytest.mark.parametrize("name", sorted(path.stem for path in SWEEPS.glob("*.yaml")))
def test_identity_from_parts_is_that_of_the_whole_spec_in_committed_sweeps(name: str) -> None:
    def digest(path: str) -> str:
        return WEIGHTS_DIGEST[:16] if path.startswith(("hf:", "tokenizer of")) else WEIGHTS_DIGEST

    trials = expand(load_sweep(SWEEPS / f"{name}.yaml"), digest)
    assert [trial.trial_id for trial in trials] == [as_one_text(trial.spec) for trial in trials]


def test_identity_from_parts_is_that_of_the_whole_spec_with_every_change() -> None:
    for path, value in {**CHANGES, "training.optimizer.weight_decay": -0.0, "seed": None, "training": None}.items():
        spec = make_spec(**{path: value})
        assert identity_of(spec) == as_one_text(spec), path


def test_parts_that_trials_share_are_encoded_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A sweep with many seeds took 0.13 ms for each trial, to encode the same data set and training again."""
    dumped: list[int] = []
    dump = Config.model_dump

    def counted(self: Config, **more: Any) -> dict[str, Any]:
        dumped.append(1)
        return dump(self, **more)

    monkeypatch.setattr(Config, "model_dump", counted)
    counts, spec = set(), make_spec()
    assert spec.training
    # Guard: in some of these plans the memory was full and emptied in the midst, so that parts were encoded again.
    for seeds in ("[0, 1]", "[0, 1, 2, 3, 4, 5, 6, 7]") * 70:
        identity_of(
            spec.changed(training=spec.training.model_copy())
        )  # one part more, so that it is full at another place
        dumped.clear()
        plan_trials(make_sweep(overrides=[f"grid.seed={seeds}", "teacher.seed=[0]"]))
        counts.add(len(dumped))
    assert len(counts) == 1 and max(counts) < 20


def test_all_changes_differ_among_each_other() -> None:
    assert len({make_spec(**{path: value}).trial_id for path, value in CHANGES.items()}) == len(CHANGES)


def test_whole_temperature_is_the_same_trial_as_the_float() -> None:
    assert (
        make_spec(**{"distillation.temperature": 4}).trial_id == make_spec(**{"distillation.temperature": 4.0}).trial_id
    )
    one = plan_trials(make_sweep(overrides=["grid.temperature=[4]"]))
    other = plan_trials(make_sweep(overrides=["grid.temperature=[4.0]"]))
    assert [trial.trial_id for trial in one] == [trial.trial_id for trial in other]


def test_spelled_out_defaults_are_the_same_trial() -> None:
    assert make_spec(**{"training.optimizer.momentum": 0.9, "dataset.target": "shape"}).trial_id == make_spec().trial_id


def test_trial_id_ignores_the_order_of_keys() -> None:
    lines = SWEEP_YAML.splitlines()
    training = lines.index("training:")
    reordered = [
        *reversed(lines[training + 5 : training + 6]),
        "training:",
        *reversed(lines[training + 1 : training + 5]),
        *reversed(lines[:training]),
        "grid:",
        *lines[training + 7 :],
    ]
    text = "\n".join(reordered).replace("{alpha: 0.9, t_squared: true}", "{t_squared: true, alpha: 0.9}")
    assert sorted(text.splitlines()) != sorted(lines)
    assert [trial.trial_id for trial in plan_trials(make_sweep(text))] == [
        trial.trial_id for trial in plan_trials(make_sweep())
    ]


@pytest.mark.parametrize(
    "override",
    [
        "placement={cpus_per_pack: 3, gpus_per_pack: 1, pack_size: 2, data_root: /elsewhere}",
        "name=other",
        "sensitive_features=[texture, color]",
        "intersections=null",
    ],
)
def test_what_does_not_change_the_result_does_not_enter(override: str) -> None:
    assert [trial.trial_id for trial in plan_trials(make_sweep(overrides=[override]))] == [
        trial.trial_id for trial in plan_trials(make_sweep())
    ]


@pytest.mark.slow
@given(spec=specs())
def test_spec_round_trips_through_json(spec: TrialSpec) -> None:
    again = TrialSpec.model_validate_json(spec.model_dump_json())
    assert again == spec
    assert again.trial_id == spec.trial_id
    assert len(spec.trial_id) == 16
    assert set(spec.trial_id) <= set("0123456789abcdef")


def test_dataset_id_is_shared_by_roles_and_changes_with_the_data_set() -> None:
    assert make_spec(role="scratch", seed=3).dataset_id == make_spec().dataset_id
    assert make_spec(**{"dataset.target": "color"}).dataset_id != make_spec().dataset_id


def test_stream_key_is_shared_by_what_can_train_side_by_side() -> None:
    spec = make_spec()
    for path in ("distillation.temperature", "distillation.alpha", "distillation.t_squared", "teacher.trial_id"):
        assert make_spec(**{path: CHANGES[path]}).stream_key() == spec.stream_key()
    for path in (
        "role",
        "dataset.size",
        "model",
        "training.epochs",
        "training.optimizer.lr",
        "training.batch_size",
        "seed",
    ):
        assert make_spec(**{path: CHANGES[path]}).stream_key() != spec.stream_key()


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, "distilled lenet5 T=4 alpha=0.9 seed=0"),
        (
            {"distillation.t_squared": False, "distillation.temperature": 2.5},
            "distilled lenet5 T=2.5 alpha=0.9 no T² seed=0",
        ),
        ({"teacher.seed": 7}, "distilled lenet5 T=4 alpha=0.9 teacher_seed=7 seed=0"),
        ({"role": "scratch", "distillation": None, "teacher": None, "seed": 3}, "scratch lenet5 seed=3"),
        (
            {
                "role": "teacher",
                "model": "resnet20",
                "training": None,
                "distillation": None,
                "teacher": None,
                "seed": None,
            },
            "teacher resnet20",
        ),
    ],
)
def test_describe_says_what_matters(changes: dict[str, Any], line: str) -> None:
    assert make_spec(**changes).describe() == line


def test_derived_properties() -> None:
    assert (make_spec().epochs, make_spec(training=None).epochs) == (4, 0)
    assert (make_spec().objective, make_spec(distillation=None).objective) == ("kd", "cross_entropy")
    assert make_spec().role is Role.DISTILLED


def test_spec_is_frozen_and_refuses_unknown_fields() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        make_spec().seed = 3
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        make_spec(device="cuda")


def test_what_a_trial_is_evaluated_on_is_part_of_its_identity() -> None:
    """And no other id than that of the field's version before: `test` is left out of it."""
    split = {"dataset.validation_fraction": 0.2}
    on_test, on_validation = make_spec(**split), make_spec(**split, **{"dataset.evaluated_on": "validation"})
    assert on_test.trial_id != on_validation.trial_id
    assert on_test.dataset_id != on_validation.dataset_id
    scratch = {"role": "scratch", "teacher": None, "distillation": None}
    own, other = make_spec(**split, **scratch), make_spec(**split, **scratch, **{"dataset.evaluated_on": "validation"})
    assert twin_of(own, lambda _: own) == other.trial_id
    assert twin_of(other, lambda _: other) == own.trial_id
