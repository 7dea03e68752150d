"""What a launch was asked to do, and what its four steps share."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from kd_ray.cluster.background import WarningLog
from kd_ray.cluster.display import Display
from kd_ray.cluster.interrupts import Interrupts
from kd_ray.cluster.log_display import SweepMetrics
from kd_ray.cluster.shared_data.fetch_data import FoundSet
from kd_ray.cluster.shared_data.find_sets import find_sets, with_local_data
from kd_ray.results import ledger
from kd_ray.results.read_once import RecordsRead
from kd_ray.results.store import Store
from kd_ray.sweep.load import SweepFile
from kd_ray.sweep.plan import PlannedTrial
from kd_ray.telemetry import LogFormat


@dataclass(frozen=True, kw_only=True)
class LaunchRequest:
    """What a launch was asked to do. The arguments of `launch` have the same names."""

    file: SweepFile
    """The sweep, with absolute paths."""
    store: Store
    display: Display
    metrics: SweepMetrics = field(default_factory=SweepMetrics)
    warnings: WarningLog
    interrupts: Interrupts = field(default_factory=Interrupts)
    only: str | None
    weights: Mapping[str, str]
    """Known SHA-256 digests of pretrained weights, by path."""
    log_format: LogFormat
    mirrors: Collection[str]
    aggregate_every_s: float
    launch_id: str = field(default_factory=ledger.new_launch_id)
    """Stands in the leases and in the records of this launch."""
    records_read: RecordsRead = field(default_factory=RecordsRead)
    """By the aggregations of this launch."""

    @cached_property
    def sets(self) -> tuple[FoundSet, ...]:
        """What the nodes fetch of `placement.data_url`, as it is when it is first asked for."""
        return find_sets(self.file)

    @cached_property
    def local_file(self) -> SweepFile:
        """The sweep with its data on this machine, fetched if need be."""
        return with_local_data(self.file, self.sets, self.display)


@dataclass(frozen=True, kw_only=True)
class RequestedTrials:
    """The trials that a launch was asked for: all of the sweep, or those of `only`."""

    trials: tuple[PlannedTrial, ...]
    to_run: tuple[PlannedTrial, ...]
    """Those that are not settled. Some of them may be running in another launch."""
    complete: frozenset[str]
    """trial_ids of those that are complete already."""
    until: Mapping[str, int] = field(default_factory=dict)
    """Epoch after which a trial stops for now, by trial_id; the others train to their end."""
    retries_failed: bool
    """Whether failed trials are to run again."""
