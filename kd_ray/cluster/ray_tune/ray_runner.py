"""Connects to a Ray cluster or starts one, and runs a queue of packs on it."""

import logging
import os
import shutil
import signal
import socket
import tempfile
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import ray
from ray.job_config import JobConfig

from kd_ray import telemetry
from kd_ray.cluster.interrupts import Interrupts
from kd_ray.cluster.pack_queue import PackQueue
from kd_ray.cluster.ray_tune.capacity import (
    FreeSlots,
    alive_nodes,
    check_capacity,
    kinds,
    mixed_kinds,
    packs_on,
    request_of,
    scales,
    slots,
)
from kd_ray.cluster.ray_tune.private_ray import private_ray
from kd_ray.cluster.ray_tune.prometheus import RayMetrics
from kd_ray.cluster.ray_tune.quick_start import quick_start
from kd_ray.cluster.runner import LaunchContext, Observer, WorkerFactory, probe_students, training_worker
from kd_ray.errors import InvalidInputError
from kd_ray.results import ledger
from kd_ray.results.probe import Probe
from kd_ray.sweep.placement import Placement, cpu_count
from kd_ray.sweep.spec import TrialSpec

_FOLDER = "kd_ray_tune_"
_HEAD_EVERY_S = 5.0
_HEAD_MISSES = 3
_CONNECT_S = 5.0
_SHARE_OF_KIND = 0.001
"""Of Ray's resource that names the kind of a node's GPUs; each node has one."""


@dataclass(frozen=True, kw_only=True)
class RayRunner:
    """Runs packs through Ray Tune, on this machine or on a cluster."""

    placement: Placement
    address: str | None = None
    """Address of a running cluster; None starts Ray on this machine and stops it afterwards."""
    verbose: bool = False
    """Show Ray's own output."""
    worker: WorkerFactory = training_worker
    """Makes the worker of a process; benchmarks of the scheduling use one that does not train, which is imported from their folder."""
    num_cpus: int | None = None
    """CPUs of a Ray that is started on this machine; None takes all."""
    min_packs_per_experiment: int = 1000
    min_rounds_per_experiment: int = 50
    """Tune keeps about 60 KB of each pack until its experiment ends, so a large sweep is several experiments. Between two of them every
    slot waits for the last pack of the first, so one experiment has at least this many packs, and this many per slot."""

    _private: ExitStack = field(default_factory=ExitStack, init=False, repr=False, compare=False)
    """What is left to end of a Ray that this launch has started."""
    _waits: list[str] = field(default_factory=list, init=False, repr=False, compare=False)
    """What the launch waits for, when no node could run a pack as it connected."""

    def __enter__(self) -> Self:
        """Connect to the cluster, or start one.

        Raises:
            InvalidInputError: there is no cluster at `address`, or none of its nodes can run a pack.
        """
        try:
            self._connect()
            waits = check_capacity(self.placement, alive_nodes(), scales=self._scales())
            self._waits.extend([waits] if waits else [])
            telemetry.measure_into(RayMetrics())
        except BaseException as error:
            ray.shutdown()
            self._private.close()
            if isinstance(error, SystemExit):
                # SIGTERM. Ray's handler, in place until `Interrupts` sets ours again, ends the process with status 15.
                raise KeyboardInterrupt from error
            raise
        return self

    def __exit__(self, *_: object) -> None:
        telemetry.measure_into(None)
        ray.shutdown()
        self._private.close()

    def slots(self) -> int:
        """Packs that fit on the nodes of the cluster."""
        return slots(self.placement, alive_nodes())

    def kinds(self) -> tuple[str, ...]:
        """See `Runner`."""
        return kinds(self.placement, alive_nodes())

    def notes(self) -> tuple[str, ...]:
        """See `Runner`."""
        return (*self._waits, *mixed_kinds(self.kinds()))

    def probe(self, spec: TrialSpec, context: LaunchContext, kind: str) -> Probe:
        """See `Runner`; on any node of the kind that can run a pack. Where there is none yet, it waits for one."""
        placement = context.placement
        num_packs = max((packs_on(node, placement) for node in alive_nodes() if not kind or kind in node), default=1)
        request = request_of(placement) | ({kind: _SHARE_OF_KIND} if kind else {})
        measure = ray.remote(
            num_cpus=request.pop("CPU"),
            num_gpus=request.pop("GPU", 0),
            memory=request.pop("memory", 0),
            resources=request,
        )(probe_students)
        try:
            return ray.get(measure.remote(spec, context, max(1, num_packs)))
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from error  # type: ignore[no-untyped-call]

    def run(self, queue: PackQueue, context: LaunchContext, observer: Observer, interrupts: Interrupts) -> None:
        """Run the packs, in one or more Tune experiments."""
        _delete_abandoned_folders()
        try:
            tune_folder = tempfile.TemporaryDirectory(prefix=f"{_FOLDER}{os.getpid()}_")
        except OSError as error:
            raise InvalidInputError(f"Ray Tune needs a folder below TMPDIR: {error}") from error
        # Ray has replaced our handler of SIGTERM by its own, which aborts; `watch` sets ours again.
        with (
            interrupts.watch(),
            _watched_head(self.address, observer),
            tune_folder as folder,
        ):
            while not interrupts.requested() and not queue.is_exhausted():
                limit = max(self.min_packs_per_experiment, self.min_rounds_per_experiment * self.slots())
                if not self.run_experiment(queue, context, observer, interrupts, folder, limit):
                    return

    def run_experiment(
        self,
        queue: PackQueue,
        context: LaunchContext,
        observer: Observer,
        interrupts: Interrupts,
        folder: str,
        limit: int,
    ) -> bool:
        """Run at most `limit` packs as one Tune experiment; returns whether any pack was started."""
        # Here, and not above: while the driver imports Tune, the workers of a Ray that has just started import torch.
        from kd_ray.cluster.ray_tune.experiment import run_experiment

        return run_experiment(
            queue,
            context,
            observer,
            interrupts,
            folder=folder,
            limit=limit,
            worker=self.worker,
            free_slots=FreeSlots(self.placement, grows=self.address is not None, scales=self._scales()),
            is_own_ray=self.address is None,
        )

    def _scales(self) -> bool:
        """Whether nodes are started when packs wait for them; a Ray of this launch has no autoscaler."""
        return self.address is not None and scales()

    def _connect(self) -> None:
        level = logging.INFO if self.verbose else logging.ERROR
        for name in ("ray", "ray.tune", "ray.tune.analysis.experiment_analysis", "ray.tune.tune"):
            logging.getLogger(name).setLevel(level)
        if not self.verbose:
            # Its last message lists packs that did not complete, although they were started again.
            logging.getLogger("ray.tune.tune").setLevel(logging.CRITICAL)
        if self.address is not None:
            _check_address(self.address)
        trains = self.worker is training_worker
        try:
            with warnings.catch_warnings(), ExitStack() as starting:
                # Ray warns here of changes of its own defaults, which users of kd_ray cannot influence.
                warnings.simplefilter("ignore")
                own: dict[str, Any] = {}
                if not self.address:
                    num_cpus = self.num_cpus or cpu_count()
                    own = self._private.enter_context(private_ray())
                    own |= {"num_cpus": num_cpus, "include_dashboard": False}
                    starting.enter_context(
                        quick_start(self.placement, num_cpus=num_cpus, trains=trains, verbose=self.verbose)
                    )
                ray.init(
                    address=self.address or "local",
                    job_config=_InstalledCodeOnly() if trains else JobConfig(),
                    log_to_driver=self.verbose,
                    logging_level=level,
                    **own,
                )
        except (Exception, SystemExit) as error:  # Ray raises whatever its parts raise where it cannot start
            if isinstance(error, SystemExit) and error.code == signal.SIGTERM:
                raise
            where = (
                f"--address {self.address}: cannot use the Ray cluster there"
                if self.address
                else "cannot start Ray on this machine"
            )
            reason = " ".join(str(error).split())[:500] or type(error).__name__
            hint = (
                ""
                if self.address
                else "; its folder lies below RAY_TMPDIR, or TMPDIR, which needs room, and a short path"
            )
            raise InvalidInputError(f"{where}: {reason}{hint}") from error


class _InstalledCodeOnly(JobConfig):
    """Workers import installed packages only, and those of a submitted job.

    Ray would put the driver's current folder before everything else on the path of its workers: a `statistics.py` that lies there would be
    run by each of them, in place of the standard library's.
    """

    def _runtime_env_has_working_dir(self) -> bool:
        # Ray (2.60) leaves the current folder out if the working folder is the runtime environment's, and has no option for it.
        return True


def _check_address(address: str) -> None:
    """Check within seconds that a server listens at `host:port` or `ray://host:port`; Ray itself would take minutes.

    Raises:
        InvalidInputError: no server listens there.
    """
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if address == "auto":
        return
    if not separator or not port.isdigit():
        raise InvalidInputError(f"--address {address}: expected HOST:PORT, ray://HOST:PORT or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
    except OSError as error:
        raise InvalidInputError(f"--address {address}: no Ray cluster answers there: {error}") from error


@contextmanager
def _watched_head(address: str | None, observer: Observer) -> Iterator[None]:
    """Warn when the head of the cluster stops answering. Ray itself is silent for a minute and then aborts the process."""
    host, _, port = (address or "").rpartition(":")
    if not host or host.startswith("ray:"):
        yield
        return
    stop = threading.Event()

    def watch() -> None:
        misses = 0
        while not stop.wait(_HEAD_EVERY_S):
            try:
                socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
                misses = 0
            except OSError as error:
                misses += 1
                if misses == _HEAD_MISSES:
                    observer.warn(
                        f"the head of the Ray cluster at {address} does not answer ({error}). Ray waits a minute and then ends "
                        "this process. No committed trial is lost: run the same command again when the head is back"
                    )

    thread = threading.Thread(target=watch, name="kd_ray-head", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def _delete_abandoned_folders() -> None:
    """Delete Tune's folders of killed drivers of this host."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_FOLDER}*"):
        pid = folder.name.removeprefix(_FOLDER).split("_")[0]
        if pid.isdigit() and ledger.process_started(int(pid)) == "":
            shutil.rmtree(folder, ignore_errors=True)
