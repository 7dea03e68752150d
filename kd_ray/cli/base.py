"""What all commands use: the class of a command, common options, opening a store, writing an answer."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from kd_ray.errors import InvalidInputError, KdRayError
from kd_ray.shown import cleaned

if TYPE_CHECKING:
    from kd_ray.results.store import Store

DEFAULT_STORE = "./kd_ray_store"


class Command(click.Command):
    """A command whose `--help` ends with an example, without line wrapping."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.example = example

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The example, line by line."""
        if self.example:
            with formatter.section("Example"):
                for line in self.example.splitlines():
                    formatter.write(f"  {line}\n")


def store_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--store`."""
    return click.option(
        "--store",
        "store_url",
        metavar="URL",
        default=lambda: os.environ.get("KD_RAY_STORE") or DEFAULT_STORE,
        help=f"Local folder, s3://…, gs://… or az://…  [default: $KD_RAY_STORE or {DEFAULT_STORE}]",
    )(function)


def complete_sweep(context: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Names of the sweeps of a local store, for completion in a shell; an object store would answer too slowly."""
    from kd_ray.results.inventory import sweep_names

    url = context.params.get("store_url") or os.environ.get("KD_RAY_STORE") or DEFAULT_STORE
    if "://" in url:
        return []
    try:
        return [name for name in sweep_names(open_existing(url)) if name.startswith(incomplete)]
    except KdRayError:
        # Nothing to propose; the command itself says what is wrong.
        return []


SET_OPTION = click.option(
    "--set",
    "overrides",
    metavar="KEY=VALUE",
    multiple=True,
    help="Override a field: --set grid.temperature='[1,2,4]'; null removes it.",
)
CELLS_OPTION = click.option(
    "--max-cells",
    "most_cells",
    metavar="N",
    type=click.IntRange(min=1),
    envvar="KD_RAY_MAX_CELLS",
    help="Most cells of a grid; a larger one is refused before it is expanded.  [env: KD_RAY_MAX_CELLS; default: 50,000]",
)
JSON_OPTION = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def open_existing(url: str) -> "Store":
    """Open a store that must exist."""
    from kd_ray.results.store import open_store

    return open_store(url, must_exist=True)


def open_or_make(url: str) -> "Store":
    """Open a store that may not exist yet."""
    from kd_ray.results.store import open_store

    return open_store(url)


def other_store(url: str) -> str | None:
    """The value of `--store` for the next command; None when it is the default."""
    return None if url == (os.environ.get("KD_RAY_STORE") or DEFAULT_STORE) else url


def say(text: str, *, nl: bool = True, err: bool = False) -> None:
    """Print a text. All that a terminal would obey is shown as escapes, because much of it comes from a store."""
    click.echo(cleaned(text), nl=nl, err=err)


def console() -> Any:
    """The console for progress: stderr, so that answers can be piped."""
    from rich.console import Console

    return Console(stderr=True)


def write(data: bytes, output: Path | None) -> None:
    """Write an answer to a file, as a whole or not at all, or to stdout.

    Raises:
        InvalidInputError: the file cannot be written.
    """
    if output is None:
        if sys.stdout.isatty():
            data = cleaned(data.decode(errors="replace")).encode()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        temporary = output.with_name(f".{output.name}.part")
        temporary.write_bytes(data)
        temporary.replace(output)
    except OSError as error:
        raise InvalidInputError(f"-o {output}: cannot write: {error.strerror}") from error
