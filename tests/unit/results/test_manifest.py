"""The manifest: positions stay, trials leave only by becoming inactive."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from kd_ray.errors import CorruptObjectError, InvalidInputError, OtherVersionError
from kd_ray.results.declared import DeclaredClaim
from kd_ray.results.manifest import Manifest, find_manifest, read_manifest, write_manifest
from kd_ray.results.record import commit_record
from kd_ray.results.row_settings import RowSettings
from kd_ray.results.store import Store, manifest_key, sweep_key
from kd_ray.sweep.packs import make_packs
from tests.fakes import make_record, make_sweep, plan_trials, write_sweep


def ids(manifest: Manifest) -> list[str]:
    return [trial.trial_id for trial in manifest.trials]


def test_manifest_holds_what_was_asked_for(store: Store) -> None:
    file = make_sweep(overrides=["training.augmentation=null", "grid.training.augmentation=[flip, none]"])
    trials = plan_trials(file)
    manifest = write_manifest(store, file.sweep, trials, sweep_yaml=file.to_yaml(), weights={"/w.pt": "ab" * 32})
    assert (manifest.sweep, manifest.generation, manifest.sweep_yaml) == ("demo", 1, file.to_yaml())
    assert manifest.weights == {"/w.pt": "ab" * 32}
    assert manifest.row_settings == RowSettings(
        sweep="demo", sensitive_features=("color", "texture"), intersections=(("color", "texture"),)
    )
    assert sorted(ids(manifest)) == sorted(trial.trial_id for trial in trials)
    (distilled,) = (line for line in manifest.trials if line.trial_id == trials[-1].trial_id)
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


def test_trials_stand_in_the_order_in_which_they_run(store: Store) -> None:
    """Guards the order in `_continue`: parts of tables fill up one after another, whatever the size of the packs."""
    file = make_sweep(overrides=["training.augmentation=null", "grid.training.augmentation=[flip, none]"])
    trials = plan_trials(file)
    manifest = write_sweep(store, file)
    assert [trial.role for trial in manifest.trials] == ["teacher"] * 4 + ["distilled"] * 8 + ["scratch"] * 4
    for pack_size in (1, 3, 8):
        packs = make_packs(trials, pack_size=pack_size)
        assert ids(manifest) == [trial.trial_id for pack in packs for trial in pack.trials]


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
    assert [trial.active for trial in smaller.trials] == [True, True, False, True, False, True, True, True]
    assert len(smaller.active) == 6
    back = write_sweep(store, make_sweep())
    assert back.generation == 3
    assert back.trials == first.trials


def test_change_of_settings_alone_is_a_new_generation(store: Store) -> None:
    write_sweep(store, make_sweep())
    second = write_sweep(store, make_sweep(overrides=["intersections=null"]))
    assert second.generation == 2
    assert second.row_settings.intersections == ()


def test_sweep_yaml_is_that_of_the_newest_manifest(store: Store) -> None:
    write_sweep(store, make_sweep())
    file = make_sweep(overrides=["placement.pack_size=3"])
    assert write_sweep(store, file).generation == 2
    assert store.get(sweep_key("demo")) == file.to_yaml().encode()


def test_highest_generation_holds(store: Store) -> None:
    manifest = write_sweep(store, make_sweep())
    for generation in (2, 10):
        store.put(manifest_key("demo", generation), replace(manifest, generation=generation).to_json())
    assert read_manifest(store, "demo").generation == 10


def test_unknown_sweep_is_refused_with_those_there_are(store: Store) -> None:
    expected = f"store {store.url}: no sweep 'nope'; it has: none"
    with pytest.raises(InvalidInputError, match=re.escape(expected) + "$"):
        read_manifest(store, "nope")
    write_sweep(store, make_sweep())
    write_sweep(store, make_sweep(overrides=["name=another"]))
    with pytest.raises(InvalidInputError, match=r"no sweep 'nope'; it has: another, demo$"):
        read_manifest(store, "nope")


DAMAGED = [
    b"",
    b'{"manifest_version": 1',
    b"{}",
    b"[]",
    b"null",
    b"7",
    b'{"manifest_version": 2}',
    b'{"manifest_version": 3}',
    b"\xff\x00noise",
]


def test_one_changed_digit_is_noticed(store: Store) -> None:
    """Guards the digest: `resume` would train what nobody asked for."""
    first = write_sweep(store, make_sweep())
    second = replace(first, generation=2).to_json()
    assert second.count(b"lr: 0.1") == 1
    store.put(manifest_key("demo", 2), second.replace(b"lr: 0.1", b"lr: 0.7"))
    assert read_manifest(store, "demo") == first


@pytest.mark.parametrize("data", DAMAGED)
def test_damaged_newest_manifest_falls_back_to_the_one_before(store: Store, data: bytes) -> None:
    """Guards `find_manifest`: one damaged object does not lose a sweep."""
    first = write_sweep(store, make_sweep())
    store.put(manifest_key("demo", 2), data)
    found = find_manifest(store, "demo")
    assert (found.manifest, found.newest, found.damaged) == (first, 2, {manifest_key("demo", 2): data})
    assert read_manifest(store, "demo") == first


@pytest.mark.parametrize("data", DAMAGED)
@pytest.mark.parametrize("overrides", [[], ["grid.seed=[0, 1, 2]"]], ids=["relaunched", "extended"])
def test_next_manifest_after_a_damaged_one_is_newer_and_sets_it_aside(
    store: Store, data: bytes, overrides: list[str]
) -> None:
    """Guards `write_manifest`: a damaged number is never used again, and its content is kept for people to look at."""
    first = write_sweep(store, make_sweep())
    store.put(manifest_key("demo", 2), data)
    third = write_sweep(store, make_sweep(overrides=overrides))
    assert third.generation == 3
    assert ids(third)[:8] == ids(first)
    assert read_manifest(store, "demo") == third
    assert sorted(item.key for item in store.entries("sweeps/demo/manifest")) == [
        manifest_key("demo", 1),
        manifest_key("demo", 3),
    ]
    (kept,) = store.entries("damaged")
    assert kept.key.startswith(f"damaged/{manifest_key('demo', 2)}-")
    assert store.get(kept.key) == data
    assert write_sweep(store, make_sweep(overrides=overrides)) == third


def test_several_damaged_manifests_are_passed_over(store: Store) -> None:
    """Guards the loop of `find_manifest`: it goes back as far as it has to, and no further."""
    write_sweep(store, make_sweep())
    second = write_sweep(store, make_sweep(overrides=["grid.seed=[0]"]))
    for generation in (3, 4):
        store.put(manifest_key("demo", generation), b"noise")
    store.put(manifest_key("demo", 1), b"older noise")
    found = find_manifest(store, "demo")
    assert (found.manifest, found.newest) == (second, 4)
    assert sorted(found.damaged) == [manifest_key("demo", 3), manifest_key("demo", 4)]
    assert write_sweep(store, make_sweep(overrides=["grid.seed=[0]"])).generation == 5
    assert len(list(store.entries("damaged"))) == 2


@pytest.mark.parametrize("data", DAMAGED)
def test_sweep_without_a_whole_manifest_is_corrupt_not_unknown(store: Store, data: bytes) -> None:
    """Guards the message of `read_manifest`: it names what is damaged, and what writes a new one."""
    store.put(manifest_key("demo", 1), data)
    expected = (
        f"store {store.url}: no whole manifest of sweep demo is left ('{manifest_key('demo', 1)}'); "
        "launching its sweep file, or `kd-ray resume`, writes a new one"
    )
    with pytest.raises(CorruptObjectError, match=re.escape(expected) + "$"):
        read_manifest(store, "demo")
    assert write_sweep(store, make_sweep()).generation == 2
    assert read_manifest(store, "demo").generation == 2


def test_manifest_of_another_version_is_refused_and_not_overwritten(store: Store) -> None:
    """Guards the `OtherVersionError` of `from_json`: what a newer kd_ray wrote is never taken for damage."""
    write_sweep(store, make_sweep())
    store.put(manifest_key("demo", 2), b'{"manifest_version": 5}')
    before = {item.key: store.get(item.key) for item in store.entries("")}
    expected = f"'{manifest_key('demo', 2)}': it was written by another version of kd_ray"
    with pytest.raises(OtherVersionError, match=re.escape(expected) + "$"):
        read_manifest(store, "demo")
    with pytest.raises(OtherVersionError, match=re.escape(expected) + "$"):
        write_sweep(store, make_sweep(overrides=["grid.seed=[5]"]))
    assert {item.key: store.get(item.key) for item in store.entries("")} == before


ACCURACY = "{metric: accuracy, direction: higher}"
NO_HARM = "{metric: worst_class_accuracy, condition: {temperature: 4}, direction: not_lower, margin: 0.01}"


def declare(store: Store, *claims: str, overrides: tuple[str, ...] = ()) -> Manifest:
    return write_sweep(store, make_sweep(overrides=[*overrides, f"claims=[{', '.join(claims)}]"]))


def complete(store: Store, count: int) -> None:
    """Commit the first trials of the demo sweep."""
    for trial in plan_trials(make_sweep())[:count]:
        commit_record(store, make_record(trial.spec))


def known(manifest: Manifest) -> list[tuple[str, int, int | None]]:
    """Metric, trials complete at declaration, trials complete at withdrawal, of each declared claim."""
    return [(str(it.claim["metric"]), it.num_complete, it.num_complete_at_withdrawal) for it in manifest.declared]


def test_claims_are_recorded_with_date_digest_and_what_was_complete(store: Store) -> None:
    complete(store, 3)
    before = datetime.now(UTC).replace(microsecond=0)
    manifest = declare(store, NO_HARM)
    (declared,) = manifest.declared
    assert declared.to_claim().text() == "worst-class accuracy of T=4 is not lower than scratch by more than 1 point"
    assert declared.sha256 == declared.to_claim().sha256
    assert before <= datetime.fromisoformat(declared.declared_at) <= datetime.now(UTC)
    assert declared.declared_at.endswith("+00:00")
    assert (declared.num_complete, declared.num_trials) == (3, 8)
    assert (declared.is_withdrawn, declared.withdrawn_at, declared.num_complete_at_withdrawal) == (False, None, None)
    assert Manifest.from_json(manifest.to_json()) == manifest == read_manifest(store, "demo")


@pytest.mark.slow
def test_a_claim_alone_leads_to_a_new_manifest_with_the_same_trials(store: Store) -> None:
    first = write_sweep(store, make_sweep())
    second = declare(store, NO_HARM)
    assert (first.generation, second.generation) == (1, 2)
    assert second.trials == first.trials
    assert declare(store, NO_HARM) == second
    assert declare(store, NO_HARM.replace("temperature: 4", "temperature: 4.0")).declared == second.declared


@pytest.mark.slow
def test_claims_keep_their_date_and_later_ones_have_their_own(store: Store) -> None:
    """Guards `continue_declared`: a claim made after results were there is told from one made before."""
    first = declare(store, NO_HARM)
    old = replace(first.declared[0], declared_at="2026-01-02T03:04:05+00:00")
    store.put(manifest_key("demo", 1), replace(first, declared=(old,)).to_json())
    complete(store, 5)
    second = declare(store, ACCURACY, NO_HARM, overrides=("grid.seed=[0, 1, 2]",))
    assert second.declared[0] == old
    assert known(second) == [("worst_class_accuracy", 0, None), ("accuracy", 5, None)]
    assert [it.num_trials for it in second.declared] == [8, 12]
    complete(store, 8)
    assert declare(store, NO_HARM, ACCURACY).declared == second.declared


@pytest.mark.slow
def test_a_claim_that_left_the_file_stays_as_withdrawn_and_comes_back_as_a_new_one(store: Store) -> None:
    declare(store, NO_HARM, ACCURACY)
    complete(store, 2)
    without = declare(store, ACCURACY)
    assert known(without) == [("worst_class_accuracy", 0, 2), ("accuracy", 0, None)]
    assert [it.is_withdrawn for it in without.declared] == [True, False]
    complete(store, 6)
    again = declare(store, ACCURACY, NO_HARM)
    assert again.declared[:2] == without.declared
    assert known(again)[2:] == [("worst_class_accuracy", 6, None)]
    none = write_sweep(store, make_sweep())
    assert known(none) == [("worst_class_accuracy", 0, 2), ("accuracy", 0, 6), ("worst_class_accuracy", 6, 6)]
    assert write_sweep(store, make_sweep()) == none


def test_trials_no_longer_asked_for_count_as_known(store: Store) -> None:
    write_sweep(store, make_sweep())
    complete(store, 8)
    (declared,) = declare(store, NO_HARM, overrides=("grid.seed=[7]",)).declared
    assert (declared.num_complete, declared.num_trials) == (8, 12)


def test_manifest_without_claims_reads_and_is_written_as_before_there_were_any(store: Store) -> None:
    """Guards the version: older kd_ray reads sweeps without claims, and refuses those with them instead of losing the claims."""
    outer = json.loads(write_sweep(store, make_sweep()).to_json())
    assert outer["manifest_version"] == 2
    assert "declared" not in json.loads(outer["content"])
    outer = json.loads(declare(store, NO_HARM).to_json())
    assert outer["manifest_version"] == 3
    assert json.loads(outer["content"])["declared"][0]["num_complete"] == 0


def test_changed_date_of_a_claim_is_noticed(store: Store) -> None:
    """Guards the digest: it covers what was declared when."""
    manifest = declare(store, NO_HARM)
    data = manifest.to_json()
    (declared,) = manifest.declared
    assert data.count(declared.declared_at.encode()) == 1
    with pytest.raises(ValueError, match="its digest is that of another content"):
        Manifest.from_json(data.replace(declared.declared_at.encode(), b"2020-01-01T00:00:00+00:00"))


def test_declared_claims_are_plain_values() -> None:
    declared = DeclaredClaim(
        claim={"metric": "class_accuracy", "class": "square", "against": "teacher", "direction": "lower"},
        sha256="0" * 64,
        declared_at="2026-01-02T03:04:05+00:00",
        num_complete=0,
        num_trials=8,
    )
    assert declared.to_claim().text() == "accuracy on class square of all distilled students is lower than the teacher"
