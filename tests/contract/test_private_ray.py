"""A Ray that a launch starts is closed to other users of the machine and to the network; one that cannot start is one line."""

import os
import re
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import ray

from kd_ray.cluster.ray_tune.private_ray import private_ray
from kd_ray.cluster.ray_tune.ray_runner import RayRunner
from kd_ray.errors import InvalidInputError
from kd_ray.sweep.placement import Placement

VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home that others can enter, and no choices of the user in the environment."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as short:
        monkeypatch.setenv("RAY_TMPDIR", short)
        Path(short).chmod(0o755)
        yield tmp_path


def test_token_and_folder_are_those_of_one_launch(home: Path) -> None:
    tokens = []
    for _ in range(2):
        with private_ray() as arguments:
            tokens.append(os.environ["RAY_AUTH_TOKEN"])
            folder = Path(arguments["_temp_dir"]).parent
            assert stat.S_IMODE(folder.stat().st_mode) == 0o700
            assert arguments["_node_ip_address"] == "127.0.0.1"
        assert "RAY_AUTH_TOKEN" not in os.environ
        assert not folder.exists()
    assert len(set(tokens)) == 2
    assert all(re.fullmatch("[0-9a-f]{64}", token) for token in tokens)


def test_choices_of_the_user_stand(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_TOKEN", "mine")
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "1")
    with private_ray() as arguments:
        assert os.environ["RAY_AUTH_TOKEN"] == "mine"
        assert "_node_ip_address" not in arguments
    assert os.environ["RAY_AUTH_TOKEN"] == "mine"


def test_file_that_ray_wrote_earlier_is_closed(home: Path) -> None:
    path = home / ".ray" / "auth_token"
    path.parent.mkdir()
    path.write_text("secret")
    path.chmod(0o644)
    with private_ray():
        assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_folder_of_a_killed_driver_is_deleted(home: Path) -> None:
    base = Path(os.environ["RAY_TMPDIR"])
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        ended.wait()
    for name, pid in (("kdr_dead", ended.pid), ("kdr_live", os.getpid())):
        (base / name).mkdir()
        (base / name / "pid").write_text(str(pid))
    (base / "kdr_other").mkdir()
    with private_ray():
        assert not (base / "kdr_dead").exists()
        assert (base / "kdr_live").exists()
        assert (base / "kdr_other").exists()


@pytest.mark.ray
def test_no_port_is_open_to_the_network_and_no_other_user_sees_the_token(home: Path) -> None:
    with RayRunner(placement=Placement(), num_cpus=1):
        token = os.environ["RAY_AUTH_TOKEN"]
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in family(os.getpid())}
        assert all(any(part in command for command in commands.values()) for part in ("gcs_server", "raylet"))
        addresses = listening(commands)
        assert addresses
        assert {
            address for address in addresses if not re.fullmatch("0*(FFFF0000)?0100007F|0+01000000", address)
        } == set()
        assert not any(token in command for command in commands.values())
        assert not (home / ".ray").exists()
        if os.getuid() == 0:
            (folder,) = Path(os.environ["RAY_TMPDIR"]).glob("kdr_*/r")
            seen = as_nobody(folder, max(commands))
            assert seen.count("Permission denied") == 2
            assert "RAY_AUTH_TOKEN" not in seen


def family(pid: int) -> set[int]:
    """A process and all that descend from it."""
    found = {pid}
    parents = {int(path.parent.name): int(path.read_text().rsplit(")", 1)[1].split()[1]) for path in stats()}
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return found


def stats() -> list[Path]:
    return [path for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]


def listening(pids: Iterable[int]) -> set[str]:
    """The addresses on which these processes listen, in hexadecimal as the kernel gives them."""
    inodes = set()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(FileNotFoundError):
                inodes |= set(re.findall(r"socket:\[(\d+)\]", str(descriptor.readlink())))
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


def as_nobody(folder: Path, pid: int) -> str:
    """What another user sees of Ray's folder, and of the environment of its processes."""
    command = f"ls {folder}; cat /proc/{pid}/environ"
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        capture_output=True,
        text=True,
        check=False,
        user=65534,
        group=65534,
        extra_groups=[],
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(
    "error",
    [OSError("No space left on device"), AssertionError(), Exception("two\nlines"), SystemExit(1), KeyError("x")],
)
def test_ray_that_cannot_start_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def init(**_: object) -> None:
        raise error

    monkeypatch.setattr(ray, "init", init)
    with pytest.raises(
        InvalidInputError, match=r"cannot start Ray on this machine: .+; its folder lies below"
    ) as caught:
        RayRunner(placement=Placement()).__enter__()
    assert "\n" not in str(caught.value)
    assert list(Path(os.environ["RAY_TMPDIR"]).iterdir()) == []


def test_folder_that_cannot_be_made_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_TMPDIR", str(home / "missing"))
    with pytest.raises(InvalidInputError, match=r"cannot start Ray on this machine: .*missing"):
        RayRunner(placement=Placement()).__enter__()


@pytest.mark.parametrize(
    ("free_mb", "free_files", "message"),
    [(99, 10_000, "99 MB and 10,000 files"), (10_000, 30, "10,000 MB and 30 files")],
)
def test_folder_without_room_is_one_line(
    home: Path, monkeypatch: pytest.MonkeyPatch, free_mb: int, free_files: int, message: str
) -> None:
    """Ray would wait without end on a full disk."""
    real = os.statvfs(home)
    fields = [*real[:4], free_mb * 10**6 // real.f_frsize + 1, 20_000, free_files, free_files, *real[8:]]
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result([*fields, *[0] * (11 - len(fields))]))
    with pytest.raises(InvalidInputError, match=f"cannot start Ray on this machine: .* has room for {message}"):
        RayRunner(placement=Placement()).__enter__()


@pytest.mark.ray
def test_path_that_is_too_long_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = home / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with pytest.raises(InvalidInputError, match=r"cannot start Ray on this machine: .*107 bytes"):
        RayRunner(placement=Placement()).__enter__()
