"""A data set as a worker holds it: one copy in the memory of a node, whatever the number of its workers.

The first worker of a node loads the data set and writes what all need as plain arrays below `<data_root>/loaded`; every worker maps these
files, so their pages are in memory once. A GPU gets a copy of its own. What a folder holds is determined by its name, the data set's id, so
it never goes out of date; the files that it was made from are not looked at again.
"""

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from kd_ray.data.load import CONTENT_VERSION, load_dataset
from kd_ray.distill.evaluate import fairness_pairs
from kd_ray.distill.node import shared_folder
from kd_ray.distill.samples import samples_of
from kd_ray.distill.stream import ResidentData, ResidentSplit, to_device
from kd_ray.errors import CorruptObjectError
from kd_ray.groups import Groups
from kd_ray.metrics.individual import Pairs
from kd_ray.results.record import Samples, read_samples, write_samples
from kd_ray.results.store import open_store
from kd_ray.sweep.config import Dataset
from kd_ray.sweep.spec import content_hash

_LAYOUT = 2
"""Changes with the files of a folder."""
_SPLITS = ("train", "test", "validation")
_CPU = torch.device("cpu")

logger = logging.getLogger("kd_ray")


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedData:
    """A data set on the training device, with what is derived from it once."""

    dataset_id: str
    resident: ResidentData
    pairs: Pairs
    """Pairs of test samples for individual fairness."""
    samples: Samples
    """What the store keeps of the test samples."""


def load_data(dataset: Dataset, root: Path, device: torch.device, *, processes: int = 1) -> LoadedData:
    """The data set, mapped from the files of this node, which are made if need be; in this process alone where they cannot be made.

    Raises:
        DataError: it cannot be loaded.
    """
    dataset_id = content_hash(dataset)

    def load() -> LoadedData:
        data = load_dataset(dataset, root, processes=processes)
        return LoadedData(
            dataset_id=dataset_id,
            resident=to_device(data, _CPU),
            pairs=fairness_pairs(data),
            samples=samples_of(dataset, data),
        )

    try:
        name = f"{dataset_id}-{CONTENT_VERSION}.{_LAYOUT}"
        folder = shared_folder(root / "loaded", name, lambda folder: _write(folder, load()))
        loaded = _mapped(folder, dataset_id)
    except (OSError, CorruptObjectError) as error:
        logger.warning("every worker holds the data set in memory of its own: %s", error)
        loaded = load()
    return LoadedData(
        dataset_id=dataset_id, resident=_moved(loaded.resident, device), pairs=loaded.pairs, samples=loaded.samples
    )


def _write(folder: Path, loaded: LoadedData) -> None:
    """Everything to disk before the folder gets its name: a power cut leaves no half of it."""
    pairs = loaded.pairs
    arrays: dict[str, npt.NDArray[np.generic]] = {
        "first": pairs.first_P,
        "second": pairs.second_P,
        "distance": pairs.distance_P,
        "num_dropped": np.asarray(pairs.num_dropped),
        "scale": loaded.resident.train.scale_C.numpy(),
        "shift": loaded.resident.train.shift_C.numpy(),
    }
    for name, split in zip(_SPLITS, _splits(loaded.resident), strict=True):
        if split is not None:
            arrays |= {f"{name}-images": split.images_NHWC.numpy(), f"{name}-labels": split.labels_N.numpy()}
    for i, groups in enumerate(loaded.resident.sensitive_features.values()):
        arrays[f"membership-{i}"] = groups.membership_NG
    for name, array in arrays.items():
        with (folder / f"{name}.npy").open("wb") as stream:
            np.save(stream, array, allow_pickle=False)
            os.fsync(stream.fileno())
    write_samples(open_store(folder), loaded.dataset_id, loaded.samples)


def _mapped(folder: Path, dataset_id: str) -> LoadedData:
    """The files as tensors. A page is in memory once for all processes, for none of them writes to it.

    Raises:
        CorruptObjectError: there are files missing.
    """
    samples = read_samples(open_store(folder), dataset_id)
    if samples is None:
        raise CorruptObjectError(f"{folder} is incomplete; delete it")
    # Writable only in appearance, for torch insists on it: whoever writes gets a page of his own.
    arrays = {path.stem: np.load(path, mmap_mode="c", allow_pickle=False) for path in folder.glob("*.npy")}
    train, test, validation = (_split(name, arrays) for name in _SPLITS)
    if train is None or test is None:
        raise CorruptObjectError(f"{folder} is incomplete; delete it")
    return LoadedData(
        dataset_id=dataset_id,
        resident=ResidentData(
            train=train,
            test=test,
            validation=validation,
            num_classes=len(samples.class_names),
            sensitive_features={
                name: Groups(names=groups.names, membership_NG=arrays[f"membership-{i}"])
                for i, (name, groups) in enumerate(samples.sensitive_features.items())
                if f"membership-{i}" in arrays
            },
        ),
        pairs=Pairs(
            first_P=arrays["first"],
            second_P=arrays["second"],
            distance_P=arrays["distance"],
            num_dropped=int(arrays["num_dropped"]),
        ),
        samples=samples,
    )


def _split(name: str, arrays: Mapping[str, npt.NDArray[np.generic]]) -> ResidentSplit | None:
    if f"{name}-images" not in arrays:
        return None
    return ResidentSplit(
        images_NHWC=torch.from_numpy(arrays[f"{name}-images"]),
        labels_N=torch.from_numpy(arrays[f"{name}-labels"]),
        scale_C=torch.from_numpy(arrays["scale"]),
        shift_C=torch.from_numpy(arrays["shift"]),
    )


def _splits(data: ResidentData) -> tuple[ResidentSplit | None, ...]:
    return (data.train, data.test, data.validation)


def _moved(data: ResidentData, device: torch.device) -> ResidentData:
    if device == _CPU:
        return data
    train, test, validation = (split.to(device) if split is not None else None for split in _splits(data))
    assert train is not None
    assert test is not None
    return replace(data, train=train, test=test, validation=validation)
