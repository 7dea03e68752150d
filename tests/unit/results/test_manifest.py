"""The manifest: positions stay, trials leave only by becoming inactive."""

import json
import re

import pytest

from kd_ray.errors import CorruptObjectError, InvalidInputError
from kd_ray.results.manifest import Manifest, read_manifest, write_manifest
from kd_ray.results.rows import FoldSettings
from kd_ray.results.store import Store, manifest_key, sweep_key
from tests.fakes import make_sweep, plan_trials, write_sweep


def ids(manifest: Manifest) -> list[str]:
    return [trial.trial_id for trial in manifest.trials]


def test_manifest_holds_what_was_asked_for(store: Store) -> None:
    file = make_sweep(overrides=["training.augmentation=null", "grid.training.augmentation=[flip, none]"])
    trials = plan_trials(file)
    manifest = write_manifest(store, file.sweep, trials, sweep_yaml=file.to_yaml(), weights={"/w.pt": "ab" * 32})
    assert (manifest.sweep, manifest.generation, manifest.sweep_yaml) == ("demo", 1, file.to_yaml())
    assert manifest.weights == {"/w.pt": "ab" * 32}
    assert manifest.fold == FoldSettings(
        sweep="demo", sensitive_features=("color", "texture"), intersections=(("color", "texture"),)
    )
    assert ids(manifest) == [trial.trial_id for trial in trials]
    distilled = manifest.trials[-1]
    spec = trials[-1].spec
    assert spec.teacher is not None
    assert (distilled.role, distilled.epochs, distilled.dataset_id) == ("distilled", 4, spec.dataset_id)
    assert (distilled.description, distilled.teacher) == (
        f"{spec.describe()} training.augmentation=none",
        spec.teacher.trial_id,
    )
    assert distilled.settings == {"training.augmentation": "none"}
    assert manifest.trials[0].teacher is None
    assert manifest.active == manifest.trials


def test_manifest_reads_back_as_written(store: Store) -> None:
    manifest = write_sweep(store, make_sweep())
    assert read_manifest(store, "demo") == manifest
    assert Manifest.from_json(manifest.to_json()) == manifest
    assert store.get(sweep_key("demo")) == make_sweep().to_yaml().encode()


def test_unchanged_relaunch_writes_nothing(store: Store) -> None:
    first = write_sweep(store, make_sweep())
    before = {item.key: item.modified_at for item in store.entries("sweeps")}
    assert write_sweep(store, make_sweep()) == first
    assert {item.key: item.modified_at for item in store.entries("sweeps")} == before


def test_new_trials_are_appended_and_positions_stay(store: Store) -> None:
    first = write_sweep(store, make_sweep())
    second = write_sweep(store, make_sweep(overrides=["grid.temperature=[0.5, 1, 4]", "grid.seed=[2, 0, 1]"]))
    assert second.generation == 2
    assert ids(second)[:8] == ids(first)
    assert len(ids(second)) == len(set(ids(second))) == 15
    assert second.active == second.trials
    assert store.exists(manifest_key("demo", 1))
    assert read_manifest(store, "demo") == second


def test_trials_no_longer_asked_for_stay_inactive_and_can_come_back(store: Store) -> None:
    first = write_sweep(store, make_sweep())
    smaller = write_sweep(store, make_sweep(overrides=["grid.temperature=[4]"]))
    assert ids(smaller) == ids(first)
    assert [trial.active for trial in smaller.trials] == [True] * 4 + [False, False, True, True]
    assert len(smaller.active) == 6
    back = write_sweep(store, make_sweep())
    assert back.generation == 3
    assert back.trials == first.trials


def test_change_of_settings_alone_is_a_new_generation(store: Store) -> None:
    write_sweep(store, make_sweep())
    second = write_sweep(store, make_sweep(overrides=["intersections=null"]))
    assert second.generation == 2
    assert second.fold.intersections == ()


def test_sweep_yaml_is_that_of_the_newest_manifest(store: Store) -> None:
    write_sweep(store, make_sweep())
    file = make_sweep(overrides=["placement.pack_size=3"])
    assert write_sweep(store, file).generation == 2
    assert store.get(sweep_key("demo")) == file.to_yaml().encode()


def test_highest_generation_holds(store: Store) -> None:
    manifest = write_sweep(store, make_sweep())
    content = json.loads(manifest.to_json())
    for generation in (2, 10):
        store.put(manifest_key("demo", generation), json.dumps({**content, "generation": generation}).encode())
    assert read_manifest(store, "demo").generation == 10


def test_unknown_sweep_is_refused_with_those_there_are(store: Store) -> None:
    expected = f"store {store.url}: no sweep 'nope'; it has: none"
    with pytest.raises(InvalidInputError, match=re.escape(expected) + "$"):
        read_manifest(store, "nope")
    write_sweep(store, make_sweep())
    write_sweep(store, make_sweep(overrides=["name=another"]))
    with pytest.raises(InvalidInputError, match=r"no sweep 'nope'; it has: another, demo$"):
        read_manifest(store, "nope")


@pytest.mark.parametrize(
    "data",
    [b"", b'{"manifest_version": 1', b"{}", b"[]", b'{"manifest_version": 1}', b'{"manifest_version": 2}'],
)
def test_damaged_manifest_is_named(store: Store, data: bytes) -> None:
    write_sweep(store, make_sweep())
    store.put(manifest_key("demo", 2), data)
    with pytest.raises(CorruptObjectError, match=r"'sweeps/demo/manifest/000002\.json' is not a whole manifest: "):
        read_manifest(store, "demo")


def test_manifest_of_another_version_says_so(store: Store) -> None:
    store.put(manifest_key("demo", 1), b'{"manifest_version": 2}')
    with pytest.raises(CorruptObjectError, match=r"it was written by another version of kd_ray$"):
        read_manifest(store, "demo")
