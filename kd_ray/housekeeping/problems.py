"""What `verify` reports: problems of a store, and the remedy for each."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

Progress = Callable[[str, int, int], None]
"""Called with what is being read or repaired, how many are done, and how many there are."""


class Remedy(StrEnum):
    """How `repair` mends a problem."""

    TRAIN = "train again"
    """Move the record into quarantine."""
    QUARANTINE = "quarantine"
    """Move the object itself into quarantine."""
    REBUILD = "rebuild"
    """Aggregate the tables of the sweep again."""
    RESTORE = "restore"
    """Write the sweep file again, from the manifest."""
    NONE = "none"
    """A person has to decide."""


@dataclass(frozen=True, kw_only=True)
class Problem:
    """An object that is not what it should be."""

    key: str
    what: str
    remedy: Remedy
    owner: str = ""
    """The trial that is trained again, or the sweep whose tables are rebuilt."""


@dataclass(frozen=True, kw_only=True)
class VerifyReport:
    """What was checked, and what was found."""

    store: str
    asked: tuple[str, ...]
    """The sweep that was asked for; empty for the whole store."""
    sweeps: tuple[str, ...]
    num_records: int
    num_checked: int
    """Objects that were read, records and their weights included."""
    problems: tuple[Problem, ...]
    num_quarantined: int
    """Objects that were in quarantine before."""
    strangers: tuple[str, ...] = ()
    """Keys that kd_ray does not write; they are ignored, and no problem."""

    def to_dict(self) -> dict[str, Any]:
        """For `--json`; the number of quarantined objects also has the name that it had before."""
        return {**asdict(self), "num_set_aside": self.num_quarantined}
