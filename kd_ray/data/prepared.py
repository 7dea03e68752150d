"""Images from files of any size and mode to one array of small RGB images, kept on disk: decoded once per node, not once per trial.

    <root>/prepared/<data set>-<key>/   images.npy  fingerprint.json  checksums.json

The key follows names, sizes and times of the files, so a changed file is decoded anew. The fingerprint follows what is in the files, so
it is the same on every machine that has the same files.
"""

import hashlib
import io
import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from kd_ray.data.cache import cached
from kd_ray.data.originals import fingerprint_of_digests
from kd_ray.errors import DataError

OnProgress = Callable[[int, int], None]
"""Called with (done, total)."""
FORM = 1
"""Raised whenever the same files would give other pixels."""
MAX_PIXELS = 64_000_000
"""Images with more pixels are refused before they are decoded: a small file can ask for any amount of memory."""

# Others, such as EPS, start programs or are no photographs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
_FILES = _IMAGES, _FINGERPRINT = "images.npy", "fingerprint.json"
_CHUNK = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Images on disk."""

    images_NHWC: npt.NDArray[np.uint8]
    """RGB, mapped from the file."""
    fingerprint: str
    """16 hex digits of a SHA-256 over names and contents of all files."""


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where N images come from."""

    names: Sequence[str]
    """Names of the images, for messages and for the fingerprint; they may repeat, if their contents do."""
    read: Callable[[int], bytes]
    """Contents of image n, encoded."""
    stamp: str
    """Digest of all that would change if the images did, without reading them."""
    lists: Mapping[str, str]
    """SHA-256 of what says which image is what, by name: part of the fingerprint."""


def files_below(folder: Path, names: Sequence[str], lists: Mapping[str, str]) -> Sources:
    """Images in files, named by their path below `folder`; `lists` as in `Sources`. Raises DataError when one does not exist."""
    stamp = hashlib.sha256(str(folder).encode())
    missing = []
    for name in names:
        try:
            facts = (folder / name).stat()
        except OSError:
            missing.append(name)
            continue
        stamp.update(f"{name} {facts.st_size} {facts.st_mtime_ns}\n".encode())
    if missing:
        raise DataError(f"{folder}: {len(missing):,} of {len(names):,} image files are missing: {some(missing)}")
    return Sources(names=names, read=lambda n: (folder / names[n]).read_bytes(), stamp=stamp.hexdigest(), lists=lists)


def some(names: Sequence[str]) -> str:
    """The first five, and how many more."""
    return ", ".join(names[:5]) + (f" and {len(names) - 5:,} more" if len(names) > 5 else "")


def prepare(
    root: Path,
    dataset: str,
    sources: Sources,
    *,
    size: int,
    crop: int | None = None,
    processes: int = 1,
    on_progress: OnProgress | None = None,
) -> Prepared:
    """The images as `decode` makes them, with `processes` threads unless they are there already.

    Raises DataError for an image that cannot be decoded.
    """
    facts = {"form": FORM, "dataset": dataset, "size": size, "crop": crop, "sources": sources.stamp}
    key = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    folder = root / "prepared" / f"{dataset}-{key}"

    def make(partial: Path) -> None:
        shape = (len(sources.names), size, size, 3)
        images_NHWC = np.lib.format.open_memmap(partial / _IMAGES, mode="w+", dtype=np.uint8, shape=shape)
        digests = {}

        def one(n: int) -> str:
            content = sources.read(n)
            try:
                images_NHWC[n] = decode(content, size=size, crop=crop)
            except Exception as error:  # a damaged image may raise anything
                raise DataError(f"{dataset}: image {sources.names[n]} cannot be used: {error}") from error
            return hashlib.sha256(content).hexdigest()

        for n, digest in enumerate(_in_threads(one, len(sources.names), processes)):
            digests[sources.names[n]] = digest
            if on_progress and (n % _CHUNK == 0 or n + 1 == len(sources.names)):
                on_progress(n + 1, len(sources.names))
        images_NHWC.flush()
        (partial / _FINGERPRINT).write_text(json.dumps(fingerprint_of_digests(digests)), encoding="utf-8")

    cached(folder, _FILES, facts, make)
    of_images = json.loads((folder / _FINGERPRINT).read_text(encoding="utf-8"))
    # Not on disk: another list may say something else about the same images.
    return Prepared(
        images_NHWC=np.load(folder / _IMAGES, mmap_mode="r"),
        fingerprint=fingerprint_of_digests({**sources.lists, "images": of_images}),
    )


def decode(content: bytes, *, size: int, crop: int | None = None) -> npt.NDArray[np.uint8]:
    """The central square of an encoded image, at most `crop` pixels wide, resized to size × size × 3 (bilinear, antialiased).

    Greyscale becomes three equal channels; transparency is dropped. Raises ValueError for more than `MAX_PIXELS` and for pixels that are
    not 8 bits deep, and what Pillow raises.
    """
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width} × {height} pixels are more than {MAX_PIXELS:,}")
        if image.mode not in _MODES:
            raise ValueError(f"mode {image.mode} is not 8 bits deep; valid: {', '.join(sorted(_MODES))}")
        # A palette with transparency is turned into channels first, as Pillow wants it.
        rgb = image.convert("RGBA").convert("RGB") if image.has_transparency_data else image.convert("RGB")
    side = min(width, height, crop or width)
    # Rounded as torchvision's CenterCrop does.
    left, top = round((width - side) / 2), round((height - side) / 2)
    square = rgb.crop((left, top, left + side, top + side))
    return np.asarray(square if side == size else square.resize((size, size), Image.Resampling.BILINEAR))


def _in_threads(one: Callable[[int], str], count: int, threads: int) -> Iterator[str]:
    """`one` of each index, in order, a few chunks ahead; Pillow decodes without Python's lock."""
    if threads == 1:
        yield from map(one, range(count))
        return
    starts = iter(range(0, count, _CHUNK))
    running: deque[Future[list[str]]] = deque()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        while True:
            while len(running) < 2 * threads and (start := next(starts, None)) is not None:
                part = range(start, min(start + _CHUNK, count))
                running.append(pool.submit(lambda part=part: [one(n) for n in part]))  # type: ignore[misc]
            if not running:
                return
            yield from running.popleft().result()
