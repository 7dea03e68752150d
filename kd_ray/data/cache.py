"""Folders that a node makes once and then reads: each appears complete or not at all, is checked at every use, and is made again when
damaged.

Any number of processes may ask for the same folder at once: one makes it, the others wait. A complete folder is used without a lock,
so that it may lie on a read-only disk.
"""

import hashlib
import json
import logging
import os
import secrets
import shutil
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
from filelock import FileLock
from safetensors import SafetensorError

from kd_ray.errors import CacheError, StoreError

CONTENTS = "checksums.json"
"""Name of the file in such a folder that holds the checksums of the other files."""

_LOGGER = logging.getLogger("kd_ray.data")


def prepared_folder(root: Path, dataset: str, facts: Mapping[str, Any]) -> Path:
    """Where a data set that was prepared from `facts`, JSON, is kept."""
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    return root / "prepared" / f"{dataset}-{key}"


def is_whole(folder: Path, names: Iterable[str], facts: Mapping[str, Any]) -> bool:
    """Whether the folder holds the files `names` as they were written, made from what `facts` describes."""
    return folder.is_dir() and _damage(folder, names, facts) is None


def cached(folder: Path, names: Iterable[str], facts: Mapping[str, Any], make: Callable[[Path], None]) -> None:
    """Make sure that the folder holds the files `names`, whole; `make` writes them into an empty folder, which then takes its place.

    `facts`, JSON, describes the sources of the files, and must be the same at every use of the folder.

    Raises:
        CacheError: the folder cannot be made, whatever library found that out.
    """
    names = tuple(names)
    if is_whole(folder, names, facts):
        return
    try:
        _locked(folder, names, facts, make)
    except CacheError:
        raise
    except (OSError, SafetensorError, pa.ArrowException, StoreError) as error:
        reason = " ".join(str(error).split())
        raise CacheError(
            f"{folder} cannot be made: {reason}; make room, or name another placement.data_root"
        ) from error


def _locked(folder: Path, names: tuple[str, ...], facts: Mapping[str, Any], make: Callable[[Path], None]) -> None:
    """Make the folder, unless another process has made it meanwhile."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_name(f"{folder.name}.lock")):
        if folder.is_dir():
            damage = _damage(folder, names, facts)
            if damage is None:
                return
            quarantined = _quarantine(folder)
            _LOGGER.warning("%s is damaged (%s): moved to %s, making it again", folder, damage, quarantined.name)
        _make(folder, names, facts, make)


def _make(folder: Path, names: tuple[str, ...], facts: Mapping[str, Any], make: Callable[[Path], None]) -> None:
    """Make the files in a neighbouring folder and rename it. The caller holds the lock, so remains of other attempts can be deleted."""
    for dead in folder.parent.glob(f".{folder.name}.*"):
        shutil.rmtree(dead, ignore_errors=True)
    partial = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    partial.mkdir()
    try:
        make(partial)
        contents = _contents(partial, names, facts)
        (partial / CONTENTS).write_text(json.dumps(contents, indent=2) + "\n", encoding="utf-8")
        os.replace(partial, folder)  # noqa: PTH105 - the name says that it is atomic
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _contents(folder: Path, names: Iterable[str], facts: Mapping[str, Any]) -> dict[str, Any]:
    digests = {}
    for name in names:
        with (folder / name).open("rb") as file:
            digests[name] = hashlib.file_digest(file, "sha256").hexdigest()
    return {**facts, "sha256": digests}


def _damage(folder: Path, names: Iterable[str], facts: Mapping[str, Any]) -> str | None:
    """How the folder is damaged, or None."""
    try:
        written = json.loads((folder / CONTENTS).read_text(encoding="utf-8"))
        made = _contents(folder, names, facts)
    except (OSError, ValueError) as error:
        return str(error)
    return None if written == made else f"its files do not match {CONTENTS}"


def _quarantine(folder: Path) -> Path:
    """Rename a damaged folder, so that it can be examined; earlier ones are kept."""
    quarantined = folder.with_name(f"{folder.name}.damaged")
    for count in range(2, 1000):
        if not quarantined.exists():
            break
        quarantined = folder.with_name(f"{folder.name}.damaged-{count}")
    return folder.rename(quarantined)
