"""The leases of a pack: when they are renewed, and who has to ask first."""

import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from kd_ray.distill.leases import HeldLeases
from kd_ray.results.ledger import LEASE_TTL_S, Lease
from kd_ray.results.store import Store, lease_key
from tests.benchmarks.synthetic import SyntheticWorker, synthetic_sweep
from tests.fakes import WatchedStore

TRIAL_ID = "0123456789abcdef"
FILE = synthetic_sweep(1)


class Waits(threading.Event):
    """Stands for the end of the pack: notes for how long it is waited for, lets that time pass at once, and comes after a few waits."""

    def __init__(self, clock: list[float], lasting_s: Sequence[float | None]) -> None:
        super().__init__()
        self.asked_s: list[float] = []
        self._clock = clock
        self._lasting_s = lasting_s

    def wait(self, timeout: float | None = None) -> bool:
        assert timeout is not None
        lasting_s = self._lasting_s[len(self.asked_s)] if len(self.asked_s) < len(self._lasting_s) else None
        self.asked_s.append(timeout)
        if len(self.asked_s) > len(self._lasting_s):
            return True
        self._clock[0] += timeout if lasting_s is None else lasting_s
        return False


def beat(store: Store, *lasting_s: float | None, warnings: list[str]) -> Waits:
    """Hold a lease over some waits, each of which lasts as long as was asked for or as long as is given."""
    clock = [1_000.0]
    worker = SyntheticWorker(store, FILE.sweep.placement, "mine")
    held = HeldLeases(worker, warnings.append, clocks=lambda: (clock[0], 0.0))
    waits = Waits(clock, lasting_s)
    held._stop = waits
    held.acquire(TRIAL_ID)
    held._beat()
    return waits


def renewals(store: WatchedStore) -> int:
    """How often the lease was written after its creation."""
    return store.changed.count(lease_key(TRIAL_ID, 1)) - 1


def test_a_lease_is_renewed_before_half_of_its_time_is_over(tmp_path: Path) -> None:
    """Guard: one late beat must not let a lease run out whose holder is at work."""
    store, warnings = WatchedStore(str(tmp_path / "store")), list[str]()
    waits = beat(store, None, None, None, warnings=warnings)
    assert len(waits.asked_s) == 4
    assert all(0 < asked_s < LEASE_TTL_S / 2 for asked_s in waits.asked_s)
    assert renewals(store) == 3
    assert warnings == []


@pytest.mark.parametrize(("slept_s", "renewed"), [(LEASE_TTL_S - 1, True), (LEASE_TTL_S + 1, False)])
def test_who_has_slept_longer_than_a_lease_lasts_asks_before_it_renews(
    slept_s: float, renewed: bool, tmp_path: Path
) -> None:
    """Guard: a host that was frozen must not renew a lease whose trial another worker has taken over."""

    class TakenOver(WatchedStore):
        def put_new(self, key: str, data: bytes, *, durable: bool = False) -> bool:
            created = super().put_new(key, data, durable=durable)
            if key == lease_key(TRIAL_ID, 1):
                theirs = Lease.from_json(data).to_json()
                assert super().put_new(lease_key(TRIAL_ID, 2), theirs, durable=durable)
            return created

    store, warnings = TakenOver(str(tmp_path / "store")), list[str]()
    beat(store, slept_s, warnings=warnings)
    assert renewals(store) == int(renewed)
    assert warnings == ([] if renewed else [f"trial {TRIAL_ID} was taken over; generation 1 leaves it alone"])
