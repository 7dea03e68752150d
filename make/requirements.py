"""Prints what an image installs: the dependencies of pyproject.toml, and those of the extras that the arguments name."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text())["project"]
extras: dict[str, list[str]] = project["optional-dependencies"]
if unknown := [name for name in sys.argv[1:] if name not in extras]:
    sys.exit(f"EXTRAS: {', '.join(unknown)} is none of {', '.join(extras)}")
print("\n".join([*project["dependencies"], *(line for name in sys.argv[1:] for line in extras[name])]))
