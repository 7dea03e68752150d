"""Trifeature: generated once per node, cached with checksums, split at random.

`trifeature_drawing.py` draws one image; this module makes the set, keeps it, and turns it into splits with labels and groups.
"""

import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt
from filelock import FileLock

from kd_ray.data.images import ImageData, Split, random_parts
from kd_ray.data.trifeature_drawing import COLORS, GENERATOR_VERSION, SHAPES, TEXTURES, render
from kd_ray.errors import DataError
from kd_ray.groups import Groups
from kd_ray.seeding import stream

FEATURES = {"shape": SHAPES, "texture": TEXTURES, "color": COLORS}
"""Values of each feature, in the order of the codes."""

NORMALISATION = (0.5, 0.25)
"""Mean and standard deviation per channel, for pixels in 0..1; round numbers of ours, grey becomes 0."""

_FILES = ("images.npy", "codes.npy")
_CHUNK = 250

OnProgress = Callable[[int, int], None]
Images = npt.NDArray[np.uint8]
Codes = npt.NDArray[np.int16]

logger = logging.getLogger("kd_ray.data")


def load(
    *,
    root: Path,
    size: int,
    images_per_combination: int,
    generator_seed: int,
    split_seed: int,
    test_fraction: float,
    target: str,
    processes: int = 1,
    on_progress: OnProgress | None = None,
) -> ImageData:
    """The set in a plain random split of fixed seed: label gaps between groups exist, as in the paper (protocol: not stratified).

    The features that are not the target are sensitive features. Generated into `<root>/trifeature` when it is not there yet; one process
    of a node generates, others wait.

    Raises:
        DataError: the cache cannot be written.
    """
    images_NHWC, codes_N3 = cached(
        root=root,
        size=size,
        images_per_combination=images_per_combination,
        seed=generator_seed,
        processes=processes,
        on_progress=on_progress,
    )
    train_N, test_N = random_parts(len(codes_N3), fraction=test_fraction, rng=stream(split_seed, "split"))
    mean, std = NORMALISATION

    def split(indices_N: npt.NDArray[np.int64]) -> Split:
        columns = dict(zip(FEATURES, codes_N3[indices_N].astype(np.int64).T, strict=True))
        return Split(
            images_NHWC=np.asarray(images_NHWC[indices_N]),
            labels_N=columns.pop(target),
            sensitive_features={name: Groups.from_codes(codes_N, FEATURES[name]) for name, codes_N in columns.items()},
        )

    return ImageData(
        train=split(train_N), test=split(test_N), class_names=FEATURES[target], mean=(mean,) * 3, std=(std,) * 3
    )


def cached(
    *, root: Path, size: int, images_per_combination: int, seed: int, processes: int, on_progress: OnProgress | None = None
) -> tuple[Images, Codes]:
    """Images (memory-mapped) and codes from the cache, generated into it when they are missing or damaged."""
    key = f"v{GENERATOR_VERSION}-{size}px-{images_per_combination}each-seed{seed}"
    folder = root / "trifeature" / key
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not _is_whole(folder):
                images, codes = generate(
                    size=size,
                    images_per_combination=images_per_combination,
                    seed=seed,
                    processes=processes,
                    on_progress=on_progress,
                )
                _write(folder, images, codes)
    except OSError as error:
        raise DataError(f"trifeature: cannot keep the generated images in {folder}: {error}") from error
    return np.load(folder / _FILES[0], mmap_mode="r"), np.load(folder / _FILES[1])


def _is_whole(folder: Path) -> bool:
    """Whether the cached files are there and match their checksums; damaged ones are set aside."""
    if not folder.exists():
        return False
    try:
        checksums = json.loads((folder / "checksums.json").read_text())
        whole = all(checksums[name] == _digest(folder / name) for name in _FILES)
    except (OSError, ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        aside = Path(tempfile.mkdtemp(prefix=f"{folder.name}.damaged-", dir=folder.parent)) / folder.name
        folder.rename(aside)
        logger.warning("the generated images in %s are damaged; they are set aside as %s and made anew", folder, aside)
    return whole


def _write(folder: Path, images_NHWC: Images, codes_N3: Codes) -> None:
    """Put the cache into place in one step."""
    temporary = Path(tempfile.mkdtemp(prefix=f"{folder.name}.part-", dir=folder.parent))
    try:
        for name, array in zip(_FILES, (images_NHWC, codes_N3), strict=True):
            np.save(temporary / name, array)
        checksums = {name: _digest(temporary / name) for name in _FILES}
        (temporary / "checksums.json").write_text(json.dumps(checksums, indent=1))
        os.replace(temporary, folder)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def _digest(path: Path) -> str:
    with path.open("rb") as stream_:
        return hashlib.file_digest(stream_, "sha256").hexdigest()


def generate(
    *, size: int, images_per_combination: int, seed: int, processes: int = 1, on_progress: OnProgress | None = None
) -> tuple[Images, Codes]:
    """All 1,000 combinations, `images_per_combination` each: uint8 images (N, size, size, 3) and codes (N, 3) of shape, texture, color.

    Every image draws from its own stream, so the result does not depend on the number of processes.
    """
    count = 1000 * images_per_combination
    numbers = np.arange(count) // images_per_combination
    codes_N3 = np.stack([numbers // 100, numbers // 10 % 10, numbers % 10], axis=1).astype(np.int16)
    images_NHWC = np.empty((count, size, size, 3), dtype=np.uint8)
    done = 0
    for start, chunk in _chunks(count, images_per_combination, size, seed, processes):
        images_NHWC[start : start + len(chunk)] = chunk
        done += len(chunk)
        if on_progress:
            on_progress(done, count)
    return images_NHWC, codes_N3


def _chunks(count: int, each: int, size: int, seed: int, processes: int) -> Iterator[tuple[int, Images]]:
    starts = range(0, count, _CHUNK)
    if processes == 1:
        for start in starts:
            yield start, _render_chunk(start, min(start + _CHUNK, count), each, size, seed)
        return
    with _pool(processes) as pool:
        jobs = {pool.submit(_render_chunk, start, min(start + _CHUNK, count), each, size, seed): start for start in starts}
        for job in as_completed(jobs):
            yield jobs[job], job.result()


@contextmanager
def _pool(processes: int) -> Iterator[ProcessPoolExecutor]:
    # Spawned, not forked: the caller may have threads.
    with ProcessPoolExecutor(processes, mp_context=multiprocessing.get_context("spawn")) as pool:
        try:
            yield pool
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def _render_chunk(start: int, stop: int, each: int, size: int, seed: int) -> Images:
    images = []
    for n in range(start, stop):
        combination, i = divmod(n, each)
        names = SHAPES[combination // 100], TEXTURES[combination // 10 % 10], COLORS[combination % 10]
        images.append(render(*names, size=size, rng=stream(seed, "trifeature", combination, i)))
    return np.stack(images)
