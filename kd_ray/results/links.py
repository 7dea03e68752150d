"""Links in a local store that lead out of it.

A store may come from a stranger, as an archive does, and a link in it may lead to any file of this machine. So nothing is read, written,
moved or deleted through a link that leaves the store. The root of a store may be a link itself, and links from one place of the store to
another are followed.
"""

import os
from collections.abc import Iterator
from pathlib import Path


def link_on_the_way(root: Path, key: str) -> str | None:
    """The link in a key's path that leaves the store, as a key; None where there is none."""
    inside = os.path.realpath(root)
    # A key with `..` is no way through a link, and obstore refuses it.
    if ".." in Path(key).parts or _is_below(os.path.realpath(root / key), inside):
        return None
    parts = Path(key).parts
    prefixes = [Path(*parts[: i + 1]) for i in range(len(parts))]
    return str(next((prefix for prefix in prefixes if not _is_below(os.path.realpath(root / prefix), inside)), key))


def walk(root: Path, prefix: str, leaving: list[str]) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """The files below a folder of a store, by key. Links that leave the store, lead in a circle or lead nowhere are added to `leaving`.

    Raises:
        OSError: a folder may not be read.
    """
    if (link := link_on_the_way(root, prefix)) is not None:
        leaving.append(link)
        return
    inside = os.path.realpath(root)
    # Texts rather than paths: every listing of a store is made here. Beside each folder stand the links on the way to it.
    folders: list[tuple[str, tuple[str, ...]]] = [(prefix, ())]
    while folders:
        folder, entered = folders.pop()
        path = f"{root}/{folder}"
        try:
            entries = os.scandir(path)
        except (FileNotFoundError, NotADirectoryError):
            # It was deleted since.
            continue
        with entries:
            for entry in entries:
                key = f"{folder}/{entry.name}" if folder else entry.name
                if entry.is_symlink():
                    target = os.path.realpath(entry.path)
                    is_of_use = _is_below(target, inside) and os.path.exists(target)  # noqa: PTH110
                    if not is_of_use or target in entered or _is_below(os.path.realpath(path), target):
                        leaving.append(key)
                    elif entry.is_dir():
                        folders.append((key, (*entered, target)))
                    else:
                        yield key, entry
                elif entry.is_dir():
                    folders.append((key, entered))
                else:
                    yield key, entry


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
