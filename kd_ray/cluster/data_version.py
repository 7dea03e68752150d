"""`dataset.version: auto`: the fingerprint of the data as they are at the first launch of a sweep, kept by its manifest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from kd_ray.errors import DataError
from kd_ray.results.manifest import find_manifest
from kd_ray.results.store import Store
from kd_ray.sweep.load import SweepFile, parse_sweep
from kd_ray.sweep.own_datasets import AUTO

_SOURCES = ("path", "function")
"""The fields that say which data these are."""


def with_data_version(file: SweepFile, store: Store, *, name: str | None = None) -> SweepFile:
    """The sweep with a version in place of `auto`, which an earlier launch has recorded or this one is going to record.

    `name` is that of the manifest, where it is not the sweep's own. Reads the data only for a sweep that says `auto`.

    Raises:
        DataError: the data cannot be read, or they are no longer those of the first launch.
    """
    section = file.raw["dataset"]
    if section.get("version") != AUTO:
        return file
    found = _version_now(file)
    recorded = _recorded(store, file, name or file.sweep.name)
    if recorded not in (None, found):
        raise DataError(
            f"{file.source}: dataset.version: the data are not those of the first launch of {name or file.sweep.name}: that recorded "
            f"{recorded!r}, and they are {found!r} now; restore them, or write `version: {found}` to train new trials with these"
        )
    filled = replace(file, raw={**file.raw, "dataset": {**section, "version": found}})
    first_cell = {axis: values[0] for axis, values in file.raw["grid"].items()}
    return replace(filled, sweep=filled.cell(first_cell))


def _version_now(file: SweepFile) -> str | None:
    """The version of the data: that of the index, where they come from a `data_url`, so that they need not be on this machine."""
    # Its modules take long to import.
    from kd_ray.cluster.shared_data.find_sets import find_sets

    if versions := [it.index.version for it in find_sets(file) if it.index.version]:
        return versions[0]
    from kd_ray.data.families import fingerprint

    return fingerprint(file.sweep.dataset, Path(file.sweep.placement.data_root).expanduser())


def _recorded(store: Store, file: SweepFile, name: str) -> str | None:
    """The version that the manifest of this name has for the same list or function."""
    manifest = find_manifest(store, name).manifest
    if manifest is None:
        return None
    before: dict[str, Any] = parse_sweep(manifest.sweep_yaml, source=file.source).raw["dataset"]
    is_same = all(before.get(field) == file.raw["dataset"].get(field) for field in ("name", *_SOURCES))
    version = before.get("version")
    return version if is_same and isinstance(version, str) else None
