"""The listing of a folder of a store: page by page from an object store's client, or file by file from a local folder."""

import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from obstore.exceptions import NotSupportedError
from obstore.store import ObjectStore

from kd_ray.results.links import walk

if TYPE_CHECKING:
    from obstore import ObjectMeta

_PAGE = 1000
"""Entries of a listing that are asked for at once."""
STAGING_NAME = re.compile(r".+#\d+")
"""How obstore names the file of a local write that is not finished; its listings leave such files out."""


class StoredObject(NamedTuple):
    """An entry of a listing."""

    # A tuple, because a listing makes one for each object, and a frozen dataclass takes three times as long.

    key: str
    size_bytes: int
    modified_at: datetime
    """By the clock of the store."""
    e_tag: str
    """Changes whenever the object is written."""


class Pages:
    """A listing page by page, so that a large one is not held in memory. After a failure it continues behind the last page.

    A server that begins at the front although it was told where to continue only costs time. One that does not list in the order of the
    keys cannot be continued.
    """

    def __init__(self, client: ObjectStore, prefix: str) -> None:
        self._client = client
        self._prefix = prefix
        self._last: str | None = None
        self._is_ordered = True
        self._stream: Iterator[Sequence[ObjectMeta]] | None = None

    def following(self) -> "Sequence[ObjectMeta]":
        """The next page; empty at the end."""
        if self._stream is None:
            if not self._is_ordered:
                raise NotSupportedError("the listing broke off, and this server does not list in the order of the keys")
            self._stream = self._new_pages(self._last)
        try:
            page = next(self._stream, ())
        except BaseException:
            self._stream = None
            raise
        if page:
            keys = [item["path"] for item in page]
            self._is_ordered &= keys == sorted(keys) and (self._last is None or self._last < keys[0])
            self._last = keys[-1]
        return page

    def _new_pages(self, after: str | None) -> "Iterator[Sequence[ObjectMeta]]":
        for page in self._client.list(self._prefix, offset=after, chunk_size=_PAGE):
            if new := [item for item in page if after is None or item["path"] > after]:
                yield new


def listed(root: Path, prefix: str, leaving: list[str]) -> Iterator[StoredObject]:
    """The objects of a local folder as obstore lists them, in half its time; links that do not count are added to `leaving`.

    A name that is not UTF-8 is given with escapes, which no key of ours has.
    """
    for key, entry in walk(root, prefix, leaving):
        if STAGING_NAME.fullmatch(entry.name):
            continue
        try:
            found = entry.stat()
        except FileNotFoundError:
            # It was deleted since.
            continue
        yield _of_file(key if key.isascii() else os.fsencode(key).decode(errors="backslashreplace"), found)


def _of_file(key: str, found: os.stat_result) -> StoredObject:
    modified_us = found.st_mtime_ns // 1000
    return StoredObject(
        key=key,
        size_bytes=found.st_size,
        modified_at=datetime.fromtimestamp(modified_us / 1e6, UTC),
        e_tag=f"{found.st_ino:x}-{modified_us:x}-{found.st_size:x}",
    )


@dataclass(frozen=True, kw_only=True)
class InFolders:
    """Where the folders of a folder have an object of one name."""

    found: Mapping[str, StoredObject]
    """By folder."""
    lacking: Sequence[str]
    """Folders without it."""
    linked: Sequence[str]
    """Folders for which only a listing can tell, because a link is on the way."""


def in_folders(root: Path, prefix: str, name: str) -> InFolders:
    """Look for one name in each folder of a local folder. A look takes a quarter of the time of a listing.

    Raises:
        OSError: a folder may not be read.
    """
    found: dict[str, StoredObject] = {}
    lacking, linked = [], []
    try:
        entries = os.scandir(root / prefix)
    except (FileNotFoundError, NotADirectoryError):
        return InFolders(found={}, lacking=(), linked=())
    with entries:
        for entry in entries:
            folder = entry.name
            if entry.is_symlink():
                linked.append(folder)
                continue
            try:
                there = os.lstat(f"{entry.path}/{name}")
            except FileNotFoundError:
                lacking.append(folder)
            except NotADirectoryError:
                continue
            else:
                if stat.S_ISREG(there.st_mode):
                    found[folder] = _of_file(f"{prefix}/{folder}/{name}", there)
                else:
                    linked.append(folder)
    return InFolders(found=found, lacking=lacking, linked=linked)


def stored(item: "ObjectMeta") -> StoredObject:
    """An entry as the client gives it."""
    return StoredObject(
        key=item["path"], size_bytes=item["size"], modified_at=item["last_modified"], e_tag=plain_e_tag(item["e_tag"])
    )


def plain_e_tag(e_tag: str | None) -> str:
    """The e_tag without quotes: Azure writes them in headers and not in listings."""
    return (e_tag or "").strip('"')
