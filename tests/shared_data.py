"""Small data sets at a URL, and the nodes that fetch them."""

import os
from pathlib import Path

from kd_ray.cluster.shared_data import fetched_sets
from kd_ray.cluster.shared_data.fetch_data import FoundSet
from kd_ray.cluster.shared_data.fetched_sets import on_this_node
from kd_ray.cluster.shared_data.push_data import PushReport, push
from kd_ray.cluster.shared_data.set_files import sets_of
from kd_ray.results.store import open_store
from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.load import parse_dataset
from kd_ray.sweep.placement import Placement
from tests.datasets import write_cifar10


def let_go(folder: Path) -> None:
    """What the end of a process does."""
    os.close(fetched_sets._HELD.pop(folder))


def let_go_of_all() -> None:
    """So that a test does not see what another one has used."""
    for folder in list(fetched_sets._HELD):
        let_go(folder)


def pushed(dataset: Dataset, root: Path, url: Path, *, shard_bytes: int = 2**14) -> PushReport:
    """Put a set at a URL."""
    (wanted,) = sets_of(dataset)
    return push(wanted, root, open_store(url), shard_bytes=shard_bytes)


def fetched(report: PushReport, url: Path, node: Path, **settings: float) -> Path:
    """The folder of the set on a node."""
    found = FoundSet(url=str(url), what=report.what, index=report.index)
    placement = Placement.model_validate({"data_root": str(node), **settings})
    return Path(on_this_node(placement, [found]).data_root)


def contents(folder: Path) -> dict[str, bytes]:
    """The files below a folder, by name."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def cifar(tmp_path: Path, *, num_train: int = 40) -> tuple[PushReport, Path]:
    """A pushed set, and its URL."""
    root = write_cifar10(tmp_path / f"data-{num_train}", num_train=num_train)
    return pushed(parse_dataset("cifar10"), root, tmp_path / "url"), tmp_path / "url"
