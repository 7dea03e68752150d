"""The folders of fetched sets of a node, each of which takes the place of a data root.

    <data_root>/fetched/<name>/           files of the sets; `prepared`, `loaded` and `views`, which are made of them
    <data_root>/fetched/<name>.use        held by every process that uses the folder; its time is that of the last use
    <data_root>/fetched/<name>.lock       held by the process that fetches
    <data_root>/fetched/.<name>.partial/  files/  done/  room: what an unfinished fetch has so far

Only what lies below `fetched` is ever deleted: the folders that were not used for longest, when room is needed, and none that is in use.
"""

import fcntl
import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from kd_ray.cluster.shared_data.fetch_data import FoundSet, fetch
from kd_ray.data.family import OnBytes
from kd_ray.errors import CacheError
from kd_ray.sweep.placement import Placement

FOLDER = "fetched"
_HELD: dict[Path, int] = {}
"""Open files of this process, by the folder that it uses. The system closes them when the process ends, however it ends."""
_GONE = ".gone"
_BLOCK_BYTES = 4096
"""What a small file takes at least on most disks."""
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TOLD_EVERY_S = 10.0

logger = logging.getLogger("kd_ray")


def on_this_node(placement: Placement, sets: Sequence[FoundSet], on_bytes: OnBytes | None = None) -> Placement:
    """The placement with the folder of these sets as its data root. They are fetched if need be, and stay until this process ends.

    Raises:
        CacheError: there is no room for them.
        StoreError: they cannot be read, or are damaged.
    """
    if not sets:
        return placement
    fetched = Path(placement.data_root).expanduser() / FOLDER
    digest = hashlib.sha256("".join(sorted(it.index.digest for it in sets)).encode()).hexdigest()
    name = "-".join(it.what.replace(":", "-").replace("/", "-") for it in sets)[:100] + f"-{digest[:16]}"
    try:
        fetched.mkdir(parents=True, exist_ok=True)
        _hold(fetched / name)
        if not (fetched / name).is_dir():
            with _alone(fetched, name):
                if not (fetched / name).is_dir():
                    _fetch_all(sets, fetched, name, int(placement.data_cache_gb * 1e9), on_bytes or _logged())
    except OSError as error:
        reason = " ".join(str(error).split())
        raise CacheError(
            f"{fetched / name} cannot be made: {reason}; make room, or name another placement.data_root"
        ) from error
    return placement.model_copy(update={"data_root": str(fetched / name), "data_url": None})


@contextmanager
def _alone(fetched: Path, name: str) -> Iterator[None]:
    """Inside, no other process fetches this folder."""
    lock = FileLock(fetched / f"{name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.warning("waiting for another process of this node, which fetches %s", fetched / name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch_all(sets: Sequence[FoundSet], fetched: Path, name: str, limit_bytes: int, on_bytes: OnBytes) -> None:
    """Fetch the sets to a neighbouring folder and rename it. The caller holds the lock."""
    needed = sum(it.index.size_bytes + _BLOCK_BYTES * it.index.num_files for it in sets)
    partial = _partial(fetched / name)
    boot = _BOOT.read_text().strip() if _BOOT.exists() else ""
    with FileLock(fetched / "room.lock"):
        if partial.exists() and not (partial / f"boot-{boot}").exists():
            # What was written before the machine went down may not have reached the disk.
            shutil.rmtree(partial)
        _make_room(fetched, name, needed, limit_bytes)
        for folder in ("files", "done"):
            (partial / folder).mkdir(parents=True, exist_ok=True)
        (partial / f"boot-{boot}").touch()
        (partial / "room").write_text(str(needed))
    for found in sets:
        logger.info("fetching %s, %s, from %s", found.what, _gb(found.index.size_bytes), found.url)
        fetch(found, partial / "files", partial / "done", on_bytes)
    os.sync()
    (partial / "files").rename(fetched / name)
    shutil.rmtree(partial)
    logger.info("fetched %s", fetched / name)


def _make_room(fetched: Path, name: str, needed: int, limit_bytes: int) -> None:
    """Delete the folders that were not used for longest, until `needed` bytes fit within the limit and on the disk.

    Raises:
        CacheError: they do not fit without what is in use.
    """
    for gone in fetched.glob(f".*{_GONE}"):
        shutil.rmtree(gone)
    others = {it.stem for it in fetched.glob("*.use")} - {name}
    sizes = {it: max(_size(fetched / it) + _size(_partial(fetched / it)), _reserved(fetched / it)) for it in others}
    there = _size(_partial(fetched / name))
    for old in sorted(others, key=lambda it: (fetched / f"{it}.use").stat().st_mtime):
        if _fits(fetched, sizes, needed, limit_bytes, there):
            return
        if sizes[old] and _delete(fetched / old):
            logger.info("deleted %s, %s, to make room", fetched / old, _gb(sizes[old]))
            del sizes[old]
    if not _fits(fetched, sizes, needed, limit_bytes, there):
        used, free = sum(sizes.values()), shutil.disk_usage(fetched).free
        raise CacheError(
            f"{fetched / name} cannot be made: the data need {_gb(needed)}, other sets that are in use take {_gb(used)} of the "
            f"{_gb(limit_bytes)} of placement.data_cache_gb, and the disk has {_gb(free)} left; raise the limit, make room, or name "
            "another placement.data_root"
        )


def _fits(fetched: Path, sizes: dict[str, int], needed: int, limit_bytes: int, there: int) -> bool:
    is_within = sum(sizes.values()) + needed <= limit_bytes
    return is_within and needed - there <= shutil.disk_usage(fetched).free


def _hold(folder: Path) -> None:
    """Use this folder from now on, until this process ends."""
    use = folder.with_name(f"{folder.name}.use")
    if folder not in _HELD:
        descriptor = os.open(use, os.O_RDONLY | os.O_CREAT, 0o666)
        # Waits while the folder is being deleted.
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        _HELD[folder] = descriptor
    with suppress(PermissionError):  # another user's
        os.utime(use)


def _delete(folder: Path) -> bool:
    """Delete a folder that nobody uses, with what an unfinished fetch left; returns whether it was deleted."""
    try:
        # Over NFS only a file that is open for writing can be locked alone.
        descriptor = os.open(folder.with_name(f"{folder.name}.use"), os.O_RDWR)
    except PermissionError:  # another user's
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for part in (folder, _partial(folder)):
            if part.exists():
                # Renamed first, so that no half of it is taken for the whole.
                gone = folder.with_name(f".{part.name}{_GONE}")
                part.rename(gone)
                shutil.rmtree(gone)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _partial(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.partial")


def _reserved(folder: Path) -> int:
    """Bytes that an unfinished fetch is going to need."""
    try:
        return int((_partial(folder) / "room").read_text())
    except (OSError, ValueError):
        return 0


def _size(folder: Path) -> int:
    """Bytes on the disk of all files of a folder."""
    return sum((Path(parent) / name).lstat().st_blocks * 512 for parent, _, names in os.walk(folder) for name in names)


def _gb(size_bytes: int) -> str:
    return f"{size_bytes / 1e9:.3g} GB"


def _logged() -> OnBytes:
    """Progress as lines of the log, at most one each ten seconds."""
    last = [time.monotonic()]

    def told(what: str, done: int, total: int) -> None:
        if time.monotonic() - last[0] >= _TOLD_EVERY_S:
            last[0] = time.monotonic()
            logger.info("fetched %s of %s of %s", _gb(done), _gb(total), what)

    return told
