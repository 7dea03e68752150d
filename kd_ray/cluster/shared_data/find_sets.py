"""The indexes of what a sweep with `placement.data_url` needs, and the sweep with its data on this machine."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from kd_ray.cluster.shared_data.data_index import read_index
from kd_ray.cluster.shared_data.fetch_data import FoundSet
from kd_ray.cluster.shared_data.fetched_sets import on_this_node
from kd_ray.cluster.shared_data.places import Place, open_place, push_advice
from kd_ray.cluster.shared_data.set_files import WantedSet, wanted_sets
from kd_ray.data.family import OnBytes, OnProgress
from kd_ray.errors import DataError, StoreError
from kd_ray.sweep.architectures import is_text_model
from kd_ray.sweep.load import SweepFile


class Preparing(Protocol):
    """What of a display shows how far a fetch is."""

    def preparing(self, dataset: str) -> OnProgress:
        """See `Display`."""


def find_sets(file: SweepFile) -> tuple[FoundSet, ...]:
    """The sets that the sweep needs, at its `data_url`; none where it has no URL, or where nothing has to be fetched.

    Raises:
        DataError: a set is not there.
        StoreError: the URL cannot be read.
    """
    url = file.sweep.placement.data_url
    if url is None:
        return ()
    place = open_place(url)
    return tuple(_find(place, wanted, file.source) for wanted in wanted_sets(file))


def _find(place: Place, wanted: WantedSet, source: str) -> FoundSet:
    where = f"{source}: placement.data_url: data set {wanted.what}"
    try:
        index = read_index(place, wanted.name, wanted.version)
    except StoreError as error:
        raise StoreError(f"{where}: {error}; check the URL, and your credentials for it (docs/stores.md)") from error
    if index is None:
        raise DataError(f"{where}: {place.url} does not have it; {push_advice(source, place.url)}")
    return FoundSet(url=place.url, what=wanted.what, index=index)


def missing_sets(file: SweepFile) -> list[str]:
    """The sets of the sweep that its `data_url` does not have. Raises StoreError as `find_sets`."""
    missing = []
    for wanted in wanted_sets(file) if file.sweep.placement.data_url else ():
        place = open_place(str(file.sweep.placement.data_url))
        try:
            _find(place, wanted, file.source)
        except DataError:
            missing.append(f"{wanted.what} at {place.url}")
    return missing


def with_local_data(
    file: SweepFile, sets: Sequence[FoundSet] | None = None, display: Preparing | None = None
) -> SweepFile:
    """The sweep with the folder of its sets as the data root, fetched to this machine if need be; unchanged without sets.

    Raises:
        DataError, StoreError: as `find_sets`, and `fetched_sets.on_this_node`.
    """
    found = find_sets(file) if sets is None else sets
    if not found:
        return file
    placement = on_this_node(file.sweep.placement, found, _shown(display) if display else None)
    raw = {
        **file.raw,
        "placement": {**file.raw.get("placement", {}), "data_root": placement.data_root, "data_url": None},
    }
    return replace(file, raw=raw, sweep=file.sweep.model_copy(update={"placement": placement}))


def to_plan(file: SweepFile, display: Preparing | None = None) -> SweepFile:
    """The sweep as `plan` needs it: the folders of networks of texts are read for the identity of their trials, other sets are not."""
    return with_local_data(file, display=display) if has_text_networks(file) else file


def has_text_networks(file: SweepFile) -> bool:
    """Whether a sweep with a `data_url` needs networks of texts."""
    return file.sweep.placement.data_url is not None and any(is_text_model(it.what) for it in wanted_sets(file))


def _shown(display: Preparing) -> OnBytes:
    bars: dict[str, OnProgress] = {}

    def show(what: str, done: int, total: int) -> None:
        if what not in bars:
            bars[what] = display.preparing(f"{what} (MB fetched)")
        # Rounded up, so that the last megabyte is the end.
        bars[what](-(-done // 10**6), -(-total // 10**6))

    return show
