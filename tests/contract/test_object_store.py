"""The same contract over real APIs on loopback, driven by the real client over HTTP: S3 (moto's server) and Azure (Azurite)."""

import itertools
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from kd_ray.cluster.launch import launch
from kd_ray.housekeeping.verify import verify
from kd_ray.results.query import Results
from kd_ray.results.status import sweep_status
from kd_ray.results.store import Store, open_store
from tests import azure as azure_api
from tests.processes import run_cli
from tests.s3 import BUCKET, settings_for
from tests.sweeps import assert_same_tables, tiny_sweep
from tests.unit.results.store_contract import CONTRACT

_NUMBERS = itertools.count()


@pytest.fixture
def s3_store(s3: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store in the bucket."""
    for name, value in settings_for(s3).items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://{BUCKET}/store-{next(_NUMBERS)}")


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: str(promise.__name__))
def test_object_store_keeps_the_contract(promise: Callable[[Store], None], s3_store: Store) -> None:
    promise(s3_store)


@pytest.fixture
def azure_store(azure: str, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store in the container."""
    for name, value in azure_api.settings_for(azure).items():
        monkeypatch.setenv(name, value)
    return open_store(f"az://{azure_api.CONTAINER}/store-{next(_NUMBERS)}")


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: str(promise.__name__))
def test_azure_keeps_the_contract(promise: Callable[[Store], None], azure_store: Store) -> None:
    promise(azure_store)


@pytest.mark.parametrize("service", ["s3", "azure"])
def test_a_sweep_on_an_object_store_gives_the_tables_of_a_local_one(
    service: str, request: pytest.FixtureRequest, store: Store, trifeature_root: Path
) -> None:
    away: Store = request.getfixturevalue(f"{service}_store")
    file = tiny_sweep(trifeature_root, "grid.seed=[0]")
    assert launch(file, store, runner="local").exit_code == 0
    assert launch(file, away, runner="local").exit_code == 0
    assert_same_tables(store, away)
    sql = "SELECT class_name, sum(num_disagree) AS n FROM teacher_disagreement GROUP BY 1 ORDER BY 1"
    assert Results(away).query(sql).equals(Results(store).query(sql))
    found = verify(away)
    assert (found.problems, found.num_checked) == ((), verify(store).num_checked)


@pytest.mark.long
@pytest.mark.ray
def test_a_sweep_through_ray_on_s3_gives_the_tables_of_a_local_one(
    s3_store: Store, store: Store, trifeature_root: Path, tmp_path: Path
) -> None:
    file = tiny_sweep(trifeature_root, "grid.seed=[0]")
    assert launch(file, store, runner="local").exit_code == 0
    assert launch(file, s3_store, runner="ray").exit_code == 0
    assert_same_tables(store, s3_store)
    assert sweep_status(s3_store, "tiny").counts()["complete"] == 4
    sql = "SELECT class_name, sum(num_disagree) AS n FROM teacher_disagreement GROUP BY 1 ORDER BY 1"
    assert Results(s3_store).query(sql).equals(Results(store).query(sql))
    done = run_cli(
        "query", "SELECT count(*) AS n FROM trials", "--store", s3_store.url, "--format", "csv", cwd=tmp_path
    )
    assert (done.returncode, done.stdout) == (0, "n\n4\n"), done.stderr
    for item in s3_store.entries(""):
        assert b"the-secret-of-the-test" not in (s3_store.get(item.key) or b"")
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "the-secret-of-the-test"


def test_an_unreachable_object_store_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name, value in settings_for("http://127.0.0.1:9").items():
        monkeypatch.setenv(name, value)
    done = run_cli("status", "tiny", "--store", "s3://sweeps/none", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("store s3://sweeps/none: cannot list 'sweeps': ")
    assert "Traceback" not in done.stderr
