"""What a `placement.data_url` may be: a store, or a repository of the Hugging Face hub."""

from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from kd_ray.cluster.shared_data.hub_place import SCHEME, HubPlace
from kd_ray.errors import DataError, InvalidInputError
from kd_ray.results.store import Store, open_store

K = TypeVar("K")
T = TypeVar("T")


class Place(Protocol):
    """Where data sets are fetched from."""

    url: str

    def get(self, key: str, *, most_bytes: int | None = None) -> bytes | None:
        """See `Store`."""

    def at_once(self, ask: Callable[[K], T], of: Iterable[K], *, most: int) -> list[T]:
        """See `Store`."""


def open_place(url: str) -> Place:
    """The place at a URL. Raises DataError for one that no place can have."""
    return HubPlace(url) if url.startswith(SCHEME) else open_writable_place(url)


def push_advice(source: str, url: str) -> str:
    """The command that puts the sets of a sweep file there."""
    if url.startswith(SCHEME):
        send = "`hf upload-large-folder OWNER/NAME FOLDER --repo-type dataset`"
        return f"`kd-ray data push {source} FOLDER` and then {send} put them there"
    return f"`kd-ray data push {source} {url}` puts it there"


def open_writable_place(url: str) -> Store:
    """The same, to push data sets to it."""
    if url.startswith(SCHEME):
        raise DataError(f"{url}: a repository of the hub is only read here; {push_advice('SWEEP.yaml', url)}")
    try:
        return open_store(url)
    except InvalidInputError as error:
        raise DataError(f"placement.data_url: {error}") from error
