"""Merging one store into another: everything that is whole comes over, nothing that is there is overwritten."""

import json
from collections.abc import Callable, Iterable
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from kd_ray.errors import InvalidInputError, StoreError
from kd_ray.housekeeping.adopt import AdoptReport, adopt
from kd_ray.housekeeping.verify import verify
from kd_ray.results import ledger
from kd_ray.results.aggregate import aggregate
from kd_ray.results.inventory import sweep_names
from kd_ray.results.manifest import read_manifest, write_manifest
from kd_ray.results.record import read_record, sha256, write_samples
from kd_ray.results.store import (
    Store,
    open_store,
    pretrained_key,
    record_key,
    samples_key,
    sweep_key,
    weights_key,
)
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.plan import expand
from kd_ray.sweep.spec import TrialState
from tests.fakes import PREDICTIONS_N, make_samples, make_sweep, plan_trials, set_written, write_sweep
from tests.unit.housekeeping.whole import commit_whole, contents, keys, spoil, tables

FILE = make_sweep()
TRIALS = plan_trials(FILE)
IDS = [trial.trial_id for trial in TRIALS]
DATASET = TRIALS[0].spec.dataset_id


def fill(store: Store, file: SweepFile = FILE) -> Store:
    write_sweep(store, file)
    commit_whole(store, plan_trials(file))
    aggregate(store, file.sweep.name)
    return store


@pytest.fixture
def source(tmp_path: Path) -> Store:
    """The demo sweep, complete."""
    return fill(open_store(tmp_path / "source"))


def ids(file: SweepFile) -> list[str]:
    return [trial.trial_id for trial in plan_trials(file)]


def results(store: Store, among: Iterable[str] = ("trials/", "datasets/", "weights/")) -> dict[str, bytes | None]:
    return {key: data for key, data in contents(store).items() if key.startswith(tuple(among))}


@pytest.mark.slow
def test_an_empty_store_becomes_the_other(source: Store, store: Store) -> None:
    before = contents(source)
    report = adopt(source, store)
    assert set(report.adopted) == set(IDS)
    assert (report.sweeps, report.present, report.skipped, report.problems) == (("demo",), (), {}, ())
    assert not report.is_incomplete
    assert results(store) == results(source)
    assert tables(store) == tables(source)
    assert verify(store).problems == ()
    assert contents(source) == before
    json.dumps(report.to_dict())


@pytest.mark.slow
def test_again_does_nothing(source: Store, store: Store) -> None:
    adopt(source, store)
    before = contents(store)
    report = adopt(source, store)
    assert (report.adopted, report.sweeps) == ((), ())
    assert set(report.present) == set(IDS)
    assert contents(store) == before


@pytest.mark.slow
def test_dry_run_says_the_same_and_writes_nothing(source: Store, store: Store) -> None:
    would = adopt(source, store, dry_run=True)
    assert keys(store) == set()
    done = adopt(source, store)
    assert (would.adopted, would.sweeps) == (done.adopted, done.sweeps)


class Dying(Store):
    """A store whose process is killed at the n-th write."""

    left = 0

    def _die(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise StoreError("killed")

    def put(self, key: str, data: bytes, *, durable: bool = False) -> str:
        self._die()
        return super().put(key, data, durable=durable)

    def put_new(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        self._die()
        return super().put_new(key, data, durable=durable)


@pytest.mark.slow
@pytest.mark.parametrize("writes", [0, 1, 2, 3, 4, 7, 12, 20, 26])
def test_a_merge_that_was_cut_short_goes_on(
    writes: int, source: Store, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guard: the record comes last and is created only if absent."""
    dying = Dying(store.url)
    dying.left = writes
    with pytest.raises(StoreError, match="killed"):
        adopt(source, dying)
    committed = {trial_id for trial_id in IDS if store.exists(record_key(trial_id))}
    for trial_id in committed:
        record = read_record(store, trial_id)
        assert record is not None
        assert sha256(store.get(record.weights_key) or b"") == record.weights_sha256
        assert store.exists(samples_key(DATASET))
    # The leases of the process that died run out.
    for item in store.entries("trials"):
        if "/lease/" in item.key:
            lease = ledger.Lease.from_json(store.get(item.key) or b"")
            store.put(item.key, replace(lease, renewed_at=lease.renewed_at - timedelta(hours=1)).to_json())
            set_written(store, item.key, 3600)
    report = adopt(source, store)
    assert set(report.adopted) == set(IDS) - committed
    assert verify(store).problems == ()


@pytest.mark.slow
def test_a_record_that_is_there_is_kept_and_the_difference_named(source: Store, store: Store) -> None:
    """Guard: no record is ever overwritten."""
    commit_whole(store, TRIALS[:1], predictions_N=PREDICTIONS_N)
    commit_whole(store, TRIALS[1:2])
    before = contents(store)
    report = adopt(source, store)
    assert (report.different, report.present, len(report.adopted)) == ((IDS[0],), (IDS[1],), 6)
    assert report.is_incomplete
    assert before.items() <= contents(store).items()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("key", "message"),
    [
        (record_key(IDS[0]), "is not a whole record"),
        (weights_key(IDS[0], 1), "is not what its record names"),
    ],
)
def test_damaged_trials_are_named_and_skipped(key: str, message: str, source: Store, store: Store) -> None:
    """Guard: each trial is read whole before anything of it is written."""
    spoil(source, key)
    report = adopt(source, store)
    assert list(report.skipped) == [IDS[0]]
    assert message in report.skipped[IDS[0]]
    assert len(report.adopted) == 7
    assert not any(IDS[0] in key for key in keys(store))
    assert verify(store).problems == ()


@pytest.mark.slow
@pytest.mark.parametrize(
    "remove", [lambda store: store.delete(samples_key(DATASET)), lambda store: spoil(store, samples_key(DATASET))]
)
def test_trials_without_whole_samples_are_skipped(remove: Callable[[Store], None], source: Store, store: Store) -> None:
    remove(source)
    assert set(adopt(source, store).skipped) == set(IDS)
    assert not any(key.startswith("trials/") for key in keys(store))


@pytest.mark.slow
def test_trials_of_other_samples_under_one_name_are_skipped(source: Store, store: Store) -> None:
    """Guard: what is there is not overwritten, and predictions never meet labels of other samples."""
    write_samples(store, DATASET, make_samples(class_names=("a", "b", "c")))
    report = adopt(source, store)
    assert all("holds other test samples" in why for why in report.skipped.values())
    assert set(report.skipped) == set(IDS)


@pytest.mark.slow
def test_a_trial_in_training_is_left_to_its_launch(source: Store, store: Store) -> None:
    """Guard: a record is adopted under the trial's lease only."""
    assert ledger.acquire(store, IDS[0], launch_id="x")
    report = adopt(source, store)
    assert list(report.skipped) == [IDS[0]]
    assert report.skipped[IDS[0]].endswith("is in training there; adopt again later")
    assert ledger.scan(store, IDS[:1])[IDS[0]].state is TrialState.RUNNING


@pytest.mark.slow
def test_weights_of_a_worker_here_are_not_overwritten(source: Store, store: Store) -> None:
    """Guard: weights get the name of the lease they were written under, so that a late worker cannot spoil them."""
    store.put(weights_key(IDS[0], 1), b"of a worker that was killed before it could commit")
    adopt(source, store)
    record = read_record(store, IDS[0])
    assert record is not None
    assert record.weights_key == weights_key(IDS[0], 2)
    assert verify(store).problems == ()
    assert store.get(weights_key(IDS[0], 1)) == b"of a worker that was killed before it could commit"


@pytest.mark.slow
def test_weights_of_a_later_generation_there_come_over(tmp_path: Path, store: Store) -> None:
    other = open_store(tmp_path / "other")
    write_sweep(other, FILE)
    commit_whole(other, TRIALS, generation=3)
    assert set(adopt(other, store).adopted) == set(IDS)
    assert verify(store).problems == ()


def merged(store: Store, tmp_path: Path, mine: list[str], theirs: list[str]) -> AdoptReport:
    fill(store, make_sweep(overrides=mine))
    return adopt(fill(open_store(tmp_path / "other"), make_sweep(overrides=theirs)), store)


@pytest.mark.slow
def test_other_seeds_of_one_sweep_become_one_grid(store: Store, tmp_path: Path) -> None:
    """Guard: positions are kept, and what resume asks for afterwards is what both asked for."""
    report = merged(store, tmp_path, ["grid.seed=[0]"], ["grid.seed=[1]"])
    assert (report.sweeps, report.warnings) == (("demo",), ())
    manifest = read_manifest(store, "demo")
    first = ids(make_sweep(overrides=["grid.seed=[0]"]))
    assert manifest.generation == 2
    assert {trial.trial_id for trial in manifest.trials[:4]} == set(first)
    assert {trial.trial_id for trial in manifest.active} == set(IDS)
    assert store.get(sweep_key("demo")) == manifest.sweep_yaml.encode()
    # A launch of the united sweep file changes nothing.
    assert write_sweep(store, make_sweep(manifest.sweep_yaml)).generation == 2
    assert aggregate(store, "demo").num_trials == 8


@pytest.mark.slow
def test_what_this_store_asks_for_already_changes_no_manifest(store: Store, tmp_path: Path) -> None:
    report = merged(store, tmp_path, ["grid.seed=[0, 1, 2]"], ["grid.seed=[1]"])
    assert (report.sweeps, report.warnings, report.adopted) == ((), (), ())


@pytest.mark.slow
def test_grids_that_do_not_make_one_are_united_with_a_warning(store: Store, tmp_path: Path) -> None:
    """Guard: no grid is made up that asks for trials nobody asked for."""
    report = merged(
        store, tmp_path, ["grid.seed=[0]", "grid.temperature=[1]"], ["grid.seed=[1]", "grid.temperature=[4]"]
    )
    assert len(report.warnings) == 1
    assert report.warnings[0].startswith("sweep demo: no single grid asks for just the trials of both stores")
    assert "and its tables lose 3 trials then" in report.warnings[0]
    assert len(read_manifest(store, "demo").active) == aggregate(store, "demo").num_trials == 6


@pytest.mark.slow
def test_one_name_for_other_groups_is_refused_before_anything_is_written(store: Store, tmp_path: Path) -> None:
    """Guard: tables of one sweep compare the same groups for all of its trials."""
    fill(store, make_sweep(overrides=["intersections=null", "sensitive_features=[texture]"]))
    before = contents(store)
    message = r"different groups under this name: sensitive_features \['color', 'texture'\] .* sensitive_features \['texture'\]"
    with pytest.raises(InvalidInputError, match=message):
        adopt(fill(open_store(tmp_path / "other")), store)
    assert contents(store) == before


@pytest.mark.slow
def test_one_sweep_alone(source: Store, store: Store) -> None:
    other = make_sweep(overrides=["name=other", "grid.seed=[7]"])
    fill(source, other)
    report = adopt(source, store, sweep="other")
    assert set(report.adopted) == set(ids(other))
    assert sweep_names(store) == ["other"]
    with pytest.raises(InvalidInputError, match="no sweep 'none'; it has: demo, other"):
        adopt(source, store, sweep="none")


@pytest.mark.slow
def test_other_sweeps_here_see_adopted_trials(source: Store, store: Store) -> None:
    twin = make_sweep(overrides=["name=twin"])
    write_sweep(store, twin)
    aggregate(store, "twin")
    adopt(source, store)
    assert len(tables(store, "twin")["trials"]) > 0
    assert aggregate(store, "twin").num_parts_written == 0
    assert aggregate(store, "twin").num_trials == 8


@pytest.mark.slow
def test_given_weights_come_over_whole_or_not_at_all(tmp_path: Path, store: Store) -> None:
    given = b"weights of a given teacher"
    file = make_sweep(overrides=["teacher={model: resnet20, weights: t.pt}"])
    other = open_store(tmp_path / "other")
    planned = expand(file, lambda path: sha256(given))
    write_manifest(other, file.sweep, planned, sweep_yaml=file.to_yaml(), weights={"t.pt": sha256(given)})
    commit_whole(other, planned)
    other.put(pretrained_key(sha256(given)), b"noise")
    report = adopt(other, store, dry_run=True)
    assert len(report.skipped) == len(report.problems) == 1
    other.put(pretrained_key(sha256(given)), given)
    assert not adopt(other, store).is_incomplete
    assert store.get(pretrained_key(sha256(given))) == given


@pytest.mark.slow
def test_a_sweep_of_texts_has_no_weights_to_bring(tmp_path: Path, store: Store) -> None:
    """Guard: `Manifest.stored_weights`; networks of texts and tokenizers are folders, and the manifest lists their versions only."""
    given = {"hf:tiny-bert": "0123456789abcdef", "tokenizer of hf:tiny-bert": "fedcba9876543210"}
    other = open_store(tmp_path / "other")
    write_manifest(other, FILE.sweep, TRIALS, sweep_yaml=FILE.to_yaml(), weights=given)
    commit_whole(other, TRIALS)
    aggregate(other, "demo")
    assert verify(other).problems == ()
    report = adopt(other, store)
    assert (report.problems, report.is_incomplete) == ((), False)
    assert read_manifest(store, "demo").weights == given
    aggregate(store, "demo")
    assert verify(store).problems == ()


def test_a_store_is_not_merged_into_itself_and_not_from_nothing(source: Store, store: Store, tmp_path: Path) -> None:
    with pytest.raises(InvalidInputError, match="cannot be merged into itself"):
        adopt(source, open_store(source.url))
    with pytest.raises(InvalidInputError, match="holds neither trials nor sweeps"):
        adopt(open_store(tmp_path / "none"), store)


CLAIM = "{metric: accuracy, direction: higher}"


@pytest.mark.slow
def test_claims_of_both_stores_stand_with_the_later_date(source: Store, store: Store) -> None:
    """Guards `united_declared`: what one store declared late does not become early through the other."""
    fill(store, make_sweep(overrides=[f"claims=[{CLAIM}]"]))
    write_sweep(source, make_sweep(overrides=[f"claims=[{CLAIM}]"]))
    (early,), (late,) = (read_manifest(it, "demo").declared for it in (store, source))
    assert (early.num_complete, late.num_complete) == (0, 8)
    assert adopt(source, store).warnings == ()
    (united,) = read_manifest(store, "demo").declared
    assert (united.num_complete, united.declared_at) == (8, max(early.declared_at, late.declared_at))
    assert adopt(source, store).sweeps == ()


@pytest.mark.slow
def test_a_claim_of_the_other_store_alone_comes_over_and_is_warned_of(source: Store, store: Store) -> None:
    write_sweep(source, make_sweep(overrides=[f"claims=[{CLAIM}]"]))
    write_sweep(store, FILE)
    assert adopt(source, store).warnings == (
        "sweep demo: its sweep file lacks a claim of the other store, and its next launch withdraws it: "
        "accuracy of all distilled students is higher than scratch",
    )
    assert read_manifest(store, "demo").declared == read_manifest(source, "demo").declared
    assert adopt(source, store).sweeps == ()
    (withdrawn,) = write_sweep(store, FILE).declared
    assert (withdrawn.num_complete, withdrawn.num_complete_at_withdrawal) == (8, 8)
