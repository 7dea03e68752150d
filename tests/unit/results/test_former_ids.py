"""Groups can be changed without training, also for trials of kd_ray 0.1, in whose identity they counted."""

from collections.abc import Iterable, Sequence

import pytest

from kd_ray.housekeeping.audit import audit
from kd_ray.results.aggregate import aggregate
from kd_ray.results.former_ids import with_former_ids
from kd_ray.results.launch_plan import plan
from kd_ray.results.manifest import read_manifest, write_manifest
from kd_ray.results.query import Results
from kd_ray.results.record import commit_record, read_record, write_samples
from kd_ray.results.store import Store
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.plan import PlannedTrial, expand
from kd_ray.sweep.spec import TrialSpec, content_hash
from tests.fakes import WEIGHTS_DIGEST, make_record, make_samples, make_sweep, random_predictions

DATASET = (
    'dataset={"name": "manifest", "path": "a.csv", "version": "0123456789abcdef", "classes": ["circle", "square", "star"],'
    ' "features": ["color"], "split": "split", "size": 32}'
)
MORE = ('dataset.features=["color", "texture"]', "sensitive_features=[color, texture]")
LARGE = ("dataset.min_group_size=3",)


def sweep_of(*overrides: str) -> SweepFile:
    plain = ("sensitive_features=[color]", "intersections=null", "dataset=null", DATASET)
    return make_sweep(overrides=(*plain, *overrides))


def planned(file: SweepFile, *, former: bool = False) -> Sequence[PlannedTrial]:
    return expand(file, lambda _: WEIGHTS_DIGEST, groups_in_id=former)


def keep(store: Store, file: SweepFile, trials: Iterable[PlannedTrial]) -> None:
    """The manifest and the tables, as a launch leaves them."""
    trials = tuple(trials)
    write_manifest(store, file.sweep, trials, sweep_yaml=file.to_yaml(), weights={})
    aggregate(store, file.sweep.name)


def finish(store: Store, file: SweepFile, *, former: bool = False) -> None:
    trials = planned(file, former=former)
    for trial in trials:
        samples(store, trial)
        commit_record(store, make_record(trial.spec, predictions_N=random_predictions(trial.spec)))
    keep(store, file, trials)


def samples(store: Store, trial: PlannedTrial) -> None:
    """The samples as a launch would load them."""
    every = make_samples().sensitive_features
    features = {name: every[name] for name in trial.dataset.sensitive_feature_names}
    write_samples(store, trial.dataset_id, make_samples(sensitive_features=features))


def resume(store: Store, file: SweepFile) -> Sequence[PlannedTrial]:
    """A launch that finds nothing to train."""
    now = plan(file, store)
    assert {line.state for line in now.trials} == {"complete"}
    samples(store, now.planned[0])
    keep(store, file, now.planned)
    return now.planned


@pytest.mark.slow
@pytest.mark.parametrize("former", [False, True])
@pytest.mark.parametrize(
    "changes",
    [(), (*MORE, *LARGE), pytest.param(MORE, marks=pytest.mark.long), pytest.param(LARGE, marks=pytest.mark.long)],
)
def test_other_groups_train_nothing(changes: tuple[str, ...], former: bool, store: Store) -> None:
    finish(store, sweep_of(), former=former)
    before = {line.trial_id for line in read_manifest(store, "demo").trials}
    resume(store, sweep_of(*changes))
    assert {line.trial_id for line in read_manifest(store, "demo").trials} == before
    features = Results(store).query("SELECT DISTINCT feature FROM fairness_metrics ORDER BY 1")["feature"].to_pylist()
    assert features == (["color", "texture"] if MORE[0] in changes else ["color"])
    assert audit(store, ["demo"]).disagreements == ()


@pytest.mark.slow
@pytest.mark.parametrize("former", [False, True])
def test_groups_can_change_again_and_again(former: bool, store: Store) -> None:
    """Guard: the identities follow from the groups of the first launch, which later manifests do not ask for."""
    finish(store, sweep_of(), former=former)
    before = {line.trial_id for line in read_manifest(store, "demo").trials}
    for changes in (LARGE, MORE, LARGE, (), (*MORE, *LARGE), ("training.epochs=5", *MORE), MORE):
        now = plan(sweep_of(*changes), store)
        if "training.epochs=5" not in changes:
            resume(store, sweep_of(*changes))
            assert {line.trial_id for line in read_manifest(store, "demo").active} == before
        else:
            assert {line.state for line in now.trials} == {"pending"}
            write_manifest(
                store, sweep_of(*changes).sweep, now.planned, sweep_yaml=sweep_of(*changes).to_yaml(), weights={}
            )
    settings = read_manifest(store, "demo").former_datasets
    assert len(settings) == len(set(settings)) == 3


@pytest.mark.slow
def test_identities_of_kd_ray_01_are_those_of_all_settings(store: Store) -> None:
    file = sweep_of()
    finish(store, file, former=True)
    listed = read_manifest(store, "demo").trials
    now = {trial.trial_id for trial in planned(file)}
    assert {line.trial_id for line in listed}.isdisjoint(now)
    for line in listed:
        record = read_record(store, line.trial_id)
        assert record is not None
        assert record.trial_id == line.trial_id == content_hash(record.spec.changed(groups_in_id=False))


@pytest.mark.slow
def test_another_sweep_finds_trials_of_kd_ray_01(store: Store) -> None:
    finish(store, sweep_of(), former=True)
    other = sweep_of("name=other", *MORE)
    resume(store, other)
    rows = (
        Results(store).query("SELECT sweep, count(DISTINCT trial_id) n FROM trials GROUP BY 1 ORDER BY 1").to_pylist()
    )
    assert rows == [{"sweep": "demo", "n": 8}, {"sweep": "other", "n": 8}]


@pytest.mark.slow
def test_new_trials_of_a_sweep_of_kd_ray_01_learn_from_its_teachers(store: Store) -> None:
    finish(store, sweep_of(), former=True)
    wider = sweep_of("grid.temperature=[1, 4, 8]", *MORE)
    now = plan(wider, store)
    pending = [trial for trial, line in zip(now.planned, now.trials, strict=True) if line.state == "pending"]
    assert [trial.spec.temperature for trial in pending] == [8.0, 8.0]
    teachers = {trial.trial_id for trial in now.planned if trial.spec.role == "teacher"}
    assert {trial.spec.teacher.trial_id for trial in pending if trial.spec.teacher} == teachers
    assert teachers <= {line.trial_id for line in read_manifest(store, "demo").trials}


@pytest.mark.slow
def test_what_trains_otherwise_is_not_taken_for_a_former_trial(store: Store) -> None:
    finish(store, sweep_of(), former=True)
    for change in ("dataset.size=48", "dataset.version=fedcba9876543210", "training.epochs=5"):
        states = {line.state for line in plan(sweep_of(change), store).trials}
        assert states == {"pending"}, change


def test_other_families_are_left_alone(store: Store) -> None:
    trials = planned(make_sweep())
    assert with_former_ids(store, trials) == trials


@pytest.mark.slow
def test_joint_groups_follow_the_settings_that_are_asked_for_now(store: Store) -> None:
    """Guard: a record names the settings of the launch that trained it."""
    crossed = (*MORE, "intersections=[[color, texture]]")
    finish(store, sweep_of(*crossed))

    def joint() -> int:
        found = Results(store).query("SELECT DISTINCT \"group\" FROM group_metrics WHERE feature = 'color & texture'")
        return int(found.num_rows)

    assert joint() == 6
    resume(store, sweep_of(*crossed, *LARGE))
    assert joint() == 4
    assert audit(store, ["demo"]).disagreements == ()
    resume(store, sweep_of(*crossed))
    assert joint() == 6


@pytest.mark.slow
def test_a_metric_frame_knows_the_features_of_every_sweep(store: Store) -> None:
    finish(store, sweep_of())
    trial_id = read_manifest(store, "demo").trials[0].trial_id
    resume(store, sweep_of("name=other", *MORE))
    found = Results(store).metric_frame(trial_id, "texture")
    assert found.by_group["count"].to_dict() == {"dots": 6, "stripes": 6}
    assert set(Results(store).predictions(trial_id)["color"]) == {"red", "blue"}


def test_a_copy_of_a_spec_has_an_identity_of_its_own() -> None:
    spec: TrialSpec = planned(sweep_of())[0].spec
    assert spec.trial_id != spec.changed(seed=7).trial_id
