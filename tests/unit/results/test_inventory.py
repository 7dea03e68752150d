"""What counts as an object of kd_ray: only names that it writes, whatever else lies in the store."""

import re
from pathlib import Path

import pytest

import kd_ray
from kd_ray.housekeeping.find_garbage import find_garbage
from kd_ray.housekeeping.verify import verify
from kd_ray.results.aggregate import aggregate
from kd_ray.results.inventory import Inventory, TrialObjects, take_inventory, trial_objects
from kd_ray.results.query import Results
from kd_ray.results.status import sweep_status
from kd_ray.results.store import (
    Kind,
    ParsedKey,
    Store,
    checkpoint_key,
    error_key,
    features_key,
    lease_key,
    logits_key,
    manifest_key,
    parse_key,
    part_key,
    plan_mark_key,
    pretrained_key,
    probe_key,
    proof_key,
    quarantine_key,
    record_key,
    report_folder,
    samples_key,
    stop_key,
    sweep_key,
    table_columns_key,
    table_index_key,
    weights_key,
    witness_key,
)
from tests.fakes import make_sweep, plan_trials, write_sweep
from tests.unit.housekeeping.whole import commit_whole, grow_old

ID = "0123456789abcdef"
TRIALS = plan_trials(make_sweep())
KEYS = {
    record_key(ID): ParsedKey(kind=Kind.RECORD, trial_id=ID),
    error_key(ID): ParsedKey(kind=Kind.ERROR, trial_id=ID),
    stop_key(ID, 27): ParsedKey(kind=Kind.STOP, trial_id=ID, number=27),
    lease_key(ID, 1_234_567): ParsedKey(kind=Kind.LEASE, trial_id=ID, number=1_234_567),
    checkpoint_key(ID, 2, 30, "a" * 64): ParsedKey(
        kind=Kind.CHECKPOINT, trial_id=ID, number=2, step=30, digest="a" * 16
    ),
    weights_key(ID, 7): ParsedKey(kind=Kind.WEIGHTS, trial_id=ID, number=7),
    samples_key(ID): ParsedKey(kind=Kind.SAMPLES, dataset_id=ID),
    features_key(ID): ParsedKey(kind=Kind.FEATURES, digest=ID),
    pretrained_key("b" * 64): ParsedKey(kind=Kind.PRETRAINED, sha256="b" * 64),
    logits_key(ID, "c" * 16, "d" * 64): ParsedKey(kind=Kind.LOGITS, trial_id=ID, logits_id="c" * 16, digest="d" * 16),
    probe_key(ID): ParsedKey(kind=Kind.PROBE, probe_id=ID),
    sweep_key("a-b.c_1"): ParsedKey(kind=Kind.SWEEP_FILE, sweep="a-b.c_1"),
    manifest_key("demo", 3): ParsedKey(kind=Kind.MANIFEST, sweep="demo", number=3),
    plan_mark_key("demo"): ParsedKey(kind=Kind.PLAN_MARK, sweep="demo"),
    table_index_key("demo"): ParsedKey(kind=Kind.TABLE_INDEX, sweep="demo"),
    part_key("class_metrics", "demo", 4): ParsedKey(
        kind=Kind.TABLE_PART, table="class_metrics", sweep="demo", number=4
    ),
    part_key("trials", "my-test.train", 0): ParsedKey(
        kind=Kind.TABLE_PART, table="trials", sweep="my-test.train", number=0
    ),
    "tables/trials/sweep=demo/part-00000.parquet": ParsedKey(kind=Kind.FORMER_PART, table="trials", sweep="demo"),
    f"{report_folder('demo')}/figures/a.svg": ParsedKey(kind=Kind.REPORT, sweep="demo", path="figures/a.svg"),
    proof_key(): ParsedKey(kind=Kind.PROOF),
    witness_key(ID): ParsedKey(kind=Kind.WITNESS, witness_id=ID),
    quarantine_key(record_key(ID), b""): ParsedKey(
        kind=Kind.QUARANTINED, path=record_key(ID), digest="e3b0c44298fc1c14"
    ),
    proof_key(): ParsedKey(kind=Kind.PROOF),
    witness_key(ID): ParsedKey(kind=Kind.WITNESS, witness_id=ID),
    table_columns_key(): ParsedKey(kind=Kind.TABLE_COLUMNS),
}
STRAYS = (
    "tables/trials/demo/part-00000.sync-conflict-20260101-101010-ABCDEF1.parquet",
    "tables/trials/demo/part-00000 (conflicted copy).parquet",
    "tables/trials/demo/._part-00000.parquet",
    "tables/trials/demo (conflicted copy)/part-00000.parquet",
    "tables/trials/demo/notes [old].txt",
    "tables/trials/Demo/part-00000.parquet",
    "tables/trials/my-test/part-00000.parquet",
    "tables/.DS_Store",
    "sweeps/demo/sweep.yaml~",
    "sweeps/demo/manifest/000002 (conflicted copy).json",
    "sweeps/demo (conflicted copy)/manifest/000001.json",
    "sweeps/demo/manifest/Thumbs.db",
    f"trials/{TRIALS[0].trial_id}/record (conflicted copy).parquet",
    f"trials/{TRIALS[0].trial_id}/lease/000001 (conflicted copy).json",
    f"trials/{TRIALS[0].trial_id}/desktop.ini",
    f"trials/{TRIALS[0].trial_id} (conflicted copy)/record.parquet",
    f"trials/{TRIALS[7].trial_id}/checkpoint/._000001-000000010-0123456789abcdef.safetensors",
    "datasets/.DS_Store",
    "weights/Thumbs.db",
    "Icon\r",
    "tables/trials/caf\udce9",
)
COUNT = "SELECT count(*) AS n, sum(accuracy) AS total FROM trials"


@pytest.mark.parametrize(("key", "expected"), KEYS.items())
def test_every_key_is_read_back_as_it_was_made(key: str, expected: ParsedKey) -> None:
    assert parse_key(key) == expected


def test_every_kind_of_object_has_a_key_here() -> None:
    assert {place.kind for place in KEYS.values()} == set(Kind)


@pytest.mark.parametrize("key", STRAYS)
def test_names_that_kd_ray_does_not_write_are_no_keys(key: str) -> None:
    assert parse_key(key) is None


@pytest.fixture
def whole(store: Store) -> Store:
    """Seven of eight trials complete, with tables."""
    write_sweep(store, make_sweep())
    commit_whole(store, TRIALS[:7])
    aggregate(store, "demo")
    return store


def test_inventory_of_a_store(whole: Store) -> None:
    whole.put(lease_key(TRIALS[7].trial_id, 2), b"{}")
    found = take_inventory(whole)
    assert list(found.sweeps) == ["demo"]
    assert list(found.sweeps["demo"].manifests) == [1]
    assert set(found.trials) == {trial.trial_id for trial in TRIALS}
    assert sum(trial.record is not None for trial in found.trials.values()) == 7
    assert list(found.trials[TRIALS[7].trial_id].leases) == [2]
    assert len(found.parts) == 7
    assert found.strangers == []
    assert trial_objects(whole, TRIALS[0].trial_id) == found.trials[TRIALS[0].trial_id]
    assert trial_objects(whole, ID) == TrialObjects()
    assert take_inventory(whole, "tables", keep=lambda place: place.table == "none") == Inventory()


@pytest.mark.slow
def test_files_that_kd_ray_did_not_write_change_nothing_and_are_named(whole: Store) -> None:
    """Guards every listing: copies by sync tools, AppleDouble files and backups are never data, problems or garbage."""
    root = whole.local_root
    assert root is not None
    part = whole.get(part_key("trials", "demo", 0)) or b""
    results = Results(whole)
    before = results.query(COUNT)
    counts = sweep_status(whole, "demo").counts()
    for key in STRAYS:
        path = root / key
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(part)
    assert results.query(COUNT).equals(before)
    assert results.sweeps() == ["demo"]
    assert aggregate(whole, "demo").num_parts_written == 0
    status = sweep_status(whole, "demo")
    assert (status.counts(), status.problems) == (counts, ())
    assert len(status.strangers) == sum(key.startswith(("sweeps/", "tables/")) for key in STRAYS)
    report = verify(whole)
    assert report.problems == ()
    assert len(report.strangers) == len(STRAYS)
    grow_old(whole)
    garbage = find_garbage(whole, with_damaged=True, with_orphans=True).garbage
    assert not {found.item.key for found in garbage} & set(report.strangers)


_SPELLED = re.compile(
    r"record\.parquet|error\.json|samples\.parquet|folded\.json|[\"/]part-|sweep=\{[^}]*\}/|[\"/]weights-|:06d\}|:09d\}"
    r"|\"(?:trials|sweeps|teachers|datasets|damaged|probes)/"
    r"|\{(?:TRIALS|SWEEPS|TABLES_FOLDER|DATASETS|DAMAGED|TEACHERS|REPORTS)\}/"
    r"|item\.key\.(?:r?split|removeprefix|startswith)|\bkey\.r?split\(\"/|Path\(item\.key\)"
)


def _code(path: Path) -> str:
    """The source without docstrings and comments."""
    text = re.sub(r'"""(?:.|\n)*?"""', "", path.read_text())
    return re.sub(r"(?m)#.*$", "", text)


@pytest.mark.parametrize("room", ["results", "housekeeping", "cluster", "analysis", "distill", "cli"])
def test_keys_are_spelled_and_taken_apart_in_store_py_only(room: str) -> None:
    """Guard: the other modules ask `store.py` and `inventory.py`, so that no second idea of a key can appear."""
    package = Path(kd_ray.__file__).parent
    found = [
        f"{path.relative_to(package)}: {match[0]}"
        for path in sorted((package / room).rglob("*.py"))
        if path.name != "store.py"
        for match in _SPELLED.finditer(_code(path))
    ]
    assert found == []
