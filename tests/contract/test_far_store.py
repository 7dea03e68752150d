"""How many requests a sweep makes of an object store, and which run at once. `tests/benchmarks/far.py` measures what they cost."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest

from kd_ray.cluster.launch import launch
from kd_ray.cluster.local import LocalRunner
from kd_ray.distill.leases import HeldLeases
from kd_ray.results.query import Results
from kd_ray.results.status import all_statuses, sweep_status
from kd_ray.results.store import Store, open_store
from kd_ray.serve.snapshot import take_snapshot
from kd_ray.sweep.load import SweepFile
from tests.benchmarks.far import FarS3
from tests.benchmarks.synthetic import SyntheticWorker, packs_of_ten, synthetic_sweep, synthetic_worker
from tests.faulty_s3 import Fault, FaultyS3, faulty_s3
from tests.s3 import BUCKET, settings_for

pytestmark = pytest.mark.slow

NUM_TRIALS = 41
FIXED = 90
"""Requests of a launch that do not depend on the number of its trials, an aggregation every twentieth of a second included."""


@dataclass(frozen=True, kw_only=True)
class Launched:
    """A sweep that was launched through the proxy."""

    store: Store
    proxy: FarS3
    file: SweepFile
    requests: Counter[tuple[str, str]]
    """Of the launch."""

    def requests_of(self, act: Callable[[], object]) -> int:
        """How many requests a call makes."""
        self.proxy.kinds.clear()
        act()
        return self.proxy.kinds.total()


@pytest.fixture(scope="module")
def launched(s3: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launched]:
    """Four packs of ten and a teacher, which take no time to train."""
    with faulty_s3(s3, FarS3) as proxy, pytest.MonkeyPatch.context() as patch:
        assert isinstance(proxy, FarS3)
        for name, value in settings_for(proxy.url).items():
            patch.setenv(name, value)
        store = open_store(f"s3://{BUCKET}/far")
        file = packs_of_ten(NUM_TRIALS, str(tmp_path_factory.mktemp("data")))
        report = launch(file, store, runner=LocalRunner(worker=synthetic_worker), aggregate_every_s=0.05)
        assert (report.exit_code, len(report.trials)) == (0, NUM_TRIALS)
        yield Launched(store=store, proxy=proxy, file=file, requests=proxy.kinds.copy())


def test_a_trial_takes_seven_requests(launched: Launched) -> None:
    done = launched.requests
    for request in (
        ("PUT", "lease"),
        ("HEAD", "record"),
        ("HEAD", "lease"),
        ("PUT", "weights"),
        ("PUT", "record"),
        ("DELETE", ""),
    ):
        assert NUM_TRIALS <= done[request] <= NUM_TRIALS + 2, request
    assert NUM_TRIALS <= done["GET", "record"] <= NUM_TRIALS + 2, (
        "each record is read once, however often tables are made"
    )
    assert done.total() <= 7 * NUM_TRIALS + FIXED


def test_commands_that_train_nothing_make_few_requests(launched: Launched) -> None:
    store = launched.store
    assert launched.requests_of(lambda: launch(launched.file, store, runner=LocalRunner())) == 12
    assert launched.requests_of(lambda: sweep_status(store, "synthetic")) == 5
    assert launched.requests_of(lambda: all_statuses(store)) == 5
    assert launched.requests_of(lambda: take_snapshot(store, None)) == 3
    known = take_snapshot(store, None)
    assert launched.requests_of(lambda: take_snapshot(store, known)) == 2
    assert launched.requests_of(lambda: Results(store).query("SELECT count(*) FROM trials")) == 4


class Meeting(FaultyS3):
    """Answers a PUT only when several are being asked at once."""

    barrier: threading.Barrier | None = None
    num_alone = 0

    def fate(self, method: str, path: str) -> Fault | None:
        if self.barrier is not None and method == "PUT":
            try:
                self.barrier.wait(timeout=20)
            except threading.BrokenBarrierError:
                self.num_alone += 1
        return super().fate(method, path)


def test_the_leases_of_a_pack_are_released_at_once(s3: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: under one lock, a far store did not renew the leases of a large pack before they were over."""
    with faulty_s3(s3, Meeting) as proxy:
        assert isinstance(proxy, Meeting)
        for name, value in settings_for(proxy.url).items():
            monkeypatch.setenv(name, value)
        store = open_store(f"s3://{BUCKET}/meeting")
        worker = SyntheticWorker(store, synthetic_sweep(1).sweep.placement, "mine")
        with HeldLeases(worker, lambda message: None) as held:
            for i in range(8):
                held.acquire(f"{i:016x}")
            assert len(held.held) == 8
            proxy.barrier = threading.Barrier(8)
        assert (held.held, proxy.num_alone) == ({}, 0)
