"""What installed distributions offer kd_ray by entry points: objectives, networks and data sets of the user's own.

A sweep file or a store can name any path, so a path alone must not make anything run: only what a distribution offers is imported.
"""

from importlib.metadata import EntryPoint, entry_points


def find(group: str, path: str) -> EntryPoint:
    """The entry point of this group with this path, `package.module:function`.

    Raises:
        LookupError: none has; the message names those there are.
    """
    offered = {entry.value: entry for entry in entry_points(group=group)}
    if path not in offered:
        raise LookupError(f"{path!r} as an entry point of {group!r}; offered: {', '.join(sorted(offered)) or 'none'}")
    return offered[path]


def distribution_of(entry: EntryPoint) -> dict[str, str]:
    """Name and version of the distribution that offers it."""
    return {entry.dist.name: entry.dist.version} if entry.dist is not None else {}
