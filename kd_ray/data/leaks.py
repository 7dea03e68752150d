"""Samples that stand in two splits: a network may have learned them by heart, so that its test accuracy says too much.

Compared are the inputs as networks get them: pixels at the size of the sweep, standardised rows, tokens. So a copy of an image under
another name, a row that occurs twice, or texts that differ in what the tokenizer ignores are found. Images that are streamed are not read.
"""

import hashlib
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt

from kd_ray.data.image_data import Split
from kd_ray.data.modalities import Data
from kd_ray.data.row_data import RowSplit
from kd_ray.data.text_data import TextSplit

_Indices = npt.NDArray[np.intp]

_SIDE = 8
"""Side of the thumbnails that are compared, in pixels."""
_CHUNK = 1024
_BANDS = 4
"""A pair is looked at if one of the 4 quarters of the 64 bits of its images is the same."""
_MOST_IN_BUCKET = 64
_MOST_BITS = 6
_MOST_DIFFERENCE = 0.15
"""Mean difference of thumbnails, as a share of the contrast of one, up to which two images are nearly equal. JPEG of quality 85 makes
up to 0.14 of images of strong colors, less of photographs."""
_MOST_DIFFERENCE_OF_PIXELS = 0.17
"""The same for all pixels: drawn images that differ in a small shape have nearly equal thumbnails. Of copies compressed with JPEG of
quality 85, 87 to 100 % of photographs are found at this value; of random splits of drawn images, 0.3 % are."""
_LEAST_CONTRAST = 4.0
"""Standard deviation of the greys of a thumbnail from which its bits mean something."""


@dataclass(frozen=True, kw_only=True)
class Leak:
    """Samples of one split that another split has, too."""

    split: str
    """`test` or `validation`."""
    other: str
    """`train` or `validation`."""
    n: int
    """Samples of `split`."""
    num_equal: int
    """Those whose inputs equal those of a sample of `other`."""
    num_near: int | None
    """Further ones whose image is nearly one of `other`; None where that was not looked for."""

    def sentence(self, samples: str) -> str:
        """`12 of 100 test images are also in train, 3 more nearly`."""
        near = f", {self.num_near:,} more nearly" if self.num_near else ""
        return f"{self.num_equal:,} of {self.n:,} {self.split} {samples} are also in {self.other}{near}"


def find_leaks(data: Data, *, with_near: bool) -> tuple[Leak, ...]:
    """The pairs of splits that share samples; nearly equal images only where `with_near` asks for them."""
    splits = {"test": data.test, "validation": data.validation, "train": data.train}
    inputs = {
        name: found for name, split in splits.items() if split is not None and (found := _inputs(split)) is not None
    }
    digests = {name: _digests(found) for name, found in inputs.items()}
    has_near = with_near and data.modality == "images"
    thumbnails = {name: _thumbnails(found) for name, found in inputs.items()} if has_near else {}
    leaks = []
    for split, other in combinations(inputs, 2):
        known = set(digests[other])
        is_equal_N = np.array([digest in known for digest in digests[split]], dtype=np.bool_)
        near = None
        if thumbnails:
            alike = _alike(thumbnails[split], thumbnails[other])
            is_near_N = _is_near(inputs[split], inputs[other], *alike)
            near = int((is_near_N & ~is_equal_N).sum())
        leak = Leak(split=split, other=other, n=len(is_equal_N), num_equal=int(is_equal_N.sum()), num_near=near)
        if leak.num_equal or leak.num_near:
            leaks.append(leak)
    return tuple(leaks)


def _inputs(split: Split | RowSplit | TextSplit) -> npt.NDArray[np.generic] | None:
    """An array whose first axis is the samples; None for images that are streamed."""
    match split:
        case TextSplit():
            return split.ids_NL
        case RowSplit():
            return split.values_NF + 0.0  # -0.0 and 0.0 are the same number
        case _:
            return None if split.is_streamed else split.images_NHWC


def _digests(inputs: npt.NDArray[np.generic]) -> list[bytes]:
    return [hashlib.blake2b(np.ascontiguousarray(each).tobytes(), digest_size=16).digest() for each in inputs]


def _thumbnails(images_NHWC: npt.NDArray[np.generic]) -> npt.NDArray[np.float32]:
    """(N, 8, 8, 3): the mean of each of 8 × 8 parts."""
    chunks = [np.zeros((0, _SIDE, _SIDE, 3), dtype=np.float32)]
    for start in range(0, len(images_NHWC), _CHUNK):
        images = np.asarray(images_NHWC[start : start + _CHUNK], dtype=np.float32)
        for axis in (1, 2):
            edges = np.arange(_SIDE + 1) * images.shape[axis] // _SIDE
            shape = [1, 1, 1, 1]
            shape[axis] = _SIDE
            images = np.add.reduceat(images, edges[:-1], axis=axis) / np.diff(edges).reshape(shape)
        chunks.append(images.astype(np.float32))
    return np.concatenate(chunks)


def _alike(one: npt.NDArray[np.float32], other: npt.NDArray[np.float32]) -> tuple[_Indices, _Indices]:
    """Pairs (n, m) of images of `one` and `other` whose thumbnails are nearly equal."""
    found_n, found_m = [np.zeros(0, dtype=np.intp)], [np.zeros(0, dtype=np.intp)]
    bits_N, bits_M = _bits(one), _bits(other)
    if not len(bits_N) or not len(bits_M):
        return found_n[0], found_m[0]
    contrast_N = one.mean(axis=3).std(axis=(1, 2))
    for band in range(_BANDS):
        part_N, part_M = (
            np.packbits(bits[:, band * 16 : band * 16 + 16], axis=1).view(np.uint16).ravel()
            for bits in (bits_N, bits_M)
        )
        order_M = np.argsort(part_M, kind="stable")
        first_N = np.searchsorted(part_M[order_M], part_N)
        count_N = np.minimum(np.searchsorted(part_M[order_M], part_N, side="right") - first_N, _MOST_IN_BUCKET)
        count_N = np.where(contrast_N >= _LEAST_CONTRAST, count_N, 0)
        n_K = np.repeat(np.arange(len(one)), count_N)
        m_K = order_M[np.repeat(first_N - np.cumsum(count_N) + count_N, count_N) + np.arange(len(n_K))]
        for start in range(0, len(n_K), _CHUNK * 64):
            n, m = n_K[start : start + _CHUNK * 64], m_K[start : start + _CHUNK * 64]
            alike = (bits_N[n] != bits_M[m]).sum(axis=1) <= _MOST_BITS
            n, m = n[alike], m[alike]
            alike = np.abs(one[n] - other[m]).mean(axis=(1, 2, 3)) <= _MOST_DIFFERENCE * contrast_N[n]
            found_n.append(n[alike])
            found_m.append(m[alike])
    return np.concatenate(found_n), np.concatenate(found_m)


def _is_near(
    one: npt.NDArray[np.generic], other: npt.NDArray[np.generic], n_K: _Indices, m_K: _Indices
) -> npt.NDArray[np.bool_]:
    """(N,): whether an image of `one` is nearly an image of `other`, of the K pairs that look alike."""
    is_near_N = np.zeros(len(one), dtype=np.bool_)
    for start in range(0, len(n_K), _CHUNK):
        n, m = n_K[start : start + _CHUNK], m_K[start : start + _CHUNK]
        images, others = one[n].astype(np.float32), other[m].astype(np.float32)
        contrast = images.mean(axis=3).std(axis=(1, 2))
        difference = np.abs(images - others).mean(axis=(1, 2, 3))
        is_near_N[n[difference <= _MOST_DIFFERENCE_OF_PIXELS * contrast]] = True
    return is_near_N


def _bits(thumbnails: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """(N, 64): which parts are lighter than the middle one."""
    grey_NP = thumbnails.mean(axis=3).reshape(len(thumbnails), _SIDE**2)
    return np.asarray(grey_NP > np.median(grey_NP, axis=1, keepdims=True))
