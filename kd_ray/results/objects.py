"""Objects by key, on local disk, S3, GCS or Azure: a thin layer over obstore that makes all four behave alike.

It uses only what each of them can do: write a whole object atomically, create an object if it is absent, list, and delete. Requests to an
object store that fail for a reason that may pass are repeated. Which keys exist is left to `store.py`.
"""

import logging
import os
import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from obstore.exceptions import AlreadyExistsError, BaseError, GenericError, NotFoundError
from obstore.store import LocalStore, ObjectStore, from_url

from kd_ray import telemetry
from kd_ray.errors import CorruptObjectError, InvalidInputError, StoreError
from kd_ray.results.links import link_on_the_way, walk
from kd_ray.results.object_listing import InFolders, Pages, StoredObject, in_folders, listed, plain_e_tag, stored

K = TypeVar("K")
T = TypeVar("T")
logger = logging.getLogger("kd_ray")

SCHEMES = ("s3", "gs", "az")
_MISSPELT = re.compile(rf"({'|'.join(SCHEMES)})(:|//)/*(?P<rest>.*)", re.IGNORECASE)
_CREDENTIALS = {
    "s3": "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
    "gs": "GOOGLE_SERVICE_ACCOUNT or GOOGLE_APPLICATION_CREDENTIALS",
    "az": "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY",
}
"""Variables by scheme of the URL; docs/stores.md has the others."""
_METADATA_SERVICE = re.compile(r"169\.254\.|metadata\.google\.internal|\bmetadata\b.*token request", re.IGNORECASE)
"""Where the clients ask for credentials if the environment has none. It answers on machines of the cloud only."""
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504, *range(520, 528), 529, 530})
"""Statuses that may pass: too early, too many requests, an error inside the server, or no server behind a gateway (520 and above are a
gateway's own). Others answer the request for good."""
UNKNOWN_REQUEST = (405, 501)
"""Statuses of a server that does not know this kind of request."""
_NAMED: set[tuple[str, str]] = set()
"""Links that this process has warned of, by store."""
_DICE = random.SystemRandom()
AT_ONCE = 16
"""Requests to an object store that are made at a time."""


@dataclass(frozen=True)
class Patience:
    """How long, in seconds, a request is repeated that an object store does not answer, or answers with "busy" or "broken"."""

    total_s: float = 90.0
    """The last repetition still has the client's own time limit, 30 s unless the environment sets another (`AWS_TIMEOUT=2m`)."""
    first_wait_s: float = 0.5
    """Pause before a request is made again; each further one is twice as long."""
    longest_wait_s: float = 10.0


PATIENCE = Patience()


class Store:
    """Objects by key. All methods raise StoreError, naming the store and the key, when the store does not do as asked.

    A local folder that does not exist yet reads as empty and is made by the first write.
    """

    def __init__(self, url: str, client: ObjectStore | None = None, *, patience: Patience = PATIENCE) -> None:
        """Use `open_store` instead."""
        self.url = url
        self._patience = patience
        self._remote = client
        self._local: LocalStore | None = None
        self._has_answered = False

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def __reduce__(self) -> tuple[object, ...]:
        """Other processes open the store anew from its URL; credentials never travel."""
        return (partial(open_store, self.url, patience=self._patience), (), {"_has_answered": self._has_answered})

    @property
    def local_root(self) -> Path | None:
        """The folder of a local store."""
        return Path(self.url) if self._remote is None else None

    def get(self, key: str, *, most_bytes: int | None = None) -> bytes | None:
        """The whole object, or None when there is none.

        Raises:
            CorruptObjectError: it has more than `most_bytes`; it was not read.
        """

        def read(client: ObjectStore) -> bytes:
            found = client.get(key)
            if most_bytes is not None and (size := found.meta["size"]) > most_bytes:
                raise CorruptObjectError(
                    f"store {self.url}: {key!r} has {size:,} bytes; at most {most_bytes:,} are read"
                )
            return bytes(found.bytes())

        with self._translated("read", key):
            if (client := self._reader()) is None or self._link(key) is not None:
                return None
            try:
                return self._ask("read", lambda: read(client))
            except (FileNotFoundError, NotFoundError):
                return None

    def put(self, key: str, data: bytes, *, durable: bool = False) -> str:
        """Write the whole object atomically, over an older one if there is one; returns its e_tag.

        A local write that is `durable` outlasts a power cut; an object store's always does.
        """
        with self._translated("write", key):
            client = self._writer(key)
            e_tag = self._ask("write", lambda: client.put(key, data, use_multipart=False)["e_tag"])
            if durable:
                self._flush(key)
        return plain_e_tag(e_tag)

    def put_new(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        """Write the whole object atomically if there is none; False when there is another one already.

        An object that holds these very bytes counts as written: a repeated request may find what the first one wrote before its answer was
        lost.
        """
        with self._translated("create", key):
            client = self._writer(key)
            try:
                self._ask("create", lambda: client.put(key, data, mode="create", use_multipart=False))
            except (AlreadyExistsError, FileExistsError):
                return self.get(key) == data
            if durable:
                self._flush(key)
            return True

    def head(self, key: str) -> StoredObject | None:
        """What a listing would say of the object, or None when there is none."""
        with self._translated("look up", key):
            if (client := self._reader()) is None or self._link(key) is not None:
                return None
            try:
                return stored(self._ask("look up", lambda: client.head(key)))
            except (FileNotFoundError, NotFoundError):
                return None

    def exists(self, key: str) -> bool:
        """Whether there is an object under `key`."""
        return self.head(key) is not None

    def delete(self, key: str) -> None:
        """Delete the object; nothing happens when there is none."""
        with self._translated("delete", key):
            if (client := self._reader()) is None:
                return
            self._check_way(key)
            try:
                self._ask("delete", lambda: client.delete(key))
            except (FileNotFoundError, NotFoundError):
                return

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        """Every object below the folder `prefix`, but for those behind a link that leaves the store."""
        with self._translated("list", prefix):
            if (client := self._reader()) is None:
                return
            if self._remote is None:
                leaving: list[str] = []
                yield from self._ask("list", lambda: list(listed(Path(self.url), prefix, leaving)))
                self._warn_of(leaving)
                return
            pages = Pages(client, prefix)
            while page := self._ask("list", pages.following):
                yield from map(stored, page)

    def in_folders(self, prefix: str, name: str) -> InFolders | None:
        """Which folders directly below the folder `prefix` have an object of this name; None where only a listing of all can tell."""
        with self._translated("list", prefix):
            if self._remote is not None or (Path(self.url) / prefix).is_symlink():
                return None
            return self._ask("list", lambda: in_folders(Path(self.url), prefix, name))

    def at_once(self, ask: Callable[[K], T], of: Iterable[K], *, most: int = AT_ONCE) -> list[T]:
        """What `ask` gives for each, in order. An object store is asked for several at a time, because each answer is a round trip."""
        if self._remote is None:
            return list(map(ask, of))
        with ThreadPoolExecutor(max_workers=most) as pool:
            return list(pool.map(ask, of))

    def _reader(self) -> ObjectStore | None:
        """The client, or None for a local folder that does not exist."""
        if self._remote is not None:
            return self._remote
        if self._local is None and Path(self.url).is_dir():
            self._local = LocalStore(self.url)
        return self._local

    def leaving_links(self) -> list[str]:
        """The links of a local store that leave it, lead in a circle or lead nowhere. Each is named in one warning."""
        leaving: list[str] = []
        if self._remote is None:
            with self._translated("list", ""):
                for _ in walk(Path(self.url), "", leaving):
                    pass
            self._warn_of(leaving)
        return sorted(leaving)

    def _warn_of(self, leaving: Sequence[str]) -> None:
        for link in leaving:
            if (self.url, link) not in _NAMED:
                _NAMED.add((self.url, link))
                logger.warning(
                    "store %s: %r is a link that leaves the store, or is of no use; what lies behind it does not count",
                    self.url,
                    link,
                )

    def local_path(self, key: str) -> Path:
        """The path of a key in a local store, to be written.

        Raises:
            StoreError: a link on the way leaves the store.
        """
        with self._translated("write", key):
            self._check_way(key)
        return Path(self.url) / key

    def _link(self, key: str) -> str | None:
        return link_on_the_way(Path(self.url), key) if self._remote is None else None

    def _check_way(self, key: str) -> None:
        if (link := self._link(key)) is not None:
            raise ValueError(f"{link!r} is a link that leaves the store")

    def _writer(self, key: str) -> ObjectStore:
        if self._remote is None and self._local is None:
            Path(self.url).mkdir(parents=True, exist_ok=True)
        self._check_way(key)
        client = self._reader()
        assert client is not None
        return client

    def _ask(self, verb: str, request: Callable[[], T]) -> T:
        """What the client answers, timed. Requests to an object store that fail for a reason that may pass are made again (see `Patience`).

        The client alone stops after about two seconds, and never repeats a create or a delete whose answer is overdue. A store that has
        never answered is not asked for longer: most likely its address is wrong.
        """
        asked_at = time.monotonic()
        try:
            return self._insist(verb, request, asked_at + self._patience.total_s)
        finally:
            telemetry.record(telemetry.STORE_SECONDS, time.monotonic() - asked_at, verb=verb)

    def _insist(self, verb: str, request: Callable[[], T], deadline: float) -> T:
        wait_s = self._patience.first_wait_s
        while True:
            try:
                answer = request()
            except GenericError as error:
                pause_s = wait_s * _DICE.uniform(0.5, 1)
                if self._remote is None or not self._may_pass(error) or time.monotonic() + pause_s > deadline:
                    raise
                if wait_s == self._patience.first_wait_s:
                    total_s = self._patience.total_s
                    logger.warning("store %s: trying again for %.0f s: %s", self.url, total_s, _first_line(error))
                telemetry.record(telemetry.STORE_REPEATS, verb=verb)
                time.sleep(pause_s)
                wait_s = min(2 * wait_s, self._patience.longest_wait_s)
            except (BaseError, OSError):
                # It is not there, it is there already, it may not be written: all of these are answers.
                self._has_answered = True
                raise
            else:
                self._has_answered = True
                return answer

    def _may_pass(self, error: GenericError) -> bool:
        """Whether the same request may succeed later. Without a status nobody answered, or the answer broke off."""
        status = _status_of(error)
        return self._has_answered if status is None else status in PASSING

    def _flush(self, key: str) -> None:
        """Wait until a local object is on the disk."""
        if self._remote is not None:
            return
        descriptor = os.open(Path(self.url) / key, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    @contextmanager
    def _translated(self, verb: str, key: str) -> Iterator[None]:
        try:
            yield
        except (BaseError, OSError, ValueError) as error:
            # Without the debug output, and in one line: a server may answer in XML with several lines.
            reason = " ".join(str(error).split("\n\n", 1)[0].split())
            if self._remote is not None and _METADATA_SERVICE.search(reason):
                names = _CREDENTIALS[urlsplit(self.url).scheme]
                reason = (
                    f"there are no credentials: set {names}; and this machine has no role of the cloud that gives them "
                    f"(docs/stores.md has all variables): {reason}"
                )
            elif (status := _status_of(error)) in UNKNOWN_REQUEST:
                reason = f"the server does not know this request ({status}); docs/stores.md says what a store has to do: {reason}"
            raise StoreError(f"store {self.url}: cannot {verb} {key!r}: {reason}") from error


def _status_of(error: Exception) -> int | None:
    """The HTTP status in an error of the client, which tells it in words only."""
    found = re.search(r"status code: (\d{3})", _first_line(error))
    return int(found[1]) if found else None


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def open_store(url: str | os.PathLike[str], *, must_exist: bool = False, patience: Patience = PATIENCE) -> Store:
    """Open the store at a local path or at an `s3://`, `gs://` or `az://` URL. Opening writes nothing.

    Credentials come from the environment or the workload's identity, as each cloud's own tools take them.

    Raises:
        InvalidInputError: the URL has an unknown scheme or is empty, or the local path is a file, or it does not exist although it must.
    """
    text = os.fspath(url)
    scheme = urlsplit(text).scheme if "://" in text else ""
    if not scheme:
        root = Path(text).expanduser().resolve()
        if (meant := _MISSPELT.fullmatch(text)) and not root.is_dir():
            url = f"{meant[1].lower()}://{meant['rest']}"
            raise InvalidInputError(
                f"store {text}: it is no URL; did you mean {url}? A local folder of this name: ./{text}"
            )
        if not text:
            raise InvalidInputError("store '': the path is empty; give --store PATH or set KD_RAY_STORE")
        if root.exists() and not root.is_dir():
            raise InvalidInputError(f"store {text}: it is a file; a store is a folder")
        if must_exist and not root.exists():
            raise InvalidInputError(
                f"store {text}: there is no such folder (a launch makes it when its data are ready); give --store PATH or set KD_RAY_STORE"
            )
        return Store(str(root))
    if scheme not in SCHEMES:
        choices = ", ".join(f"{name}://" for name in SCHEMES)
        raise InvalidInputError(f"store {text}: unknown scheme {scheme!r}; valid: a local path, {choices}")
    try:
        # No client options: given any, the client no longer takes AWS_ALLOW_HTTP, AWS_TIMEOUT and their like from the environment.
        client = from_url(text, retry_config={"retry_timeout": timedelta(seconds=patience.total_s)})
        return Store(text, client, patience=patience)
    except (BaseError, ValueError) as error:
        hint = f"{_CREDENTIALS[scheme]} name the account; docs/stores.md has all variables"
        raise InvalidInputError(f"store {text}: {_first_line(error)}; {hint}") from error
