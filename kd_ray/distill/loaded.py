"""A data set as a worker holds it: one copy in the memory of a node, whatever the number of its workers.

The first worker of a node loads the data set and writes what all need as plain tensors below `<data_root>/loaded`; every worker maps that
file, so its pages are in memory once. A GPU gets a copy of its own. What a folder holds is determined by its name, the data set's id, so it
never goes out of date; the files that it was made from are not looked at again.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kd_ray.data.cache import cached
from kd_ray.data.load import CONTENT_VERSION, load_dataset
from kd_ray.distill.evaluate import fairness_pairs
from kd_ray.distill.resident_rows import ResidentRows
from kd_ray.distill.samples import samples_of
from kd_ray.distill.stream import Resident, ResidentData, ResidentSplit, to_device
from kd_ray.distill.texts import ResidentTexts
from kd_ray.groups import Groups
from kd_ray.metrics.individual import Pairs
from kd_ray.results.record import Samples, read_samples, write_samples
from kd_ray.results.store import open_store, samples_key
from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.spec import content_hash

_LAYOUT = 2
"""Changes with the files of a folder."""
_TENSORS = "tensors.safetensors"
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

    folder = root / "loaded" / f"{dataset_id}-{CONTENT_VERSION}.{_LAYOUT}"
    try:
        cached(folder, (_TENSORS, samples_key(dataset_id)), {}, lambda partial: _write(partial, load()))
        loaded = _mapped(folder, dataset_id)
    except OSError as error:
        logger.warning("every worker holds the data set in memory of its own: %s", error)
        loaded = load()
    return LoadedData(
        dataset_id=dataset_id, resident=_moved(loaded.resident, device), pairs=loaded.pairs, samples=loaded.samples
    )


def _write(folder: Path, loaded: LoadedData) -> None:
    pairs = loaded.pairs
    tensors = {
        "pairs.first": torch.from_numpy(pairs.first_P),
        "pairs.second": torch.from_numpy(pairs.second_P),
        "pairs.distance": torch.from_numpy(pairs.distance_P),
        "pairs.num_dropped": torch.tensor(pairs.num_dropped),
    }
    if isinstance(train := loaded.resident.train, ResidentSplit):
        tensors |= {"scale": train.scale_C, "shift": train.shift_C}
    for name, split in zip(_SPLITS, _splits(loaded.resident), strict=True):
        match split:
            case ResidentSplit():
                inputs = {"images": split.images_NHWC}
            case ResidentRows():
                inputs = {"rows": split.values_NF}
            case ResidentTexts():
                inputs = {"ids": split.ids_NL, "lengths": split.lengths_N}
            case None:
                continue
        tensors |= {f"{name}.{kind}": tensor for kind, tensor in {**inputs, "labels": split.labels_N}.items()}
    for name, groups in loaded.resident.sensitive_features.items():
        tensors[f"train.members.{name}"] = torch.from_numpy(groups.membership_NG)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / _TENSORS)
    write_samples(open_store(folder), loaded.dataset_id, loaded.samples)


def _mapped(folder: Path, dataset_id: str) -> LoadedData:
    """The tensors of the file. A page is in memory once for all processes; whoever wrote to it would get a page of his own."""
    tensors = load_file(folder / _TENSORS)
    samples = read_samples(open_store(folder), dataset_id)
    train, test, validation = (_split(name, tensors) for name in _SPLITS)
    assert samples is not None
    assert train is not None
    assert test is not None
    return LoadedData(
        dataset_id=dataset_id,
        resident=ResidentData(
            train=train,
            test=test,
            validation=validation,
            num_classes=len(samples.class_names),
            sensitive_features={
                name: Groups(names=groups.names, membership_NG=tensors[f"train.members.{name}"].numpy())
                for name, groups in samples.sensitive_features.items()
            },
        ),
        pairs=Pairs(
            first_P=tensors["pairs.first"].numpy(),
            second_P=tensors["pairs.second"].numpy(),
            distance_P=tensors["pairs.distance"].numpy(),
            num_dropped=int(tensors["pairs.num_dropped"]),
        ),
        samples=samples,
    )


def _split(name: str, tensors: dict[str, Tensor]) -> Resident | None:
    if f"{name}.rows" in tensors:
        return ResidentRows(values_NF=tensors[f"{name}.rows"], labels_N=tensors[f"{name}.labels"])
    if f"{name}.ids" in tensors:
        return ResidentTexts(
            ids_NL=tensors[f"{name}.ids"],
            lengths_N=tensors[f"{name}.lengths"],
            labels_N=tensors[f"{name}.labels"],
        )
    if f"{name}.images" not in tensors:
        return None
    return ResidentSplit(
        images_NHWC=tensors[f"{name}.images"],
        labels_N=tensors[f"{name}.labels"],
        scale_C=tensors["scale"],
        shift_C=tensors["shift"],
    )


def _splits(data: ResidentData) -> tuple[Resident | None, ...]:
    return (data.train, data.test, data.validation)


def _moved(data: ResidentData, device: torch.device) -> ResidentData:
    if device == _CPU:
        return data
    train, test, validation = (split.to(device) if split is not None else None for split in _splits(data))
    assert train is not None
    assert test is not None
    return replace(data, train=train, test=test, validation=validation)
