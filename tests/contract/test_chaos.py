"""Kills at random moments, spread over one sweep on a cluster of a head and two other nodes: the tables stay as if nothing had happened.

    pytest tests/contract/test_chaos.py                 the short form: each kind once, on a tiny sweep
    pytest tests/contract/test_chaos.py -m chaos        the long form: 50 kills and a few polite stops on sweeps/trifeature-quick.yaml,
                                                        once with a local store and once with S3; runs only with this marker

Both print the seed of their schedule. KD_RAY_CHAOS_SEED=<seed> gives the same schedule again, kind by kind and pause by pause, and
KD_RAY_CHAOS_KILLS=<n> another number of kills for the long form. The moments themselves follow the sweep, because each kill waits until the
sweep is further than at the one before.
"""

import os
import random
import secrets
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

import pytest

from kd_ray.cluster.launch import launch
from kd_ray.data.families import load_dataset
from kd_ray.distill.batches import steps_per_epoch
from kd_ray.housekeeping.delete_garbage import delete_garbage
from kd_ray.housekeeping.find_garbage import find_garbage
from kd_ray.results.inventory import TrialObjects, take_inventory
from kd_ray.results.launch_plan import plan
from kd_ray.results.ledger import Lease, is_live
from kd_ray.results.record import read_record, sha256
from kd_ray.results.store import Store, lease_folder, open_store
from kd_ray.sweep.load import SweepFile, load_sweep
from tests.clusters import HEAD, NODES, LoopbackCluster, loopback_cluster
from tests.processes import started
from tests.s3 import BUCKET, settings_for
from tests.sweeps import assert_same_tables, tiny_sweep

QUICK = Path(__file__).resolve().parents[2] / "sweeps" / "trifeature-quick.yaml"
PATIENT = ("placement.max_retries=100", "placement.checkpoint_interval_s=0.5")
"""Kills of workers count against a trial that is alone in its pack; and between two kills a trial has a second or so to get further."""
TINY_BUT_LONG = ("training.epochs=100", "grid.seed=[0]", "grid.temperature=[1, 2, 4, 8]")
pytestmark = [pytest.mark.alone, pytest.mark.long]

LONGEST_PAUSE_S = 2.0
"""Between the sweep's progress and the kill."""
LAST_SHARE = 0.8
"""How much of the sweep is done when the last kill may come; the rest is left, because a kill comes a while after it may."""
POLL_S = 0.2
PATIENCE_S = 120.0
"""How long one step may take on a busy machine: progress after a kill, the end of a launch that was stopped or has lost its head."""


class Kind(StrEnum):
    """What happens."""

    DRIVER = "driver"
    """SIGKILL of the launch."""
    WORKER = "worker"
    """SIGKILL of one worker process."""
    WORKERS = "workers of a node"
    """SIGKILL of all of them at once."""
    NODE_TWO = "second node"
    """SIGKILL of everything on it."""
    NODE_THREE = "third node"
    """SIGKILL of everything on it."""
    HEAD = "head"
    """SIGKILL of everything on it, in half of the cases of the launch as well, as if that ran there."""
    STOP = "polite stop"
    """SIGINT or SIGTERM of the launch; not counted as a kill."""


SHARES: Mapping[Kind, int] = {
    Kind.DRIVER: 10,
    Kind.WORKER: 14,
    Kind.WORKERS: 10,
    Kind.NODE_TWO: 6,
    Kind.NODE_THREE: 6,
    Kind.HEAD: 4,
}
"""Kills by kind, out of 50; the head is rare because it takes everything else with it."""


@dataclass(frozen=True, kw_only=True)
class Event:
    """One entry of a schedule."""

    kind: Kind
    pause_s: float
    """From the moment at which the sweep is seen to be further, until it happens."""
    draw: float
    """In [0, 1): which of several candidates is hit."""
    share: float
    """How much of the sweep must be done before, so that the kills come from its beginning to its end."""


def schedule(seed: int, kills: Mapping[Kind, int], stops: int) -> list[Event]:
    """So many kills of each kind, and so many polite stops, in random order."""
    dice = random.Random(seed)
    kinds = [kind for kind, count in {**kills, Kind.STOP: stops}.items() for _ in range(count)]
    dice.shuffle(kinds)
    return [
        Event(
            kind=kind, pause_s=dice.uniform(0, LONGEST_PAUSE_S), draw=dice.random(), share=LAST_SHARE * i / len(kinds)
        )
        for i, kind in enumerate(kinds)
    ]


def shares_of(kills: int) -> dict[Kind, int]:
    """`kills` kills in about the proportions of SHARES, each kind at least once."""
    counts = {kind: max(1, kills * share // sum(SHARES.values())) for kind, share in SHARES.items()}
    counts[Kind.WORKER] += max(0, kills - sum(counts.values()))
    return counts


class Watch:
    """What a store has shown so far. A committed trial stays as it is, whatever is killed."""

    def __init__(self, store: Store, steps: Mapping[str, int]) -> None:
        """`steps` are the optimiser steps of each trial, by trial_id."""
        self._store = store
        self._steps = steps
        self._trials: dict[str, TrialObjects] = {}
        self._found: set[str] = set()
        self._seen: set[str] = set()
        self.records: dict[str, str] = {}
        """e_tags of the records, by trial_id."""

    def look(self) -> None:
        """List the trials; a record that was there is still there, and was not written again."""
        self._trials = take_inventory(self._store, "trials").trials
        records = {trial_id: trial.record.e_tag for trial_id, trial in self._trials.items() if trial.record}
        assert {key: records.get(key) for key in self.records} == self.records, "a record was written twice, or is gone"
        self._found = {item.key for trial in self._trials.values() for item in trial.items()}
        self.records = records

    def mark(self) -> None:
        """From now on, progress is what is newer than this."""
        self.look()
        self._seen |= self._found

    def is_further(self) -> bool:
        """Whether the last look has found a lease, a checkpoint or a record that was not there at the last mark."""
        return not self._found <= self._seen

    def share(self) -> float:
        """How much of the sweep the last look has found: mean over trials, from 0 to 1, by their last checkpoints."""
        steps = dict.fromkeys(self._steps, 0)
        for trial_id, trial in self._trials.items():
            reached = [entry.place.step for entry in trial.checkpoints]
            steps[trial_id] = self._steps[trial_id] if trial.record else max(reached, default=0)
        return sum(steps[trial] / self._steps[trial] for trial in steps) / len(steps)


class Chaos:
    """A launch on a cluster, and what is done to them."""

    def __init__(self, cluster: LoopbackCluster, watch: Watch, arguments: tuple[str, ...], folder: Path) -> None:
        self.watch = watch
        self.happened: Counter[Kind] = Counter()
        self.num_launches = 0
        self._cluster = cluster
        self._arguments = arguments
        self._folder = folder
        self._process: subprocess.Popen[str] | None = None
        self._running = ExitStack()

    @property
    def output(self) -> str:
        """What the last launch has printed so far."""
        return (self._folder / f"launch-{self.num_launches}.log").read_text()

    @contextmanager
    def run(self) -> Iterator[None]:
        """Within, a launch runs most of the time."""
        try:
            self._start_cluster()
            self._launch()
            yield
        finally:
            self._running.close()

    def strike(self, event: Event) -> None:
        """Wait until the sweep is further and the pause is over, do what the event says, and start again whatever is dead by then."""
        began = time.monotonic()
        self._await(lambda: self.watch.is_further() and self.watch.share() >= event.share, "progress")
        share, waited_s = self.watch.share(), time.monotonic() - began
        self._pause(event.pause_s)
        match event.kind:
            case Kind.DRIVER:
                self._end_launch(signal.SIGKILL)
                self._launch()
            case Kind.STOP:
                self._stop(signal.SIGINT if event.draw < 0.5 else signal.SIGTERM)
                self._launch()
            case Kind.WORKER | Kind.WORKERS:
                self._kill_workers(event)
            case Kind.NODE_TWO | Kind.NODE_THREE:
                address = NODES[event.kind is Kind.NODE_THREE]
                self._cluster.lose(self._cluster.node_at(address))
                self._cluster.add_nodes(address, wait=False)
            case Kind.HEAD:
                self._kill_head(with_launch=event.draw < 0.5)
                self._start_cluster()
                self._launch()
        self.happened[event.kind] += 1
        self.watch.mark()
        took_s = time.monotonic() - began
        print(f"{share:4.0%} {event.kind} after {waited_s:.1f} s, {took_s:.1f} s in all", flush=True)

    def finish(self, timeout_s: float) -> None:
        """Leave the last launch alone until it ends."""
        self._await(self._has_ended, "the end of the sweep", timeout_s=timeout_s, may_end=True)
        assert self._code() == 0, self.output
        self._close_launch()

    def _launch(self) -> None:
        self.num_launches += 1
        output = self._folder / f"launch-{self.num_launches}.log"
        self._process = self._running.enter_context(started(*self._arguments, cwd=self._folder, output=output))

    def _start_cluster(self) -> None:
        self._cluster.start_head()
        self._cluster.add_nodes(*NODES)

    def _kill_workers(self, event: Event) -> None:
        victims: list[int] = []

        def look() -> bool:
            workers = [pids for address in NODES if (pids := sorted(self._cluster.node_at(address).workers()))]
            groups = workers if event.kind is Kind.WORKERS else [[pid] for pids in workers for pid in pids]
            victims.extend(groups[int(event.draw * len(groups))] if groups else ())
            return bool(victims)

        self._await(look, "a worker")
        num_killed = sum(_kill(pid) for pid in victims)
        assert num_killed > 0, f"{event.kind}: {victims} ended by themselves"

    def _stop(self, number: signal.Signals) -> None:
        assert self._process
        os.kill(self._process.pid, number)
        self._await(self._has_ended, f"the end of a launch after {number.name}", may_end=True)
        assert self._code() == 130, f"{number.name}: {self._code()}\n{self.output}"
        assert self.output.splitlines()[-1].startswith("interrupted; continue with: "), self.output
        self._close_launch()

    def _kill_head(self, *, with_launch: bool) -> None:
        self._cluster.lose(self._cluster.node_at(HEAD))
        if with_launch:
            self._end_launch(signal.SIGKILL)
        else:
            # It notices by itself, and says that it has not finished.
            self._await(self._has_ended, "the end of a launch whose head died", may_end=True)
            assert self._code() not in (0, None), self.output
            self._close_launch()
        self._cluster.lose(*self._cluster.nodes)

    def _end_launch(self, number: signal.Signals) -> None:
        assert self._process
        os.kill(self._process.pid, number)
        self._process.wait()
        self._close_launch()

    def _close_launch(self) -> None:
        self._running.close()
        self._process = None
        assert "Traceback (most recent call last)" not in self.output, self.output

    def _code(self) -> int | None:
        assert self._process
        return self._process.poll()

    def _has_ended(self) -> bool:
        return self._code() is not None

    def _pause(self, seconds: float) -> None:
        """Let some time go by, in which the launch must not end."""
        assert self._process
        try:
            code = self._process.wait(timeout=seconds)
        except subprocess.TimeoutExpired:
            return
        raise AssertionError(f"the launch ended by itself with {code}:\n{self.output}")

    def _await(
        self, condition: Callable[[], bool], what: str, *, timeout_s: float = PATIENCE_S, may_end: bool = False
    ) -> None:
        """Return as soon as the condition holds, watching the store; the launch ends meanwhile only if it may."""
        assert self._process
        until = time.monotonic() + timeout_s
        self.watch.look()
        while not condition():
            assert time.monotonic() < until, f"no {what} within {timeout_s:.0f} s:\n{self.output}"
            try:
                code = self._process.wait(timeout=POLL_S)
            except subprocess.TimeoutExpired:
                self.watch.look()
                continue
            assert may_end, f"the launch ended with {code} while {what} was awaited:\n{self.output}"


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def undergo(
    file: SweepFile,
    store: Store,
    undisturbed: Store,
    folder: Path,
    *,
    kills: Mapping[Kind, int],
    stops: int,
    monkeypatch: pytest.MonkeyPatch,
    say: Callable[[str], None],
) -> None:
    """Kill as the schedule says, and compare what comes out with what the same sweep leaves when nothing happens."""
    seed = int(os.environ.get("KD_RAY_CHAOS_SEED") or secrets.randbelow(2**32))
    how = f"KD_RAY_CHAOS_SEED={seed} KD_RAY_CHAOS_KILLS={sum(kills.values())}"
    say(f"{how}: {store.url}")
    path = folder / "sweep.yaml"
    path.write_text(file.to_yaml())
    began = time.monotonic()
    events = schedule(seed, kills, stops)
    done = 0
    try:
        with loopback_cluster() as cluster:
            for name, value in cluster.environment.items():
                monkeypatch.setenv(name, value)
            arguments = ("launch", str(path), "--store", store.url, "--address", cluster.address)
            chaos = Chaos(cluster, Watch(store, steps_of(file)), arguments, folder)
            with chaos.run():
                for event in events:
                    chaos.strike(event)
                    done += 1
                struck_s = time.monotonic() - began
                chaos.finish(timeout_s=600)
            assert chaos.happened == Counter({**kills, Kind.STOP: stops})
            assert_whole(store, chaos.watch)
            assert_same_tables(store, undisturbed, file.sweep.name)
    except BaseException as error:
        error.add_note(f"{how} repeats the schedule; event {done + 1} of {len(events)}: {events[done : done + 1]}")
        raise
    finally:
        say(f"{how}: {done} of {len(events)} events in {time.monotonic() - began:.0f} s")
    say(
        f"{', '.join(f'{kind} {chaos.happened[kind]}' for kind in Kind)}; {chaos.num_launches} launches, "
        f"{struck_s:.0f} s of kills, {time.monotonic() - began:.0f} s in all"
    )


def steps_of(file: SweepFile) -> dict[str, int]:
    """Optimiser steps of each trial of a sweep."""
    num_train = len(load_dataset(file.sweep.dataset, Path(file.sweep.placement.data_root)).train)
    specs = [trial.spec for trial in plan(file, None).planned]
    return {
        spec.trial_id: spec.training.epochs * steps_per_epoch(num_train, spec.training.batch_size)
        for spec in specs
        if spec.training
    }


def assert_whole(store: Store, watch: Watch) -> None:
    """Every trial was committed once, nobody holds one any more, and what kills have left behind is known to be superfluous."""
    watch.look()
    before = dict(watch.records)
    trials = sorted(watch.records)
    leases = [store.get(item.key) for trial in trials for item in store.entries(lease_folder(trial))]
    assert not any(is_live(Lease.from_json(data or b"")) for data in leases)
    for trial in trials:
        record = read_record(store, trial)
        assert record
        weights = store.get(record.weights_key)
        assert weights is not None
        assert sha256(weights) == record.weights_sha256
    # Between the weights and the record, and between the record and the sweeping, a kill leaves something behind. `gc` knows all of it.
    delete_garbage(store, find_garbage(store, margin_s=0.0))
    left = take_inventory(store, "trials").trials
    assert left.keys() == set(trials)
    assert all(len(trial.weights) == 1 and len(list(trial.items())) == 2 for trial in left.values())
    watch.look()
    assert watch.records == before


# --- the two forms --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def say(capsys: pytest.CaptureFixture[str]) -> Callable[[str], None]:
    """Prints what has to be seen also when the test passes."""

    def say_(line: str) -> None:
        with capsys.disabled():
            print(f"\nchaos: {line}", flush=True)

    return say_


@pytest.mark.ray
def test_each_kind_of_kill_once_changes_no_table(
    tmp_path: Path,
    store: Store,
    trifeature_root: Path,
    monkeypatch: pytest.MonkeyPatch,
    say: Callable[[str], None],
) -> None:
    file = tiny_sweep(trifeature_root, *PATIENT, *TINY_BUT_LONG)
    undisturbed = open_store(tmp_path / "undisturbed")
    assert launch(file, undisturbed, runner="local").exit_code == 0
    kills = dict.fromkeys(SHARES, 1)
    undergo(file, store, undisturbed, tmp_path, kills=kills, stops=1, monkeypatch=monkeypatch, say=say)


@pytest.fixture(scope="module")
def quick(trifeature_root: Path) -> SweepFile:
    """The first sweep."""
    return load_sweep(QUICK, (*PATIENT, f"placement.data_root={trifeature_root}"))


@pytest.fixture(scope="module")
def undisturbed_quick(tmp_path_factory: pytest.TempPathFactory, quick: SweepFile) -> Store:
    """The first sweep, run once in this process."""
    store = open_store(tmp_path_factory.mktemp("undisturbed_quick"))
    assert launch(quick, store, runner="local").exit_code == 0
    return store


@pytest.fixture(params=["local", "s3"])
def any_store(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store of each kind."""
    if request.param == "local":
        return open_store(tmp_path / "store")
    for name, value in settings_for(request.getfixturevalue("s3")).items():
        monkeypatch.setenv(name, value)
    return open_store(f"s3://{BUCKET}/chaos")


@pytest.mark.chaos
def test_fifty_random_kills_change_no_table(
    any_store: Store,
    quick: SweepFile,
    undisturbed_quick: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    say: Callable[[str], None],
) -> None:
    kills = shares_of(int(os.environ.get("KD_RAY_CHAOS_KILLS") or 50))
    stops = max(1, sum(kills.values()) // 8)
    undergo(quick, any_store, undisturbed_quick, tmp_path, kills=kills, stops=stops, monkeypatch=monkeypatch, say=say)
