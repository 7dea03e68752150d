"""The verb `data push`: put a data set at a URL. Shards first, then the index: so a set is there completely, or as it was before.

A shard that the URL has is not sent again, so a push that was interrupted can be repeated, and an unchanged set costs no shard.
"""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from kd_ray.cluster.shared_data.data_index import Index, Shard, shard_key, write_index
from kd_ray.cluster.shared_data.set_files import WantedSet, files_of, version_of
from kd_ray.cluster.shared_data.shards import SHARD_BYTES, Part, check_name, packed, parts_of
from kd_ray.errors import DataError, StoreError
from kd_ray.results.store import Store
from kd_ray.sweep.placement import cpu_count

AT_ONCE = 4
"""Shards that travel at once: so many wait for their answers, and share the line, without one taking longer than a request may."""


@dataclass(frozen=True, kw_only=True)
class PushReport:
    """What was put at the URL."""

    what: str
    index: Index
    num_sent: int
    """Shards that were not there."""
    sent_bytes: int


def push(
    wanted: WantedSet,
    root: Path,
    store: Store,
    *,
    shard_bytes: int = SHARD_BYTES,
    on_progress: Callable[[int, int], None] | None = None,
) -> PushReport:
    """Send what is not there yet of a set that lies below `root`. `on_progress` is called with the shards that are there, and all.

    Raises:
        DataError: files are missing, cannot be read, or change while they are read.
        StoreError: the URL cannot be written.
    """
    files = files_of(wanted, root)
    try:
        for name in files:
            check_name(name)
        version = version_of(wanted, root, processes=cpu_count())
        parts = list(parts_of(files, shard_bytes))
        lock, sent = threading.Lock(), [0]

        def send(part: Part) -> tuple[Shard, bool]:
            data = packed(part)
            digest = sha256(data).hexdigest()
            found = store.head(shard_key(digest))
            is_new = found is None or found.size_bytes != len(data)
            if is_new:
                store.put(shard_key(digest), data, durable=True)
            with lock:
                sent[0] += 1
                if on_progress:
                    on_progress(sent[0], len(parts))
            path = part.files[0][0] if part.length is not None else ""
            return Shard(sha256=digest, size_bytes=len(data), path=path, offset=part.offset), is_new

        done = store.at_once(send, parts, most=AT_ONCE)
        index = Index(form=1, version=version, num_files=len(files), shards=tuple(shard for shard, _ in done))
        write_index(store, wanted.name, index)
    except StoreError as error:
        raise StoreError(
            f"data set {wanted.what}: {error}; check the URL, and your credentials for it (docs/stores.md), and run the same command again"
        ) from error
    except (OSError, ValueError) as error:
        raise DataError(f"{wanted.what}: cannot be sent: {error}") from error
    new = [shard for shard, is_new in done if is_new]
    return PushReport(
        what=wanted.what, index=index, num_sent=len(new), sent_bytes=sum(shard.size_bytes for shard in new)
    )
