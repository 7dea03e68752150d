"""The command line: arguments in, text out; no logic."""

from kd_ray.cli.commands import cli, main

__all__ = ["cli", "main"]
