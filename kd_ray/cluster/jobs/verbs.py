"""The actions on jobs: submit, find, follow, stop."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from kd_ray.cluster.jobs import entrypoint
from kd_ray.cluster.jobs.client import JobIdTakenError, Jobs, SweepJob
from kd_ray.cluster.jobs.submission import STOP_WAIT_S, Submission
from kd_ray.errors import InvalidInputError

BEGINS_WITHIN_S = 8.0
"""How long `submit` waits for the first line of the job's output before it returns."""
_POLL_S = 0.3
_LOG_EVERY_S = 1.0
_ENTRYPOINT = f"exec python {entrypoint.SCRIPT}"


@dataclass(frozen=True, kw_only=True)
class Submitted:
    """The result of a submission."""

    job: SweepJob
    is_new: bool
    """False when the same submission is still running, so that nothing was sent."""
    has_begun: bool
    """Whether the job has reported that it starts. Otherwise it still waits for its runtime environment or for the head."""


def submit(submission: Submission, jobs: Jobs) -> Submitted:
    """Send a sweep to a cluster, unless the same submission is running there.

    Raises:
        InvalidInputError: the cluster has other versions, or runs a different submission of this sweep or under this name.
    """
    jobs.check_versions()
    everything = jobs.sweeps()
    running = [job for job in everything if not job.is_over]
    for job in running:
        if job.digest == submission.digest:
            return Submitted(job=job, is_new=False, has_begun=_has_begun(job, jobs))
        _refuse_conflict(job, submission)
    number = 1 + sum(job.digest == submission.digest for job in everything)
    job_id = f"{submission.name}-{submission.digest}-{number}"
    is_new = True
    with tempfile.TemporaryDirectory(prefix="kd_ray_submit_") as folder:
        for name, content in submission.files.items():
            path = Path(folder) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        try:
            jobs.send(
                job_id,
                entrypoint=_ENTRYPOINT,
                folder=Path(folder),
                # Ray reads it in the process that stops the job.
                environment={"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_WAIT_S)},
                metadata=submission.metadata,
            )
        except JobIdTakenError:
            is_new = False
    job = jobs.get(job_id)
    has_begun = _has_begun(job, jobs)
    return Submitted(job=jobs.get(job_id), is_new=is_new, has_begun=has_begun)


def find_job(jobs: Jobs, name: str) -> SweepJob:
    """The newest job with this name, or the job with this id.

    Raises:
        InvalidInputError: there is no such job.
    """
    everything = jobs.sweeps()
    for job in everything:
        if name in (job.name, job.job_id):
            return job
    names = ", ".join(dict.fromkeys(job.name for job in everything)) or "none since its head was started"
    raise InvalidInputError(f"--address {jobs.address}: no job {name!r}; jobs: {names}")


def follow(jobs: Jobs, job: SweepJob, write: Callable[[str], None]) -> SweepJob:
    """Write a job's output until the job ends."""
    shown = 0
    while True:
        # The state is read before the log, so that the last lines are not missed.
        now = jobs.get(job.job_id)
        log = jobs.log(job.job_id)
        if len(log) > shown:
            write(log[shown:])
            shown = len(log)
        if now.is_over:
            return now
        time.sleep(_LOG_EVERY_S)


def stop(jobs: Jobs, job: SweepJob) -> SweepJob:
    """Tell a job to end, and wait until its students have written checkpoints and it has ended.

    Raises:
        InvalidInputError: it is still running, although Ray should have killed it.
    """
    if job.is_over:
        return job
    jobs.stop(job.job_id)
    until = time.monotonic() + STOP_WAIT_S + 30
    while time.monotonic() < until:
        job = jobs.get(job.job_id)
        if job.is_over:
            return job
        time.sleep(_POLL_S)
    raise InvalidInputError(f"--address {jobs.address}: {job.job_id} was told to stop, and is still {job.status}")


def _refuse_conflict(job: SweepJob, submission: Submission) -> None:
    if (job.store, job.sweep) == (submission.store, submission.sweep):
        what = f"the sweep {job.sweep} is running with other contents in {job.store}"
    elif job.name == submission.name:
        what = f"another sweep is running under the name {job.name}; give --name NAME"
    else:
        return
    raise InvalidInputError(
        f"{what} (job {job.job_id}); nothing was sent. Wait until it ends, or `kd-ray stop {job.name}` first: completed trials are kept"
    )


def _has_begun(job: SweepJob, jobs: Jobs) -> bool:
    """Whether a job reports in time that it starts.

    Raises:
        InvalidInputError: it reports that it cannot start, or ends without output.
    """
    until = time.monotonic() + BEGINS_WITHIN_S
    while True:
        lines = jobs.log(job.job_id).splitlines()
        refused = next((line for line in lines if line.startswith(entrypoint.REFUSED)), None)
        if refused is not None:
            reason = refused.removeprefix(f"{entrypoint.REFUSED}: ")
            raise InvalidInputError(f"--address {jobs.address}: {reason}; use the same on both sides")
        if any(line.startswith(entrypoint.READY) for line in lines):
            return True
        now = jobs.get(job.job_id)
        if now.is_over:
            last = [line.strip() for line in now.message.splitlines() if line.strip()] or ["no reason given"]
            raise InvalidInputError(
                f"--address {jobs.address}: the job {job.job_id} ended ({now.status}) before it began: {last[-1][:300]}"
            )
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_S)
