"""The only door to the store, and the only place that spells its file names.

A thin layer over obstore, so that a local folder, S3, GCS and Azure behave alike. Nothing here rests on more than what all of them can do:
whole-object atomic puts, create-if-absent, list, delete.

    <store>/trials/<trial_id>/   lease/000001.json  checkpoint/…  weights-000001.safetensors  record.parquet  error.json
    <store>/datasets/<id>/       samples.parquet                        labels and sensitive features of the test samples
    <store>/weights/<sha256>     given initial weights, as they were
    <store>/sweeps/<name>/       sweep.yaml  manifest/000001.json        what was asked for, resolved
    <store>/tables/<table>/sweep=<name>/part-00000.parquet               what people query
    <store>/damaged/<key>-<16 hex of content>                             what was found damaged, out of the way
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from obstore.exceptions import AlreadyExistsError, BaseError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from kd_ray.errors import InvalidInputError, StoreError

if TYPE_CHECKING:
    from obstore import ObjectMeta

SCHEMES = ("s3", "gs", "az")


@dataclass(frozen=True, kw_only=True)
class StoredObject:
    """An entry of a listing."""

    key: str
    size_bytes: int
    modified_at: datetime
    """By the clock of the store."""
    e_tag: str
    """Changes whenever the object is written."""


class Store:
    """Objects by key. All methods raise StoreError, naming the store and the key, when the store does not do as asked.

    A local folder that does not exist yet reads as empty and is made by the first write.
    """

    def __init__(self, url: str, client: ObjectStore | None = None) -> None:
        """Use `open_store` instead."""
        self.url = url
        self._remote = client
        self._local: LocalStore | None = None

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __reduce__(self) -> tuple[object, ...]:
        """Other processes open the store anew from its URL; credentials never travel."""
        return (open_store, (self.url,))

    @property
    def local_root(self) -> Path | None:
        """The folder of a local store."""
        return Path(self.url) if self._remote is None else None

    def get(self, key: str) -> bytes | None:
        """The whole object, or None when there is none."""
        return self._get(key, None)

    def get_tail(self, key: str, size_bytes: int) -> bytes | None:
        """The last bytes of an object, at most `size_bytes` of them, or None when there is no object."""
        return self._get(key, size_bytes)

    def _get(self, key: str, tail_bytes: int | None) -> bytes | None:
        with self._translated("read", key):
            if (client := self._reader()) is None:
                return None
            try:
                if tail_bytes is None:
                    return bytes(client.get(key).bytes())
                # Not a suffix range, which Azure refuses.
                size_bytes = client.head(key)["size"]
                start = max(0, size_bytes - tail_bytes)
                return bytes(client.get_range(key, start=start, end=size_bytes)) if size_bytes else b""
            except (FileNotFoundError, NotFoundError):
                return None

    def put(self, key: str, data: bytes, *, durable: bool = False) -> str:
        """Write the whole object atomically, over an older one if there is one; returns its e_tag.

        A local write that is `durable` outlasts a power cut; an object store's always does.
        """
        with self._translated("write", key):
            e_tag = self._writer().put(key, data, use_multipart=False)["e_tag"]
            if durable:
                self._flush(key)
        return e_tag or ""

    def put_new(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        """Write the whole object atomically if there is none; False when there is one already.

        On a store behind a network, False may also mean that this very call wrote the object and lost the answer.
        """
        with self._translated("create", key):
            try:
                self._writer().put(key, data, mode="create", use_multipart=False)
            except (AlreadyExistsError, FileExistsError):
                return False
            if durable:
                self._flush(key)
            return True

    def head(self, key: str) -> StoredObject | None:
        """What a listing would say of the object, or None when there is none."""
        with self._translated("look up", key):
            if (client := self._reader()) is None:
                return None
            try:
                return _stored(client.head(key))
            except (FileNotFoundError, NotFoundError):
                return None

    def exists(self, key: str) -> bool:
        """Whether there is an object under `key`."""
        return self.head(key) is not None

    def set_aside(self, key: str, data: bytes) -> str | None:
        """Move a damaged object out of the way, for people to look at; returns its new key.

        `data` is the content that was found damaged: an object that holds something else by now is left where it is, and None is returned.
        """
        if self.get(key) != data:
            return None
        kept = f"{DAMAGED}/{key}-{hashlib.sha256(data).hexdigest()[:16]}"
        self.put(kept, data)
        self.delete(key)
        return kept

    def delete(self, key: str) -> None:
        """Delete the object; nothing happens when there is none."""
        with self._translated("delete", key):
            if (client := self._reader()) is None:
                return
            try:
                client.delete(key)
            except (FileNotFoundError, NotFoundError):
                return

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        """Every object below the folder `prefix`."""
        with self._translated("list", prefix):
            if (client := self._reader()) is None:
                return
            for batch in client.list(prefix):
                yield from map(_stored, batch)

    def folders(self, prefix: str) -> list[str]:
        """Names of the folders directly below `prefix`."""
        with self._translated("list", prefix):
            if (client := self._reader()) is None:
                return []
            return sorted(path.rsplit("/", 1)[-1] for path in client.list_with_delimiter(prefix)["common_prefixes"])

    def _reader(self) -> ObjectStore | None:
        """The client, or None for a local folder that does not exist."""
        if self._remote is not None:
            return self._remote
        if self._local is None and Path(self.url).is_dir():
            self._local = LocalStore(self.url)
        return self._local

    def _writer(self) -> ObjectStore:
        if self._remote is None and self._local is None:
            Path(self.url).mkdir(parents=True, exist_ok=True)
        client = self._reader()
        assert client is not None
        return client

    def _flush(self, key: str) -> None:
        """Wait until a local object is on the disk."""
        if self._remote is not None:
            return
        path = Path(self.url) / key
        for there in (path, path.parent):
            descriptor = os.open(there, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    @contextmanager
    def _translated(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            reason = str(error).split("\n\n", 1)[0]
            raise StoreError(f"store {self.url}: cannot {verb} {key!r}: {reason}") from error


def _stored(item: "ObjectMeta") -> StoredObject:
    return StoredObject(
        key=item["path"], size_bytes=item["size"], modified_at=item["last_modified"], e_tag=item["e_tag"] or ""
    )


def open_store(url: str | os.PathLike[str], *, must_exist: bool = False) -> Store:
    """Open the store at a local path or at an `s3://`, `gs://` or `az://` URL. Opening writes nothing.

    Credentials come from the environment or the workload's identity, as each cloud's own tools take them.

    Raises:
        InvalidInputError: the URL has an unknown scheme or is empty, or the local path is a file, or it does not exist although it must.
    """
    text = os.fspath(url)
    scheme = urlsplit(text).scheme if "://" in text else ""
    if not scheme:
        root = Path(text).expanduser().resolve()
        if not text:
            raise InvalidInputError("store '': the path is empty; give --store PATH or set KD_RAY_STORE")
        if root.exists() and not root.is_dir():
            raise InvalidInputError(f"store {text}: it is a file; a store is a folder")
        if must_exist and not root.exists():
            raise InvalidInputError(f"store {text}: there is no such folder; give --store PATH or set KD_RAY_STORE")
        return Store(str(root))
    if scheme not in SCHEMES:
        choices = ", ".join(f"{name}://" for name in SCHEMES)
        raise InvalidInputError(f"store {text}: unknown scheme {scheme!r}; valid: a local path, {choices}")
    try:
        return Store(text, from_url(text))
    except (BaseError, ValueError) as error:
        raise InvalidInputError(f"store {text}: {str(error).split(chr(10), 1)[0]}") from error


# --- keys -----------------------------------------------------------------------------------------------------------------------------

TRIALS = "trials"
SWEEPS = "sweeps"
TABLES = "tables"
DAMAGED = "damaged"


def record_key(trial_id: str) -> str:
    """The commit point of a trial."""
    return f"{TRIALS}/{trial_id}/record.parquet"


def error_key(trial_id: str) -> str:
    """Why a trial failed."""
    return f"{TRIALS}/{trial_id}/error.json"


def lease_folder(trial_id: str) -> str:
    """Folder of the numbered leases of a trial."""
    return f"{TRIALS}/{trial_id}/lease"


def lease_key(trial_id: str, generation: int) -> str:
    """One lease; its number is the fencing token."""
    return f"{lease_folder(trial_id)}/{generation:06d}.json"


def checkpoint_folder(trial_id: str) -> str:
    """Folder of a trial's checkpoints."""
    return f"{TRIALS}/{trial_id}/checkpoint"


def checkpoint_key(trial_id: str, generation: int, step: int, digest: str) -> str:
    """A checkpoint: who wrote it (lease generation), how far it is (optimiser steps), and 16 hex digits of its content's SHA-256."""
    return f"{checkpoint_folder(trial_id)}/{generation:06d}-{step:09d}-{digest[:16]}.safetensors"


def weights_key(trial_id: str, generation: int) -> str:
    """Final weights; the record names the generation that committed."""
    return f"{TRIALS}/{trial_id}/weights-{generation:06d}.safetensors"


def given_weights_key(sha256: str) -> str:
    """Given initial weights, by their content."""
    return f"weights/{sha256}"


def samples_key(dataset_id: str) -> str:
    """Labels and sensitive features of the test samples of a data set."""
    return f"datasets/{dataset_id}/samples.parquet"


def manifest_folder(sweep: str) -> str:
    """Folder of the numbered manifests of a sweep."""
    return f"{SWEEPS}/{sweep}/manifest"


def manifest_key(sweep: str, generation: int) -> str:
    """What a sweep asked for, trial by trial; the highest generation holds."""
    return f"{manifest_folder(sweep)}/{generation:06d}.json"


def sweep_key(sweep: str) -> str:
    """The sweep file, overrides applied."""
    return f"{SWEEPS}/{sweep}/sweep.yaml"


def table_folder(table: str) -> str:
    """All parts of a table."""
    return f"{TABLES}/{table}"


def part_key(table: str, sweep: str, part: int) -> str:
    """One part of a sweep's rows."""
    return f"{table_folder(table)}/sweep={sweep}/part-{part:05d}.parquet"


def trial_of(key: str) -> tuple[str, str]:
    """(trial_id, name below the trial's folder) of a key under `trials/`; empty for a file that is none of ours."""
    parts = key.split("/", 2)
    return (parts[1], parts[2]) if len(parts) == 3 else ("", "")
