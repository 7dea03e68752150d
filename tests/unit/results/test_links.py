"""Links in a local store that lead out of it: nothing is written, moved or deleted through them."""

import logging
import shutil
from pathlib import Path

import pytest

from kd_ray.analysis.report.build import default_folder
from kd_ray.errors import StoreError
from kd_ray.housekeeping.delete_garbage import delete_garbage
from kd_ray.housekeeping.find_garbage import find_garbage
from kd_ray.housekeeping.repair import repair
from kd_ray.housekeeping.verify import verify
from kd_ray.results.aggregate import aggregate
from kd_ray.results.query import Results
from kd_ray.results.store import Store, open_store, part_key, record_key
from tests.fakes import make_sweep, plan_trials, write_sweep
from tests.unit.housekeeping.whole import commit_whole, grow_old

TRIALS = plan_trials(make_sweep())


@pytest.fixture
def whole(store: Store) -> Store:
    """A finished store with its tables."""
    write_sweep(store, make_sweep())
    commit_whole(store, TRIALS)
    aggregate(store, "demo")
    return store


def root_of(store: Store) -> Path:
    assert store.local_root is not None
    return store.local_root


@pytest.mark.slow
def test_gc_deletes_nothing_behind_a_link(whole: Store, tmp_path: Path) -> None:
    root, victim = root_of(whole), tmp_path / "victim"
    shutil.copytree(root / "tables" / "trials" / "demo", victim / "parts")
    (victim / "parts" / "part-00000.parquet").rename(victim / "parts" / "part-00003.parquet")
    shutil.copytree(root / "trials" / TRIALS[0].trial_id, victim / "trial")
    (victim / "parts" / "part-00000.parquet#1").write_bytes(b"unfinished")
    (root / "tables" / "trials" / "old").symlink_to(victim / "parts")
    (root / "trials" / "0123456789abcdef").symlink_to(victim / "trial")
    before = sorted(victim.rglob("*"))
    grow_old(whole)
    grow_old(open_store(victim))
    report = find_garbage(whole, with_orphans=True, with_damaged=True)
    assert report.garbage == ()
    delete_garbage(whole, report)
    assert sorted(victim.rglob("*")) == before


@pytest.mark.slow
def test_repair_sets_nothing_aside_that_lies_behind_a_link(whole: Store, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(b"a password")
    record = root_of(whole) / record_key(TRIALS[0].trial_id)
    record.unlink()
    record.symlink_to(secret)
    report = verify(whole)
    (problem,) = [it for it in report.problems if "link" in it.what]
    assert problem.key == record_key(TRIALS[0].trial_id)
    repair(whole, report)
    assert not (root_of(whole) / "damaged").exists()
    assert record.is_symlink()
    assert secret.read_bytes() == b"a password"


@pytest.mark.parametrize("verb", ["put", "put_new", "delete"])
def test_a_link_out_of_the_store_is_named_and_not_followed(store: Store, tmp_path: Path, verb: str) -> None:
    store.put("a/b", b"1")
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "c").write_bytes(b"2")
    (root_of(store) / "a" / "link").symlink_to(outside)
    arguments = [b"3"] if verb != "delete" else []
    for key in ("a/link/c", "a/link/new", "a/link"):
        with pytest.raises(StoreError, match=r"'a/link/?.*': 'a/link' is a link that leaves the store"):
            getattr(store, verb)(key, *arguments)
    assert {path.name: path.read_bytes() for path in outside.iterdir()} == {"c": b"2"}
    assert store.get("a/link/c") is None
    assert store.head("a/link/c") is None
    assert [item.key for item in store.entries("")] == ["a/b"]
    assert list(store.entries("a/link")) == []


def test_a_link_is_named_once(store: Store, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store.put("a/b", b"1")
    (root_of(store) / "a" / "link").symlink_to(tmp_path)
    with caplog.at_level(logging.WARNING, "kd_ray"):
        for _ in range(3):
            list(store.entries("a"))
    assert [record.getMessage() for record in caplog.records] == [
        f"store {store.url}: 'a/link' is a link that leaves the store, or is of no use; what lies behind it does not count"
    ]


def test_links_that_lead_nowhere_or_in_a_circle_do_not_count(store: Store) -> None:
    store.put("a/b", b"1")
    (root_of(store) / "a" / "round").symlink_to(root_of(store) / "a")
    (root_of(store) / "a" / "self").symlink_to("self")
    assert [item.key for item in store.entries("")] == ["a/b"]


def test_two_links_that_lead_to_each_other_are_followed_once(store: Store) -> None:
    store.put("a/b", b"1")
    store.put("c/d", b"2")
    (root_of(store) / "a" / "to_c").symlink_to(root_of(store) / "c")
    (root_of(store) / "c" / "to_a").symlink_to(root_of(store) / "a")
    keys = sorted(item.key for item in store.entries("a"))
    assert keys == ["a/b", "a/to_c/d", "a/to_c/to_a/b"]


def test_links_within_the_store_are_followed(store: Store) -> None:
    store.put("a/b", b"1")
    (root_of(store) / "other").symlink_to(root_of(store) / "a")
    assert store.get("other/b") == b"1"
    store.put("other/c", b"2")
    assert sorted(item.key for item in store.entries("")) == ["a/b", "a/c", "other/b", "other/c"]


def test_the_root_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "store").symlink_to(tmp_path / "real")
    store = open_store(tmp_path / "store")
    store.put("a/b", b"1")
    assert (tmp_path / "real" / "a" / "b").read_bytes() == b"1"
    assert [item.key for item in store.entries("")] == ["a/b"]
    store.delete("a/b")
    assert list(store.entries("")) == []


@pytest.mark.slow
@pytest.mark.parametrize("place", ["reports", "reports/demo", "reports/demo/figures"])
def test_a_report_is_not_written_through_a_link(whole: Store, tmp_path: Path, place: str) -> None:
    link = root_of(whole) / place
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(tmp_path)
    with pytest.raises(StoreError, match=f"'{place}' is a link that leaves the store"):
        default_folder(Results(whole), "demo")


@pytest.mark.slow
def test_tables_behind_a_link_are_neither_written_nor_queried(whole: Store, tmp_path: Path) -> None:
    folder = root_of(whole) / "tables" / "trials"
    shutil.move(folder, tmp_path / "trials")
    folder.symlink_to(tmp_path / "trials")
    assert Results(whole).query("SELECT count(*) AS n FROM trials")["n"][0].as_py() == 0
    key = part_key("trials", "demo", 0)
    with pytest.raises(StoreError, match=r"'tables/trials' is a link that leaves the store"):
        whole.put(key, b"")
