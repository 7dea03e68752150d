"""Limits of the operating system, for tests of what happens when they are reached."""

import os
import resource
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def largest_file(num_bytes: int) -> Iterator[None]:
    """No process started here, and not this one, can make a file larger: writes fail as on a full disk, with another number."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def memory_cgroup(num_bytes: int) -> Iterator[Path]:
    """A control group of Linux, of version 1 or 2, with so much memory. A process whose id is written to the yielded file joins it."""
    (group, limit) = next(_groups(), (Path("/"), ""))
    folder = group / f"kd_ray_{secrets.token_hex(4)}"
    if not limit or not os.access(group, os.W_OK):
        pytest.skip("no control group for memory can be made here")
    try:
        folder.mkdir()
        (folder / limit).write_text(str(num_bytes))
    except OSError as error:
        folder.rmdir() if folder.is_dir() else None
        pytest.skip(f"no control group for memory can be made here: {error}")
    try:
        yield folder / "cgroup.procs"
    finally:
        # The kernel takes a moment to count out what it has killed.
        until = time.monotonic() + 10
        while (folder / "cgroup.procs").read_text() and time.monotonic() < until:
            continue
        folder.rmdir()


def _groups() -> Iterator[tuple[Path, str]]:
    """The groups of this process that can limit memory, and the file of the limit."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "memory":
            yield Path(f"/sys/fs/cgroup/memory{path}"), "memory.limit_in_bytes"
        elif not controllers and "memory" in _read(f"/sys/fs/cgroup{path}/cgroup.subtree_control"):
            yield Path(f"/sys/fs/cgroup{path}"), "memory.max"


def _read(path: str) -> str:
    return Path(path).read_text() if Path(path).is_file() else ""
