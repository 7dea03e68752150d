"""What every kind of store must do; each assertion takes an empty store."""

import pickle
from datetime import UTC, datetime, timedelta

from kd_ray.results.store import Store, quarantine
from kd_ray.results.store_proof import prove_store


def put_and_get_whole_objects(store: Store) -> None:
    assert store.get("a/b.json") is None
    store.put("a/b.json", b"one")
    assert store.get("a/b.json") == b"one"
    store.put("a/b.json", b"other")
    assert store.get("a/b.json") == b"other"


def keep_bytes_of_any_size(store: Store) -> None:
    for data in (b"", b"\x00\xff\r\n", bytes(range(256)) * 4096 * 6):
        store.put("a/bytes", data)
        assert store.get("a/bytes") == data


def create_only_once(store: Store) -> None:
    assert store.put_new("a/lease", b"first") is True
    assert store.put_new("a/lease", b"first") is True, "these very bytes are there: as good as written now"
    assert store.put_new("a/lease", b"second") is False
    assert store.get("a/lease") == b"first"
    store.put("a/there", b"older")
    assert store.put_new("a/there", b"newer") is False
    assert store.get("a/there") == b"older"
    store.delete("a/lease")
    assert store.put_new("a/lease", b"third") is True
    assert store.get("a/lease") == b"third"


def say_what_exists(store: Store) -> None:
    assert store.exists("a/b/c") is False
    store.put("a/b/c", b"")
    assert store.exists("a/b/c") is True
    assert store.exists("a/b/d") is False


def tell_an_object_from_what_was_written_over_it(store: Store) -> None:
    assert store.head("a/b") is None
    written = store.put("a/b", b"one", durable=True)
    first = store.head("a/b")
    assert first is not None
    assert (first.key, first.size_bytes, first.e_tag) == ("a/b", 3, written)
    assert list(store.entries("a")) == [first]
    store.put("a/b", b"two")
    second = store.head("a/b")
    assert second is not None
    assert second.e_tag not in ("", first.e_tag)


def quarantine_a_damaged_object(store: Store) -> None:
    store.put("a/b", b"noise")
    assert quarantine(store, "a/b", b"other noise") is None
    assert store.get("a/b") == b"noise"
    kept = quarantine(store, "a/b", b"noise")
    assert kept is not None
    assert kept.startswith("damaged/a/b-")
    assert store.get("a/b") is None
    assert store.get(kept) == b"noise"
    assert quarantine(store, "a/b", b"noise") is None


def delete_what_is_there_and_what_is_not(store: Store) -> None:
    store.put("a/b", b"1")
    store.delete("a/b")
    assert store.get("a/b") is None
    store.delete("a/b")
    store.delete("never/was")


def list_objects_below_a_folder(store: Store) -> None:
    before = datetime.now(UTC) - timedelta(minutes=2)
    assert list(store.entries("trials")) == []
    for key, data in {
        "trials/t1/record": b"12345",
        "trials/t1/lease/1": b"",
        "trials/t2/x": b"1",
        "trialsx/y": b"",
    }.items():
        store.put(key, data)
    entries = {item.key: item for item in store.entries("trials")}
    assert {key: item.size_bytes for key, item in entries.items()} == {
        "trials/t1/record": 5,
        "trials/t1/lease/1": 0,
        "trials/t2/x": 1,
    }
    assert [item.key for item in store.entries("trials/t2")] == ["trials/t2/x"]
    assert all(before < item.modified_at < before + timedelta(minutes=4) for item in entries.values())


def reopen_after_pickling(store: Store) -> None:
    store.put("a", b"1")
    again = pickle.loads(pickle.dumps(store))
    assert again.url == store.url
    assert again.get("a") == b"1"
    again.put("b", b"2")
    assert store.get("b") == b"2"


def pass_the_proof(store: Store) -> None:
    prove_store(store)
    assert store.exists("proof/store.json")


CONTRACT = (
    pass_the_proof,
    put_and_get_whole_objects,
    keep_bytes_of_any_size,
    create_only_once,
    say_what_exists,
    tell_an_object_from_what_was_written_over_it,
    quarantine_a_damaged_object,
    delete_what_is_there_and_what_is_not,
    list_objects_below_a_folder,
    reopen_after_pickling,
)
