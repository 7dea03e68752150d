"""`kd-ray`: its verbs in groups, and its exit codes.

A verb is one function in a module of its group, and one entry in `VERBS`. Functions import heavy packages (torch, ray, duckdb) where they
need them, so that `--help`, `plan` and `status` start at once.
Exit codes: 0 done, 1 some trials failed or problems were found, 2 bad input, 130 interrupted.
"""

import sys

import click

from kd_ray.cli.analysis import compare_command, report_command
from kd_ray.cli.cluster_commands import jobs_command, logs_command, stop_command, submit_command
from kd_ray.cli.data_commands import data_group
from kd_ray.cli.keep_commands import adopt_command, gc_command, verify_command
from kd_ray.cli.look_commands import query_command, schema_command, status_command
from kd_ray.cli.run_commands import launch_command, plan_command, resume_command
from kd_ray.cli.serve_command import serve_command
from kd_ray.errors import InvalidInputError, KdRayError

VERBS: dict[str, tuple[click.Command, ...]] = {
    "Run a sweep": (plan_command, launch_command, resume_command),
    "Look at results": (status_command, query_command, schema_command, compare_command, report_command, serve_command),
    "Keep data and stores": (data_group, verify_command, gc_command, adopt_command),
    "Use a remote cluster": (submit_command, jobs_command, logs_command, stop_command),
}
"""Verbs by group, in the order of `kd-ray --help`."""


class _GroupedVerbs(click.Group):
    """A command whose `--help` lists its verbs by group."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """A section for each group of `VERBS`."""
        for title, verbs in VERBS.items():
            with formatter.section(title):
                formatter.write_dl([(str(verb.name), verb.get_short_help_str(limit=95)) for verb in verbs])


@click.group(cls=_GroupedVerbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120})
@click.version_option(package_name="kd_ray", prog_name="kd-ray")
def cli() -> None:
    """Distributed hyperparameter sweeps for knowledge distillation.

    A sweep file names a grid of temperatures, seeds and other settings. kd-ray trains its teachers, its non-distilled (scratch) students
    and its distilled students, and writes per-class and fairness metrics to Parquet tables.
    """


for _verbs in VERBS.values():
    for _verb in _verbs:
        cli.add_command(_verb)


def main() -> None:
    """Entry point: an error becomes one message and an exit code."""
    try:
        cli.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        from kd_ray.cluster.interrupts import STOPPED_AT_ONCE

        click.echo(STOPPED_AT_ONCE, err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except InvalidInputError as error:
        click.echo(str(error), err=True)
        sys.exit(2)
    except KdRayError as error:
        click.echo(str(error), err=True)
        sys.exit(1)
