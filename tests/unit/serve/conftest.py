"""Stores that several tests look at; nothing here writes to them after they were made."""

import pytest

from kd_ray.analysis.compare import compare
from kd_ray.results import ledger
from kd_ray.results.aggregate import aggregate
from kd_ray.results.query import Results
from kd_ray.results.store import Store, open_store
from tests.fakes import SWEEP_YAML, commit_trials, make_sweep, plan_trials, write_sweep
from tests.golden.make import golden_results
from tests.unit.analysis.report.made import hostile_sweep


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The golden sweep `demo`, compared."""
    results = golden_results(tmp_path_factory.mktemp("served"))
    compare(results, "demo")
    return results


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """A sweep whose classes and groups have hostile names."""
    return hostile_sweep(open_store(tmp_path_factory.mktemp("hostile")))


@pytest.fixture
def unfinished(store: Store) -> Store:
    """The sweep `demo`: 4 trials complete, 1 running in its second epoch, 1 failed, 2 pending."""
    file = make_sweep(SWEEP_YAML)
    write_sweep(store, file)
    trials = plan_trials(file)
    commit_trials(store, trials[:4])
    aggregate(store, "demo")
    lease = ledger.acquire(store, trials[4].trial_id, launch_id=ledger.new_launch_id())
    assert lease is not None
    ledger.renew(store, lease, {"epoch": 2, "epochs": 4, "accuracy": 0.625, "images_per_s": 1234.0})
    ledger.write_error(
        store,
        trials[5].trial_id,
        cause="the loss became NaN",
        traceback="Traceback: <script>alert(1)</script>",
        host="host",
        launch_id="launch",
    )
    return store
