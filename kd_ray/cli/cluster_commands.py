"""The commands for a remote cluster: submit, jobs, logs, stop."""

import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kd_ray.cli.base import CELLS_OPTION, JSON_OPTION, SET_OPTION, Command, say, store_option
from kd_ray.cli.json_text import json_text
from kd_ray.cli.tables import render, table_of
from kd_ray.errors import count_of

if TYPE_CHECKING:
    from kd_ray.cluster.jobs.client import SweepJob


def _address_option(function: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--address",
        metavar="URL",
        envvar="RAY_API_SERVER_ADDRESS",
        required=True,
        help="The head's dashboard, http://HOST:8265.  [default: $RAY_API_SERVER_ADDRESS]",
    )(function)


@click.command(
    "submit",
    cls=Command,
    example="kd-ray submit sweeps/trifeature-quick.yaml --address http://head:8265 --store s3://lab/kd_ray --set placement.data_root=/data",
)
@click.argument("sweep_file", metavar="SWEEP.yaml", type=click.Path(path_type=Path))
@SET_OPTION
@CELLS_OPTION
@_address_option
@store_option
@click.option("--name", metavar="NAME", help="Name of the job.  [default: the sweep's]")
@click.option(
    "--module",
    "modules",
    metavar="PATH",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Code that the sweep needs: a wheel, a folder with pyproject.toml, a package or a module; repeat for several.",
)
@click.option("--retry-failed", is_flag=True, help="Run failed trials again.")
def submit_command(
    sweep_file: Path,
    overrides: tuple[str, ...],
    most_cells: int | None,
    address: str,
    store_url: str,
    name: str | None,
    modules: tuple[Path, ...],
    retry_failed: bool,
) -> None:
    """Send a sweep to a Ray cluster and return; the sweep runs there without this machine.

    The same command again finds the running job. The token is read from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token. Paths in
    the sweep are paths on the cluster, and the cluster has the credentials of the store.
    """
    from kd_ray.cluster.jobs.submission import make_submission
    from kd_ray.sweep.load import MOST_CELLS, load_sweep

    submission = make_submission(
        load_sweep(sweep_file, overrides, most_cells=most_cells or MOST_CELLS),
        store_url,
        name=name,
        modules=modules,
        retry_failed=retry_failed,
        most_cells=most_cells,
    )
    from kd_ray.cluster.jobs.client import Jobs
    from kd_ray.cluster.jobs.verbs import submit

    jobs = Jobs(address)
    done = submit(submission, jobs)
    how = "submitted" if done.is_new else "submitted earlier,"
    state = "" if done.has_begun else "; it has not started yet"
    where = f"--address {jobs.address}"
    say(
        f"sweep {submission.sweep}: {count_of(submission.num_trials, 'trial')}, {how} as {done.job.job_id}{state}\n"
        f"follow: kd-ray logs {submission.name} -f {where}\n"
        f"        kd-ray status {submission.sweep} --watch --store {submission.store}\n"
        f"stop:   kd-ray stop {submission.name} {where}"
    )


@click.command("jobs", cls=Command, example="kd-ray jobs --address http://head:8265")
@_address_option
@JSON_OPTION
def jobs_command(address: str, as_json: bool) -> None:
    """List the sweeps that were submitted to a cluster since its head was started."""
    from kd_ray.cluster.jobs.client import Jobs

    found = Jobs(address).sweeps()
    if as_json:
        say(json_text([_to_dict(job) for job in found]))
        return
    if not found:
        say(
            "no sweep was submitted since the head was started; `kd-ray status --store URL` lists the sweeps of a store"
        )
        return
    table = table_of(["name", "status", "duration", "sweep", "store", "job"], right=[2])
    for job in found:
        table.add_row(job.name, job.status.lower(), _duration(job), job.sweep, job.store, job.job_id)
    say(render(table))


@click.command("logs", cls=Command, example="kd-ray logs trifeature-quick -f --address http://head:8265")
@click.argument("name", metavar="NAME")
@_address_option
@click.option("-f", "--follow", is_flag=True, help="Print new lines until the job ends; Ctrl-C leaves the job running.")
def logs_command(name: str, address: str, follow: bool) -> None:
    """Show the output of the newest job with this name, or of the job with this id."""
    from kd_ray.cluster.jobs import verbs
    from kd_ray.cluster.jobs.client import Jobs

    jobs = Jobs(address)
    job = verbs.find_job(jobs, name)
    if not follow:
        say(jobs.log(job.job_id), nl=False)
        return
    try:
        job = verbs.follow(jobs, job, lambda text: say(text, nl=False))
    except KeyboardInterrupt:
        say(f"\n{job.name} is still running; kd-ray stop {job.name} ends it", err=True)
        sys.exit(130)
    say(f"job {job.job_id}: {job.status.lower()}", err=True)
    sys.exit(job.exit_code if job.exit_code in (0, 2) else 130 if job.status == "STOPPED" else 1)


@click.command("stop", cls=Command, example="kd-ray stop trifeature-quick --address http://head:8265")
@click.argument("name", metavar="NAME")
@_address_option
def stop_command(name: str, address: str) -> None:
    """End a job. Its students write checkpoints first, and the same submission continues from them."""
    from kd_ray.cluster.jobs import verbs
    from kd_ray.cluster.jobs.client import Jobs

    jobs = Jobs(address)
    job = verbs.find_job(jobs, name)
    if job.is_over:
        say(f"job {job.job_id} is over: {job.status.lower()}")
        return
    job = verbs.stop(jobs, job)
    say(f"job {job.job_id}: {job.status.lower()}; run the same kd-ray submit to continue")


def _to_dict(job: "SweepJob") -> dict[str, Any]:
    return {
        "name": job.name,
        "job_id": job.job_id,
        "status": job.status.lower(),
        "sweep": job.sweep,
        "store": job.store,
        "started_at": job.started_at and job.started_at.isoformat(timespec="seconds"),
        "ended_at": job.ended_at and job.ended_at.isoformat(timespec="seconds"),
        "exit_code": job.exit_code,
    }


def _duration(job: "SweepJob") -> str:
    if job.started_at is None:
        return "–"
    seconds = round(((job.ended_at or datetime.now(UTC)) - job.started_at).total_seconds())
    return f"{seconds // 3600}:{seconds // 60 % 60:02}:{seconds % 60:02}"
