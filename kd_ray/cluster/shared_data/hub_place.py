"""A place of data sets at the Hugging Face hub: what `kd-ray data push` has written to a folder, in a repository there.

It is read through huggingface_hub, with its credentials, its retries and its settings (`HF_TOKEN`, `HF_ENDPOINT`, `HF_HUB_OFFLINE`). Only
reading is done here: the hub's own `hf upload-large-folder` sends a large folder, in as few commits as the hub allows.
"""

import functools
import os
import re
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from kd_ray.errors import CorruptObjectError, DataError, StoreError

K = TypeVar("K")
T = TypeVar("T")

SCHEME = "hf://"
_URL = re.compile(r"hf://datasets/([\w.-]+/[\w.-]+)(?:@([\w.-]+))?(?:/([\w./-]+?))?/*")
_FORM = "hf://datasets/OWNER/NAME, with @REVISION and /FOLDER if need be"


class HubPlace:
    """A folder of a repository, whose objects are read by key as those of a store."""

    def __init__(self, url: str) -> None:
        """Raises DataError for another form of URL, or where huggingface_hub is missing."""
        found = _URL.fullmatch(url)
        if found is None:
            raise DataError(f"placement.data_url: {url!r} must be {_FORM}")
        try:
            from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]  # not in its __all__
        except ImportError as error:
            raise DataError(
                f"placement.data_url: {url}: needs huggingface_hub: pip install 'kd_ray[hub]'; "
                "every node that fetches needs it too"
            ) from error
        disable_progress_bars()
        self.url = url
        self._repository, self._revision, self._folder = found.groups()

    def get(self, key: str, *, most_bytes: int | None = None) -> bytes | None:
        """The whole object, or None when there is none.

        Raises:
            CorruptObjectError: it has more than `most_bytes`; it was not read.
            StoreError: the hub cannot be reached, or gives no such repository to this user.
        """
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

        try:
            with tempfile.TemporaryDirectory(prefix="kd_ray_hub_") as folder:
                fetch: Callable[..., Any] = functools.partial(
                    hf_hub_download,
                    self._repository,
                    f"{self._folder}/{key}" if self._folder else key,
                    repo_type="dataset",
                    revision=self._revision,
                    local_dir=folder,
                    # The client looks at the environment only when it is imported.
                    endpoint=os.environ.get("HF_ENDPOINT"),
                )
                if most_bytes is not None and (size := fetch(dry_run=True).file_size) > most_bytes:
                    raise CorruptObjectError(f"{self.url}: {key!r} has {size:,} bytes; at most {most_bytes:,} are read")
                return Path(fetch()).read_bytes()
        except LocalEntryNotFoundError as error:
            # What the client raises where it cannot reach the hub, or may not.
            raise StoreError(f"{self.url}: {_first_line(error)}") from error
        except EntryNotFoundError:
            return None
        except HfHubHTTPError as error:
            raise StoreError(
                f"{self.url}: {_first_line(error)}; a private repository needs HF_TOKEN, or `hf auth login`"
            ) from error
        except (OSError, ValueError) as error:
            raise StoreError(f"{self.url}: {_first_line(error)}") from error

    def at_once(self, ask: Callable[[K], T], of: Iterable[K], *, most: int) -> list[T]:
        """What `ask` gives for each, in order, several at a time."""
        with ThreadPoolExecutor(max_workers=most) as pool:
            return list(pool.map(ask, of))


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "") or type(error).__name__
