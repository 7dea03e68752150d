"""Files to shards, and back. A shard is a tar of small files, or a piece of a large one; the same files give the same bytes.

What comes back may be a stranger's: only plain files are written, below the folder, and no more bytes than the shard has.
"""

import io
import os
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from kd_ray.errors import DataError

SHARD_BYTES = 16 * 2**20
"""Most bytes of files in one shard. `docs/data.md` has the measurement. A request has 30 s, unless `AWS_TIMEOUT` gives it more."""
_RESERVED = ("fetched", "loaded", "prepared", "pretrained", "views")
"""Folders that kd_ray makes below a data root; no set has files there."""
_PLAIN = (tarfile.REGTYPE, tarfile.AREGTYPE)


@dataclass(frozen=True, kw_only=True)
class Part:
    """What one shard holds: whole files by their name below the data root, or a piece of one large file."""

    files: tuple[tuple[str, Path], ...]
    offset: int = 0
    length: int | None = None
    """Bytes of the piece; None for whole files."""


def parts_of(files: Mapping[str, Path], shard_bytes: int) -> Iterator[Part]:
    """The files in the order of their names, in parts of at most so many bytes. Raises OSError for a file that cannot be looked at."""
    batch: list[tuple[str, Path]] = []
    batch_bytes = 0
    for name, path in sorted(files.items()):
        size = path.stat().st_size
        if size > shard_bytes:
            for offset in range(0, size, shard_bytes):
                yield Part(files=((name, path),), offset=offset, length=min(shard_bytes, size - offset))
            continue
        if batch and batch_bytes + size > shard_bytes:
            yield Part(files=tuple(batch))
            batch, batch_bytes = [], 0
        batch.append((name, path))
        # With its header, so that a million empty files make no huge shard.
        batch_bytes += size + tarfile.BLOCKSIZE
    if batch:
        yield Part(files=tuple(batch))


def packed(part: Part) -> bytes:
    """The bytes of the shard. Raises OSError for a file that cannot be read, and DataError for one that has become shorter."""
    if part.length is not None:
        ((name, path),) = part.files
        with path.open("rb") as file:
            file.seek(part.offset)
            data = file.read(part.length)
        if len(data) != part.length:
            raise DataError(f"{path} ({name}) has changed while it was read")
        return data
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, path in part.files:
            data = path.read_bytes()
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def unpack_files(data: bytes, folder: Path) -> None:
    """Write the files of a tar below the folder; nothing is written before all members were looked at.

    Raises:
        ValueError: it is no tar of plain files with names below a data root.
        OSError: a file cannot be written.
    """
    try:
        # No compression: a tar is at least as long as what it holds.
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            members = tar.getmembers()
            for member in members:
                if member.type not in _PLAIN or member.issparse():
                    raise ValueError(f"{member.name!r} is no plain file")
                check_name(member.name)
                if member.size < 0 or member.offset_data + member.size > len(data):
                    raise ValueError(f"{member.name!r} is longer than the shard")
    except (tarfile.TarError, EOFError, OverflowError) as error:
        raise ValueError(str(error)) from error
    for member in members:
        path = folder / member.name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(memoryview(data)[member.offset_data : member.offset_data + member.size])


def unpack_piece(data: bytes, name: str, offset: int, folder: Path) -> None:
    """Write a piece of a large file to its place. Raises ValueError and OSError as `unpack_files`."""
    check_name(name)
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o666)
    with os.fdopen(descriptor, "wb") as file:
        file.seek(offset)
        file.write(data)


def check_name(name: str) -> None:
    """Raises ValueError for a name that is no path of a file below a data root."""
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\0" in name or parts[0] in _RESERVED:
        raise ValueError(f"{name!r} is no name of a file of a data set")


def files_below(root: Path, names: Sequence[str]) -> dict[str, Path]:
    """The files among `names`, and those in the folders among them, by name below the root. Links are followed, but into no folder twice.

    Raises:
        DataError: one does not exist.
    """
    found: dict[str, Path] = {}
    if missing := [str(root / name) for name in names if not (root / name).exists()]:
        raise DataError(f"{', '.join(missing)} {'does' if len(missing) == 1 else 'do'} not exist")
    for name in names:
        if (root / name).is_file():
            found[os.path.normpath(name)] = root / name
            continue
        entered: set[str] = set()
        for folder, folders, files in os.walk(root / name, followlinks=True):
            entered.add(os.path.realpath(folder))
            folders[:] = [it for it in folders if os.path.realpath(Path(folder, it)) not in entered]
            for path in (Path(folder, it) for it in files):
                if path.is_file():
                    found[path.relative_to(root).as_posix()] = path
    return found
