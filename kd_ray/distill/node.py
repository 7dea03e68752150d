"""Folders that the worker processes of a node share: made once and whole, dropped when nobody has opened them for long."""

import contextlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

_UNUSED_S = 7 * 24 * 3600.0
"""Folders that nobody has opened for so long are deleted."""


def shared_folder(root: Path, name: str, fill: Callable[[Path], None]) -> Path:
    """The folder `name` below `root`; the first who asks lets `fill` write it, the others wait.

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
