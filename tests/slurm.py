"""A real Slurm on this machine: munged, slurmctld, and a slurmd on each of two hosts, which are network namespaces (`tests.hosts`).

The hosts share the files of this machine, as the nodes of a cluster share a home folder, but for Ray's temporary folder, which each has for
itself. It needs root on Linux, and Debian's `slurm-wlm` with `munge`; where they are not to be had, `why_not` says so.
"""

import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.hosts import Hosts, hosts
from tests.hosts import why_not as why_no_hosts
from tests.processes import session_pids, wait_until

_DAEMONS = ("munged", "slurmctld", "slurmd", "sbatch", "scontrol")
_PORT_CONTROLLER = 16817
_PORT_NODE = 16818
_CONFIGURATION = """
ClusterName=test
SlurmctldHost={hostname}({controller})
SlurmctldPort={port_controller}
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
# This machine may have fewer processors and less memory than the script asks for.
SlurmdParameters=config_overrides
{nodes}
PartitionName=main Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""


def why_not() -> str | None:
    """Why there can be no Slurm here; None where there can."""
    search = os.pathsep.join((os.environ.get("PATH", ""), "/usr/sbin", "/sbin"))
    if missing := [name for name in _DAEMONS if shutil.which(name, path=search) is None]:
        return f"{', '.join(missing)} of slurm-wlm and munge are not installed"
    return why_no_hosts()


@dataclass(kw_only=True)
class Slurm:
    """A running cluster of two nodes, `node0` and `node1`."""

    folder: Path
    hosts: Hosts
    daemons: dict[str, subprocess.Popen[str]] = field(default_factory=dict)

    @property
    def environment(self) -> dict[str, str]:
        """For Slurm's commands, and so for the jobs that they submit; nothing of a Ray or a Slurm outside."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("AWS_", "RAY_", "SLURM_", "KD_RAY_"))
        }
        return kept | {
            "SLURM_CONF": str(self.folder / "slurm.conf"),
            "HOME": str(self.home),
            "KD_RAY_VENV": str(Path(sys.executable).parent.parent),
            "RAY_TMPDIR": str(self.folder / "t"),
            "OMP_NUM_THREADS": "1",
        }

    @property
    def home(self) -> Path:
        """The user's home folder, from which jobs are submitted."""
        return self.folder / "home"

    def output(self, job: str) -> str:
        """What a job has printed, by the script's option."""
        path = self.home / f"kd-ray-{job}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def run(self, *command: str) -> str:
        """What one of Slurm's commands prints, called in the user's home folder."""
        done = subprocess.run(
            command,
            cwd=self.folder / "home",
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, f"{' '.join(command)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def job(self, number: str) -> dict[str, str]:
        """What Slurm says of a job, by its own names."""
        words = self.run("scontrol", "show", "job", number, "--oneliner").split()
        return dict(word.split("=", 1) for word in words if "=" in word)

    def logs(self) -> str:
        """The last lines of each daemon's log."""
        texts = (
            f"{path.name}:\n{path.read_text(errors='replace')[-2000:]}" for path in sorted(self.folder.glob("*.log"))
        )
        return "\n".join(texts)

    def start(self, name: str, *command: str, inside: tuple[str, ...] = ()) -> None:
        """Start a daemon in the foreground."""
        with (self.folder / f"{name}.log").open("w") as log:
            self.daemons[name] = subprocess.Popen(
                [*inside, *command],
                cwd=self.folder,
                env=os.environ | {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )

    def stop(self) -> None:
        """End every daemon by its process id, the nodes first; then whatever they have started."""
        for process in reversed(self.daemons.values()):
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(timeout=15)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        for pid in _started_below(self.folder) | {p for d in self.daemons.values() for p in session_pids(d.pid)}:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue


def _started_below(folder: Path) -> set[int]:
    """Processes of jobs, which lie in sessions of their own: their environment names this cluster's configuration."""
    mark = f"SLURM_CONF={folder}/".encode()
    pids = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                if mark in (entry / "environ").read_bytes():
                    pids.add(int(entry.name))
            except OSError:
                continue
    return pids


@contextmanager
def slurm(number: int = 2) -> Iterator[Slurm]:
    """A cluster with so many nodes; at the end nothing of it is left, no process, no interface and no file."""
    with ExitStack() as stack:
        made = stack.enter_context(hosts(number))
        cluster = Slurm(folder=made.folder, hosts=made)
        stack.callback(cluster.stop)
        folder = made.folder
        folder.chmod(0o755)
        for name in ("state", "home", "t"):
            (folder / name).mkdir()
        (folder / "key").write_bytes(secrets.token_bytes(1024))
        (folder / "key").chmod(0o400)
        (folder / "hosts").write_text(
            "127.0.0.1 localhost\n" + "".join(f"{made.address(i)} node{i}\n" for i in range(number))
        )
        (folder / "slurm.conf").write_text(
            _CONFIGURATION.format(
                hostname=os.uname().nodename,
                controller=made.gateway,
                port_controller=_PORT_CONTROLLER,
                folder=folder,
                nodes="\n".join(
                    f"NodeName=node{i} NodeAddr={made.address(i)} Port={_PORT_NODE} CPUs=8 RealMemory=40000"
                    for i in range(number)
                ),
            )
        )
        cluster.start(
            "munged",
            "munged",
            "--foreground",
            "--force",
            f"--socket={folder}/munge.socket",
            f"--key-file={folder}/key",
            *(f"--{name}-file={folder}/munge.{name}" for name in ("pid", "seed")),
        )
        wait_until((folder / "munge.socket").exists, cluster.daemons["munged"], timeout_s=30)
        cluster.start("slurmctld", "slurmctld", "-D", "-f", f"{folder}/slurm.conf")
        for i in range(number):
            _start_node(cluster, i)
        idle = "\n".join(["idle"] * number)
        wait_until(
            lambda: cluster.run("sinfo", "--noheader", "--Node", "--format=%t") == idle,
            cluster.daemons[f"node{number - 1}"],
            timeout_s=60,
        )
        yield cluster


def _start_node(cluster: Slurm, number: int) -> None:
    """A slurmd in its namespace, where the nodes' names have addresses, the outside a route, and Ray a temporary folder of its own."""
    folder, namespace = cluster.folder, cluster.hosts.names_of(number)[0]
    (folder / f"t{number}").mkdir()
    subprocess.run(("ip", "-n", namespace, "route", "add", "default", "via", cluster.hosts.gateway), check=True)
    script = (
        f"mount --bind {folder}/hosts /etc/hosts && mount --bind {folder}/t{number} {folder}/t && "
        f"exec slurmd -D -N node{number} -f {folder}/slurm.conf"
    )
    # Not `ip netns exec`, which hides /sys/fs/cgroup, without which slurmd does not start.
    inside = ("nsenter", f"--net=/run/netns/{namespace}", "unshare", "--mount")
    cluster.start(f"node{number}", "sh", "-c", script, inside=inside)
