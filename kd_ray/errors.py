"""The one exception tree.

    KdRayError
    ├── InvalidInputError        bad sweep file, --set, data set, store URL or SQL: the user must change something (exit code 2)
    │   ├── SweepError           a field of a sweep file
    │   ├── DataError            a data set that is missing, damaged or not the one named
    │   └── QueryError           SQL that DuckDB refuses, or a table that does not exist
    ├── StoreError               the store cannot be used as asked (unreachable, read-only, full)
    │   ├── CacheError           a folder below `data_root` cannot be made: full, or not writable
    │   ├── CorruptObjectError   an object whose content does not match its checksum or its schema
    │   └── OtherVersionError    a whole object in the form of another version of kd_ray
    ├── MirrorError              a service that trials are copied to does not take them
    └── TrialError               a trial that cannot go on
        ├── NonFiniteLossError   its loss became NaN or infinite
        ├── OutOfMemoryError     out of memory in this pack; the trial may fit alone
        └── LostTeacherError     its teacher is not in the store as it was committed

Messages say what was wrong, the value, where it stood, and the valid choices. Library code neither prints nor exits; `cli/` turns these
into exit codes.
"""

from collections.abc import Sequence


class KdRayError(Exception):
    """Anything kd_ray raises on purpose."""


class InvalidInputError(KdRayError):
    """Something the user gave cannot be used as it is."""


class SweepError(InvalidInputError):
    """A sweep file, or a `--set` of it, is not valid."""


class DataError(InvalidInputError):
    """A data set is missing, damaged, or not the one the sweep names."""


class QueryError(InvalidInputError):
    """A query or a table name cannot be answered."""


class StoreError(KdRayError):
    """The store cannot be reached, read or written."""


class CacheError(StoreError):
    """A folder that a node makes once, below `data_root`, cannot be made: the disk is full or not writable. No trial is to blame."""


class CorruptObjectError(StoreError):
    """An object in the store is not what was written."""


class OtherVersionError(StoreError):
    """An object in the store is whole, but another version of kd_ray wrote it. Nothing is damaged."""


class MirrorError(KdRayError):
    """A service that trials are copied to failed."""


class TrialError(KdRayError):
    """A trial cannot go on; the others can."""


class NonFiniteLossError(TrialError):
    """The training loss became NaN or infinite."""


class OutOfMemoryError(TrialError):
    """Out of memory, on the host or on its device, in this pack. The trial may fit alone."""


class LostTeacherError(TrialError):
    """A teacher's record or weights are missing or damaged: the teacher has to be trained again; the student did not cause it."""

    def __init__(self, teacher: str, reason: str) -> None:
        super().__init__(f"teacher {teacher}: {reason}")
        self.teacher = teacher
        """trial_id of the teacher."""


def count_of(number: int, noun: str) -> str:
    """`1 row`, `2 rows`, `1,000 rows`, `2 classes`."""
    return f"{number:,} {noun}{'' if number == 1 else 'es' if noun.endswith('ss') else 's'}"


def some(names: Sequence[str]) -> str:
    """For messages: the first five, and how many more."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")
