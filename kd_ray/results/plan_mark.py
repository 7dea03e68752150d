"""A mark beside the manifests of a sweep: which of them this very kd_ray has planned.

The same code plans the same trials for the same sweep file and the same weights, so a launch reads them from the marked manifest and plans
nothing. A mark is a hint: where it is missing, damaged or of another kd_ray, the sweep is planned.
"""

import contextlib
import functools
import hashlib
import json
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from kd_ray.bounded import JsonForm
from kd_ray.errors import CorruptObjectError, StoreError
from kd_ray.results.manifest import Manifest
from kd_ray.results.store import Store, plan_mark_key
from kd_ray.sweep.load import SweepFile


@dataclass(frozen=True, kw_only=True)
class PlanMark:
    """That the manifest of a generation lists what a kd_ray plans for its sweep file and the weights that it names."""

    generation: int
    sweep: str
    """SHA-256 of the sweep file, overrides applied, as JSON; to compare its YAML takes longer than everything else."""
    code: str
    """As of `this_code`."""


MARK: JsonForm[PlanMark] = JsonForm(kind=PlanMark, most_bytes=4096)


def write_mark(store: Store, manifest: Manifest, file: SweepFile) -> None:
    """Note that this kd_ray has planned all that the manifest asks for from this sweep file, unless that is noted, or cannot be."""
    if not is_marked(store, manifest, file):
        # Who may only read a finished sweep may launch it, too, and plans it each time.
        with contextlib.suppress(StoreError):
            store.put(plan_mark_key(manifest.sweep), json.dumps(asdict(_mark(manifest, file))).encode())


def is_marked(store: Store, manifest: Manifest, file: SweepFile) -> bool:
    """Whether this kd_ray would plan what the manifest asks for from this sweep file, with the weights that the manifest names."""
    try:
        data = store.get(plan_mark_key(manifest.sweep), most_bytes=MARK.most_bytes)
        return data is not None and MARK.read(data) == _mark(manifest, file)
    except (ValueError, CorruptObjectError):
        return False


def _mark(manifest: Manifest, file: SweepFile) -> PlanMark:
    digest = hashlib.sha256(json.dumps(file.raw).encode()).hexdigest()
    return PlanMark(generation=manifest.generation, sweep=digest, code=this_code())


@functools.cache
def this_code() -> str:
    """16 hex digits of what decides which trials a sweep file asks for: the modules of kd_ray, and the version of pydantic."""
    digest = hashlib.sha256(f"{version('kd_ray')} {version('pydantic')}".encode())
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        digest.update(f"\n{path.relative_to(root)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
