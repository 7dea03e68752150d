"""What the rows of a sweep need besides its records, as the manifest keeps it."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from kd_ray.sweep.datasets import Dataset


@dataclass(frozen=True, kw_only=True)
class AddedFeatures:
    """A table of groups that was added to a finished sweep."""

    digest: str
    """16 hex digits of its content."""
    features: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RowSettings:
    """What the rows of a trial need besides its record: the sweep, and the groups that it compares."""

    sweep: str
    sensitive_features: tuple[str, ...] = ()
    intersections: tuple[tuple[str, ...], ...] = ()
    least_joint_groups: Mapping[str, int] = field(default_factory=dict)
    """Test samples that a joint group needs to be compared, by dataset_id; of the others, a trial's own record says it."""
    added: tuple[AddedFeatures, ...] = ()
    """Tables whose features are joined to the samples; later ones win."""

    def least_joint_group(self, dataset: "Dataset", dataset_id: str) -> int:
        """For a trial whose record names `dataset`, and whose samples have `dataset_id`."""
        return self.least_joint_groups.get(dataset_id, dataset.least_joint_group)
