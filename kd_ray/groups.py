"""Groups of samples: data sets provide them, the store keeps them, and the fairness metrics compare them.

Membership is many-to-many: a post can target two communities, or none. A feature with one group per sample is the common special case.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True, kw_only=True, eq=False)
class Groups:
    """The groups of one sensitive feature over N samples.

    Raises ValueError when the shapes do not match or a group is named twice.
    """

    names: tuple[str, ...]
    """Names of the G groups, in a fixed order."""
    membership_NG: npt.NDArray[np.bool_]
    """True where sample n belongs to group g."""

    def __post_init__(self) -> None:
        if self.membership_NG.ndim != 2 or self.membership_NG.shape[1] != len(self.names):
            raise ValueError(f"membership has shape {self.membership_NG.shape}, expected (N, {len(self.names)})")
        if self.membership_NG.dtype != np.bool_:
            raise ValueError(f"membership has dtype {self.membership_NG.dtype}, expected bool")
        if len(set(self.names)) != len(self.names):
            raise ValueError(f"group names repeat: {self.names}")

    @classmethod
    def from_codes(cls, codes_N: npt.NDArray[np.integer], names: Sequence[str]) -> "Groups":
        """One group per sample, given as an index into `names`; a negative index means no group."""
        return cls(names=tuple(names), membership_NG=codes_N[:, None] == np.arange(len(names))[None, :])

    @classmethod
    def from_lists(cls, groups_N: Sequence[Sequence[str]], names: Sequence[str]) -> "Groups":
        """Each sample's list of group names, as the samples table keeps them."""
        index = {name: g for g, name in enumerate(names)}
        membership_NG = np.zeros((len(groups_N), len(names)), dtype=np.bool_)
        for n, groups in enumerate(groups_N):
            for group in groups:
                membership_NG[n, index[group]] = True
        return cls(names=tuple(names), membership_NG=membership_NG)

    def to_lists(self) -> list[list[str]]:
        """Each sample's group names, in the order of `names`."""
        return [[self.names[g] for g in np.flatnonzero(row_G)] for row_G in self.membership_NG]

    def take(self, indices_M: npt.NDArray[np.integer]) -> "Groups":
        """The groups of the samples at `indices_M`, in that order, copied."""
        return Groups(names=self.names, membership_NG=self.membership_NG[indices_M])

    def only(self, chosen_H: npt.NDArray[np.integer]) -> "Groups":
        """Some of the groups, in that order; the samples stay."""
        return Groups(names=tuple(self.names[g] for g in chosen_H), membership_NG=self.membership_NG[:, chosen_H])

    def __len__(self) -> int:
        """Number of samples N."""
        return int(self.membership_NG.shape[0])


def joint_name(parts: Sequence[str]) -> str:
    """The name of a joint group or feature: "red & dots". Parts with a `&` are quoted, so different parts never give the same name."""
    quote = '"'
    needs_quotes = [("&" in part or part.startswith(quote)) and len(parts) > 1 for part in parts]
    quoted = [quote + part.replace(quote, 2 * quote) + quote for part in parts]
    return " & ".join(quoted[n] if needs_quotes[n] else part for n, part in enumerate(parts))


def intersect(features: Sequence[Groups], *, least: int = 1) -> Groups:
    """Groups of samples that share one group in every feature, by `joint_name`.

    Joint groups with fewer than `least` members are left out; at 1, empty ones are kept, with no members.
    """
    if not features:
        raise ValueError("intersect needs at least one feature")
    parts: list[tuple[str, ...]] = [(name,) for name in features[0].names]
    membership_NG = features[0].membership_NG
    for other in features[1:]:
        parts = [(*before, name) for before in parts for name in other.names]
        product_NGH = membership_NG[:, :, None] & other.membership_NG[:, None, :]
        membership_NG = product_NGH.reshape(len(other), -1)
    joint = Groups(names=tuple(map(joint_name, parts)), membership_NG=membership_NG)
    return joint if least <= 1 else joint.only(np.flatnonzero(membership_NG.sum(axis=0) >= least))
