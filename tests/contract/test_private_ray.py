"""A Ray that a launch starts is closed to other users of the machine and to the network; one that cannot start is one line."""

import http.client
import ipaddress
import os
import re
import resource
import signal
import stat
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

import grpc  # type: ignore[import-untyped]
import pytest
import ray

from kd_ray.cluster.ray_tune.private_ray import private_ray
from kd_ray.cluster.ray_tune.ray_runner import RayRunner
from kd_ray.errors import InvalidInputError
from kd_ray.results.ledger import scan
from kd_ray.results.status import sweep_status
from kd_ray.results.store import Store, open_store
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.spec import TrialState
from tests.processes import command_line, output_of, started, wait_until
from tests.sweeps import write_tiny_sweep

VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH", "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER")


WITHOUT_END = ("training.epochs=100000", "grid.seed=[0]", "grid.temperature=null", "teacher=null", "distillation=null")
NOBODY = 65534

CALLS = (
    "CoreWorkerService/PushTask",
    "InternalKVGcsService/InternalKVGet",
    "NodeInfoGcsService/GetAllNodeInfo",
    "NodeManagerService/RequestWorkerLease",
    "ObjectManagerService/Pull",
    "ReporterService/GetTraceback",
)
"""One call for each kind of port that speaks gRPC."""

CONNECT = """
import os, sys
import ray._raylet
address, uid = sys.argv[1:]
if uid != "0":
    os.setgroups([])
    os.setgid(int(uid))
    os.setuid(int(uid))
try:
    nodes = ray._raylet.GcsClient(address=address).get_all_node_info(timeout=30)
    print(len(nodes), "nodes")
except ray.exceptions.AuthenticationError as error:
    print("refused", error)
"""
"""A client of the cluster. It becomes another user when everything is imported, because that user may not be able to read the packages."""


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


def test_mode_alone_is_no_choice_of_a_token(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: an earlier Ray of the process may have left the mode."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    with private_ray():
        assert os.environ["RAY_AUTH_TOKEN"]
    assert os.environ["RAY_AUTH_MODE"] == "token"
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with private_ray():
        assert "RAY_AUTH_TOKEN" not in os.environ


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
    before = {name: os.environ.get(name) for name in VARIABLES}
    with RayRunner(placement=Placement(), num_cpus=1):
        token = os.environ["RAY_AUTH_TOKEN"]
        commands = {pid: Path(f"/proc/{pid}/cmdline").read_text() for pid in family(os.getpid())}
        assert all(any(part in command for command in commands.values()) for part in ("gcs_server", "raylet"))
        assert {address for address, _ in listening(commands)} == {"127.0.0.1"}
        assert not any(token in command for command in commands.values())
        assert not (home / ".ray").exists()
        if os.getuid() == 0:
            (folder,) = Path(os.environ["RAY_TMPDIR"]).glob("kdr_*/r")
            seen = as_nobody(folder, max(commands))
            assert seen.count("Permission denied") == 2
            assert "RAY_AUTH_TOKEN" not in seen
    # Ray sets the mode. A second launch of this process must not take it for a choice of the user, or Ray writes its token to a file.
    assert {name: os.environ.get(name) for name in VARIABLES} == before


@pytest.mark.ray
def test_workers_have_imported_what_training_needs(home: Path) -> None:
    def seen() -> tuple[bool, str | None]:
        return "kd_ray.distill.worker" in sys.modules, os.environ.get("OMP_NUM_THREADS")

    with RayRunner(placement=Placement(), num_cpus=1):
        assert ray.get(ray.remote(seen).remote()) == (True, "1")


def family(pid: int) -> set[int]:
    """A process and all that descend from it."""
    found = {pid}
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        # Other processes end meanwhile.
        with suppress(FileNotFoundError, ProcessLookupError):
            parents[int(path.parent.name)] = int(path.read_text().rsplit(")", 1)[1].split()[1])
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return found


def listening(pids: Iterable[int]) -> set[tuple[str, int]]:
    """The addresses and ports on which these processes listen."""
    inodes = set()
    for pid in pids:
        with suppress(FileNotFoundError):
            for descriptor in Path(f"/proc/{pid}/fd").iterdir():
                with suppress(FileNotFoundError):
                    inodes |= set(re.findall(r"socket:\[(\d+)\]", str(descriptor.readlink())))
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {_address(row[1]) for row in rows if row[3] == "0A" and row[9] in inodes}


def _address(text: str) -> tuple[str, int]:
    """As the kernel gives it: 32-bit words of the machine, in hexadecimal."""
    words, port = text.split(":")
    raw = b"".join(int(words[i : i + 8], 16).to_bytes(4, sys.byteorder) for i in range(0, len(words), 8))
    address = ipaddress.ip_address(raw)
    return str(getattr(address, "ipv4_mapped", None) or address), int(port, 16)


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


def test_limit_of_open_files_at_which_ray_crashes_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: with 64 the launch ended with 1 and without a word, when its raylet had crashed."""
    monkeypatch.setattr(resource, "getrlimit", lambda kind: (64, 64))
    with pytest.raises(
        InvalidInputError, match=r"cannot start Ray .* 64 files open here \(ulimit -Hn\), and Ray needs 256"
    ):
        RayRunner(placement=Placement()).__enter__()


@pytest.mark.ray
def test_path_that_is_too_long_is_one_line(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = home / ("x" * 100)
    long.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(long))
    with pytest.raises(InvalidInputError, match=r"cannot start Ray on this machine: .*107 bytes"):
        RayRunner(placement=Placement()).__enter__()


# --- a whole launch ------------------------------------------------------------------------------------------------------------------


def connect(address: str, token: str, uid: int = 0) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
    command = [sys.executable, "-c", CONNECT, address, str(uid)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=True).stdout


def answers_of(port: int) -> dict[str, str]:
    """What a port says to somebody without the token, by what was asked for."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30) as answer:
            return {"/": "measurements" if answer.read().startswith(b"# HELP") else "an answer"}
    except urllib.error.HTTPError as error:
        return {"/": f"HTTP {error.code}"}
    except (OSError, http.client.HTTPException):
        # No HTTP.
        return {name: answer for name in CALLS if (answer := call(port, name)) != "UNIMPLEMENTED"}


def call(port: int, name: str) -> str:
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            channel.unary_unary(f"/ray.rpc.{name}")(b"", timeout=30)
        except grpc.RpcError as error:
            return str(error.code().name)
    return "ANSWER"


@pytest.mark.long
@pytest.mark.ray
def test_strangers_reach_nothing_of_a_launch(home: Path, trifeature_root: Path) -> None:
    store = open_store(home / "store")
    file = write_tiny_sweep(home, trifeature_root, *WITHOUT_END)
    with started("launch", str(file), "--store", store.url, cwd=home, output=home / "log") as process:
        wait_until(lambda: bool(trainer(store)), process)
        pids = family(process.pid)
        ports = listening(pids)
        assert len(ports) >= 8
        assert {address for address, _ in ports} == {"127.0.0.1"}

        answers = {port: answers_of(port) for _, port in ports}
        assert all(answers.values()), answers
        said = {(asked, answer) for of_port in answers.values() for asked, answer in of_port.items()}
        assert said == {("/", "HTTP 401"), ("/", "measurements")} | {(name, "UNAUTHENTICATED") for name in CALLS}

        (folder,) = Path(os.environ["RAY_TMPDIR"]).iterdir()
        (session,) = (folder / "r").glob("session_2*")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        assert not (home / ".ray").exists()

        token = token_of(trainer(store))
        (gcs,) = (pid for pid in pids if "/gcs_server " in command_line(pid))
        ((_, port),) = listening([gcs])
        address = f"127.0.0.1:{port}"
        assert not any(token in command_line(pid) for pid in pids)
        assert connect(address, token) == "1 nodes\n"
        assert connect(address, "").startswith("refused")
        assert connect(address, "ab" * 32).startswith("refused")
        if os.getuid() == 0:
            assert connect(address, "", NOBODY).startswith("refused")
            seen = as_nobody(session, trainer(store))
            assert seen.count("Permission denied") == 2
            assert token not in seen

        process.send_signal(signal.SIGTERM)
        output_of(process, timeout_s=120)
        assert process.returncode == 130, (home / "log").read_text()
    assert list(Path(os.environ["RAY_TMPDIR"]).iterdir()) == []


def trainer(store: Store) -> int:
    """The process that trains; 0 before there is one."""
    if not store.exists("sweeps/tiny/sweep.yaml"):
        return 0
    (trial,) = sweep_status(store, "tiny").trials
    status = scan(store, [trial.trial_id])[trial.trial_id]
    return status.lease.pid if status.state is TrialState.RUNNING and status.lease else 0


def token_of(pid: int) -> str:
    """The token of the launch, as its owner sees it in a process of it."""
    text = Path(f"/proc/{pid}/environ").read_text()
    return re.search("RAY_AUTH_TOKEN=([0-9a-f]{64})", text)[1]  # type: ignore[index]
