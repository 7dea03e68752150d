"""Downloads of original files. An interrupted transfer is continued; a file gets its name only after its checksum was found right."""

import hashlib
import tarfile
import urllib.error
import urllib.request
from pathlib import Path

from kd_ray.data.family import OnBytes
from kd_ray.errors import DataError

_BLOCK = 1 << 18
_TIMEOUT_S = 60.0


def download(url: str, path: Path, *, md5: str, on_bytes: OnBytes | None = None) -> None:
    """Fetch a file under the name `<file>.part`, continue an earlier attempt, and rename the file after its checksum was found right.

    Raises:
        DataError: it cannot be fetched or written, or the checksum is another.
    """
    part = path.with_name(f"{path.name}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _transfer(url, part, path.name, on_bytes)
        with part.open("rb") as file:
            found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
        if found != md5:
            part.unlink()
            raise DataError(
                f"{url}: its MD5 is {found}, published is {md5}; nothing is kept, the same command fetches it again"
            )
        part.replace(path)
    except (OSError, ValueError) as error:
        raise DataError(
            f"{url}: cannot be fetched to {path}: {error}; the same command continues the transfer"
        ) from error


def _transfer(url: str, part: Path, name: str, on_bytes: OnBytes | None) -> None:
    there = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={there}-"} if there else {})  # noqa: S310
    try:
        answer = urllib.request.urlopen(request, timeout=_TIMEOUT_S)  # noqa: S310 (torchvision's addresses)
    except urllib.error.HTTPError as error:
        if there and error.code == 416:  # nothing is left to send
            return
        raise
    with answer, part.open("ab") as file:
        if answer.status != 206:
            # The server sends all of it again.
            file.truncate(0)
            there = 0
        total = there + int(answer.headers.get("Content-Length") or 0)
        while block := answer.read(_BLOCK):
            file.write(block)
            there += len(block)
            if on_bytes:
                on_bytes(name, there, total)
        if there < total:
            raise OSError(f"the connection ended after {there:,} of {total:,} bytes")


def unpack(archive: Path, folder: Path, names: tuple[str, ...]) -> None:
    """Write the files `names` of the archive's folder of the same name, and no other file of the archive.

    Raises:
        DataError: the archive is damaged or lacks one.
    """
    try:
        with tarfile.open(archive) as tar:
            folder.mkdir(parents=True, exist_ok=True)
            for name in names:
                member = tar.extractfile(f"{folder.name}/{name}")
                part = folder / f"{name}.part"
                # A member that is no file becomes an empty file, which is refused by its checksum when it is read.
                part.write_bytes(member.read() if member else b"")
                part.replace(folder / name)
    except (tarfile.TarError, KeyError, OSError, EOFError) as error:
        raise DataError(
            f"{archive} is damaged or not the published one: {error}; remove it, and the same command fetches it"
        ) from error
