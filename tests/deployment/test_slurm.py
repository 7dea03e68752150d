"""The batch script of Slurm: its directives, and what it does from start to the queue, with stand-ins for the programs of a cluster."""

import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from tests.processes import kill_session, output_of, wait_until

SCRIPT = Path(__file__).resolve().parents[2] / "docker" / "slurm" / "sweep.sbatch"

# `srun` starts its command here, `scontrol` knows two nodes; `ray` and `kd-ray` write down how they were called and do as the real ones.
STAND_INS = {
    "srun": """
        echo "srun $*" >>"$CALLS"
        while [[ "$1" == --* ]]; do shift; done
        exec "$@"
    """,
    "scontrol": """
        echo "scontrol $*" >>"$CALLS"
        if [ "$1 $2" = "show hostnames" ]; then printf 'node01\\nnode02\\n'; fi
    """,
    "ray": """
        echo "ray $* token=$(wc -c <"$RAY_AUTH_TOKEN_PATH") mode=$RAY_AUTH_MODE" >>"$CALLS"
        if [ "$2 ${HEAD_FAILS:-}" = "--head $(grep -c '^ray start --head' "$CALLS")" ]; then exit 1; fi
        if [ "$1" = start ]; then exec sleep 300; fi
        # A head that has ended answers nobody.
        if [ "${HEAD_FAILS:-0}" -ge "$(grep -c '^ray start --head' "$CALLS")" ]; then exit 1; fi
        if [ -n "${HANGS:-}" ]; then exec sleep 300; fi
    """,
    "kd-ray": """
        trap 'kill "$pause"; echo "kd-ray stopped" >>"$CALLS"; exit "${ON_TERM:-130}"' TERM
        sleep "${PAUSE:-300}" & pause=$!
        # Tests act when they see this line.
        echo "kd-ray $* store=$KD_RAY_STORE" >>"$CALLS"
        wait "$pause"
        # A launch takes longer than the other nodes' start.
        while [ "$(grep -c '^ray start' "$CALLS")" -lt 2 ]; do sleep 0.02; done
        exit "${EXIT:-0}"
    """,
}
DIRECTIVES = {
    "job-name": r"[\w-]+",
    "nodes": r"\d+",
    "ntasks-per-node": "1",
    "cpus-per-task": r"\d+",
    "mem": r"\d+[KMGT]",
    "time": r"(\d+-)?\d\d:\d\d:\d\d",
    "signal": r"B:USR1@\d+",
    "requeue": None,
    "open-mode": "append",
    "output": r".*%j.*",
}
"""The directives that the script may have, as sbatch(1) names them, and what their values look like."""


def test_directives_are_sbatchs_own_and_stand_before_the_first_command() -> None:
    lines = SCRIPT.read_text().splitlines()
    first_command = next(i for i, line in enumerate(lines) if line and not line.startswith("#"))
    found = {}
    for i, line in enumerate(lines):
        if line.startswith("#SBATCH"):
            assert i < first_command, "sbatch reads no directive after the first command"
            match = re.fullmatch(r"#SBATCH --([a-z-]+)(?:=(\S+))?", line)
            assert match, line
            found[match[1]] = match[2]
    assert set(found) == set(DIRECTIVES)
    for name, value in found.items():
        pattern = DIRECTIVES[name]
        assert (value is None) if pattern is None else re.fullmatch(pattern, value or ""), name


@pytest.fixture
def job(tmp_path: Path) -> dict[str, str]:
    """The environment of a job with two nodes, in which the programs of a cluster are the stand-ins."""
    programs = tmp_path / "venv" / "bin"
    programs.mkdir(parents=True)
    for name, text in STAND_INS.items():
        (programs / name).write_text(f"#!/usr/bin/env bash\n{text}")
        (programs / name).chmod(0o755)
    (tmp_path / "calls").touch()
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "CALLS": str(tmp_path / "calls"),
        "KD_RAY_VENV": str(tmp_path / "venv"),
        "KD_RAY_STORE": "s3://lab/kd_ray",
        "SLURM_JOB_ID": "421234",
        "SLURM_JOB_NODELIST": "node[01-02]",
        "SLURM_CPUS_PER_TASK": "8",
        "SLURM_GPUS_ON_NODE": "1",
    }


def start(job: dict[str, str], **more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(SCRIPT), "sweep.yaml", "--set", "grid.seed=[0]"],
        env=job | more,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def calls(job: dict[str, str]) -> list[str]:
    return Path(job["CALLS"]).read_text().splitlines()


def test_a_sweep_that_ends_in_time_leaves_nothing_and_is_not_queued_again(job: dict[str, str]) -> None:
    process = start(job, PAUSE="0.1")
    try:
        output = output_of(process, timeout_s=30)
    finally:
        kill_session(process.pid)
    assert process.returncode == 0, output
    called = calls(job)
    starts = sorted(line for line in called if line.startswith("ray start"))
    common = (
        "--num-cpus=8 --num-gpus=1 --block --disable-usage-stats --dashboard-agent-listen-port=24937 "
        "--min-worker-port=0 --max-worker-port=0 token=64 mode=token"
    )
    ports = "--port=24936 --include-dashboard=false --ray-client-server-port=24938"
    assert starts == [f"ray start --address=node01:24936 {common}", f"ray start --head {ports} {common}"]
    assert "kd-ray launch sweep.yaml --set grid.seed=[0] --address node01:24936 store=s3://lab/kd_ray" in called
    assert not any("requeue" in line for line in called)
    assert not list(Path(job["HOME"]).rglob("token")), "the token outlived the job"


def told_to_end(process: subprocess.Popen[str], job: dict[str, str], *, at: str) -> str:
    """What a job prints that gets the signal of its time limit as soon as it has called the command `at`."""
    try:
        wait_until(lambda: any(line.startswith(at) for line in calls(job)), process)
        process.send_signal(signal.SIGUSR1)
        output = output_of(process, timeout_s=30)
    finally:
        kill_session(process.pid)
    return output


def test_a_job_whose_time_runs_out_checkpoints_and_is_queued_again(job: dict[str, str]) -> None:
    process = start(job)
    output = told_to_end(process, job, at="kd-ray launch")
    assert process.returncode == 130, output
    ends = [line for line in calls(job) if line.startswith(("kd-ray stopped", "scontrol requeue"))]
    assert ends == ["kd-ray stopped", "scontrol requeue 421234"]


@pytest.mark.parametrize("code", ["15", "143"])
def test_a_job_that_is_told_while_it_connects_is_queued_again(code: str, job: dict[str, str]) -> None:
    """Guard: the codes with which a process ends on SIGTERM before kd_ray handles it; 15 is that of Ray's handler."""
    process = start(job, ON_TERM=code)
    output = told_to_end(process, job, at="kd-ray launch")
    assert process.returncode == int(code), output
    assert "scontrol requeue 421234" in calls(job)


def test_a_job_that_is_told_while_ray_starts_is_queued_again_at_once(job: dict[str, str]) -> None:
    """Guard: a health check that hangs holds back no signal; nothing was launched, so nothing has to be waited for."""
    process = start(job, HANGS="1")
    output = told_to_end(process, job, at="ray health-check")
    assert process.returncode == 143, output
    assert "scontrol requeue 421234" in calls(job)
    assert not any(line.startswith("kd-ray") for line in calls(job))


def test_a_head_that_ends_while_it_starts_is_started_again(job: dict[str, str]) -> None:
    process = start(job, HEAD_FAILS="1", PAUSE="0.1")
    try:
        output = output_of(process, timeout_s=60)
    finally:
        kill_session(process.pid)
    assert process.returncode == 0, output
    assert sum(line.startswith("ray start --head") for line in calls(job)) == 2


def test_a_sweep_with_failed_trials_is_not_queued_again(job: dict[str, str]) -> None:
    process = start(job, PAUSE="0.1", EXIT="1")
    try:
        output_of(process, timeout_s=30)
    finally:
        kill_session(process.pid)
    assert process.returncode == 1
    assert not any("requeue" in line for line in calls(job))
