"""Several hosts on this one: network namespaces with an address each, on a bridge, so that a cable can be pulled.

What runs in a namespace sees its own interfaces, and reaches the others and this host (`Hosts.gateway`) through the bridge. Processes and
files are not apart. It needs root on Linux; where namespaces are not to be had, `why_not` says so.
"""

import functools
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.clusters import HEALTH_CHECK, Node
from tests.processes import wait_until

ROOT = Path(__file__).resolve().parents[1]
DASHBOARD_PORT = 8265
_PORT = 6379


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)


@functools.cache
def why_not() -> str | None:
    """Why there can be no namespaces here; None where there can."""
    if shutil.which("ip") is None or not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root and iproute2"
    name = f"kdtry{secrets.token_hex(3)}"
    try:
        _ip("netns", "add", name)
        _ip("link", "add", name, "type", "bridge")
        _ip("link", "add", f"{name}v", "type", "veth", "peer", "name", f"{name}p")
    except (OSError, subprocess.SubprocessError) as error:
        return f"network namespaces are not to be had: {getattr(error, 'stderr', '') or error}"
    finally:
        for arguments in (("link", "del", f"{name}v"), ("link", "del", name), ("netns", "del", name)):
            subprocess.run(["ip", *arguments], check=False, capture_output=True, timeout=30)
    return None


@contextmanager
def offline() -> Iterator[list[str]]:
    """A namespace with nothing but loopback; yields what goes before a command that runs in it."""
    name = f"kd{secrets.token_hex(3)}"
    _ip("netns", "add", name)
    try:
        _ip("-n", name, "link", "set", "lo", "up")
        yield ["ip", "netns", "exec", name]
    finally:
        _ip("netns", "del", name)


@dataclass(kw_only=True)
class Hosts:
    """A head and workers on hosts of their own; see `hosts`."""

    folder: Path
    """Ray's files; the path is short, because a Unix socket's has at most 107 characters."""
    name: str
    """Of the bridge, and the beginning of the names of everything else."""
    net: str
    """The first three parts of every address."""
    token: str
    """What every node and every client must present."""
    store_environment: Mapping[str, str] = field(default_factory=dict)
    """How the nodes reach the store, with their credentials."""
    nodes: dict[int, Node] = field(default_factory=dict)
    """What runs, by the number of its host; 0 is the head."""
    _starts: int = 0

    @property
    def gateway(self) -> str:
        """This host, as the others see it."""
        return f"{self.net}.1"

    @property
    def dashboard(self) -> str:
        """What a client is given as `--address`."""
        return f"http://{self.address(0)}:{DASHBOARD_PORT}"

    def address(self, host: int) -> str:
        """The IP address of a host."""
        return f"{self.net}.{10 + host}"

    def plug_in(self, host: int) -> None:
        """Make a host, with a cable to the bridge."""
        namespace, here, there = self.names_of(host)
        _ip("netns", "add", namespace)
        _ip("link", "add", here, "type", "veth", "peer", "name", there, "netns", namespace)
        _ip("link", "set", here, "master", self.name, "up")
        _ip("-n", namespace, "address", "add", f"{self.address(host)}/24", "dev", there)
        for device in (there, "lo"):
            _ip("-n", namespace, "link", "set", device, "up")

    def cut(self, host: int) -> None:
        """Pull its cable: what is on the way is lost, and nobody is told."""
        _ip("link", "set", self.names_of(host)[1], "down")

    def start_head(self) -> None:
        """Start the head, also one that was killed: at the same address, and with no memory of what was before."""
        address = self.address(0)
        self._start(0, "--head", f"--port={_PORT}", "--num-cpus=0", f"--dashboard-host={address}")
        self._await(0)
        wait_until(lambda: _listens(address, DASHBOARD_PORT), self.nodes[0].process, timeout_s=60)

    def start_workers(self, *hosts: int, wait: bool = True) -> None:
        """Start nodes with one CPU that join the head, side by side."""
        for host in hosts:
            self._start(host, f"--address={self.address(0)}:{_PORT}", "--num-cpus=1")
        for host in hosts if wait else ():
            self._await(host)

    def kill(self, *hosts: int) -> None:
        """SIGKILL everything on some hosts: the power fails."""
        for host in hosts:
            self.nodes.pop(host).kill()

    def host_of(self, pid: int) -> int | None:
        """Where a process lives; None when it has ended."""
        return next((host for host, node in self.nodes.items() if pid in node.pids()), None)

    def names_of(self, host: int) -> tuple[str, str, str]:
        """Its namespace, and the two ends of its cable: on the bridge, and inside."""
        return f"{self.name}-{host}", f"{self.name}v{host}", f"{self.name}p{host}"

    def _start(self, host: int, *options: str) -> None:
        self._starts += 1
        files = self.folder / str(self._starts)
        files.mkdir()
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))},
            **HEALTH_CHECK,
            **self.store_environment,
            # The job server starts `python`.
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_gcs_rpc_server_reconnect_timeout_s": "10",
        }
        command = [
            *("ip", "netns", "exec", self.names_of(host)[0]),
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
            *options,
            f"--node-ip-address={self.address(host)}",
            f"--temp-dir={files}",
            f"--object-store-memory={80 * 2**20}",
        ]
        log = files / "start.log"
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=files,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self.nodes[host] = Node(address=self.address(host), process=process, log=log)

    def _await(self, host: int) -> None:
        node = self.nodes[host]
        try:
            wait_until(lambda: "Ray runtime started" in node.log.read_text(), node.process, timeout_s=60)
        except AssertionError as error:
            raise AssertionError(f"`ray start` for {node.address}: {error}\n{node.log.read_text()}") from error


@contextmanager
def hosts(count: int) -> Iterator[Hosts]:
    """So many hosts, on which nothing runs yet; at the end nothing of them is left, no process, no interface and no file."""
    name = f"kd{secrets.token_hex(3)}"
    net = f"10.213.{secrets.randbelow(256)}"
    folder = Path(tempfile.mkdtemp(prefix="kd", dir="/tmp"))
    made = Hosts(folder=folder, name=name, net=net, token=secrets.token_hex(32))
    try:
        _ip("link", "add", name, "type", "bridge")
        _ip("address", "add", f"{made.gateway}/24", "dev", name)
        _ip("link", "set", name, "up")
        for host in range(count):
            made.plug_in(host)
        yield made
    finally:
        made.kill(*list(made.nodes))
        for host in range(count):
            namespace, here, _ = made.names_of(host)
            # The cable first: a namespace lives on while one of its connections does.
            for arguments in (("link", "del", here), ("netns", "del", namespace)):
                subprocess.run(["ip", *arguments], check=False, capture_output=True, timeout=30)
        subprocess.run(["ip", "link", "del", name], check=False, capture_output=True, timeout=30)
        shutil.rmtree(folder)


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1).close()
    except OSError:
        return False
    return True
