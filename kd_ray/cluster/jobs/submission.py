"""What is sent to a cluster for a sweep. The submitting machine has read and checked all of it."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from kd_ray.cluster.jobs import entrypoint
from kd_ray.cluster.jobs.modules import files_of
from kd_ray.errors import InvalidInputError
from kd_ray.results.store import SCHEMES
from kd_ray.sweep.initial import is_path, named_values
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.plan import expand, is_file

STOP_WAIT_S = 120
"""How long a stopped job may take to write checkpoints before Ray kills it; Ray's default is 3 s."""
_SWEEP = "sweep.yaml"
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")


@dataclass(frozen=True, kw_only=True)
class Submission:
    """A sweep to send to a cluster. It holds no credentials: the cluster has its own for the store."""

    name: str
    """Name of the job, for `kd-ray logs` and `kd-ray stop`."""
    sweep: str
    store: str
    """URL of the store, as the cluster reaches it."""
    num_trials: int
    """Number of trials of the sweep, complete ones included."""
    files: Mapping[str, bytes]
    """Contents of the job's folder by path."""

    @property
    def digest(self) -> str:
        """12 hex digits that identify the sweep, the store and the modules together."""
        content = {name: hashlib.sha256(data).hexdigest() for name, data in self.files.items()}
        whole = json.dumps([self.name, content], sort_keys=True)
        return hashlib.sha256(whole.encode()).hexdigest()[:12]

    @property
    def metadata(self) -> dict[str, str]:
        """What the job server stores with the job. Everyone with the cluster's token can read it."""
        return {
            "kd_ray_name": self.name,
            "kd_ray_sweep": self.sweep,
            "kd_ray_store": self.store,
            "kd_ray_digest": self.digest,
        }


def make_submission(
    file: SweepFile,
    store: str,
    *,
    name: str | None = None,
    modules: Sequence[Path] = (),
    retry_failed: bool = False,
    most_cells: int | None = None,
) -> Submission:
    """Check that a sweep can be sent, and collect the files to send.

    Raises:
        InvalidInputError: the sweep, the store, the name or a module cannot be used on another machine.
    """
    name = name or file.sweep.name
    if not _NAME.fullmatch(name):
        raise InvalidInputError(f"--name {name}: expected lower-case letters, digits, `.`, `_` and `-`, 100 at most")
    _check_url("--store", store)
    if file.sweep.placement.data_url is not None:
        _check_url("placement.data_url", file.sweep.placement.data_url)
    _check_paths(file)
    arguments = ["launch", _SWEEP, "--store", store, "--address", "auto", *(["--retry-failed"] if retry_failed else [])]
    arguments += [] if most_cells is None else ["--max-cells", str(most_cells)]
    order = {"expects": entrypoint.versions(), "arguments": arguments}
    ours = {
        _SWEEP: file.to_yaml().encode(),
        entrypoint.ORDER: json.dumps(order, indent=1, sort_keys=True).encode(),
        entrypoint.SCRIPT: Path(entrypoint.__file__).read_bytes(),
    }
    theirs = files_of(modules)
    if taken := sorted({PurePosixPath(path).parts[0] for path in theirs} & {*ours, "kd_ray"}):
        raise InvalidInputError(f"--module: the name {taken[0]} is reserved for kd_ray")
    # The number of trials does not depend on the digests of pretrained weights.
    num_trials = len(expand(file, lambda name: "0" * (64 if is_file(name) else 16)))
    return Submission(name=name, sweep=file.sweep.name, store=store, num_trials=num_trials, files={**theirs, **ours})


def _check_url(option: str, url: str) -> None:
    """Refuse a place that the cluster cannot reach, and a URL with credentials."""
    if "://" not in url:
        if not PurePosixPath(url).is_absolute():
            choices = ", ".join(f"{scheme}://…" for scheme in SCHEMES)
            raise InvalidInputError(
                f"{option} {url}: on the cluster this would be another folder; give {choices}, "
                "or the absolute path of a folder that all its nodes share"
            )
        return
    parts = urlsplit(url)
    if parts.scheme not in SCHEMES:
        raise InvalidInputError(
            f"{option} {parts.scheme}://…: unknown scheme; valid: {', '.join(f'{scheme}://' for scheme in SCHEMES)}"
        )
    if "@" in parts.netloc or parts.query:
        raise InvalidInputError(
            f"{option} {parts.scheme}://…: a URL must not hold credentials, because everyone who sees the job can read them; "
            "the cluster takes them from its environment or its identity"
        )


def _check_paths(file: SweepFile) -> None:
    """Refuse relative paths. Paths of a sweep are paths on the cluster; a relative one would lie in the job's folder, which is deleted."""
    for field, values in [("placement.data_root", (str(file.sweep.placement.data_root),)), *named_values(file.raw)]:
        for value in map(str, filter(is_path, values)):
            if not PurePosixPath(value).is_absolute():
                raise InvalidInputError(
                    f"{file.source}: {field}: {value!r} is a relative path; give the absolute path on the cluster, as in "
                    f"--set {field}=/data"
                )
