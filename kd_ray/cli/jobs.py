"""The commands that work on a cluster from anywhere: submit, jobs, logs, stop."""

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kd_ray.cli.base import JSON_OPTION, SET_OPTION, Command, store_option

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
    address: str,
    store_url: str,
    name: str | None,
    modules: tuple[Path, ...],
    retry_failed: bool,
) -> None:
    """Send a sweep to a Ray cluster and return; it runs there without this machine. The same again attaches to it.

    The token is taken from RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH or ~/.ray/auth_token. Paths in the sweep and the store's credentials are the
    cluster's.
    """
    from kd_ray.cluster.jobs.submission import make_submission
    from kd_ray.sweep.load import load_sweep

    submission = make_submission(
        load_sweep(sweep_file, overrides), store_url, name=name, modules=modules, retry_failed=retry_failed
    )
    from kd_ray.cluster.jobs.client import Jobs
    from kd_ray.cluster.jobs.verbs import submit

    jobs = Jobs(address)
    done = submit(submission, jobs)
    how = "submitted" if done.is_new else "already there; attached"
    state = "" if done.has_begun else "; it has not begun yet"
    where = f"--address {jobs.address}"
    click.echo(
        f"sweep {submission.sweep}: {submission.num_trials} trials, {how} as {done.job.job_id}{state}\n"
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
        click.echo(json.dumps([_to_dict(job) for job in found], indent=1))
        return
    if not found:
        click.echo("no sweep was submitted since the head was started; the stores know what was done before")
        return
    rows = [("name", "status", "for", "sweep", "store", "job")]
    rows += [(job.name, job.status.lower(), _duration(job), job.sweep, job.store, job.job_id) for job in found]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


@click.command("logs", cls=Command, example="kd-ray logs trifeature-quick -f --address http://head:8265")
@click.argument("name", metavar="NAME")
@_address_option
@click.option("-f", "--follow", is_flag=True, help="Go on until the job ends; Ctrl-C leaves it running.")
def logs_command(name: str, address: str, follow: bool) -> None:
    """Show what the newest job of a name, or the one of an id, has printed."""
    from kd_ray.cluster.jobs import verbs
    from kd_ray.cluster.jobs.client import Jobs

    jobs = Jobs(address)
    job = verbs.find_job(jobs, name)
    if not follow:
        click.echo(jobs.log(job.job_id), nl=False)
        return
    try:
        job = verbs.follow(jobs, job, lambda text: click.echo(text, nl=False))
    except KeyboardInterrupt:
        click.echo(f"\n{job.name} goes on; kd-ray stop {job.name} ends it", err=True)
        sys.exit(130)
    click.echo(f"job {job.job_id}: {job.status.lower()}", err=True)
    sys.exit(job.exit_code if job.exit_code in (0, 2) else 130 if job.status == "STOPPED" else 1)


@click.command("stop", cls=Command, example="kd-ray stop trifeature-quick --address http://head:8265")
@click.argument("name", metavar="NAME")
@_address_option
def stop_command(name: str, address: str) -> None:
    """End a job: its students write checkpoints first, and the same submission goes on from them."""
    from kd_ray.cluster.jobs import verbs
    from kd_ray.cluster.jobs.client import Jobs

    jobs = Jobs(address)
    job = verbs.find_job(jobs, name)
    if job.is_over:
        click.echo(f"job {job.job_id} is over: {job.status.lower()}")
        return
    job = verbs.stop(jobs, job)
    click.echo(f"job {job.job_id}: {job.status.lower()}; the same kd-ray submit goes on with it")


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
