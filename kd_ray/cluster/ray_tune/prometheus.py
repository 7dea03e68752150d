"""Exports measurements through Ray, from which Prometheus reads them at each node's metrics port."""

import importlib.util
from collections.abc import Mapping

from ray.util import metrics

from kd_ray import telemetry
from kd_ray.sweep.placement import Placement


class RayMetrics:
    """A sink of measurements that creates each of Ray's metrics at its first value."""

    def __init__(self) -> None:
        self._created: dict[str, metrics.Metric] = {}

    def record(self, metric: telemetry.Measurement, value: float, tags: Mapping[str, str]) -> None:
        """See `telemetry.Sink`."""
        if metric.name not in self._created:
            self._created[metric.name] = _create(metric)
        created = self._created[metric.name]
        if isinstance(created, metrics.Gauge):
            created.set(value, dict(tags))
        elif isinstance(created, metrics.Histogram):
            created.observe(value, dict(tags))
        elif isinstance(created, metrics.Counter) and value > 0:
            created.inc(value, dict(tags))


def _create(metric: telemetry.Measurement) -> metrics.Metric:
    tags = ("sweep", *metric.tags)
    if metric.kind == "histogram":
        return metrics.Histogram(metric.name, metric.meaning, list(metric.boundaries), tags)
    return (metrics.Gauge if metric.kind == "gauge" else metrics.Counter)(metric.name, metric.meaning, tags)


def watch_gpu(placement: Placement) -> None:
    """Measure the GPU of this worker, if it has one."""
    if not placement.gpus_per_pack:
        return
    import torch

    if not torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
        return
    free, total = torch.cuda.mem_get_info()
    device = torch.cuda.get_device_name()
    telemetry.record(telemetry.GPU_MEMORY_USED, total - free, device=device)
    telemetry.record(telemetry.GPU_MEMORY, total, device=device)
    if importlib.util.find_spec("pynvml"):
        telemetry.record(telemetry.GPU_USE, torch.cuda.utilization() / 100, device=device)
