"""Proves that a store keeps what launches rely on: an object is created only once, a deleted object is gone, a written one is listed.

A lease is an object that is created if absent. A server that ignores this condition (`If-None-Match: *`) tells every launch that it holds
the lease, and all of them train and commit the same trial. So a store is asked for proof before the first write, and remembers it. The
proof holds for one place only: it names an object with the time at which the store wrote it, and that time is another in a copy.
"""

import json
import secrets

from kd_ray.bounded import JsonForm
from kd_ray.errors import InvalidInputError
from kd_ray.results.store import PROOFS, Kind, Store, parse_key, proof_key, witness_key

_NEEDS = "docs/stores.md says what a store has to do, and which ones were tried"


def prove_store(store: Store) -> None:
    """Make sure that the store excludes, deletes and lists. Nothing is written where this was proven before.

    Raises:
        InvalidInputError: it does not; the message names what is missing.
        StoreError: the store cannot be read or written.
    """
    if _is_proven(store):
        return
    key = witness_key(secrets.token_hex(8))
    if not store.put_new(key, b"first"):
        raise _lacks(store, f"it says that {key!r}, a new random name, exists already")
    if store.put_new(key, b"second") or store.get(key) != b"first":
        raise _lacks(
            store,
            "it lets two writers create one object, because it ignores the condition `If-None-Match: *`. Two launches would train the same "
            "trials and overwrite each other's results",
        )
    if key not in _listed(store):
        raise _lacks(store, f"its listing does not name {key!r}, which was just written")
    store.delete(key)
    if store.get(key) is not None or key in _listed(store):
        raise _lacks(store, f"{key!r} is still there after it was deleted")
    store.put_new(key, b"witness")
    if (witness := store.head(key)) is None:
        raise _lacks(store, f"it does not find {key!r}, which was just written again")
    proof = {"store": store.url, "witness": key, "modified_at": witness.modified_at.isoformat()}
    store.put(proof_key(), json.dumps(proof).encode())


_PROOF: JsonForm[dict[str, str]] = JsonForm(kind=dict[str, str])


def _is_proven(store: Store) -> bool:
    """Whether the store remembers a proof that was made at this place."""
    try:
        proof = _PROOF.read(store.get(proof_key()) or b"{}")
    except ValueError:
        return False
    place = parse_key(proof.get("witness", ""))
    if proof.get("store") != store.url or place is None or place.kind is not Kind.WITNESS:
        return False
    witness = store.head(proof["witness"])
    return witness is not None and witness.modified_at.isoformat() == proof.get("modified_at")


def _listed(store: Store) -> set[str]:
    return {item.key for item in store.entries(PROOFS)}


def _lacks(store: Store, what: str) -> InvalidInputError:
    return InvalidInputError(f"store {store.url}: it cannot be used: {what}; {_NEEDS}")
