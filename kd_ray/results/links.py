"""Links in a local store that lead out of it.

A store may come from a stranger, as an archive does, and a link in it may lead to any file of this machine. So nothing is read, written,
moved or deleted through a link that leaves the store. The root of a store may be a link itself, and links from one place of the store to
another are followed.
"""

import os
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


def leaving_links(root: Path, prefix: str) -> list[str]:
    """The links below a folder that leave the store, lead in a circle or lead nowhere, as keys and in order."""
    if (link := link_on_the_way(root, prefix)) is not None:
        return [link]
    inside = os.path.realpath(root)
    found: list[str] = []
    # Texts rather than paths: this walks all folders of a store before each listing.
    folders = [str(root / prefix)]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if entry.is_symlink():
                        target = os.path.realpath(entry.path)
                        is_of_use = _is_below(target, inside) and os.path.exists(entry.path)  # noqa: PTH110
                        if not is_of_use or _is_below(os.path.realpath(folder), target):
                            found.append(os.path.relpath(entry.path, root))
                    elif entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
        except (FileNotFoundError, NotADirectoryError, PermissionError):
            # It was deleted since, or the listing itself will say what is wrong.
            continue
    return sorted(found)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)
