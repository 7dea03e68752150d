"""A real Ray cluster of several nodes on this host, each of real processes that can be killed, frozen and started again.

Every node listens on a loopback address of its own. `ray start --block` leads a session that holds all processes of the node, its workers
included, so a node is known by that session's id: nothing here goes by a process's name, and other Ray clusters on the host are left alone.
"""

import itertools
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import command_line, kill_session, session_pids, wait_until

HEAD = "127.0.0.2"
"""Address of the head. Ray would silently replace 127.0.0.1 by an outside address of the host; the others stay as given."""
NODES = ("127.0.0.3", "127.0.0.4")
"""Addresses for the other nodes."""
HEALTH_CHECK = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_timeout_ms": "2000",
    "RAY_health_check_failure_threshold": "3",
}
"""The head gives a silent node up after 3 × (1 + 2) s; Ray's default is about a minute."""

_HEAD_ID = "f" * 51 + "00000"
"""Of the head, for an autoscaler whose nodes are on this machine."""
_EMPTY_LISTS = (
    "initialization_commands",
    "setup_commands",
    "head_setup_commands",
    "worker_setup_commands",
    "head_start_ray_commands",
    "worker_start_ray_commands",
    "cluster_synced_files",
)
"""Fields that the configuration of an autoscaler must have."""


@dataclass(frozen=True, kw_only=True)
class Node:
    """The processes of one node, the head or another one."""

    address: str
    """Its IP address."""
    process: subprocess.Popen[str]
    """`ray start --block`, the leader of the node's session."""
    log: Path
    """What it printed."""

    def pids(self) -> list[int]:
        """Its live processes; `ray start` is the last."""
        return session_pids(self.process.pid)

    def workers(self) -> list[int]:
        """Those that hold an actor of a launch, at work or between two steps."""
        names = ("ray::ResourceTrainable", "ray::PackTrainable")
        return [pid for pid in self.pids() if command_line(pid).startswith(names)]

    def raylet(self) -> int:
        """The process by which Ray knows the node."""
        (pid,) = (pid for pid in self.pids() if Path(command_line(pid).split(" ", 1)[0]).name == "raylet")
        return pid

    def kill(self) -> None:
        """SIGKILL everything on it, frozen or not: the power fails."""
        self._signal(signal.SIGSTOP)  # nobody can start a process that would be missed
        kill_session(self.process.pid)
        self.process.wait()

    def kill_raylet(self) -> None:
        """SIGKILL the raylet alone; its workers find out by themselves."""
        os.kill(self.raylet(), signal.SIGKILL)

    def freeze(self) -> None:
        """SIGSTOP everything on it: the host hangs, or the network to it is cut."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT everything on it."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        # Until a look finds nobody new: what was listed may have forked before the signal reached it.
        signalled: set[int] = set()
        while new := set(self.pids()) - signalled:
            for pid in new:
                _send(pid, number)
            signalled |= new


def _send(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return


@dataclass(kw_only=True)
class LoopbackCluster:
    """A head without CPUs and any number of other nodes; see `loopback_cluster`."""

    folder: Path
    """Ray's files and what each `ray start` printed. Its path is short, because a Unix socket's has at most 107 characters."""
    port: int
    """Of the head; it stays the same when the head is started again."""
    token: str
    """What every node and every driver must present."""
    nodes: list[Node] = field(default_factory=list)
    """Every node that was started and not given up by `lose`, the head among them."""
    _numbers: Iterator[int] = field(default_factory=itertools.count)

    @property
    def address(self) -> str:
        """What a driver is given as `--address`."""
        return f"{HEAD}:{self.port}"

    @property
    def environment(self) -> Mapping[str, str]:
        """What every node and every driver must have in its environment."""
        return {
            "RAY_AUTH_MODE": "token",
            "RAY_AUTH_TOKEN": self.token,
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_gcs_rpc_server_reconnect_timeout_s": "10",  # until a silent head is given up; 60 by default
        }

    def start_head(self, *options: str, **environment: str) -> Node:
        """Start the head, also one that was killed: at the same address, and with no memory of what was before."""
        own = (f"--port={self.port}", "--num-cpus=0", "--include-dashboard=false")
        head = self._start(HEAD, "--head", *own, *options, **environment)
        self._await(head)
        return head

    def start_scaling_head(self, *, most: int, idle_s: float) -> Node:
        """Start the head with Ray's own autoscaler: it starts up to `most` nodes of one CPU, in the session of the head, and ends them when
        they were idle for so long."""
        config = {
            "cluster_name": "scaling",
            "max_workers": most,
            "upscaling_speed": 10.0,
            "idle_timeout_minutes": idle_s / 60,
            # Ray's provider for tests: a node is a raylet on this machine.
            "provider": {
                "type": "external",
                "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
                "gcs_address": self.address,
                "launch_multiple": True,
                "head_node_id": _HEAD_ID,
            },
            "head_node_type": "ray.head.default",
            "available_node_types": {
                "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
                "worker": {
                    "resources": {"CPU": 1, "object_store_memory": 80 * 2**20},
                    "node_config": {},
                    "min_workers": 0,
                    "max_workers": most,
                },
            },
            **{field: {} for field in ("auth", "docker", "file_mounts")},
            **{field: [] for field in _EMPTY_LISTS},
        }
        path = self.folder / "autoscaling.json"
        path.write_text(json.dumps(config))
        return self.start_head(
            f"--autoscaling-config={path}",
            RAY_FAKE_CLUSTER="1",
            RAY_enable_autoscaler_v2="1",
            RAY_CLOUD_INSTANCE_ID=_HEAD_ID,
            RAY_OVERRIDE_NODE_ID_FOR_TESTING=_HEAD_ID,
            AUTOSCALER_UPDATE_INTERVAL_S="1",
        )

    def add_nodes(self, *addresses: str, cpus: int = 1, options: Sequence[str] = (), wait: bool = True) -> list[Node]:
        """Start nodes that join the head, side by side; without `wait` they come up by and by."""
        given = (f"--address={self.address}", f"--num-cpus={cpus}", *options)
        nodes = [self._start(address, *given) for address in addresses]
        for node in nodes if wait else ():
            self._await(node)
        return nodes

    def node_of(self, pid: int) -> Node | None:
        """The node on which a process lives; None when it has ended, or is none of the cluster's."""
        return next((node for node in self.nodes if pid in node.pids()), None)

    def node_at(self, address: str) -> Node:
        """The node that was started last at an address."""
        return next(node for node in reversed(self.nodes) if node.address == address)

    def lose(self, *nodes: Node) -> None:
        """SIGKILL everything on some nodes and forget them, so that nobody signals their ids again, which others may have by then."""
        for node in nodes:
            node.kill()
            self.nodes.remove(node)

    def kill(self) -> None:
        """SIGKILL every node."""
        for node in self.nodes:
            node.kill()

    def _start(self, address: str, *options: str, **environment: str) -> Node:
        files = self.folder / str(next(self._numbers))
        files.mkdir()
        command = [
            *(sys.executable, "-m", "ray.scripts.scripts", "start", "--block"),
            *options,
            f"--node-ip-address={address}",
            f"--temp-dir={files}",
            f"--object-store-memory={80 * 2**20}",
            f"--dashboard-agent-listen-port={_free_port(address)}",
        ]
        with (files / "start.log").open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=files,
                env={**os.environ, **self.environment, **HEALTH_CHECK, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        node = Node(address=address, process=process, log=files / "start.log")
        self.nodes.append(node)
        return node

    def _await(self, node: Node) -> None:
        try:
            wait_until(lambda: "Ray runtime started" in node.log.read_text(), node.process, timeout_s=60)
        except AssertionError as error:
            raise AssertionError(f"`ray start` for {node.address}: {error}\n{node.log.read_text()}") from error


@contextmanager
def loopback_cluster() -> Iterator[LoopbackCluster]:
    """A cluster of which nothing runs yet; at the end nothing of it is left, no process and no file."""
    folder = Path(tempfile.mkdtemp(prefix="kd", dir="/tmp"))
    cluster = LoopbackCluster(folder=folder, port=_free_port(HEAD), token=secrets.token_hex(32))
    try:
        yield cluster
    finally:
        cluster.kill()
        shutil.rmtree(folder)


def _free_port(address: str) -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind((address, 0))
        port: int = probe.getsockname()[1]
        return port
