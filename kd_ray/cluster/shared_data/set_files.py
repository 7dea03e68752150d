"""Which sets a sweep needs of a `placement.data_url`, and which files each consists of.

A set is a data set, named by its family and the files below the data root that its settings ask for; or a network of texts, whose folder
the nodes need too. Generated data sets need none, and what a function of the user's reads nobody else knows.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kd_ray.cluster.shared_data.shards import files_below
from kd_ray.errors import DataError
from kd_ray.sweep.architectures import is_text_model
from kd_ray.sweep.axes import axis_path
from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.encoders import CONFIG, FOLDER, TOKENIZER_FILES, WEIGHTS, find_folder
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.own_datasets import AUTO
from kd_ray.sweep.plan import datasets_of

_ANY = (AUTO, "original", None)
"""Values of `dataset.version` that do not name the files."""


@dataclass(frozen=True, kw_only=True)
class WantedSet:
    """A set that a sweep needs."""

    what: str
    """`cifar10` or `hf:minilm`, for messages."""
    name: str
    """Stands in the keys."""
    version: str | None = None
    """The version that the sweep names; None for the latest."""
    dataset: Dataset | None = None
    """None for a network of texts."""


def wanted_sets(file: SweepFile) -> tuple[WantedSet, ...]:
    """The sets of all cells of the grid; none where nothing is read from files that are known."""
    datasets = datasets_of(file)
    found = [it for dataset in datasets for it in sets_of(dataset)]
    found += [_network(name) for name in _models(file) if is_text_model(name)]
    return tuple({(it.name, it.version): it for it in found}.values())


def sets_of(dataset: Dataset) -> tuple[WantedSet, ...]:
    """The sets of a data set: itself if it has files, and its tokenizer."""
    sets = []
    if dataset.files:
        version = getattr(dataset, "version", None)
        digest = hashlib.sha256(json.dumps(dataset.files).encode()).hexdigest()
        sets.append(
            WantedSet(
                what=dataset.table_name,
                name=f"{dataset.name}-{digest[:8]}",
                version=None if version in _ANY else version,
                dataset=dataset,
            )
        )
    return (*sets, *([_network(dataset.tokenizing.tokenizer)] if dataset.tokenizing else []))


def _network(name: str) -> WantedSet:
    return WantedSet(what=name, name=name.replace(":", "-").replace("/", "--"))


def _models(file: SweepFile) -> Iterator[str]:
    """The networks of teachers and students."""
    for role in ("teacher", "student"):
        yield str((file.raw.get(role) or {}).get("model"))
    for axis, values in file.axes.items():
        if axis_path(axis) in ("teacher.model", "student.model"):
            yield from map(str, values)


def files_of(wanted: WantedSet, root: Path) -> dict[str, Path]:
    """The files of a set, by their name below a data root.

    Raises:
        DataError: some are missing.
    """
    if wanted.dataset is None:
        folder = find_folder(wanted.what, root)
        inner = wanted.what.removeprefix("hf:")
        there = (name for name in (CONFIG, WEIGHTS, *TOKENIZER_FILES) if (folder / name).is_file())
        return {f"{FOLDER}/{inner}/{name}": folder / name for name in there}
    from kd_ray.data.families import family_of

    family = family_of(wanted.dataset)
    names: Sequence[str] = family.files(wanted.dataset, root) if family.files else wanted.dataset.files
    try:
        return files_below(root, names)
    except DataError as error:
        raise DataError(f"{wanted.what}: {error}; `kd-ray data check` says more") from error


def version_of(wanted: WantedSet, root: Path, *, processes: int) -> str | None:
    """The `dataset.version` that names exactly these files; None for a network.

    Raises:
        DataError: files are missing or damaged.
    """
    if wanted.dataset is None:
        return None
    from kd_ray.data.families import fingerprint

    # Without room in memory, images stay encoded: their files are read, and not decoded.
    return fingerprint(wanted.dataset, root, processes=processes, resident_bytes=0)
