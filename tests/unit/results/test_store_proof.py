"""Which stores pass the proof, what it writes, and when it has to be made again. Servers are in tests/contract/test_faulty_store.py."""

import json
import re
import shutil
from pathlib import Path

import pytest

from kd_ray.errors import InvalidInputError
from kd_ray.results.store import Kind, Store, StoredObject, open_store, parse_key
from kd_ray.results.store_proof import prove_store


class Forgetful(Store):
    """A local store in which one promise does not hold."""

    def __init__(self, url: str, broken: str) -> None:
        super().__init__(url)
        self.broken = broken

    def put_new(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        if self.broken == "create":
            self.put(key, data)
            return True
        return super().put_new(key, data, durable=durable)

    def delete(self, key: str) -> None:
        if self.broken != "delete":
            super().delete(key)

    def entries(self, prefix: str) -> list[StoredObject]:  # type: ignore[override]  # callers only iterate
        return [] if self.broken == "list" else list(super().entries(prefix))


def test_a_proof_is_written_once(store: Store) -> None:
    prove_store(store)
    kinds = [place.kind for item in store.entries("") if (place := parse_key(item.key))]
    assert sorted(kinds) == [Kind.PROOF, Kind.WITNESS]
    before = list(store.entries(""))
    prove_store(store)
    assert list(store.entries("")) == before


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("create", "it lets two writers create one object, because it ignores the condition `If-None-Match: *`"),
        ("list", "its listing does not name 'proof/"),
        ("delete", "is still there after it was deleted"),
    ],
)
def test_a_store_that_lacks_something_is_refused_by_name(broken: str, message: str, tmp_path: Path) -> None:
    store = Forgetful(str(tmp_path / "store"), broken)
    with pytest.raises(InvalidInputError, match=rf"^store {store.url}: it cannot be used: .*{re.escape(message)}.*"):
        prove_store(store)
    assert store.get("proof/store.json") is None


def test_a_copy_of_a_store_has_to_prove_itself(store: Store, tmp_path: Path) -> None:
    """Guard: `_is_proven` compares the place, and the time at which the witness was written there."""
    prove_store(store)
    shutil.copytree(store.url, tmp_path / "copy")
    with pytest.raises(InvalidInputError, match="two writers"):
        prove_store(Forgetful(str(tmp_path / "copy"), "create"))
    # At the same address now, and written later.
    shutil.rmtree(store.url)
    shutil.copytree(tmp_path / "copy", store.url, copy_function=shutil.copyfile)
    with pytest.raises(InvalidInputError, match="two writers"):
        prove_store(Forgetful(store.url, "create"))


@pytest.mark.parametrize("noise", [b"", b"[1]", b"{", b'{"store": 1, "witness": 7}', b"[" * 100_000])
def test_a_damaged_proof_is_made_again(noise: bytes, tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    store.put("proof/store.json", noise)
    prove_store(store)
    proof = json.loads(store.get("proof/store.json") or b"")
    assert (proof["store"], store.exists(proof["witness"])) == (store.url, True)


def test_a_proof_that_names_no_witness_is_none(store: Store) -> None:
    """Guard: what a stranger's store names as its witness is looked up only if kd_ray writes such a key."""
    prove_store(store)
    proof = json.loads(store.get("proof/store.json") or b"")
    store.put("proof/store.json", json.dumps(proof | {"witness": "../elsewhere"}).encode())
    prove_store(store)
    assert json.loads(store.get("proof/store.json") or b"")["witness"].startswith("proof/")
