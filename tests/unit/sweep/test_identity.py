"""What changes training or the choice of samples changes a trial's identity; what only groups test samples does not."""

from typing import Any, get_args

import pytest

from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.spec import TrialSpec, content_hash
from tests.fakes import make_spec, make_sweep, plan_trials

ID, OTHER_ID = "0123456789abcdef", "fedcba9876543210"
LISTED: dict[str, Any] = {
    "name": "manifest",
    "path": "people.csv",
    "version": ID,
    "classes": ["no", "yes"],
    "features": ["sex", "age"],
    "bins": [{"column": "age", "edges": [30]}],
    "split": "split",
}
IMAGES = LISTED | {"size": 32}
ROWS = LISTED | {"columns": ["height", "colour"], "categorical": ["colour"]}
TEXTS = LISTED | {"text": "post", "tokenizer": "hf:a", "tokenizer_version": ID}
FACTORY = {
    "name": "factory",
    "function": "a:b",
    "version": ID,
    "samples": "rows",
    "classes": ["a", "b"],
    "features": ["sex"],
}
ADULT = {"name": "adult"}
POSTS = {"name": "hatexplain", "tokenizer": "hf:a", "tokenizer_version": ID}

GROUPING: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (IMAGES, {"features": ["sex"], "bins": []}),
    (IMAGES, {"features": ["sex", "age", "race"]}),
    (IMAGES, {"bins": [{"column": "age", "edges": [20, 40]}]}),
    (IMAGES, {"separator": ";"}),
    (IMAGES, {"min_group_size": 20}),
    (IMAGES, {"id": "file"}),
    (IMAGES, {"missing_values": ["?"]}),
    (ROWS, {"features": ["sex", "age", "race"]}),
    (ROWS, {"min_group_size": 20}),
    (TEXTS, {"features": [], "bins": []}),
    (FACTORY, {"features": []}),
    (ADULT, {"age_edges": [40]}),
    (POSTS, {"min_annotators": 1}),
    (POSTS, {"several_groups": "own_group"}),
    (POSTS, {"no_group": "own_group"}),
]
"""Settings that only say into which groups test samples are put."""
TRAINING: list[tuple[dict[str, Any], dict[str, Any]]] = [
    (IMAGES, {"path": "others.csv"}),
    (IMAGES, {"version": OTHER_ID}),
    (IMAGES, {"title": "people"}),
    (IMAGES, {"image": "photo"}),
    (IMAGES, {"channels": "first"}),
    (IMAGES, {"target": "race", "bins": [{"column": "age", "edges": [30]}]}),
    (IMAGES, {"classes": ["yes", "no"]}),
    (IMAGES, {"classes": [], "bins": [{"column": "label", "edges": [30]}]}),
    (IMAGES, {"missing": "leave_out"}),
    (IMAGES, {"split": "other"}),
    (IMAGES, {"split": None, "test_fraction": 0.5}),
    (IMAGES, {"validation_fraction": 0.1}),
    (IMAGES, {"validation_fraction": 0.1, "split_seed": 1}),
    (IMAGES, {"size": 48}),
    (IMAGES, {"normalization": "half"}),
    (IMAGES, {"long_tail": {"imbalance_factor": 10}}),
    (ROWS, {"columns": ["colour"]}),
    (ROWS, {"categorical": []}),
    (ROWS, {"missing_values": ["?"]}),
    (TEXTS, {"text": "title"}),
    (TEXTS, {"tokenizer": "hf:b"}),
    (TEXTS, {"tokenizer_version": OTHER_ID}),
    (TEXTS, {"max_length": 64}),
    (TEXTS, {"missing_values": ["?"]}),
    (IMAGES, {"validation_fraction": 0.1, "evaluated_on": "validation"}),
    (FACTORY, {"function": "a:c"}),
    (FACTORY, {"parameters": {"n": 1}}),
    (FACTORY, {"version": OTHER_ID}),
    (FACTORY, {"samples": "images", "size": 32}),
    (FACTORY, {"samples": "images", "size": 32, "normalization": "half"}),
    (FACTORY, {"target": "other"}),
    (FACTORY, {"classes": ["b", "a"]}),
    (FACTORY, {"returns_validation": True}),
    (FACTORY, {"validation_fraction": 0.1}),
    (FACTORY, {"validation_fraction": 0.1, "split_seed": 1}),
    (FACTORY, {"long_tail": {"imbalance_factor": 10}}),
    (FACTORY, {"validation_fraction": 0.1, "evaluated_on": "validation"}),
    (ADULT, {"missing": "category"}),
    (ADULT, {"sensitive_inputs": False}),
    (ADULT, {"version": OTHER_ID}),
    (ADULT, {"validation_fraction": 0.1}),
    (ADULT, {"validation_fraction": 0.1, "split_seed": 1}),
    (ADULT, {"long_tail": {"imbalance_factor": 10}}),
    (ADULT, {"validation_fraction": 0.1, "evaluated_on": "validation"}),
    (POSTS, {"target": "label"}),
    (POSTS, {"tokenizer": "hf:b"}),
    (POSTS, {"tokenizer_version": OTHER_ID}),
    (POSTS, {"max_length": 64}),
    (POSTS, {"version": OTHER_ID}),
    (POSTS, {"train_file": "train_partial"}),
    (POSTS, {"validation": "official"}),
    (POSTS, {"long_tail": {"imbalance_factor": 10}}),
    (POSTS, {"validation": "official", "evaluated_on": "validation"}),
]
"""Settings that say what is trained on, or which samples are tested."""
GROUPS = {"objective": "kd_groups", "temperature": 4.0, "alpha": 0.9, "t_squared": True, "feature": "sex"}
FREE = {"objective": "own.losses:mine", "version": ID, "terms": ["mine"]}


def spec_of(base: dict[str, Any], changes: dict[str, Any], **others: Any) -> TrialSpec:
    dataset = {name: value for name, value in {**base, **changes}.items() if value is not None}
    return make_spec(dataset=dataset, **others)


@pytest.mark.parametrize(("base", "changes"), GROUPING, ids=str)
def test_what_only_groups_test_samples_is_no_identity(base: dict[str, Any], changes: dict[str, Any]) -> None:
    before, after = spec_of(base, {}), spec_of(base, changes)
    assert before.trial_id == after.trial_id
    assert before.dataset_id != after.dataset_id


@pytest.mark.parametrize(("base", "changes"), TRAINING, ids=str)
def test_what_changes_training_or_the_choice_of_samples_is_identity(
    base: dict[str, Any], changes: dict[str, Any]
) -> None:
    assert spec_of(base, {}).trial_id != spec_of(base, changes).trial_id


def test_the_two_lists_have_every_setting_of_a_family_with_grouping() -> None:
    """A new setting has to be put into one of the lists."""
    for bases in ((IMAGES, ROWS, TEXTS), (FACTORY,), (ADULT,), (POSTS,)):
        (model,) = (
            it
            for it in get_args(get_args(Dataset)[0])
            if get_args(it.model_fields["name"].annotation) == (bases[0]["name"],)
        )
        listed = {name for base, changes in (*GROUPING, *TRAINING) if base in bases for name in changes}
        # `test_fraction` is changed together with `split`, and Adult has one target.
        assert listed | {"name"} >= set(model.model_fields) - ({"target"} if bases == (ADULT,) else set())


def test_all_settings_that_group_can_change_together() -> None:
    changes: dict[str, Any] = {"features": [], "bins": [], "min_group_size": 7, "missing_values": ["?"]}
    assert spec_of(IMAGES, {}).trial_id == spec_of(IMAGES, changes).trial_id


def test_groups_that_a_trial_is_trained_with_are_its_identity() -> None:
    base = spec_of(IMAGES, {}, distillation=GROUPS)
    trained: list[dict[str, Any]] = [{"separator": ";"}, {"min_group_size": 20}, {"missing_values": ["?"]}]
    for changes in trained:
        assert spec_of(IMAGES, changes, distillation=GROUPS).trial_id != base.trial_id
    # Other features are not trained with.
    others: list[dict[str, Any]] = [{"features": ["sex"], "bins": []}, {"bins": [{"column": "age", "edges": [40]}]}]
    for changes in others:
        assert spec_of(IMAGES, changes, distillation=GROUPS).trial_id == base.trial_id
    of_age = spec_of(IMAGES, {}, distillation=GROUPS | {"feature": "age"})
    edges = {"bins": [{"column": "age", "edges": [40]}]}
    assert spec_of(IMAGES, edges, distillation=GROUPS | {"feature": "age"}).trial_id != of_age.trial_id
    ages = spec_of(ADULT, {}, distillation=GROUPS | {"feature": "age"})
    assert spec_of(ADULT, {"age_edges": [40]}, distillation=GROUPS | {"feature": "age"}).trial_id != ages.trial_id


def test_an_imported_objective_may_be_trained_with_any_groups() -> None:
    base, changed = (spec_of(IMAGES, changes, distillation=FREE) for changes in ({}, {"features": ["sex"], "bins": []}))
    assert base.trial_id != changed.trial_id


def test_identities_of_defaults_stay_as_they_were() -> None:
    """Guard: trials of existing stores are found without a look at their manifests."""
    for base in (ADULT, POSTS, IMAGES | {"features": [], "bins": []}):
        spec = spec_of(base, {})
        assert spec.trial_id == content_hash(spec) == spec.changed(groups_in_id=True).trial_id


def test_a_grid_over_groups_has_a_trial_for_each_value() -> None:
    """As in kd_ray 0.1: such trials are trained alike."""
    overrides = (
        'dataset={"name": "adult"}',
        "sensitive_features=[age]",
        "intersections=null",
        "teacher={model: mlp-8}",
        "student={model: mlp-8}",
        "grid.dataset.age_edges=[[40], [30, 60]]",
    )
    trials = plan_trials(make_sweep(overrides=overrides))
    assert len(trials) == 16
    assert all(trial.spec.groups_in_id for trial in trials)
    assert {trial.trial_id for trial in trials} == {
        content_hash(trial.spec.changed(groups_in_id=False)) for trial in trials
    }
