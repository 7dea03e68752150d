"""The Trifeature data set: 10 shapes × 10 textures × 10 colors, generated, kept on disk, and split at random.

`trifeature_drawing` draws one image. Every image has its own random stream, so a set does not depend on how many
processes drew it, nor on how many images follow. A cached set is

    <root>/trifeature/<key>/   images.npy  codes.npy  checksums.json

It appears whole or not at all, is checked against its checksums whenever it is loaded, and is drawn again when it is damaged.
"""

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kd_ray.data.cache import cached, is_whole
from kd_ray.data.family import Family, Loading, OnProgress
from kd_ray.data.image_data import ImageData, Split, random_parts
from kd_ray.data.trifeature_drawing import CANVAS, COLORS, GENERATOR_VERSION, SHAPES, TEXTURES, render
from kd_ray.errors import DataError
from kd_ray.groups import Groups
from kd_ray.seeding import stream
from kd_ray.sweep.datasets import TrifeatureDataset

__all__ = [
    "COLORS",
    "FEATURES",
    "GENERATOR_VERSION",
    "NUM_COMBINATIONS",
    "SHAPES",
    "TEXTURES",
    "generate",
    "load",
    "render",
]

FEATURES = {"shape": SHAPES, "texture": TEXTURES, "color": COLORS}
"""Feature → names of its values, in the order of the columns of the codes."""
NUM_COMBINATIONS = len(SHAPES) * len(TEXTURES) * len(COLORS)
MEAN, STD = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)
"""Normalisation: ours, round numbers. The mean is exactly the grey of the background."""

_NO_GUARD = 'several processes draw the images, so a script that uses kd_ray needs `if __name__ == "__main__":` around what it does'
_FILES = _IMAGES, _CODES = "images.npy", "codes.npy"
_CHUNK = 64
_Images = npt.NDArray[np.uint8]
_Codes = npt.NDArray[np.int16]


@dataclass(frozen=True, kw_only=True)
class _Parameters:
    """The parameters that determine the images. Raises DataError for a value out of range."""

    size: int
    images_per_combination: int
    seed: int

    def __post_init__(self) -> None:
        if not 1 <= self.size <= CANVAS:
            raise DataError(f"trifeature: size is {self.size}, expected 1..{CANVAS}")
        if self.images_per_combination < 1:
            raise DataError(f"trifeature: images_per_combination is {self.images_per_combination}, expected at least 1")

    @property
    def num_images(self) -> int:
        return NUM_COMBINATIONS * self.images_per_combination

    @property
    def key(self) -> str:
        return f"v{GENERATOR_VERSION}-size{self.size}-per{self.images_per_combination}-seed{self.seed}"

    def describe(self) -> dict[str, int]:
        return {"size": self.size, "images_per_combination": self.images_per_combination, "seed": self.seed}


def generate(
    *,
    size: int,
    images_per_combination: int,
    seed: int,
    processes: int = 1,
    on_progress: OnProgress | None = None,
    out: _Images | None = None,
) -> tuple[_Images, _Codes]:
    """(images, codes) of all combinations: image i of combination c stands at c × images_per_combination + i.

    codes has one column for each of `FEATURES`; combination = 100 shape + 10 texture + color. `on_progress` is called with the number of
    images drawn and their total. `out` (N × size × size × 3) receives the images where they should not lie in memory.
    Several processes are spawned, so the calling script needs an `if __name__ == "__main__"` guard.

    Raises DataError for a parameter out of range.
    """
    parameters = _Parameters(size=size, images_per_combination=images_per_combination, seed=seed)
    if processes < 1:
        raise DataError(f"trifeature: processes is {processes}, expected at least 1")
    total = parameters.num_images
    images_NHWC = np.empty((total, size, size, 3), dtype=np.uint8) if out is None else out
    done = 0
    for chunk_MHWC in _chunks(parameters, processes):
        images_NHWC[done : done + len(chunk_MHWC)] = chunk_MHWC
        done += len(chunk_MHWC)
        if on_progress is not None:
            on_progress(done, total)
    return images_NHWC, _codes(np.arange(total) // images_per_combination)


def _codes(combinations_N: npt.NDArray[np.int64]) -> _Codes:
    return np.stack(np.unravel_index(combinations_N, [len(names) for names in FEATURES.values()]), axis=1).astype(
        np.int16
    )


def _chunks(parameters: _Parameters, processes: int) -> Iterator[_Images]:
    """The images in order, a chunk at a time."""
    tasks = [(parameters, first) for first in range(0, parameters.num_images, _CHUNK)]
    if processes == 1:
        yield from map(_draw_chunk, tasks)
        return
    with ProcessPoolExecutor(min(processes, len(tasks)), mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield from pool.map(_draw_chunk, tasks)
        except BrokenProcessPool as error:
            raise DataError(
                f"trifeature: a process that draws images died. If that happens at once: {_NO_GUARD}"
            ) from error


def _draw_chunk(task: tuple[_Parameters, int]) -> _Images:
    parameters, first = task
    drawn = []
    for n in range(first, min(first + _CHUNK, parameters.num_images)):
        combination, i = divmod(n, parameters.images_per_combination)
        shape, texture, color = _codes(np.array([combination]))[0]
        rng = stream(parameters.seed, "trifeature", combination, i)
        drawn.append(render(SHAPES[shape], TEXTURES[texture], COLORS[color], size=parameters.size, rng=rng))
    return np.stack(drawn)


def load(dataset: TrifeatureDataset, loading: Loading) -> ImageData:
    """The set, split; it is drawn unless the data root has it.

    The split is plain random, not stratified: it follows the seed, the fraction and the number of images alone. The label is the
    `target` (one of `FEATURES`); the other two are sensitive features. Any number of processes may call this at once: one draws.

    Raises DataError for an unknown target or a parameter out of range.
    """
    target = dataset.target
    if target not in FEATURES:
        raise DataError(f"trifeature: target is {target!r}, expected one of {', '.join(FEATURES)}")
    parameters = _Parameters(
        size=dataset.size, images_per_combination=dataset.images_per_combination, seed=dataset.generator_seed
    )
    try:
        rng = stream(dataset.split_seed, "split")
        rest_N, test_M = random_parts(parameters.num_images, fraction=dataset.test_fraction, rng=rng)
    except ValueError as error:
        raise DataError(f"trifeature: test_fraction: {error}") from error
    folder = _prepared(parameters, loading)
    images_NHWC = np.load(folder / _IMAGES, mmap_mode="r")
    codes_NF = np.load(folder / _CODES)
    column = {name: codes_NF[:, f] for f, name in enumerate(FEATURES)}
    others = {name: Groups.from_codes(column[name], FEATURES[name]) for name in FEATURES if name != target}
    everything = Split(images_NHWC=images_NHWC, labels_N=column[target].astype(np.int64), sensitive_features=others)
    return ImageData(
        train=everything.take(rest_N),
        test=everything.take(test_M),
        class_names=FEATURES[target],
        mean=MEAN,
        std=STD,
        test_ids=[str(n) for n in test_M],
        train_ids=[str(n) for n in rest_N],
    )


def _prepared(parameters: _Parameters, loading: Loading) -> Path:
    """The folder with the images, whole and verified."""
    folder = loading.root / "trifeature" / parameters.key
    facts = {"generator_version": GENERATOR_VERSION, "parameters": parameters.describe()}
    if getattr(multiprocessing.current_process(), "_inheriting", False) and not is_whole(folder, _FILES, facts):
        # This is a spawned process that runs the calling script again. It would wait for the lock of its parent, which waits for it.
        raise DataError(_NO_GUARD)

    def draw(partial: Path) -> None:
        shape = (parameters.num_images, parameters.size, parameters.size, 3)
        images_NHWC = np.lib.format.open_memmap(partial / _IMAGES, mode="w+", dtype=np.uint8, shape=shape)
        _, codes_NF = generate(
            **parameters.describe(), processes=loading.processes, on_progress=loading.on_progress, out=images_NHWC
        )
        images_NHWC.flush()
        np.save(partial / _CODES, codes_NF)

    cached(folder, _FILES, facts, draw)
    return folder


FAMILY = Family[TrifeatureDataset](load=load, fingerprint=lambda dataset, loading: None)
