"""A Ray that one launch starts for itself, closed to other users of the machine and to the network.

By default Ray writes its token to a file that others can read, makes its folders writable for everybody, and listens on all interfaces.
A user with the token can run code with the rights of the account that launched. Here the token is only in the environment of this process
and of the processes that it starts, only the owner can enter the folder, and every port is on the loopback interface.
"""

import os
import resource
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ray._private import ray_constants

from kd_ray.results import ledger

_PREFIX = "kdr_"
_PID = "pid"
_LEAST_MB = 100
_LEAST_FILES = 500
_LEAST_OPEN = 256
_TOKEN = "RAY_AUTH_TOKEN"  # noqa: S105 (the name of a variable)
_MODE = "RAY_AUTH_MODE"
_CHOSEN_TOKENS = ("RAY_AUTH_TOKEN_PATH", _TOKEN)
"""Variables with which the user chooses a token; neither is overruled."""
_NETWORK = ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR
"""With 0 every part of Ray takes the loopback address for that of its node, as it does on macOS without being asked. With 1, Ray listens on
all interfaces."""
_LOOPBACK = "127.0.0.1"


@contextmanager
def private_ray() -> Iterator[dict[str, Any]]:
    """The arguments for `ray.init` of a private Ray; its folder is deleted at the end.

    Raises:
        OSError: no folder can be made below `RAY_TMPDIR`, or where this machine keeps temporary files, or too few files may be open.
    """
    base = Path(os.environ.get("RAY_TMPDIR") or tempfile.gettempdir())
    _delete_abandoned(base)
    _check_room(base)
    _check_open_files()
    folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
    try:
        (folder / _PID).write_text(str(os.getpid()))
        with _own_token(), _on_loopback() as address:
            # Ray opens its folder to everybody, so it lies within ours. Paths of sockets have to be short.
            yield {"_temp_dir": str(folder / "r"), **address}
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _own_token() -> Iterator[None]:
    """A token in the environment, unless the user has chosen one. A file that Ray wrote earlier is closed to others."""
    with suppress(OSError):
        (Path.home() / ".ray" / "auth_token").chmod(0o600)
    mode = os.environ.get(_MODE)
    if mode not in (None, "", "token") or any(os.environ.get(name) for name in _CHOSEN_TOKENS):
        yield
        return
    os.environ[_TOKEN] = secrets.token_hex(32)
    _forget_token()
    try:
        yield
    finally:
        os.environ.pop(_TOKEN, None)
        # Ray sets the mode, and a later Ray of this process would then write its token to a file.
        if mode is None:
            os.environ.pop(_MODE, None)
        _forget_token()


def _forget_token() -> None:
    """Ray keeps the token that it has found first, as long as the process lives."""
    from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # of a compiled module

    AuthenticationTokenLoader.instance().reset_cache()


@contextmanager
def _on_loopback() -> Iterator[dict[str, str]]:
    if os.environ.get(_NETWORK):
        yield {}
        return
    before = ray_constants.ENABLE_RAY_CLUSTER
    os.environ[_NETWORK] = "0"
    # Ray has read the variable when it was imported; processes that it starts read it anew.
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield {"_node_ip_address": _LOOPBACK}
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before
        os.environ.pop(_NETWORK, None)


def _check_room(base: Path) -> None:
    """Refuse a folder on a full disk, where Ray would wait without end."""
    room = os.statvfs(base)
    free_mb = room.f_bavail * room.f_frsize // 10**6
    # Some file systems do not count files.
    if free_mb < _LEAST_MB or (room.f_files and room.f_favail < _LEAST_FILES):
        raise OSError(
            f"{base} has room for {free_mb:,} MB and {room.f_favail:,} files, and Ray needs {_LEAST_MB} MB and {_LEAST_FILES} files"
        )


def _check_open_files() -> None:
    """Refuse a limit at which Ray's own processes crash, which ends a launch without a word. Ray raises the soft limit to the hard one."""
    _, limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit != resource.RLIM_INFINITY and limit < _LEAST_OPEN:
        raise OSError(f"a process may have {limit} files open here (ulimit -Hn), and Ray needs {_LEAST_OPEN}")


def _delete_abandoned(base: Path) -> None:
    """Delete the folders of killed drivers of this host."""
    for folder in base.glob(f"{_PREFIX}*"):
        with suppress(OSError, ValueError):
            if folder.stat().st_uid == os.getuid() and not folder.is_symlink():
                pid = int((folder / _PID).read_text())
                if ledger.process_started(pid) == "":
                    shutil.rmtree(folder, ignore_errors=True)
