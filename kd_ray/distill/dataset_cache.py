"""A data set as a worker holds it: one copy in the memory of a node, whatever the number of its workers.

The first worker of a node loads the data set and writes what all need as plain tensors below `<data_root>/loaded`; every worker maps that
file, so its pages are in memory once. A GPU gets a copy of its own. What a folder holds is determined by its name, the data set's id, so it
never goes out of date; the files that it was made from are not looked at again.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kd_ray.data.cache import cached
from kd_ray.data.families import CONTENT_VERSION, family_of, load_dataset
from kd_ray.distill.image_loader import Loader
from kd_ray.distill.samples import SAMPLE_KINDS, ResidentData, to_device
from kd_ray.distill.samples.kind import Resident, SampleKind
from kd_ray.distill.stored_samples import samples_of
from kd_ray.errors import CacheError
from kd_ray.groups import Groups
from kd_ray.metrics.individual import Pairs
from kd_ray.results.record import Samples, read_samples, write_samples
from kd_ray.results.store import open_store, samples_key
from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.spec import content_hash

_LAYOUT = 5
"""Changes with the files of a folder."""
_TENSORS = "tensors.safetensors"
_PAIRS = "pairs.safetensors"
_CPU = torch.device("cpu")

Kind = SampleKind[Any, Any, Any]

logger = logging.getLogger("kd_ray")


@dataclass(frozen=True, kw_only=True, eq=False)
class LoadedData:
    """A data set on the training device, with what is derived from it once."""

    dataset_id: str
    resident: ResidentData
    read_pairs: Callable[[], Pairs]
    """See `pairs`."""
    samples: Samples
    """What the store keeps of the test samples."""

    @cached_property
    def pairs(self) -> Pairs:
        """Pairs of test samples for individual fairness. Where images are streamed, all of the test split are read, once per node."""
        return self.read_pairs()


def load_data(
    dataset: Dataset,
    root: Path,
    device: torch.device,
    *,
    processes: int = 1,
    resident_gb: float | None = None,
    loader: Loader | None = None,
) -> LoadedData:
    """The data set, mapped from the files of this node, which are made if need be; in this process alone where they cannot be made.

    Images in files of their own that would take more than `resident_gb` GB are streamed; `loader` decodes them.

    Raises:
        DataError: it cannot be loaded.
    """
    dataset_id = content_hash(dataset)
    loader, kind = loader or Loader(), SAMPLE_KINDS[dataset.modality]
    limit_gb = resident_gb if family_of(dataset).can_stream else None
    # The name says the limit: which side of it a data set is on shows only when its files are counted.
    name = f"{dataset_id}-{CONTENT_VERSION}.{_LAYOUT}" + ("" if limit_gb is None else f"-{limit_gb:g}gb")
    folder = root / "loaded" / name

    def load() -> LoadedData:
        limit_bytes = None if limit_gb is None else int(limit_gb * 1e9)
        data = load_dataset(dataset, root, processes=processes, resident_bytes=limit_bytes)
        resident = to_device(data, _CPU, loader=loader)
        return LoadedData(
            dataset_id=dataset_id,
            resident=resident,
            read_pairs=_pairs_of(resident.test, folder),
            samples=samples_of(dataset, data),
        )

    try:
        cached(folder, (_TENSORS, samples_key(dataset_id)), {}, lambda partial: _write(partial, root, kind, load()))
        loaded = _mapped(folder, root, dataset_id, kind, loader)
    except CacheError as error:
        logger.warning("every worker holds the data set in memory of its own: %s", error)
        loaded = load()
    return replace(loaded, resident=_moved(loaded.resident, device))


@dataclass(frozen=True, kw_only=True, eq=False)
class _StreamedPairs:
    """The pairs of a streamed test split, kept beside the data set's folder."""

    folder: Path
    test: Resident

    def __call__(self) -> Pairs:
        def make(partial: Path) -> None:
            save_file(_pair_tensors(self.test.pairs()), partial / _PAIRS)

        folder = self.folder.with_name(f"{self.folder.name}-pairs")
        try:
            cached(folder, (_PAIRS,), {}, make)
            return _pairs_from(load_file(folder / _PAIRS))
        except CacheError as error:
            logger.warning("every worker measures the distances of test images itself: %s", error)
            return self.test.pairs()


def _pairs_of(test: Resident, folder: Path) -> Callable[[], Pairs]:
    """The pairs of a test split, read when they are first needed."""
    return _StreamedPairs(folder=folder, test=test) if test.is_streamed else test.pairs


def _pair_tensors(pairs: Pairs) -> dict[str, Tensor]:
    return {
        "pairs.first": torch.from_numpy(pairs.first_P),
        "pairs.second": torch.from_numpy(pairs.second_P),
        "pairs.distance": torch.from_numpy(pairs.distance_P),
        "pairs.num_dropped": torch.tensor(pairs.num_dropped),
    }


def _pairs_from(tensors: dict[str, Tensor]) -> Pairs:
    return Pairs(
        first_P=tensors["pairs.first"].numpy(),
        second_P=tensors["pairs.second"].numpy(),
        distance_P=tensors["pairs.distance"].numpy(),
        num_dropped=int(tensors["pairs.num_dropped"]),
    )


def _write(folder: Path, root: Path, kind: Kind, loaded: LoadedData) -> None:
    resident = loaded.resident
    tensors = kind.tensors(resident.splits(), root)
    if not resident.test.is_streamed:
        tensors |= _pair_tensors(loaded.pairs)
    for name, groups in resident.sensitive_features.items():
        tensors[f"train.members.{name}"] = torch.from_numpy(groups.membership_NG)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / _TENSORS)
    write_samples(open_store(folder), loaded.dataset_id, loaded.samples)


def _mapped(folder: Path, root: Path, dataset_id: str, kind: Kind, loader: Loader) -> LoadedData:
    """The tensors of the file. All processes share a page in memory, until one of them writes to it and gets a copy."""
    tensors = load_file(folder / _TENSORS)
    samples = read_samples(open_store(folder), dataset_id)
    assert samples is not None
    train, test = (kind.mapped(tensors, name, root, loader) for name in ("train", "test"))
    has_validation = "validation.labels" in tensors
    return LoadedData(
        dataset_id=dataset_id,
        resident=ResidentData(
            train=train,
            test=test,
            validation=kind.mapped(tensors, "validation", root, loader) if has_validation else None,
            num_classes=len(samples.class_names),
            sensitive_features={
                name: Groups(names=groups.names, membership_NG=tensors[f"train.members.{name}"].numpy())
                for name, groups in samples.sensitive_features.items()
            },
        ),
        read_pairs=_pairs_of(test, folder) if test.is_streamed else lambda: _pairs_from(tensors),
        samples=samples,
    )


def _moved(data: ResidentData, device: torch.device) -> ResidentData:
    if device == _CPU:
        return data
    validation = None if data.validation is None else data.validation.to(device)
    return replace(data, train=data.train.to(device), test=data.test.to(device), validation=validation)
