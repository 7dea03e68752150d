"""The device of a worker: bound, made deterministic, named, and its memory watched."""

import gc
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from kd_ray.errors import OutOfMemoryError, TrialError
from kd_ray.sweep.placement import Placement
from kd_ray.sweep.training import Precision


def device_of(placement: Placement) -> torch.device:
    """Where a pack trains.

    Raises:
        TrialError: it asks for a GPU, and there is none.
    """
    if placement.gpus_per_pack == 0:
        return torch.device("cpu")
    if not torch.cuda.is_available():
        raise TrialError(
            f"placement.gpus_per_pack = {placement.gpus_per_pack}, but {platform.node()} has no CUDA device"
        )
    return torch.device("cuda")


def name_of(device: torch.device) -> str:
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


def make_deterministic(threads: int) -> None:
    """Bind torch to `threads` CPU threads and to algorithms whose result does not change from run to run."""
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    # Else every fresh tensor is filled with NaN, which costs 7 % of a step; what is read before it is written is a bug that tests find.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]  # made by its module class
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def layout_of(device: torch.device, precision: Precision = "fp32") -> torch.memory_format:
    """How weights and images are laid out: on a GPU float32 is faster one channel after another, and everything else the other way.

    Measured on an H200 (docs/performance.md).
    """
    return torch.contiguous_format if device.type == "cuda" and precision == "fp32" else torch.channels_last


@contextmanager
def arithmetic_of(precision: Precision) -> Iterator[None]:
    """Within, a GPU may round the factors of float32 products to TF32 if the precision is that."""
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False


def named(error: Exception) -> Exception:
    """The error itself, or what it means: torch has one class for a full GPU, and none for a full host."""
    is_full = isinstance(error, MemoryError | torch.OutOfMemoryError) or "can't allocate memory" in str(error)
    if not is_full:
        return error
    full = OutOfMemoryError(" ".join(str(error).split()) or "no memory left")
    full.__cause__ = error
    return full


def free_bytes(device: torch.device) -> int:
    """Memory of the device, or of this host, that is free."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free
    return _kib(Path("/proc/meminfo"), "MemAvailable") * 1024


def wait_for(device: torch.device) -> None:
    """Return when the device has done all that it was given; a CPU has."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def release_unused(device: torch.device) -> None:
    """Give the GPU memory back that nothing refers to: the traceback of an error keeps what it has seen until it is collected."""
    if device.type == "cuda":
        gc.collect()
        torch.cuda.empty_cache()


def forget_peak(device: torch.device) -> None:
    """`peak_bytes` counts from here on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: torch.device) -> int:
    """Largest memory of this process since `forget_peak`."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return _kib(Path("/proc/self/status"), "VmHWM") * 1024


def _kib(path: Path, field: str) -> int:
    lines = dict(line.split(":", 1) for line in path.read_text().splitlines())
    return int(lines[field].split()[0])
