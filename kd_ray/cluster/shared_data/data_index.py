"""The index of a data set at a URL: which shards hold its files. Shards are named by their content, so several indexes may share them."""

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Literal

from pydantic import Field, TypeAdapter

from kd_ray.bounded import MEGABYTE, JsonForm
from kd_ray.cluster.shared_data.places import Place
from kd_ray.errors import CorruptObjectError
from kd_ray.results.store import Store

MOST_SHARD_BYTES = 64 * MEGABYTE
"""Larger shards are refused: a shard is held in memory while it is fetched."""
LATEST = "latest"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


@dataclass(frozen=True, kw_only=True)
class Shard:
    """One object with files of a set."""

    sha256: Sha256
    size_bytes: Annotated[int, Field(ge=0, le=MOST_SHARD_BYTES)]
    path: str = ""
    """The large file, below the data root, of which it is a piece; empty for a tar of whole files."""
    offset: Annotated[int, Field(ge=0)] = 0
    """Where the piece begins in this file, in bytes."""


@dataclass(frozen=True, kw_only=True)
class Index:
    """One version of a set."""

    form: Literal[1]
    version: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")] | None
    """The `dataset.version` that names exactly these files; None for a network of texts."""
    num_files: Annotated[int, Field(ge=0)]
    shards: tuple[Shard, ...]

    @property
    def size_bytes(self) -> int:
        """Of all shards, which is at least that of the files."""
        return sum(shard.size_bytes for shard in self.shards)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of what the set holds."""
        return hashlib.sha256(_ADAPTER.dump_json(self)).hexdigest()


_ADAPTER = TypeAdapter(Index)
_INDEX: JsonForm[Index] = JsonForm(kind=Index, most_bytes=64 * MEGABYTE)


def shard_key(sha256: str) -> str:
    """A shard, by its content."""
    return f"shards/{sha256}"


def index_key(name: str, version: str) -> str:
    """The index of one version of a set, or of the `LATEST` one."""
    return f"sets/{name}/{version}.json"


def write_index(store: Store, name: str, index: Index) -> None:
    """Write the index, whose shards must be there."""
    data = _ADAPTER.dump_json(index, exclude_defaults=True)
    for version in (index.version, LATEST):
        if version is not None and store.get(index_key(name, version)) != data:
            store.put(index_key(name, version), data, durable=True)


def read_index(place: Place, name: str, version: str | None) -> Index | None:
    """The index of this version, or the latest one where there is none of it, or none is asked for; None where the set is not there.

    Raises:
        CorruptObjectError: it is not an index.
    """
    for wanted in (version, LATEST):
        if wanted is None or (data := place.get(key := index_key(name, wanted), most_bytes=_INDEX.most_bytes)) is None:
            continue
        try:
            index = _INDEX.read(data)
            _check_pieces(index)
        except ValueError as error:
            raise CorruptObjectError(f"{place.url}: {key!r} is no index of a data set: {error}") from error
        return index
    return None


def _check_pieces(index: Index) -> None:
    """Raises ValueError unless the pieces of each large file follow one another from its beginning: so it is as long as they are."""
    pieces: dict[str, list[Shard]] = defaultdict(list)
    for shard in index.shards:
        if shard.path:
            pieces[shard.path].append(shard)
    for path, shards in pieces.items():
        end = 0
        for shard in sorted(shards, key=lambda it: it.offset):
            if shard.offset != end:
                raise ValueError(f"a piece of {path!r} begins at {shard.offset:,}, expected {end:,}")
            end += shard.size_bytes
