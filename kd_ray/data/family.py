"""What a family of data sets has to offer. Each module of a family ends with its `Family`; `families.py` has the dict of all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from kd_ray.data.modalities import Data

OnProgress = Callable[[int, int], None]
"""Called with (done, total) while something is made that takes long."""
OnBytes = Callable[[str, int, int], None]
"""Called with (file name, bytes there, bytes in all) while a file is fetched."""
D = TypeVar("D")
"""The settings of the family, a model of `sweep/datasets.py`."""


@dataclass(frozen=True, kw_only=True)
class Loading:
    """Where the files of a data set are and how they are read. Nothing of it is part of an identity."""

    root: Path
    """The data root."""
    processes: int = 1
    """Processes or threads that draw or decode images."""
    on_progress: OnProgress | None = None
    resident_bytes: int | None = None
    """Images in files of their own that would take more memory stay in their files; None: no limit."""


@dataclass(frozen=True, kw_only=True)
class Family(Generic[D]):
    """The functions of one family. All of them raise DataError for files that are missing, damaged or cannot be used."""

    load: Callable[[D, Loading], Data]
    """The samples in their splits, before `long_tail`, a random validation split and the standardisation of rows. Raises DataError also
    for files that are not the version of the settings."""
    fingerprint: Callable[[D, Loading], str | None]
    """The `dataset.version` that names exactly the files that are there; None for a set that is generated."""
    files: Callable[[D, Path], Sequence[str]] | None = None
    """The files of the set, below the data root, where they are not those of `Classification.files` with all in their folders."""
    can_stream: bool = False
    """Whether images can stay in their files."""
    fetch: Callable[[D, Path, OnBytes | None], None] = lambda settings, root, on_bytes: None
    """Fetches the missing original files to below the data root, where that is allowed."""
    advice: Callable[[D, Path], str | None] = lambda settings, root: None
    """Which files to put where, if the set may not be fetched or need not be; None for the other sets."""
