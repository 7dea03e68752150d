"""Mutated objects of every kind through the commands themselves: an answer or one line, no traceback, no escape sequence, in bounded time.

The commands run in this process. Several objects of a kind lie in one store, so that one command reads them all; where a command ends
because of one of them, it gets them one by one, so that none is hidden behind another. `KD_RAY_FUZZ=10000` tries so many of each kind.
"""

import functools
import io
import json
import logging
import os
import random
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kd_ray.cli.commands import main
from kd_ray.results.aggregate import aggregate
from kd_ray.results.checkpoints import Checkpoints
from kd_ray.results.record import sha256
from kd_ray.results.schema import TABLES
from kd_ray.results.store import (
    Store,
    checkpoint_key,
    error_key,
    lease_key,
    manifest_key,
    open_store,
    part_key,
    record_key,
    samples_key,
    table_index_key,
)
from kd_ray.shown import control_character
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.plan import PlannedTrial
from tests.contract.test_fuzz import LEASE, TARGETS, decoded_checkpoint, mutated_list
from tests.datasets import write_table
from tests.fakes import SWEEP_YAML, make_sweep, plan_trials, write_sweep
from tests.unit.data.test_listed_columns import make
from tests.unit.housekeeping.whole import commit_whole

COUNT = int(os.environ.get("KD_RAY_FUZZ", "8"))

FAILED: dict[str, tuple[int, ...]] = {}
"""Seeds that once ended in a traceback, by kind."""
LONGEST_S = 5.0
"""Of the processor, for one command; each further object may take a tenth of a second."""
BATCH = 20
LIST = "none.csv"
"""The list of the sweep, which is missing, so that a launch ends before it trains."""
YAML = f"""
name: demo
dataset:
  {{name: manifest, title: shapes, path: {LIST}, columns: [x], target: shape, classes: [circle, square, star], features: [color],
   split: split}}
sensitive_features: [color]
student: {{model: mlp-4}}
training: {{epochs: 4, batch_size: 8, optimizer: {{lr: 0.1}}, schedule: {{name: constant}}}}
grid: {{seed: [0], dataset.version: VERSIONS}}
placement: {{data_root: nowhere}}
"""

Verb = tuple[str, ...]
LOOK: tuple[Verb, ...] = (
    ("status",),
    ("status", "demo", "--failed"),
    ("adopt", "STORE", "--dry-run"),
    ("resume", "demo", "--runner", "local"),
)
GC: Verb = ("gc", "--yes", "--damaged", "--orphans")
MEND: Verb = ("verify", "--repair")
QUERY: Verb = ("query", "SELECT count(*) FROM trials, class_metrics, samples")


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of object: the trials of a store that has some, and the commands that meet them."""

    complete: int
    open: int
    """Trials that are not complete."""
    key: Callable[[PlannedTrial, bytes, int], str]
    """Of a trial, the object and its seed."""
    verbs: tuple[Verb, ...]
    is_of_open: bool = False
    """Whether the objects are those of the trials that are not complete."""

    @property
    def batch(self) -> int:
        """Objects in one store."""
        return max(self.complete, self.open)


def _of_open(key: Callable[[PlannedTrial, bytes, int], str]) -> Kind:
    return Kind(complete=1, open=BATCH, key=key, verbs=(*LOOK, GC, MEND), is_of_open=True)


def _of_complete(key: Callable[[PlannedTrial, bytes, int], str]) -> Kind:
    return Kind(complete=BATCH, open=1, key=key, verbs=(*LOOK, MEND, QUERY, GC))


def part_of(seed: int) -> str:
    """The part of a table that the seed chooses: the parts of one batch are those of all tables."""
    return part_key(tuple(TABLES)[seed % len(TABLES)], "demo", 0)


KINDS: dict[str, Kind] = {
    "record": _of_complete(lambda trial, *_: record_key(trial.trial_id)),
    "samples": _of_complete(lambda trial, *_: samples_key(trial.spec.dataset_id)),
    "lease": _of_open(lambda trial, *_: lease_key(trial.trial_id, 1)),
    "error": _of_open(lambda trial, *_: error_key(trial.trial_id)),
    "checkpoint": _of_open(lambda trial, data, _: checkpoint_key(trial.trial_id, 1, 3, sha256(data))),
    "manifest": Kind(complete=1, open=1, key=lambda *_: manifest_key("demo", 2), verbs=(*LOOK, GC, MEND, QUERY)),
    "index": Kind(complete=1, open=0, key=lambda *_: table_index_key("demo"), verbs=(*LOOK, MEND, QUERY)),
    "part": Kind(complete=len(TABLES), open=0, key=lambda *it: part_of(it[2]), verbs=(QUERY, *LOOK, MEND)),
}


def sweep_of(count: int) -> SweepFile:
    """A sweep of so many trials, each with test samples of its own."""
    return make_sweep(YAML.replace("VERSIONS", json.dumps([f"{number:016x}" for number in range(count)])))


@functools.cache
def trials_of(count: int) -> tuple[PlannedTrial, ...]:
    """The trials of `sweep_of`."""
    return plan_trials(sweep_of(count))


def whole_store(folder: Path, kind: Kind) -> Path:
    """A store as launches leave it."""
    root = folder / f"whole-{kind.complete}-{kind.open}"
    if not root.exists():
        store, file = open_store(root), sweep_of(kind.complete + kind.open)
        write_sweep(store, file)
        commit_whole(store, trials_of(kind.complete + kind.open)[: kind.complete])
        aggregate(store, "demo")
    return root


def original(name: str, store: Store, trial: PlannedTrial, seed: int) -> bytes:
    """What is mutated."""
    if name == "lease":
        return replace(LEASE, trial_id=trial.trial_id).to_json()
    if name in ("error", "checkpoint"):
        return TARGETS[name][1](store) or b""
    return store.get(manifest_key("demo", 1) if name == "manifest" else KINDS[name].key(trial, b"", seed)) or b""


class Shown(io.BytesIO):
    """What a command shows. A command that cannot write its answer closes the descriptor below it."""

    def __init__(self, below: int) -> None:
        super().__init__()
        self._below = below

    def fileno(self) -> int:
        """A descriptor that may be closed."""
        return self._below


def run(arguments: Verb, what: str, *, objects: int = 1) -> bool:
    """Run a command as a shell does; whether it ended with an answer. What it shows has nothing that a terminal obeys."""
    began, where = time.process_time(), f"`{' '.join(arguments)}`, {what}"
    with Path(os.devnull).open("w") as nowhere, pytest.MonkeyPatch.context() as patch:
        shown = io.TextIOWrapper(Shown(nowhere.fileno()), encoding="utf-8", write_through=True)
        patch.setattr(sys, "argv", ["kd-ray", *arguments])
        patch.setattr(sys, "stdout", shown)
        patch.setattr(sys, "stderr", shown)
        try:
            main()
            code: object = 0
        except SystemExit as end:
            code = end.code
        except BaseException as error:
            raise AssertionError(f"{where}: {''.join(traceback.format_exception(error)[-3:])[:2000]}") from error
        finally:
            logging.setLogRecordFactory(logging.LogRecord)
    took_s, said = time.process_time() - began, shown.buffer.getvalue().decode()
    assert code in (0, 1, 2), f"{where}: ends with {code}"
    assert code == 0 or said.strip(), f"{where}: an error without a message"
    obeyed = [it for it in said if it not in "\n\r\t" and control_character(it)]
    assert not obeyed, f"{where}: shows {obeyed[:5]!r}"
    assert took_s < LONGEST_S + objects / 10, f"{where}: took {took_s:.1f} s"
    # `verify` ends with 1 when it has found problems; a launch, after its look at the store, because of the missing list or failed trials.
    return code == 0 or (code == 1 and arguments[0] == "verify") or LIST in said or " trials complete" in said


def through_the_verbs(folder: Path, name: str, kind: Kind, seeds: list[int]) -> None:
    """Every command of a kind, on a store with a mutant for each seed."""
    whole, root = whole_store(folder, kind), folder / "store"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(whole, root)
    store, planned = open_store(root), trials_of(kind.complete + kind.open)
    trials = planned[kind.complete :] if kind.is_of_open else planned[: kind.complete]
    for trial, seed in zip(trials, seeds, strict=False):
        data = TARGETS[name][0].mutate(original(name, store, trial, seed), random.Random(seed))
        store.put(kind.key(trial, data, seed), data)
        if name == "checkpoint":
            # The worker that continues the trial.
            Checkpoints(store, replace(LEASE, trial_id=trial.trial_id, generation=2)).load(decoded_checkpoint)
    ended = []
    for verb in kind.verbs:
        at = folder / "other" if verb[0] == "adopt" else root
        arguments = (*(str(root) if word == "STORE" else word for word in verb), "--store", str(at))
        what = f"{name}, seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
        if not run(arguments, what, objects=len(seeds)):
            ended.append(verb)
    if ended and len(seeds) > 1:
        alone = replace(kind, complete=1, open=1, verbs=tuple(ended))
        for seed in seeds:
            through_the_verbs(folder, name, alone, [seed])


def tell(kind: str, done: int, began: float) -> None:
    """Progress of a long run."""
    if "KD_RAY_FUZZ" in os.environ and done % 500 == 0:
        print(f"{kind}: {done} objects in {time.monotonic() - began:.0f} s", file=sys.__stderr__, flush=True)


@pytest.mark.parametrize("name", KINDS)
def test_commands_stand_mutated_objects(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    batch, began = KINDS[name].batch, time.monotonic()
    seeds = [*FAILED.get(name, ()), *range(COUNT)]
    problems: list[str] = []
    for start in range(0, len(seeds), batch):
        try:
            through_the_verbs(tmp_path, name, KINDS[name], seeds[start : start + batch])
        except AssertionError as error:
            problems.append(str(error))
        tell(name, start, began)
    assert not problems, "\n".join(problems[:10]) + f"\n{len(problems)} of {COUNT}"


def test_plan_stands_mutated_sweep_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store, began = str(whole_store(tmp_path, KINDS["part"])), time.monotonic()
    target, problems = TARGETS["sweep file"][0], []
    for seed in [*FAILED.get("sweep file", ()), *range(COUNT)]:
        Path("sweep.yaml").write_bytes(target.mutate(SWEEP_YAML.encode(), random.Random(seed)))
        try:
            run(("plan", "sweep.yaml", "--store", store, "--max-cells", "500"), f"seed {seed}")
        except AssertionError as error:
            problems.append(str(error))
        tell("sweep file", seed, began)
    assert not problems, "\n".join(problems[:10]) + f"\n{len(problems)} of {COUNT}"


def test_data_check_stands_mutated_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_table(tmp_path) / "table" / "loans.csv"
    whole, began = path.read_bytes(), time.monotonic()
    fields = make().model_dump(mode="json", exclude_none=True)
    Path("sweep.yaml").write_text(
        YAML.replace("VERSIONS", '["0000000000000000"]').replace("data_root: nowhere", f"data_root: {tmp_path}")
    )
    settings = [part for name, value in fields.items() for part in ("--set", f"dataset.{name}={json.dumps(value)}")]
    problems = []
    for seed in [*FAILED.get("list", ()), *range(COUNT)]:
        path.write_bytes(mutated_list(whole, random.Random(seed)))
        try:
            run(("data", "check", "manifest", *settings), f"seed {seed}")
        except AssertionError as error:
            problems.append(str(error))
        tell("list", seed, began)
    assert not problems, "\n".join(problems[:10]) + f"\n{len(problems)} of {COUNT}"
