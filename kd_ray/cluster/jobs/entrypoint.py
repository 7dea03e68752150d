"""What a submitted job runs on the head: it compares versions with those of the submitting machine, then becomes `kd-ray launch`.

A copy of this file is sent with every job, because the cluster may have another kd_ray, or none. It needs only the standard library of any
Python from 3.8 on. `kd-ray submit` waits for its first line of output.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

READY = "kd_ray job: ready"
REFUSED = "kd_ray job: refused"
ORDER = "kd_ray_job.json"
"""The file beside this one with the job's order: `expects` (versions by name), and `arguments` (of the command line)."""
SCRIPT = "kd_ray_job.py"
"""Name of this file in the job's folder."""


def versions() -> dict[str, str | None]:
    """Versions that must be equal on both machines; None for a package that is not installed."""
    found: dict[str, str | None] = {"python": ".".join(platform.python_version_tuple()[:2])}
    for name in ("ray", "kd_ray"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def differences(here: dict[str, str | None], there: dict[str, str | None]) -> list[str]:
    """A sentence for each version that differs; `here` are the versions of the submitting machine."""
    return [
        f"the cluster has {name} {there[name]}, and this machine has {here[name]}"
        if there[name]
        else f"the cluster has no {name} ({sys.executable}), and this machine has {here[name]}"
        for name in here
        if name in there and here[name] != there[name]
    ]


def main() -> None:
    """Refuse with one line and exit code 2, or replace this process by the launch."""
    order = json.loads(Path(ORDER).read_text())
    found = versions()
    if wrong := differences(order["expects"], found):
        sys.stdout.write(f"{REFUSED}: {'; '.join(wrong)}\n")
        sys.exit(2)
    sys.stdout.write(f"{READY}: {', '.join(f'{name} {found[name]}' for name in found)} on {platform.node()}\n")
    sys.stdout.flush()
    # The same process, so that the signal that stops the job reaches the launch.
    os.execv(sys.executable, [sys.executable, "-m", "kd_ray.cli", *order["arguments"]])  # noqa: S606 (our own command line)


if __name__ == "__main__":
    main()
