"""`kd-ray`: its verbs in groups, and its exit codes.

A verb is one function in a module of its group, and one entry in `VERBS`. Functions import heavy packages (torch, ray, duckdb) where they
need them, so that `--help`, `plan` and `status` start at once.
Exit codes: 0 done, 1 some trials failed or problems were found, 2 bad input, 130 interrupted.
"""

import errno
import gc
import logging
import os
import sys
from pathlib import Path
from typing import Any

import click

from kd_ray.cli.base import say
from kd_ray.cli.cluster_commands import jobs_command, logs_command, stop_command, submit_command
from kd_ray.cli.compare_commands import compare_command, report_command
from kd_ray.cli.data_commands import data_group
from kd_ray.cli.keep_commands import adopt_command, gc_command, regroup_command, verify_command
from kd_ray.cli.look_commands import query_command, schema_command, status_command
from kd_ray.cli.run_commands import launch_command, plan_command, resume_command
from kd_ray.cli.serve_command import serve_command
from kd_ray.cli.share_commands import export_command, mirror_command
from kd_ray.cli.tune_commands import tune_command
from kd_ray.errors import InvalidInputError, KdRayError
from kd_ray.shown import cleaned

VERBS: dict[str, tuple[click.Command, ...]] = {
    "Run a sweep": (plan_command, tune_command, launch_command, resume_command),
    "Look at results": (status_command, query_command, schema_command, compare_command, report_command, serve_command),
    "Take results elsewhere": (export_command, mirror_command),
    "Keep data and stores": (data_group, regroup_command, verify_command, gc_command, adopt_command),
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


def _cleaned_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    """A line of the log, which may quote a store, without what a terminal would obey."""
    record = logging.LogRecord(*args, **kwargs)
    if record.name.partition(".")[0] == "kd_ray":
        record.msg, record.args = cleaned(record.getMessage()), ()
    return record


_OF_THE_PLACE = {
    errno.EACCES: "this user lacks the right",
    errno.EPERM: "this user lacks the right",
    errno.EROFS: "its file system may only be read",
    errno.ENOENT: "it is not there",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EEXIST: "something else is there",
    errno.EISDIR: "it is a folder",
    errno.ENAMETOOLONG: "the name is too long",
}
"""What a person can change about a path: bad input, exit code 2. Anything else (no space, a broken disk) is exit code 1."""


def system_error(error: OSError) -> tuple[str, int]:
    """An error of the operating system that nothing else has named, in one line; and the exit code."""
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    what = " ".join(str(error.strerror or error).split())
    advice = (
        f" ({_OF_THE_PLACE[error.errno]}; name another place, or change it)" if error.errno in _OF_THE_PLACE else ""
    )
    return f"{where}{what}{advice}", 2 if error.errno in _OF_THE_PLACE else 1


def _fail(error: OSError) -> None:
    """Say what went wrong, and end. What stdout still holds is dropped: the interpreter would try to write it again."""
    message, code = system_error(error)
    if error.filename is None and error.errno == errno.ENOSPC:
        message = f"the answer cannot be written: {message}"
    try:
        say(message, err=True)
    finally:
        with Path(os.devnull).open("w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        sys.exit(code)


def main() -> None:
    """Entry point: an error becomes one message and an exit code."""
    logging.setLogRecordFactory(_cleaned_record)
    # A list of 100,000 trials is made of millions of objects that stay; Python would look for unreachable ones after every 700.
    gc.set_threshold(50_000)
    # Without a stdout or a stderr (`>&-`) Python has None there.
    sys.stdout = sys.stdout or Path(os.devnull).open("w")  # noqa: SIM115 (open until the end)
    sys.stderr = sys.stderr or Path(os.devnull).open("w")  # noqa: SIM115
    try:
        cli.main(standalone_mode=False)
    except (click.exceptions.Abort, KeyboardInterrupt):
        from kd_ray.cluster.interrupts import STOPPED_AT_ONCE

        say(STOPPED_AT_ONCE, err=True)
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except InvalidInputError as error:
        say(str(error), err=True)
        sys.exit(2)
    except KdRayError as error:
        say(str(error), err=True)
        sys.exit(1)
    except OSError as error:
        _fail(error)
