"""A record that was read is not read again, unless it was written again."""

from kd_ray.results.read_once import RecordsRead
from kd_ray.results.record import commit_record
from kd_ray.results.store import Store, record_key
from tests.fakes import make_record, make_sweep, plan_trials

TRIALS = plan_trials(make_sweep())


def commit(store: Store, index: int) -> tuple[str, str]:
    """The trial_id and the e_tag of a record."""
    trial_id = TRIALS[index].trial_id
    commit_record(store, make_record(TRIALS[index].spec))
    item = store.head(record_key(trial_id))
    assert item is not None
    return trial_id, item.e_tag


def test_a_record_is_read_again_when_it_has_another_e_tag(store: Store) -> None:
    trial_id, e_tag = commit(store, 0)
    records = RecordsRead()
    found = records.read(store, trial_id, e_tag)
    assert found is not None
    store.delete(record_key(trial_id))
    assert records.read(store, trial_id, e_tag) is found
    assert records.read(store, trial_id, "another") is None


def test_the_oldest_records_are_let_go(store: Store) -> None:
    written = [commit(store, index) for index in range(3)]
    records = RecordsRead(most=2)
    first, second, third = [records.read(store, *one) for one in written]
    assert records.read(store, *written[1]) is second
    assert records.read(store, *written[2]) is third
    assert records.read(store, *written[0]) is not first
