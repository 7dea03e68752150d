"""A data set as a worker holds it: one copy in the memory of a node, whatever the number of its workers.

The first worker of a node loads the data set and writes what all need as plain tensors below `<data_root>/loaded`; every worker maps that
file, so its pages are in memory once. A GPU gets a copy of its own. What a folder holds is determined by its name, the data set's id, so it
never goes out of date; the files that it was made from are not looked at again.
"""

import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from kd_ray.data.cache import cached
from kd_ray.data.files import ImageFiles
from kd_ray.data.images import ImageData
from kd_ray.data.load import CONTENT_VERSION, FROM_FILES, load_dataset
from kd_ray.distill.evaluate import EVALUATION_BATCH, fairness_pairs, fairness_pairs_of
from kd_ray.distill.image_loader import Loader
from kd_ray.distill.samples.kind import Resident
from kd_ray.distill.samples.resident_images import ResidentData, ResidentSplit, plain_pixels, to_device
from kd_ray.distill.samples.resident_rows import ResidentRows
from kd_ray.distill.samples.resident_texts import ResidentTexts
from kd_ray.distill.stored_samples import samples_of
from kd_ray.groups import Groups
from kd_ray.metrics.individual import Pairs
from kd_ray.results.record import Samples, read_samples, write_samples
from kd_ray.results.store import open_store, samples_key
from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.spec import content_hash

_LAYOUT = 3
"""Changes with the files of a folder."""
_TENSORS = "tensors.safetensors"
_PAIRS = "pairs.safetensors"
_SPLITS = ("train", "test", "validation")
_CPU = torch.device("cpu")

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
    loader = loader or Loader()
    limit_gb = resident_gb if isinstance(dataset, FROM_FILES) else None
    # The name says the limit: which side of it a data set is on shows only when its files are counted.
    name = f"{dataset_id}-{CONTENT_VERSION}.{_LAYOUT}" + ("" if limit_gb is None else f"-{limit_gb:g}gb")
    folder = root / "loaded" / name

    def load() -> LoadedData:
        limit_bytes = None if limit_gb is None else int(limit_gb * 1e9)
        data = load_dataset(dataset, root, processes=processes, resident_bytes=limit_bytes)
        resident = to_device(data, _CPU, loader=loader)
        pairs: Callable[[], Pairs] = lambda: fairness_pairs(data)  # noqa: E731
        if isinstance(data, ImageData) and isinstance(resident.test, ResidentSplit) and resident.test.is_streamed:
            pairs = _StreamedPairs(folder=folder, test=resident.test, mean=data.mean, std=data.std)
        return LoadedData(dataset_id=dataset_id, resident=resident, read_pairs=pairs, samples=samples_of(dataset, data))

    try:
        cached(folder, (_TENSORS, samples_key(dataset_id)), {}, lambda partial: _write(partial, root, load()))
        loaded = _mapped(folder, root, dataset_id, loader)
    except OSError as error:
        logger.warning("every worker holds the data set in memory of its own: %s", error)
        loaded = load()
    return replace(loaded, resident=_moved(loaded.resident, device))


@dataclass(frozen=True, kw_only=True, eq=False)
class _StreamedPairs:
    """The pairs of a streamed test split, kept beside the data set's folder."""

    folder: Path
    test: ResidentSplit
    mean: Sequence[float]
    std: Sequence[float]

    def __call__(self) -> Pairs:
        def make(partial: Path) -> None:
            save_file(_pair_tensors(self.measured()), partial / _PAIRS)

        folder = self.folder.with_name(f"{self.folder.name}-pairs")
        try:
            cached(folder, (_PAIRS,), {}, make)
            return _pairs_from(load_file(folder / _PAIRS))
        except OSError as error:
            logger.warning("every worker measures the distances of test images itself: %s", error)
            return self.measured()

    def measured(self) -> Pairs:
        """From all images of the split."""
        blocks = (images_BHWC for images_BHWC, _ in plain_pixels(self.test, EVALUATION_BATCH))
        return fairness_pairs_of(blocks, self.mean, self.std)


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


def _write(folder: Path, root: Path, loaded: LoadedData) -> None:
    tensors: dict[str, Tensor] = {}
    if isinstance(loaded.read_pairs, _StreamedPairs):
        tensors |= {
            "mean": torch.tensor(loaded.read_pairs.mean, dtype=torch.float64),
            "std": torch.tensor(loaded.read_pairs.std, dtype=torch.float64),
        }
    else:
        tensors |= _pair_tensors(loaded.pairs)
    if isinstance(train := loaded.resident.train, ResidentSplit):
        tensors |= {"scale": train.scale_C, "shift": train.shift_C}
        if train.files is not None:
            # Below the root, which may be another path on the next machine; one text has the names of all splits.
            below = os.path.relpath(train.files.folder, root).encode()
            tensors |= {
                "files.folder": torch.tensor(list(below), dtype=torch.uint8),
                "files.crop": torch.tensor(train.files.crop or 0),
                "files.text": torch.from_numpy(np.array(train.files.text)),
            }
    for name, split in zip(_SPLITS, _splits(loaded.resident), strict=True):
        if split is not None:
            tensors |= {f"{name}.{kind}": tensor for kind, tensor in _tensors_of(split).items()}
    for name, groups in loaded.resident.sensitive_features.items():
        tensors[f"train.members.{name}"] = torch.from_numpy(groups.membership_NG)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / _TENSORS)
    write_samples(open_store(folder), loaded.dataset_id, loaded.samples)


def _mapped(folder: Path, root: Path, dataset_id: str, loader: Loader) -> LoadedData:
    """The tensors of the file. A page is in memory once for all processes; whoever wrote to it would get a page of his own."""
    tensors = load_file(folder / _TENSORS)
    samples = read_samples(open_store(folder), dataset_id)
    train, test, validation = (_split(name, tensors, root, loader) for name in _SPLITS)
    assert samples is not None
    assert train is not None
    assert test is not None
    pairs: Callable[[], Pairs] = lambda: _pairs_from(tensors)  # noqa: E731
    if isinstance(test, ResidentSplit) and test.is_streamed:
        mean, std = tensors["mean"].tolist(), tensors["std"].tolist()
        pairs = _StreamedPairs(folder=folder, test=test, mean=mean, std=std)
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
        read_pairs=pairs,
        samples=samples,
    )


def _tensors_of(split: Resident) -> dict[str, Tensor]:
    match split:
        case ResidentSplit(files=None):
            return {"images": split.images_NHWC, "labels": split.labels_N}
        case ResidentSplit(files=ImageFiles() as files):
            places = {"starts": torch.from_numpy(files.starts_N), "ends": torch.from_numpy(files.ends_N)}
            return {"images": split.images_NHWC, "labels": split.labels_N, **places}
        case ResidentRows():
            return {"rows": split.values_NF, "labels": split.labels_N}
        case ResidentTexts():
            return {"ids": split.ids_NL, "lengths": split.lengths_N, "labels": split.labels_N}
        case _:
            raise AssertionError(split)


def _split(name: str, tensors: dict[str, Tensor], root: Path, loader: Loader) -> Resident | None:
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
    files = None
    if "files.text" in tensors:
        files = ImageFiles(
            folder=Path(os.path.normpath(root / bytes(tensors["files.folder"].tolist()).decode())),
            crop=int(tensors["files.crop"]) or None,
            text=tensors["files.text"].numpy(),
            starts_N=tensors[f"{name}.starts"].numpy(),
            ends_N=tensors[f"{name}.ends"].numpy(),
        )
    return ResidentSplit(
        images_NHWC=tensors[f"{name}.images"],
        labels_N=tensors[f"{name}.labels"],
        scale_C=tensors["scale"],
        shift_C=tensors["shift"],
        files=files,
        loader=loader,
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
