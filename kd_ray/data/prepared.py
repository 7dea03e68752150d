"""Decodes image files of any size and mode to one array of small RGB images on disk, once per node instead of once per trial.

    <root>/prepared/<data set>-<key>/   images.npy  fingerprint.json  unusable.json  checksums.json

The key depends on names, sizes, inodes and times of the files, that of the last change included, which no program can set. So a changed
file is decoded again, and so are copies of files. The fingerprint depends on the contents of the files alone, so it is the same on every
machine that has the same files.
"""

import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kd_ray.data.cache import cached, prepared_folder
from kd_ray.data.decoding import content_digest, decode
from kd_ray.data.family import Loading
from kd_ray.data.files import ImageFiles
from kd_ray.data.image_data import Split
from kd_ray.data.originals import fingerprint_of_digests, other_version
from kd_ray.errors import DataError, some
from kd_ray.groups import Groups

FORM = 2
"""Raised whenever the same files would give other pixels."""
_FILES = _IMAGES, _FINGERPRINT, _UNUSABLE = "images.npy", "fingerprint.json", "unusable.json"
_CHUNK = 64


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """Images that are ready to be used: small and on disk, or in their original files."""

    images_NHWC: npt.NDArray[np.uint8]
    """RGB, mapped from the file; of no image where they are streamed."""
    files: ImageFiles | None
    """Where they come from, if each comes from a file of its own."""
    read_fingerprint: Callable[[], str]
    """See `fingerprint`."""
    unusable: Mapping[int, str] = field(default_factory=dict)
    """Images that cannot be used, by their number, and why; they are black where images are in memory."""

    @cached_property
    def fingerprint(self) -> str:
        """16 hex digits of a SHA-256 over names and contents of all files, and the lists; streamed images are read for it, once a node."""
        return self.read_fingerprint()

    def check_version(self, dataset: str, folder: Path, version: str, difference: str) -> None:
        """Raises DataError unless the fingerprint is `version`; `difference` says in what the set is not the original one."""
        if version != self.fingerprint:
            detail = difference if version == "original" else "the fingerprint differs"
            raise other_version(dataset, folder, version, detail, self.fingerprint)

    def split(
        self,
        chosen_M: npt.NDArray[np.integer],
        labels_M: npt.NDArray[np.int64],
        sensitive_features: Mapping[str, Groups] | None = None,
    ) -> Split:
        """These of the images, copied into memory unless they are streamed."""
        return Split(
            images_NHWC=np.asarray(self.images_NHWC[chosen_M]) if len(self.images_NHWC) else self.images_NHWC,
            labels_N=labels_M,
            sensitive_features=sensitive_features or {},
            files=self.files.take(chosen_M) if self.files is not None else None,
        )


@dataclass(frozen=True, kw_only=True)
class Sources:
    """Where N images come from."""

    names: Sequence[str]
    """Names of the images, for messages and for the fingerprint; they may repeat, if their contents do."""
    read: Callable[[int], bytes]
    """Contents of image n, encoded."""
    stamp: str
    """Digest of names, sizes, inodes and times of the files, or of the list that holds the images; it changes when an image changes."""
    lists: Mapping[str, str]
    """SHA-256 of the lists with labels and splits, by name: part of the fingerprint."""
    folder: Path | None = None
    """Below it the names are paths of files; None where the images do not lie in files of their own."""


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
        stamp.update(
            f"{name} {facts.st_size} {facts.st_mtime_ns} {facts.st_ctime_ns} {facts.st_ino}\n".encode(
                errors="surrogateescape"
            )
        )
    if missing:
        raise DataError(f"{folder}: {len(missing):,} of {len(names):,} image files are missing: {some(missing)}")
    return Sources(
        names=names,
        read=lambda n: (folder / names[n]).read_bytes(),
        stamp=stamp.hexdigest(),
        lists=lists,
        folder=folder,
    )


def prepare(
    dataset: str,
    sources: Sources,
    loading: Loading,
    *,
    size: int,
    crop: int | None = None,
    skips_unusable: bool = False,
) -> Prepared:
    """The images as `decode` makes them, from the folder of this node, which is made if need be.

    Files whose images would take more than `loading.resident_bytes` are left as they are, to be decoded when they are needed.

    Raises DataError for images that cannot be decoded, unless `skips_unusable`: then `Prepared.unusable` has them.
    """
    files = ImageFiles.of(sources.folder, sources.names, crop=crop) if sources.folder is not None else None
    limit = loading.resident_bytes
    if files is not None and limit is not None and 3 * size**2 * len(files) > limit:
        return _streamed(dataset, sources, loading, files, size=size, skips_unusable=skips_unusable)
    facts = {"form": FORM, "dataset": dataset, "size": size, "crop": crop, "sources": sources.stamp}
    folder = prepared_folder(loading.root, dataset, facts)

    def make(partial: Path) -> None:
        shape = (len(sources.names), size, size, 3)
        images_NHWC = np.lib.format.open_memmap(partial / _IMAGES, mode="w+", dtype=np.uint8, shape=shape)
        with (partial / _IMAGES).open("r+b") as file:
            # Reserved at once: a write into a hole of a full disk would kill the process.
            os.posix_fallocate(file.fileno(), 0, file.seek(0, os.SEEK_END))

        def use(n: int, content: bytes) -> None:
            images_NHWC[n] = decode(content, size=size, crop=crop)

        _read_all(dataset, sources, loading, partial, use, skips_unusable=skips_unusable)
        images_NHWC.flush()

    cached(folder, _FILES, facts, make)
    return Prepared(
        images_NHWC=np.load(folder / _IMAGES, mmap_mode="r"),
        files=files,
        read_fingerprint=lambda: _with_lists(folder, sources),
        unusable=_unusable(folder, dataset, sources, skips_unusable=skips_unusable),
    )


def _streamed(
    dataset: str, sources: Sources, loading: Loading, files: ImageFiles, *, size: int, skips_unusable: bool
) -> Prepared:
    """Images that stay in their files. All are read for the fingerprint, and decoded to know which can be used, once on this node."""
    facts = {
        "form": FORM,
        "dataset": dataset,
        "sources": sources.stamp,
        **({"decoded": True} if skips_unusable else {}),
    }
    folder = prepared_folder(loading.root, dataset, facts)

    def use(_: int, content: bytes) -> None:
        if skips_unusable:
            decode(content, size=size, crop=files.crop)

    def make(partial: Path) -> None:
        _read_all(dataset, sources, loading, partial, use, skips_unusable=skips_unusable)

    def fingerprint() -> str:
        cached(folder, (_FINGERPRINT, _UNUSABLE), facts, make)
        return _with_lists(folder, sources)

    unusable: Mapping[int, str] = {}
    if skips_unusable:
        fingerprint()
        unusable = _unusable(folder, dataset, sources, skips_unusable=True)
    return Prepared(
        images_NHWC=np.empty((0, size, size, 3), dtype=np.uint8),
        files=files,
        read_fingerprint=fingerprint,
        unusable=unusable,
    )


def _read_all(
    dataset: str,
    sources: Sources,
    loading: Loading,
    partial: Path,
    use: Callable[[int, bytes], None],
    *,
    skips_unusable: bool,
) -> None:
    """Read every image, `use` it, and write the fingerprint and the images that cannot be used. Raises DataError as `prepare` does."""
    unusable: dict[int, str] = {}

    def one(n: int) -> str:
        content = b""
        try:
            content = sources.read(n)
            use(n, content)
        except OSError as error:
            unusable[n] = error.strerror or str(error)
        except Exception as error:  # noqa: BLE001 (a damaged image may raise anything)
            unusable[n] = str(error)
        return content_digest(content)

    digests = _digests(one, sources.names, loading)
    if unusable and not skips_unusable:
        raise _cannot_be_used(dataset, sources, unusable)
    (partial / _FINGERPRINT).write_text(json.dumps(fingerprint_of_digests(digests)), encoding="utf-8")
    (partial / _UNUSABLE).write_text(json.dumps(unusable, sort_keys=True), encoding="utf-8")


def _unusable(folder: Path, dataset: str, sources: Sources, *, skips_unusable: bool) -> dict[int, str]:
    """The images that cannot be used, as they were found. Raises DataError as `prepare` does."""
    found = json.loads((folder / _UNUSABLE).read_text(encoding="utf-8"))
    unusable = {int(n): why for n, why in found.items()}
    if unusable and not skips_unusable:
        raise _cannot_be_used(dataset, sources, unusable)
    return unusable


def _cannot_be_used(dataset: str, sources: Sources, unusable: Mapping[int, str]) -> DataError:
    if len(unusable) == 1:
        ((n, why),) = unusable.items()
        return DataError(f"{dataset}: image {sources.names[n]} cannot be used: {why}")
    listed = some([f"{sources.names[n]} ({unusable[n]})" for n in sorted(unusable)])
    return DataError(f"{dataset}: {len(unusable):,} of {len(sources.names):,} images cannot be used: {listed}")


def _with_lists(folder: Path, sources: Sources) -> str:
    """The fingerprint of images and lists. It is not kept on disk, because another list may give the same images other labels."""
    of_images = json.loads((folder / _FINGERPRINT).read_text(encoding="utf-8"))
    return fingerprint_of_digests({**sources.lists, "images": of_images})


def _digests(one: Callable[[int], str], names: Sequence[str], loading: Loading) -> dict[str, str]:
    """The digest that `one` gives for each index, by name."""
    digests = {}
    for n, digest in enumerate(_in_threads(one, len(names), loading.processes)):
        digests[names[n]] = digest
        if loading.on_progress and (n % _CHUNK == 0 or n + 1 == len(names)):
            loading.on_progress(n + 1, len(names))
    return digests


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
