"""A mark beside the manifests of a sweep: what this very kd_ray plans for a sweep file.

The same code plans the same trials for the same sweep file and the same weights, so a launch reads them from the marked manifest and plans
nothing. A mark is a hint: where it is missing, damaged, of another manifest or of another kd_ray, the sweep is planned.
"""

import contextlib
import functools
import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

from kd_ray.bounded import JsonForm
from kd_ray.errors import CorruptObjectError, StoreError
from kd_ray.results.ledger import process_started
from kd_ray.results.manifest import Manifest
from kd_ray.results.store import Store, plan_mark_key
from kd_ray.sweep.load import SweepFile


@dataclass(frozen=True, kw_only=True)
class PlanMark:
    """That a kd_ray makes a plan of a sweep file. Each part is a SHA-256."""

    sweep: str
    """Of the sweep file, overrides applied, as JSON: to write it as YAML takes longer than everything else."""
    plan: str
    """Of the trials, the weights and the sweep file that a manifest names, so that no other manifest is taken for it."""
    code: str
    """As of `this_code`."""


MARK: JsonForm[PlanMark] = JsonForm(kind=PlanMark, most_bytes=4096)


def write_mark(store: Store, manifest: Manifest, file: SweepFile) -> None:
    """Note that this kd_ray has planned all that the manifest asks for from this sweep file, unless that is noted, or cannot be."""
    mark = _mark(manifest, file)
    if mark is not None and mark != _stored(store, manifest.sweep):
        # Who may only read a finished sweep may launch it, too, and plans it each time.
        with contextlib.suppress(StoreError):
            store.put(plan_mark_key(manifest.sweep), json.dumps(asdict(mark)).encode())


def is_marked(store: Store, manifest: Manifest, file: SweepFile) -> bool:
    """Whether this kd_ray would plan what the manifest asks for now from this sweep file, with the weights that the manifest names."""
    stored = _stored(store, manifest.sweep)
    return stored is not None and stored == _mark(manifest, file)


def _stored(store: Store, sweep: str) -> PlanMark | None:
    """None where there is no whole mark."""
    try:
        return MARK.read(store.get(plan_mark_key(sweep), most_bytes=MARK.most_bytes) or b"")
    except (ValueError, CorruptObjectError):
        return None


def _mark(manifest: Manifest, file: SweepFile) -> PlanMark | None:
    code = this_code()
    if code is None:
        return None
    trial_ids = [trial.trial_id for trial in manifest.active]
    plan = json.dumps([manifest.sweep_yaml, sorted(manifest.weights.items()), trial_ids])
    return PlanMark(sweep=_sha256(json.dumps(file.raw)), plan=_sha256(plan), code=code)


@functools.cache
def this_code() -> str | None:
    """SHA-256 of what decides which trials a sweep file asks for: the modules of kd_ray, and the version of pydantic.

    None where a module was replaced since this process started: what runs here may be the former one.
    """
    digest = hashlib.sha256(f"{version('kd_ray')} {version('pydantic')}".encode())
    root = Path(__file__).parents[1]
    for path in sorted(root.rglob("*.py")):
        if path.stat().st_ctime > _STARTED_AT:
            return None
        digest.update(f"\n{path.relative_to(root)}\n".encode())
        digest.update(path.read_bytes())
    return digest.hexdigest()


def _started_at() -> float:
    """When this process started, in seconds since 1970; where the kernel does not tell, now."""
    ticks = process_started(os.getpid())
    if not ticks.isdecimal():
        return time.time()
    # The kernel counts whole ticks, of a hundredth of a second.
    age_s = time.clock_gettime(time.CLOCK_BOOTTIME) - (int(ticks) + 1) / os.sysconf("SC_CLK_TCK")
    return time.time() - age_s


_STARTED_AT = _started_at()


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
