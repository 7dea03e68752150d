"""The same contract over a real S3 API on loopback: moto's server, driven by the real client over HTTP."""

import itertools
import os
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kd_ray.cluster.launch import launch
from kd_ray.results.query import Results
from kd_ray.results.status import sweep_status
from kd_ray.results.store import Store, open_store
from tests.processes import run_cli, wait_until
from tests.sweeps import assert_same_tables, tiny_sweep
from tests.unit.results.store_contract import CONTRACT

_NUMBERS = itertools.count()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    """A running S3 server with one bucket; the environment names it and holds credentials, as a cluster's would."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    settings = {
        "AWS_ENDPOINT_URL": url,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "the-key-of-the-test",
        "AWS_SECRET_ACCESS_KEY": "the-secret-of-the-test",
        "AWS_REGION": "us-east-1",
    }
    try:
        wait_until(lambda: _answers(url), server)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in settings.items():
                patch.setenv(name, value)
            bucket = urllib.request.Request(f"{url}/sweeps", method="PUT")
            with urllib.request.urlopen(bucket, timeout=30):
                yield "s3://sweeps"
    finally:
        server.kill()
        server.wait()


@pytest.fixture
def s3_store(s3: str) -> Store:
    """An empty store in the bucket."""
    return open_store(f"{s3}/store-{next(_NUMBERS)}")


@pytest.mark.parametrize("promise", CONTRACT, ids=lambda promise: str(promise.__name__))
def test_object_store_keeps_the_contract(promise: Callable[[Store], None], s3_store: Store) -> None:
    promise(s3_store)


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
    for name, value in {
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "x",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    done = run_cli("status", "tiny", "--store", "s3://sweeps/none", cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith("store s3://sweeps/none: cannot list 'sweeps/tiny/manifest': ")
    assert "Traceback" not in done.stderr
