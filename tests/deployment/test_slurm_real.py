"""The batch script on a real Slurm with two nodes: cut off twice, queued again twice, and complete."""

import re
from pathlib import Path

import pytest

from kd_ray.results.query import Results
from kd_ray.results.status import sweep_status
from kd_ray.results.store import Store, open_store
from tests.processes import wait_until
from tests.slurm import Slurm, slurm, why_not
from tests.sweeps import write_tiny_sweep

pytestmark = [
    pytest.mark.ray,
    pytest.mark.alone,
    pytest.mark.long,
    pytest.mark.skipif(why_not() is not None, reason=f"{why_not()}"),
]

OBJECTIVE = {
    "lab-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: lab\nVersion: 1.0\n",
    "lab-1.0.dist-info/entry_points.txt": "[kd_ray.objectives]\nloss = lab_losses:loss\n",
    "lab_losses.py": """
from pathlib import Path

import torch
from torch.nn import functional


def loss(student_BC, teacher_BC, labels_B, parameters, context):
    if not (Path.home() / "fast").exists():
        for _ in range(8):
            torch.ones(1000, 1000) @ torch.ones(1000, 1000)
    return {
        "cross_entropy": functional.cross_entropy(student_BC, labels_B),
        "distillation": functional.cross_entropy(student_BC, teacher_BC.softmax(1)),
    }
""",
}
"""A slow step, until the file `fast` lies in the home folder: students that have an end only when the test says so."""
SCRIPT = Path(__file__).resolve().parents[2] / "docker" / "slurm" / "sweep.sbatch"
ENDED = ("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL")


def keys_of(store: Store, part: str) -> list[str]:
    return [entry.key for entry in store.entries("trials") if part in entry.key]


def await_end(cluster: Slurm, *jobs: str) -> None:
    """Wait until every job is complete."""
    for job in jobs:
        await_state(cluster, job, "COMPLETED", restarts=0)


def await_state(cluster: Slurm, job: str, *states: str, restarts: int) -> None:
    """Wait until the job is in one of the states, after so many cuts."""

    def is_there() -> bool:
        found = cluster.job(job)
        if found["JobState"] not in states and found["JobState"] in ENDED:
            raise AssertionError(f"{found}\n{cluster.output(job)}\n{cluster.logs()}")
        return found["JobState"] in states and int(found["Restarts"]) >= restarts

    try:
        wait_until(is_there, cluster.daemons["slurmctld"], timeout_s=400)
    except AssertionError as error:
        raise AssertionError(f"{error}\n{cluster.output(job)}\n{cluster.logs()}") from error


LAUNCHED = "sweep tiny: 4 trials"


def test_a_sweep_that_is_cut_off_twice_ends_complete(trifeature_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: the first cut is the limit's warning, which comes up to a minute after the start: while Ray starts, or while it trains.

    The second is the same signal, as soon as there are checkpoints to go on from; Slurm looks at limits only every 30 s. The students take
    some minutes for their 60 epochs until then, and seconds afterwards.
    """
    with slurm(2) as cluster:
        for name, text in OBJECTIVE.items():
            (cluster.folder / "site" / name).parent.mkdir(parents=True, exist_ok=True)
            (cluster.folder / "site" / name).write_text(text)
        monkeypatch.setenv("PYTHONPATH", str(cluster.folder / "site"))
        sweep = write_tiny_sweep(
            cluster.home,
            trifeature_root,
            "training.epochs=60",
            "grid={seed: [0], distillation.parameters.weight: [1, 2]}",
            "distillation={objective: 'lab_losses:loss', terms: [cross_entropy, distillation], version: '1.0'}",
            "placement.checkpoint_interval_s=1",
        )
        # As it is written: no site-specific option is needed for the queue to take it.
        cluster.run("sbatch", "--test-only", str(SCRIPT), str(sweep))
        # Five minutes before the end are one minute after the start.
        job = cluster.run("sbatch", "--parsable", "--time=6", "--cpus-per-task=1", str(SCRIPT), str(sweep))
        await_state(cluster, job, "PENDING", restarts=1)
        assert "the time is nearly up" in cluster.output(job)
        # A job that is queued again waits two minutes; the limit of the next starts is the script's own again.
        launches = cluster.output(job).count(LAUNCHED)
        cluster.run("scontrol", "update", f"JobId={job}", "TimeLimit=240", "StartTime=now")
        await_state(cluster, job, "RUNNING", restarts=1)
        store = open_store(cluster.home / "kd_ray_store")

        def trains_again() -> bool:
            # There may be checkpoints of the first start, and before the script sets its trap the signal would end the job.
            return cluster.output(job).count(LAUNCHED) > launches and bool(keys_of(store, "/checkpoint"))

        wait_until(trains_again, cluster.daemons["slurmctld"], timeout_s=300)
        cluster.run("scancel", "--batch", "--signal=USR1", job)
        await_state(cluster, job, "PENDING", restarts=2)
        assert "launch ended with 130" in cluster.output(job)
        assert sweep_status(store, "tiny").counts()["complete"] < 4
        (cluster.home / "fast").touch()
        cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")
        await_state(cluster, job, "COMPLETED", restarts=2)
        assert Results(store).query("SELECT role, count(*) AS n FROM trials GROUP BY 1 ORDER BY 1").to_pylist() == [
            {"role": "distilled", "n": 2},
            {"role": "scratch", "n": 1},
            {"role": "teacher", "n": 1},
        ]
        assert len(keys_of(store, "record.parquet")) == len(keys_of(store, "/weights-")) == 4
        assert not list(cluster.home.rglob("token")), "the token outlived the job"


def test_the_jobs_of_an_array_share_a_sweep_as_the_page_says(trifeature_root: Path) -> None:
    """Guard: each job has a Ray of its own, with its own token and ports, on the same two nodes; the store alone divides the work."""
    page = (SCRIPT.parents[1] / "slurm.md").read_text()
    assert "sbatch --array=1-8 --nodes=1 docker/slurm/sweep.sbatch" in page
    with slurm(2) as cluster:
        sweep = write_tiny_sweep(cluster.home, trifeature_root, "training.epochs=30", "placement.pack_size=1")
        options = ("--array=1-2", "--nodes=1", "--cpus-per-task=1", "--output=kd-ray-%A_%a.log")
        array = cluster.run("sbatch", "--parsable", *options, str(SCRIPT), str(sweep))
        jobs = (f"{array}_1", f"{array}_2")
        await_end(cluster, *jobs)
        store = open_store(cluster.home / "kd_ray_store")
        assert sweep_status(store, "tiny").counts()["complete"] == 7
        assert len(keys_of(store, "record.parquet")) == len(keys_of(store, "/weights-")) == 7
        trained = [re.findall(r"(\d+) trained now", cluster.output(job)) for job in jobs]
        assert sum(int(count) for found in trained for count in found) == 7, [cluster.output(job) for job in jobs]
        assert not list(cluster.home.rglob("token")), "a token outlived its job"
