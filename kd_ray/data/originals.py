"""Data sets that come as a few published files: whether all files exist, and whether they are the version that the sweep names."""

import hashlib
from collections.abc import Mapping
from pathlib import Path

from kd_ray.errors import DataError


def read_files(dataset: str, folder: Path, names: tuple[str, ...], *, how: str) -> dict[str, bytes]:
    """Contents by name; `how` tells the user how to put them in place. Raises DataError when one is missing or cannot be read."""
    missing = [name for name in names if not (folder / name).is_file()]
    if missing:
        raise DataError(
            f"{dataset}: {len(missing)} of {len(names)} files are missing; {how} so that these exist: "
            + ", ".join(str(folder / name) for name in missing)
        )
    try:
        return {name: (folder / name).read_bytes() for name in names}
    except OSError as error:
        raise DataError(f"{dataset}: a file of {folder} cannot be read: {error}") from error


def fingerprint_of(contents: Mapping[str, bytes]) -> str:
    """First 16 hex digits of a SHA-256 over names and contents."""
    return fingerprint_of_digests(digests(contents))


def digests(contents: Mapping[str, bytes]) -> dict[str, str]:
    """SHA-256 of each content."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}


def fingerprint_of_digests(digest_of: Mapping[str, str]) -> str:
    """The same, from the SHA-256 of each content."""
    total = hashlib.sha256()
    for name, digest in sorted(digest_of.items()):
        total.update(f"{name} {digest}\n".encode())
    return total.hexdigest()[:16]


def check_version(
    dataset: str, folder: Path, contents: Mapping[str, bytes], version: str, published: Mapping[str, str]
) -> None:
    """Raises DataError unless the files are `version`: a fingerprint, or "original", the files with the MD5 sums `published`."""
    if version == "original":
        detail = published_difference(contents, published)
        if detail is None:
            return
    elif version == fingerprint_of(contents):
        return
    else:
        detail = "the fingerprint differs"
    raise other_version(dataset, folder, version, detail, fingerprint_of(contents))


def published_difference(contents: Mapping[str, bytes], md5: Mapping[str, str]) -> str | None:
    """Which files are not the published ones; None when all are."""
    found = {name: hashlib.md5(content, usedforsecurity=False).hexdigest() for name, content in contents.items()}
    different = [name for name in contents if found[name] != md5[name]]
    return f"the published checksums differ for {', '.join(different)}" if different else None


def other_version(dataset: str, folder: Path, version: str, detail: str, found: str) -> DataError:
    """The error for files of another version; it says which version to write in the sweep file to use them as they are."""
    return DataError(
        f"{dataset}: {folder} does not hold version {version!r}: {detail}. Its fingerprint is {found}; "
        f"to use these files as they are, write in the sweep file `dataset.version: {found!r}`"
    )
