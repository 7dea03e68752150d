"""Shards of an index to files of a folder. After an interruption, shards that are finished are not fetched again."""

import random
import socket
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from kd_ray.cluster.shared_data.data_index import Index, Shard, shard_key
from kd_ray.cluster.shared_data.places import Place, open_place
from kd_ray.cluster.shared_data.push_data import AT_ONCE
from kd_ray.cluster.shared_data.shards import unpack_files, unpack_piece
from kd_ray.data.family import OnBytes
from kd_ray.errors import CorruptObjectError, StoreError


@dataclass(frozen=True, kw_only=True)
class FoundSet:
    """A set at a URL. It travels to the workers, so that all nodes of a launch fetch the same version."""

    url: str
    what: str
    """`cifar10` or `hf:minilm`, for messages."""
    index: Index


def fetch(found: FoundSet, folder: Path, done: Path, on_bytes: OnBytes | None = None) -> None:
    """Write the files of a set below `folder`; `done` keeps the names of finished shards.

    Raises:
        CorruptObjectError: a shard is missing, damaged, or no shard of files.
        StoreError: the URL cannot be read.
        OSError: a file cannot be written.
    """
    place = open_place(found.url)
    total, lock = found.index.size_bytes, threading.Lock()
    there = [0]

    def get(shard: Shard) -> None:
        mark = done / f"{shard.sha256}-{sha256(f'{shard.path} {shard.offset}'.encode()).hexdigest()[:16]}"
        if not mark.exists():
            _write(shard, _content(place, found, shard), folder, found)
            mark.touch()
        with lock:
            there[0] += shard.size_bytes
            if on_bytes:
                on_bytes(found.what, there[0], total)

    try:
        place.at_once(get, order(found.index.shards, node=f"{socket.gethostname()} {folder}"), most=AT_ONCE)
    except CorruptObjectError:
        raise
    except StoreError as error:
        raise StoreError(
            f"placement.data_url: data set {found.what}: {error}; check the URL, and this node's credentials for it (docs/stores.md)"
        ) from error


def order(shards: Sequence[Shard], *, node: str) -> list[Shard]:
    """The shards in an order of this node's own, so that nodes that start together do not ask for the same objects at the same time."""
    return random.Random(node).sample(shards, len(shards))  # noqa: S311 (no secret)


def _content(place: Place, found: FoundSet, shard: Shard) -> bytes:
    key = shard_key(shard.sha256)
    data = place.get(key, most_bytes=shard.size_bytes)
    what = None
    if data is None:
        what = "is missing"
    elif len(data) != shard.size_bytes or sha256(data).hexdigest() != shard.sha256:
        what = "is damaged: its SHA-256 is not that of the index; delete it"
    if what or data is None:
        raise CorruptObjectError(
            f"placement.data_url: data set {found.what}: {found.url}/{key} {what}, and `kd-ray data push` sends it again"
        )
    return data


def _write(shard: Shard, data: bytes, folder: Path, found: FoundSet) -> None:
    try:
        if shard.path:
            unpack_piece(data, shard.path, shard.offset, folder)
        else:
            unpack_files(data, folder)
    except ValueError as error:
        raise CorruptObjectError(
            f"placement.data_url: data set {found.what}: {found.url}/{shard_key(shard.sha256)} was not unpacked: {error}"
        ) from error
