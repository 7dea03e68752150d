"""A teacher's logits for every view of every sample, each computed once: memory-mapped on the node, shared through the store.

A pair is (sample, view), as the number sample · num_views + view. All worker processes of a node map one file with the logits, whose space
is reserved when it is made. A second file holds the state of each pair: missing, claimed by a process that computes it, or ready. Claims
only save work: where a claiming process has ended, the next process that needs the pair computes it. Computed logits are written to the
store in chunks of pairs and logits, so a process on another node, or after a restart, reads them there.

The files are used during one boot of one host only: after a power cut the two could disagree.
"""

import contextlib
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock
from safetensors import SafetensorError
from safetensors.numpy import load as load_arrays
from safetensors.numpy import save as save_arrays

from kd_ray.errors import StoreError
from kd_ray.results.inventory import take_inventory
from kd_ray.results.ledger import boot_id
from kd_ray.results.record import sha256
from kd_ray.results.store import Store, logits_folder, logits_key
from kd_ray.sweep.objective_settings import LogitPrecision

SampleViews = npt.NDArray[np.int64]
"""Numbers of pairs of a sample and a view."""

_MISSING, _CLAIMED, READY = 0, 1, 2
_UNUSED_S = 7 * 24 * 3600.0
"""A table that no process has opened for this time is deleted from its node."""

logger = logging.getLogger("kd_ray")


@dataclass(frozen=True, kw_only=True)
class TableShape:
    """Size and precision of a table."""

    num_samples: int
    num_views: int
    num_classes: int
    precision: LogitPrecision = "fp32"

    @property
    def dtype(self) -> np.dtype[np.floating]:
        """Of a logit."""
        return np.dtype(np.float32 if self.precision == "fp32" else np.float16)

    @property
    def num_pairs(self) -> int:
        """Samples times views."""
        return self.num_samples * self.num_views

    @property
    def size_bytes(self) -> int:
        """Of the file of logits."""
        return self.num_pairs * self.num_classes * self.dtype.itemsize

    @property
    def size_gb(self) -> float:
        """Of the file of logits, in GB."""
        return self.size_bytes / 1e9


class ViewTable:
    """The table of one teacher on this node."""

    def __init__(self, root: Path, name: str, shape: TableShape) -> None:
        """Open the files below `root`, or make them. A name always has the same shape.

        Raises:
            OSError: they cannot be made: no space, or no right to write.
        """
        self.shape = shape

        def reserve(folder: Path) -> None:
            # Reserved at once: a write into a hole of a full disk would kill the process.
            _reserve(folder / "logits", shape.size_bytes)
            _reserve(folder / "state", shape.num_pairs)

        boot = hashlib.sha256(boot_id().encode()).hexdigest()[:8]
        self.folder = _shared_folder(root, f"{name}-{boot}", reserve)
        self._logits_PC = np.memmap(
            self.folder / "logits", dtype=shape.dtype, mode="r+", shape=(shape.num_pairs, shape.num_classes)
        )
        self._state_P = np.memmap(self.folder / "state", dtype=np.uint8, mode="r+", shape=(shape.num_pairs,))

    def missing(self, pairs_N: SampleViews, *, also_claimed: bool) -> SampleViews:
        """Those of the pairs that are not ready, in order; those that another process computes only if asked for."""
        return pairs_N[self._state_P[pairs_N] < (READY if also_claimed else _CLAIMED)]

    def claim(self, pairs_N: SampleViews) -> None:
        """Tell the other processes of this node that these are being computed."""
        self._state_P[pairs_N] = np.maximum(self._state_P[pairs_N], _CLAIMED)

    def put(self, pairs_N: SampleViews, logits_NC: npt.NDArray[np.floating]) -> None:
        """Write logits; a process that is killed in between leaves them claimed."""
        self._logits_PC[pairs_N] = logits_NC
        self._state_P[pairs_N] = READY

    def has(self, pairs_N: SampleViews) -> bool:
        """Whether all of them are ready."""
        return bool((self._state_P[pairs_N] == READY).all())

    def take(self, pairs_N: SampleViews) -> npt.NDArray[np.floating]:
        """The logits of pairs that are ready, copied."""
        return np.asarray(self._logits_PC[pairs_N])


class SharedViews:
    """The exchange of a table's logits with the store."""

    def __init__(self, store: Store, trial_id: str, table_id: str, table: ViewTable) -> None:
        """`trial_id` names the teacher, `table_id` what its logits depend on."""
        self._store = store
        self._trial_id = trial_id
        self._table_id = table_id
        self._table = table
        self._merged = table.folder / "merged"

    def fetch(self) -> None:
        """Read the chunks of the store that this node lacks. A damaged chunk is skipped: its logits can be computed again.

        Raises:
            StoreError: an operation of the store failed.
        """
        known = set(self._merged.read_text().split()) if self._merged.exists() else set()
        for entry in take_inventory(self._store, logits_folder(self._trial_id, self._table_id)).logits:
            digest = entry.place.digest
            if digest in known:
                continue
            data = self._store.get(entry.item.key) or b""
            if sha256(data)[:16] != digest:
                logger.warning("%s is damaged; its logits are computed again", entry.item.key)
                continue
            try:
                chunk = load_arrays(data)
                self._table.put(chunk["pairs"], chunk["logits"])
            except (SafetensorError, KeyError, ValueError, IndexError) as error:
                logger.warning("%s does not hold logits of this table: %s", entry.item.key, error)
                continue
            self._note(digest)

    def share(self, pairs: Sequence[SampleViews]) -> None:
        """Write these pairs to the store. Where that fails, other nodes compute them again."""
        if not pairs:
            return
        pairs_N = np.concatenate(pairs)
        data = save_arrays({"pairs": pairs_N, "logits": self._table.take(pairs_N)})
        digest = sha256(data)[:16]
        try:
            self._store.put(logits_key(self._trial_id, self._table_id, digest), data)
            self._note(digest)
        except (StoreError, OSError) as error:
            logger.warning("logits of teacher %s are not shared: %s", self._trial_id, error)

    def _note(self, name: str) -> None:
        """Remember a chunk whose pairs are in the table."""
        with self._merged.open("a") as stream:
            stream.write(f"{name}\n")


def _reserve(path: Path, size_bytes: int) -> None:
    with path.open("wb") as stream:
        os.posix_fallocate(stream.fileno(), 0, max(1, size_bytes))


def _shared_folder(root: Path, name: str, fill: Callable[[Path], None]) -> Path:
    """The folder `name` below `root`; the first process calls `fill` to write it, the others wait.

    Raises:
        OSError: it cannot be made: no space, or no right to write. Nothing is left of it then.
    """
    folder = root / name
    root.mkdir(parents=True, exist_ok=True)
    with FileLock(root / ".lock"):
        _drop_unused(root)
        if not folder.is_dir():
            partial = root / f".{name}"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            try:
                fill(partial)
                partial.rename(folder)
            except BaseException:
                shutil.rmtree(partial, ignore_errors=True)
                raise
        os.utime(folder)
    return folder


def _drop_unused(root: Path) -> None:
    now = time.time()
    for folder in root.iterdir():
        with contextlib.suppress(OSError):
            if folder.is_dir() and now - folder.stat().st_mtime > _UNUSED_S:
                shutil.rmtree(folder, ignore_errors=True)
