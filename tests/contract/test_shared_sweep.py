"""Sweeps whose data come from a URL: the same trials, records and tables as with a data root, whatever happens to a fetch."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kd_ray.cluster.launch import launch
from kd_ray.cluster.shared_data.fetched_sets import on_this_node
from kd_ray.cluster.shared_data.find_sets import find_sets
from kd_ray.cluster.shared_data.push_data import push
from kd_ray.cluster.shared_data.set_files import wanted_sets
from kd_ray.errors import StoreError
from kd_ray.results.manifest import read_manifest
from kd_ray.results.store import Store, open_store
from kd_ray.sweep.load import SweepFile, parse_sweep
from tests.datasets import write_cifar10, write_table
from tests.faulty_s3 import Fault, FaultyS3, always, faulty_s3
from tests.processes import output_of, run_cli_here, wait_until
from tests.s3 import BUCKET, settings_for
from tests.sweeps import assert_same_tables

pytestmark = pytest.mark.slow

LOANS = """
name: tiny
dataset:
  name: manifest
  path: table/loans.csv
  columns: [income, job]
  categorical: [job]
  classes: ["no", "yes"]
  features: [sex]
  split: split
  version: auto
sensitive_features: [sex]
teacher: {model: mlp-8, seed: [0]}
student: {model: mlp-4}
training: {epochs: 2, batch_size: 8, optimizer: {lr: 0.1}, schedule: {name: constant}}
distillation: {alpha: 0.9, t_squared: true}
grid: {seed: [0], temperature: [1, 4]}
placement: {data_root: DATA}
"""

CIFAR = """
name: tiny
dataset: {name: cifar10, version: 92d74d05f039e59e}
student: {model: lenet5}
training: {epochs: 1, batch_size: 8, optimizer: {lr: 0.1}, schedule: {name: constant}}
grid: {seed: [0]}
placement: {data_root: DATA}
"""

FETCH = """
import os, signal, sys
from kd_ray.cluster.shared_data.fetched_sets import on_this_node
from kd_ray.cluster.shared_data.find_sets import find_sets
from kd_ray.sweep.load import load_sweep

file = load_sweep(sys.argv[1])

def told(what, done, total):
    if done >= float(sys.argv[2]) * total:
        os.kill(os.getpid(), signal.SIGKILL)

print(on_this_node(file.sweep.placement, find_sets(file), told).data_root)
"""
"""A process of a node that fetches, and dies by SIGKILL when it has so large a share."""


def sweep(text: str, node: Path, url: str | None = None, *overrides: str) -> SweepFile:
    placed = [] if url is None else [f"placement.data_url={url}"]
    return parse_sweep(text.replace("DATA", str(node)), source="tiny.yaml", overrides=[*placed, *overrides])


def push_all(file: SweepFile, root: Path, url: str, shard_bytes: int = 2**14) -> None:
    for wanted in wanted_sets(file):
        push(wanted, root, open_store(url), shard_bytes=shard_bytes)


@pytest.fixture
def url(s3: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A place in the bucket."""
    for name, value in settings_for(s3).items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{tmp_path.name}"


@contextmanager
def fetching(file: SweepFile, folder: Path, *, dies_at: float = 2) -> Iterator[subprocess.Popen[str]]:
    """A process that fetches the sets of the sweep."""
    path = folder / f"fetching-{Path(file.sweep.placement.data_root).name}.yaml"
    path.write_text(file.to_yaml())
    process = subprocess.Popen(
        [sys.executable, "-c", FETCH, str(path), str(dies_at)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def near(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Store]:
    """A data root, and the store of the sweep that was trained with it."""
    root = write_table(tmp_path_factory.mktemp("near") / "data")
    store = open_store(root.parent / "store")
    assert launch(sweep(LOANS, root), store, runner="local").exit_code == 0
    return root, store


def test_a_sweep_with_its_data_at_a_url_is_that_of_a_data_root(
    near: tuple[Path, Store], store: Store, tmp_path: Path, url: str
) -> None:
    root, of_root = near
    far = sweep(LOANS, tmp_path / "node", url)
    push_all(far, root, url)
    report = launch(far, store, runner="local")
    assert (report.exit_code, report.warnings) == (0, ())
    assert_same_tables(of_root, store)
    (folder,) = [it for it in (tmp_path / "node" / "fetched").iterdir() if it.is_dir()]
    assert (folder / "table" / "loans.csv").read_bytes() == (root / "table" / "loans.csv").read_bytes()
    # All that was made of the data lies in the same folder, which may be deleted as a whole.
    assert [it.name for it in (tmp_path / "node").iterdir()] == ["fetched"]
    # The manifest keeps what was asked for, so the sweep can be resumed anywhere.
    kept = parse_sweep(read_manifest(store, "tiny").sweep_yaml, source="manifest").sweep.placement
    assert (kept.data_root, kept.data_url) == (str(tmp_path / "node"), url)


def test_the_commands_of_a_login_node_need_no_data(tmp_path: Path, url: str, store: Store) -> None:
    root = write_table(tmp_path / "data")
    by_root, far = sweep(LOANS, root), sweep(LOANS, tmp_path / "login", url)
    for name, file in (("near", by_root), ("far", far)):
        (tmp_path / f"{name}.yaml").write_text(file.to_yaml())

    def shown(*arguments: str) -> tuple[int, str]:
        done = run_cli_here(*arguments, cwd=tmp_path)
        return done.returncode, done.stdout or done.stderr

    code, text = shown("plan", "far.yaml", "--store", "s")
    assert code == 2
    assert f"far.yaml: placement.data_url: data set manifest: {url} does not have it; `kd-ray data push" in text
    code, text = shown("data", "push", "near.yaml", url)
    assert code == 0
    assert text.endswith("; 1 file in 1 shard, 0.0 MB; 1 shard sent, 0.0 MB\n")
    assert shown("data", "push", "near.yaml", url)[1].endswith("; 0 shards sent, 0.0 MB\n")
    plans = [json.loads(shown("plan", f"{name}.yaml", "--store", "s", "--json")[1]) for name in ("near", "far")]
    assert plans[0] == plans[1]
    assert plans[1]["missing_files"] == []
    assert not (tmp_path / "login").exists()
    checks = [shown("data", "check", f"{name}.yaml") for name in ("near", "far")]
    assert checks[0] == checks[1]
    assert (tmp_path / "login" / "fetched").is_dir()


def test_two_processes_of_a_node_fetch_once(s3: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = sweep(CIFAR, tmp_path / "node", url)
    push_all(file, write_cifar10(tmp_path / "data"), url)
    num_shards = len(find_sets(file)[0].index.shards)
    with faulty_s3(s3, _Held) as proxy:
        assert isinstance(proxy, _Held)
        for name, value in settings_for(proxy.url).items():
            monkeypatch.setenv(name, value)
        with fetching(file, tmp_path) as first, fetching(file, tmp_path) as second:
            said = {first: "", second: ""}
            readers = [threading.Thread(target=_read, args=(process, said, proxy.may_go)) for process in said]
            for reader in readers:
                reader.start()
            for reader in readers:
                reader.join(timeout=120)
            assert [process.wait(timeout=60) for process in said] == [0, 0]
        assert sum("waiting for another process of this node, which fetches" in text for text in said.values()) == 1
        assert len({text.splitlines()[-1] for text in said.values()}) == 1
        assert proxy.num_shards == num_shards > 10


class _Held(FaultyS3):
    """Answers no shard before it may."""

    def __init__(self, behind: str) -> None:
        super().__init__(behind)
        self.may_go = threading.Event()
        self.num_shards = 0

    def fate(self, method: str, path: str) -> Fault | None:
        if "/shards/" in path:
            assert self.may_go.wait(timeout=60)
            self.num_shards += 1
        return super().fate(method, path)


def _read(process: "subprocess.Popen[str]", said: "dict[subprocess.Popen[str], str]", may_go: threading.Event) -> None:
    assert process.stdout is not None
    for line in process.stdout:
        said[process] += line
        if "waiting for" in line:
            may_go.set()


@pytest.mark.long
def test_a_killed_fetch_goes_on_where_it_stopped(url: str, tmp_path: Path) -> None:
    root = write_cifar10(tmp_path / "data")
    local = tmp_path / "url"
    file = sweep(CIFAR, tmp_path / "node", str(local))
    push_all(file, root, str(local))
    with fetching(file, tmp_path, dies_at=0.5) as process:
        assert process.wait(timeout=60) == -9
    (partial,) = (tmp_path / "node" / "fetched").glob(".*.partial")
    finished = {mark.name[:64] for mark in (partial / "done").iterdir()}
    shards = {shard.sha256 for shard in find_sets(file)[0].index.shards}
    assert 0 < len(finished) < len(shards)
    for sha in finished:
        (local / "shards" / sha).unlink()
    with fetching(file, tmp_path) as process:
        folder = Path(output_of(process, timeout_s=60).strip())
        assert process.returncode == 0
    for path in (root / "cifar-10-batches-py").iterdir():
        assert (folder / "cifar-10-batches-py" / path.name).read_bytes() == path.read_bytes()
    assert not partial.exists()


def test_a_folder_that_another_process_uses_stays(
    store: Store, tmp_path: Path, s3: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = sweep(CIFAR, tmp_path / "node", url)
    push_all(file, write_cifar10(tmp_path / "data"), url)
    with faulty_s3(s3, _Held) as proxy:
        assert isinstance(proxy, _Held)
        for name, value in settings_for(proxy.url).items():
            monkeypatch.setenv(name, value)
        with fetching(file, tmp_path) as process:
            wait_until(lambda: any((tmp_path / "node" / "fetched").glob(".*.partial/room")), process)
            for name, value in settings_for(s3).items():
                monkeypatch.setenv(name, value)
            loans = sweep(LOANS, tmp_path / "node", url, "placement.data_cache_gb=1e-4")
            push_all(loans, write_table(tmp_path / "data"), url)
            with pytest.raises(StoreError, match="other sets that are in use take"):
                launch(loans, store, runner="local")
            assert not list(store.entries(""))
            proxy.may_go.set()
            assert process.wait(timeout=60) == 0


def test_a_url_without_permission_ends_in_one_line(
    s3: str, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = sweep(CIFAR, tmp_path / "node", url)
    push_all(file, write_cifar10(tmp_path / "data"), url)
    found = find_sets(file)
    with faulty_s3(s3) as proxy:
        for name, value in settings_for(proxy.url).items():
            monkeypatch.setenv(name, value)
        proxy.faults = always(Fault.DENIED)
        with pytest.raises(StoreError) as refused:
            find_sets(file)
        assert str(refused.value).startswith(
            f"tiny.yaml: placement.data_url: data set cifar10: store {url}: cannot read 'sets/cifar10-"
        )
        assert "403" in str(refused.value)
        assert str(refused.value).endswith("check the URL, and your credentials for it (docs/stores.md)")
        assert "\n" not in str(refused.value)
        with pytest.raises(
            StoreError, match=r"data set cifar10: store .*cannot read 'shards/.*403.*this node's credentials"
        ):
            on_this_node(file.sweep.placement, found)


@pytest.mark.ray
@pytest.mark.long
def test_a_sweep_through_ray_fetches_its_data(near: tuple[Path, Store], store: Store, tmp_path: Path, url: str) -> None:
    from kd_ray.cluster.ray_tune.ray_runner import RayRunner

    root, of_root = near
    far = sweep(LOANS, tmp_path / "node", url, "placement.pack_size=1")
    push_all(far, root, url)
    assert launch(far, store, runner=RayRunner(placement=far.sweep.placement, num_cpus=2)).exit_code == 0
    assert_same_tables(of_root, store)
    assert [it.name for it in (tmp_path / "node").iterdir()] == ["fetched"]
