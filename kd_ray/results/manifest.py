"""The manifest: what a sweep asked for, resolved, trial by trial.

It is what `resume`, `status` and the tables go by, so that none of them needs the sweep file. Manifests are numbered and created only if
absent; each continues the one before: a trial keeps its position for ever, because positions decide which part of a table holds its rows.
Trials that are no longer asked for stay listed, inactive.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from kd_ray.errors import CorruptObjectError, InvalidInputError
from kd_ray.results.rows import FoldSettings
from kd_ray.results.store import SWEEPS, Store, manifest_folder, manifest_key, sweep_key
from kd_ray.sweep.config import Sweep
from kd_ray.sweep.plan import PlannedTrial, settings_json


@dataclass(frozen=True, kw_only=True)
class ManifestTrial:
    """One line of a manifest."""

    trial_id: str
    role: str
    description: str
    dataset_id: str
    epochs: int
    teacher: str | None
    """trial_id of its teacher."""
    settings: Mapping[str, str]
    """Values of grid axes that have no column of their own."""
    active: bool = True
    """Whether the sweep asks for it now."""


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What a sweep asked for."""

    sweep: str
    generation: int
    sweep_yaml: str
    """The sweep file, overrides applied, paths absolute."""
    weights: Mapping[str, str]
    """SHA-256 of given weights, by path."""
    fold: FoldSettings
    trials: tuple[ManifestTrial, ...]

    @property
    def active(self) -> tuple[ManifestTrial, ...]:
        """The trials the sweep asks for now."""
        return tuple(trial for trial in self.trials if trial.active)

    def to_json(self) -> bytes:
        """As it stands in the store."""
        return json.dumps({"manifest_version": 1, **asdict(self)}, separators=(",", ":")).encode()

    @classmethod
    def from_json(cls, data: bytes) -> "Manifest":
        """Read a manifest; raises ValueError, KeyError or TypeError when it is not one."""
        content: dict[str, Any] = json.loads(data)
        if content.pop("manifest_version") != 1:
            raise ValueError("it was written by another version of kd_ray")
        fold = content["fold"]
        settings = FoldSettings(
            sweep=fold["sweep"],
            sensitive_features=tuple(fold["sensitive_features"]),
            intersections=tuple(tuple(features) for features in fold["intersections"]),
        )
        trials = tuple(ManifestTrial(**trial) for trial in content["trials"])
        return cls(**{**content, "fold": settings, "trials": trials})


def read_manifest(store: Store, sweep: str) -> Manifest:
    """The newest manifest of a sweep.

    Raises:
        InvalidInputError: the store has no such sweep; the message names those it has.
        CorruptObjectError: the manifest cannot be read.
    """
    manifest = find_manifest(store, sweep)
    if manifest is None:
        names = ", ".join(store.folders(SWEEPS)) or "none"
        raise InvalidInputError(f"store {store.url}: no sweep {sweep!r}; it has: {names}")
    return manifest


def write_manifest(
    store: Store, sweep: Sweep, trials: Sequence[PlannedTrial], *, sweep_yaml: str, weights: Mapping[str, str]
) -> Manifest:
    """Record what a sweep asks for; nothing is written when that is what the newest manifest says already."""
    while True:
        newest = find_manifest(store, sweep.name)
        manifest = _continue(newest, sweep, trials, sweep_yaml=sweep_yaml, weights=weights)
        if newest is not None and replace(manifest, generation=newest.generation) == newest:
            return newest
        if store.put_new(manifest_key(sweep.name, manifest.generation), manifest.to_json()):
            store.put(sweep_key(sweep.name), sweep_yaml.encode())
            return manifest


def find_manifest(store: Store, sweep: str) -> Manifest | None:
    """The newest manifest of a sweep, or None.

    Raises:
        CorruptObjectError: the manifest cannot be read.
    """
    keys = [item.key for item in store.entries(manifest_folder(sweep)) if Path(item.key).stem.isdigit()]
    if not keys:
        return None
    key = max(keys)
    try:
        return Manifest.from_json(store.get(key) or b"")
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptObjectError(f"store {store.url}: {key!r} is not a whole manifest: {error}") from error


def _continue(
    newest: Manifest | None,
    sweep: Sweep,
    trials: Sequence[PlannedTrial],
    *,
    sweep_yaml: str,
    weights: Mapping[str, str],
) -> Manifest:
    asked = {trial.trial_id: _line(trial) for trial in trials}
    kept = [asked.pop(old.trial_id, replace(old, active=False)) for old in (newest.trials if newest else ())]
    return Manifest(
        sweep=sweep.name,
        generation=newest.generation + 1 if newest else 1,
        sweep_yaml=sweep_yaml,
        weights=dict(weights),
        fold=FoldSettings(
            sweep=sweep.name, sensitive_features=sweep.sensitive_features, intersections=sweep.intersections
        ),
        trials=(*kept, *asked.values()),
    )


def _line(trial: PlannedTrial) -> ManifestTrial:
    spec = trial.spec
    return ManifestTrial(
        trial_id=trial.trial_id,
        role=spec.role.value,
        description=trial.description,
        dataset_id=spec.dataset_id,
        epochs=spec.epochs,
        teacher=spec.teacher.trial_id if spec.teacher else None,
        settings=settings_json(trial.settings),
    )
