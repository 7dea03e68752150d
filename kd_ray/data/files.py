"""Paths of images that stay in their files, in few bytes of memory for each.

A million Python strings would take more memory than the batches of a training run. So all names are joined in one array, which the workers
of a node can map from a file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kd_ray.errors import DataError


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageFiles:
    """N image files below a folder."""

    folder: Path
    crop: int | None
    """Largest side of the central square that is used of each image, in pixels; None for the whole image."""
    text: npt.NDArray[np.uint8]
    """UTF-8 of the names, one after another."""
    starts_N: npt.NDArray[np.int64]
    """Where in `text` a name begins."""
    ends_N: npt.NDArray[np.int64]
    """Where it ends."""

    @classmethod
    def of(cls, folder: Path, names: Sequence[str], *, crop: int | None = None) -> "ImageFiles":
        """Files by their paths below the folder."""
        encoded = [name.encode() for name in names]
        ends_N = np.cumsum([len(name) for name in encoded], dtype=np.int64)
        return cls(
            folder=folder,
            crop=crop,
            text=np.frombuffer(b"".join(encoded), dtype=np.uint8),
            starts_N=np.concatenate([np.zeros(1, dtype=np.int64), ends_N[:-1]]),
            ends_N=ends_N,
        )

    def __len__(self) -> int:
        """Number of files N."""
        return len(self.starts_N)

    def name(self, n: int) -> str:
        """Path of file n below the folder."""
        return self.text[self.starts_N[n] : self.ends_N[n]].tobytes().decode()

    def names(self) -> list[str]:
        """Paths of all files below the folder."""
        return [self.name(n) for n in range(len(self))]

    def read(self, n: int) -> bytes:
        """Contents of file n. Raises DataError when it cannot be read."""
        try:
            return (self.folder / self.name(n)).read_bytes()
        except OSError as error:
            raise DataError(f"{self.folder / self.name(n)} cannot be read: {error.strerror}") from error

    def take(self, indices_M: npt.NDArray[np.integer]) -> "ImageFiles":
        """The files at `indices_M`, in that order."""
        return replace(self, starts_N=self.starts_N[indices_M], ends_N=self.ends_N[indices_M])
