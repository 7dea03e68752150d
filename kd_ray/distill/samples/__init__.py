"""The kinds of sample, and a data set of any kind on the training device.

kind.py              the Protocols that a kind fulfils
resident_images.py   images
resident_rows.py     rows of numbers
resident_texts.py    texts
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from kd_ray.data.modalities import Data
from kd_ray.distill.image_loader import Loader
from kd_ray.distill.samples.kind import Resident, SampleKind
from kd_ray.distill.samples.resident_images import ImageKind
from kd_ray.distill.samples.resident_rows import RowKind
from kd_ray.distill.samples.resident_texts import TextKind
from kd_ray.groups import Groups
from kd_ray.sweep.classification import Modality

SAMPLE_KINDS: dict[Modality, SampleKind[Any, Any, Any]] = {
    "images": ImageKind(),
    "rows": RowKind(),
    "texts": TextKind(),
}


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidentData:
    """A data set on the training device."""

    train: Resident
    test: Resident
    validation: Resident | None
    num_classes: int
    sensitive_features: Mapping[str, Groups] = field(default_factory=dict)
    """Groups of the training samples, by feature; on the CPU."""

    def splits(self) -> dict[str, Resident]:
        """The splits that there are, by name."""
        found = {"train": self.train, "test": self.test}
        return found if self.validation is None else {**found, "validation": self.validation}


def to_device(data: Data, device: torch.device, *, loader: Loader | None = None) -> ResidentData:
    """Copy a data set to the training device; the loader decodes images that stay in their files."""
    kind, loader = SAMPLE_KINDS[data.modality], loader or Loader()
    return ResidentData(
        train=kind.resident(data, data.train, device, loader),
        test=kind.resident(data, data.test, device, loader),
        validation=None if data.validation is None else kind.resident(data, data.validation, device, loader),
        num_classes=len(data.class_names),
        sensitive_features=data.train.sensitive_features,
    )
