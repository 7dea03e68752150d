"""A sweep from a laptop to a cluster of three hosts with addresses of their own, and everything that can happen to them on the way."""

import os
import re
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from kd_ray.cluster.jobs.modules import files_of
from kd_ray.results.inventory import sweep_names, take_inventory
from kd_ray.results.ledger import Lease, scan
from kd_ray.results.status import sweep_status
from kd_ray.results.store import Store, lease_key, open_store
from kd_ray.sweep.spec import TrialState
from tests.hosts import Hosts, hosts, offline, why_not
from tests.processes import command, started, wait_until
from tests.s3 import BUCKET, s3_server, settings_for
from tests.sweeps import assert_same_tables, write_tiny_sweep

pytestmark = [
    pytest.mark.ray,
    pytest.mark.alone,
    pytest.mark.long,
    pytest.mark.skipif(why_not() is not None, reason=f"{why_not()}"),
]

SWEEP = (
    "training.epochs=120",
    "grid={seed: [0], distillation.parameters.weight: [1, 2, 4, 8]}",
    "distillation={objective: 'lab_losses:loss', terms: [cross_entropy, distillation], version: '1.2'}",
)
"""A teacher, a scratch student, then one long pack of four students, whose objective is the laptop's own."""
OBJECTIVE = {
    "pyproject.toml": '[project]\nname = "lab-losses"\nversion = "1.2"\n'
    '[project.entry-points."kd_ray.objectives"]\nloss = "lab_losses:loss"\n',
    "lab_losses.py": """
from torch.nn import functional


def loss(student_BC, teacher_BC, labels_B, parameters, context):
    soft_BC = (teacher_BC / parameters["weight"]).softmax(1)
    return {
        "cross_entropy": functional.cross_entropy(student_BC, labels_B),
        "distillation": functional.cross_entropy(student_BC, soft_BC),
    }
""",
}
"""A project on the laptop, which no host of the cluster has."""
OFTEN = "placement.checkpoint_interval_s=0.3"
LAPTOP_SECRET = "the-secret-of-the-laptop"
REFUSED_WITHIN_S = 15.0


@pytest.fixture
def cluster() -> Iterator[Hosts]:
    """A head and two workers, a fourth host on which nothing runs yet, and an S3 server that all of them reach."""
    with ExitStack() as stack:
        made = stack.enter_context(hosts(4))
        endpoint = stack.enter_context(s3_server(made.gateway))
        made.store_environment = settings_for(endpoint)
        made.start_head()
        made.start_workers(1, 2)
        yield made


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """What a test began, and what ends with it."""
    with ExitStack() as begun:
        yield begun


class Laptop:
    """The submitting host: another one than the cluster's, with its own environment."""

    def __init__(self, cluster: Hosts, folder: Path) -> None:
        self._cluster = cluster
        self._folder = folder
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "RAY_"))}
        self._environment["AWS_SECRET_ACCESS_KEY"] = LAPTOP_SECRET
        self._environment["HOME"] = str(folder)
        self._environment["RAY_AUTH_TOKEN"] = cluster.token

    def __call__(
        self, *arguments: str, address: str | None = None, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command of kd-ray to its end."""
        return subprocess.run(
            self._command(*arguments, address=address),
            cwd=self._folder,
            env={**self._environment, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def refused(self, *arguments: str, address: str | None = None, **environment: str) -> str:
        """The one line with which a command is refused in time."""
        began = time.monotonic()
        done = self(*arguments, address=address, **environment)
        assert time.monotonic() - began < REFUSED_WITHIN_S
        assert done.returncode == 2, done.stdout + done.stderr
        (line,) = done.stderr.splitlines()
        return line

    def leave_after_the_first_line(self, *arguments: str) -> str:
        """Begin to follow a job, then lose the connection."""
        with subprocess.Popen(
            self._command(*arguments), cwd=self._folder, env=self._environment, stdout=subprocess.PIPE, text=True
        ) as process:
            assert process.stdout
            line = process.stdout.readline()
            process.kill()
        return line

    def _command(self, *arguments: str, address: str | None = None) -> list[str]:
        return [*command(*arguments), "--address", address or self._cluster.dashboard]


def distribution(folder: Path, name: str, version: str) -> Mapping[str, str]:
    """An environment in which a distribution has another version."""
    metadata = folder / f"{name}-{version}" / f"{name}-{version}.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    return {"PYTHONPATH": f"{metadata.parent}:{os.environ.get('PYTHONPATH', '')}"}


def write_files(folder: Path, texts: Mapping[str, str]) -> None:
    """A folder with these files."""
    folder.mkdir()
    for name, text in texts.items():
        (folder / name).write_text(text)


def installed(project: Path, folder: Path) -> Path:
    """A folder with what an installation of a project leaves."""
    for name, content in files_of([project]).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def wait_for_a_student(store: Store, cluster: Hosts, *, beyond: int = 0) -> tuple[Lease, int]:
    """The lease of a student of the long pack that has left a checkpoint in a generation later than `beyond`, and its host."""
    found: list[tuple[Lease, int]] = []
    # A busy machine takes its time from the submission to the first write of the launch.
    wait_until(lambda: "tiny" in sweep_names(store), cluster.nodes[0].process)
    long = {trial.trial_id for trial in sweep_status(store, "tiny").trials if trial.role == "distilled"}

    def look() -> bool:
        saved = {
            trial_id
            for trial_id, trial in take_inventory(store, "trials").trials.items()
            if any(entry.place.number > beyond for entry in trial.checkpoints)
        }
        for status in scan(store, sorted(saved & long)).values():
            if status.lease and (host := cluster.host_of(status.lease.pid)) is not None:
                found.append((status.lease, host))
        return bool(found)

    wait_until(look, cluster.nodes[0].process)
    return found[0]


def test_a_submitted_sweep_outlives_client_network_nodes_and_head(
    tmp_path: Path, cluster: Hosts, trifeature_root: Path, monkeypatch: pytest.MonkeyPatch, stack: ExitStack
) -> None:
    """Guards: the token, the laptop that may leave, packs that move, and truth that is in the store alone."""
    for name, value in cluster.store_environment.items():
        monkeypatch.setenv(name, value)
    store = open_store(f"s3://{BUCKET}/hosts")
    write_tiny_sweep(tmp_path, trifeature_root, *SWEEP, OFTEN)
    laptop = Laptop(cluster, tmp_path)
    write_files(tmp_path / "lab", OBJECTIVE)
    submit = ("submit", "tiny.yaml", "--store", store.url, "--module", "lab")

    # Refused, each in one line and in time, before anything is written.
    assert "no token for the cluster; set RAY_AUTH_TOKEN" in laptop.refused(*submit, RAY_AUTH_TOKEN="")
    assert "the token is not the cluster's" in laptop.refused(*submit, RAY_AUTH_TOKEN="wrong")
    assert "the cluster asks for a token" in laptop.refused(*submit, RAY_AUTH_MODE="disabled")
    nobody = f"http://{cluster.net}.99:8265"
    assert f"{nobody}: no Ray job server answers there" in laptop.refused(*submit, address=nobody)
    assert "the cluster has ray 2." in laptop.refused(*submit, **distribution(tmp_path, "ray", "1.0.0"))
    assert "and this machine has 9.9.9" in laptop.refused(*submit, **distribution(tmp_path, "kd_ray", "9.9.9"))
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{cluster.dashboard}/api/jobs/", timeout=10)
    assert list(store.entries("")) == []

    # Submitted, watched, left alone; submitted again it is the same job.
    done = laptop(*submit)
    assert done.returncode == 0, done.stderr
    assert re.search(r"sweep tiny: 6 trials, submitted as tiny-\w{12}-1\n", done.stdout), done.stdout
    assert "submitted as" not in laptop(*submit).stdout
    assert laptop.leave_after_the_first_line("logs", "tiny", "-f")
    lease, host = wait_for_a_student(store, cluster)

    # The cable of the host that trains is pulled: another host continues. Meanwhile there is time for the same sweep without any of this.
    cluster.cut(host)
    other_store = ("--store", str(tmp_path / "undisturbed"), "--runner", "local")
    monkeypatch.setenv("PYTHONPATH", str(installed(tmp_path / "lab", tmp_path / "site")))
    undisturbed = stack.enter_context(started("launch", "tiny.yaml", *other_store, cwd=tmp_path))
    wait_until(lambda: store.exists(lease_key(lease.trial_id, 2)), cluster.nodes[0].process)
    lease, other = wait_for_a_student(store, cluster, beyond=1)
    assert {host, other} == {1, 2}

    # The power of that one fails; a new one joins.
    cluster.start_workers(3, wait=False)
    cluster.kill(other)
    lease, third = wait_for_a_student(store, cluster, beyond=2)
    assert third == 3

    # The head is started anew, and knows nothing; submitted again, the sweep continues from the store. Then it is stopped and continues.
    assert re.search(r"\ntiny +running +0:0\d:\d\d +tiny +s3://sweeps/hosts +tiny-\w{12}-1\n", laptop("jobs").stdout)
    listing = _jobs_json(cluster)
    cluster.kill(0, third)
    cluster.start_head()
    cluster.start_workers(3, wait=False)
    assert "no sweep was submitted" in laptop("jobs").stdout
    again = laptop(*submit)
    assert "submitted as" in again.stdout, again.stdout + again.stderr
    wait_for_a_student(store, cluster, beyond=3)
    assert "-1: stopped; run the same kd-ray submit to continue" in laptop("stop", "tiny").stdout
    assert laptop("logs", "tiny").stdout.splitlines()[-1].startswith("interrupted; continue with:")
    assert not any(status.state is TrialState.RUNNING for status in scan(store, _trial_ids(store)).values())
    again = laptop(*submit)
    assert re.search(r"submitted as tiny-\w{12}-2\n", again.stdout), again.stdout + again.stderr
    followed = laptop("logs", "tiny", "-f")
    assert followed.returncode == 0, followed.stdout + followed.stderr
    assert "sweep tiny: 6 of 6 trials complete" in followed.stdout

    output, _ = undisturbed.communicate(timeout=120)
    assert undisturbed.returncode == 0, output
    assert_same_tables(store, open_store(tmp_path / "undisturbed"))

    # Neither the laptop's credentials nor the cluster's are where a job can be seen.
    secret = cluster.store_environment["AWS_SECRET_ACCESS_KEY"]
    listing += _jobs_json(cluster)
    assert '"kd_ray_sweep": "tiny"' in listing
    for text in (listing, followed.stdout, *(item.key for item in store.entries("sweeps"))):
        assert LAPTOP_SECRET not in text
        assert secret not in text
    assert not [path for path in _files(cluster.folder) if LAPTOP_SECRET.encode() in path.read_bytes()]


def _trial_ids(store: Store) -> list[str]:
    return [trial.trial_id for trial in sweep_status(store, "tiny").trials]


def _jobs_json(cluster: Hosts) -> str:
    request = urllib.request.Request(
        f"{cluster.dashboard}/api/jobs/", headers={"Authorization": f"Bearer {cluster.token}"}
    )
    with urllib.request.urlopen(request, timeout=30) as answer:
        return str(answer.read().decode())


def _files(folder: Path) -> Iterator[Path]:
    """What Ray has written: logs, and the folders of jobs."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_size < 50 * 2**20:
            yield path


def test_a_sweep_runs_with_the_network_cut_off(tmp_path: Path, trifeature_root: Path) -> None:
    """Guard: nothing asks for anything beyond the machine, neither kd_ray nor Ray nor what they build on."""
    write_tiny_sweep(tmp_path, trifeature_root, "grid.seed=[0]", "grid.temperature=[4]")
    with offline() as inside:
        unreachable = subprocess.run([*inside, "ip", "route"], capture_output=True, text=True, check=True)
        assert unreachable.stdout == ""
        with started("launch", "tiny.yaml", "--store", "store", cwd=tmp_path, inside=inside) as process:
            output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output
    assert "sweep tiny: 3 of 3 trials complete, 3 trained now" in output
