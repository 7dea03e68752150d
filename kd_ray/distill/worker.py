"""What a worker process keeps from one pack to the next: the store, the device, data sets, teachers."""

import functools
import os
import platform
import subprocess
from collections import OrderedDict
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from kd_ray.data.images import ImageData
from kd_ray.data.load import load_dataset
from kd_ray.distill.checkpoint import from_weights
from kd_ray.distill.evaluate import fairness_pairs
from kd_ray.distill.stream import ResidentData, to_device
from kd_ray.errors import CorruptObjectError, TrialError
from kd_ray.metrics.individual import Pairs
from kd_ray.models import build_model
from kd_ray.results.record import Samples, read_record, sha256, write_samples
from kd_ray.results.store import Store, given_weights_key
from kd_ray.sweep.config import Dataset, Placement
from kd_ray.sweep.spec import TrialSpec, content_hash

T = TypeVar("T")

_KEPT_DATASETS = 2
_KEPT_TEACHERS = 4


class LoadedData:
    """A data set, in memory and on the device, with what is derived from it once."""

    def __init__(self, data: ImageData, device: torch.device) -> None:
        """Copy the data to the device and choose the pairs for individual fairness."""
        self.host = data
        self.resident: ResidentData = to_device(data, device)
        self.pairs: Pairs = fairness_pairs(data)


class Worker:
    """The state of one worker process; packs run through it one after another."""

    def __init__(self, store: Store, placement: Placement, *, launch_id: str) -> None:
        """Bind this process to its threads and its device, and make its arithmetic deterministic."""
        self.store = store
        self.placement = placement
        self.launch_id = launch_id
        self.device = torch.device("cuda" if placement.gpus_per_pack > 0 else "cpu")
        if self.device.type == "cuda" and not torch.cuda.is_available():
            raise TrialError(
                f"placement.gpus_per_pack = {placement.gpus_per_pack}, but {platform.node()} has no CUDA device"
            )
        make_deterministic(placement.cpus_per_pack)
        self._data: OrderedDict[str, LoadedData] = OrderedDict()
        self._teachers: OrderedDict[str, nn.Module] = OrderedDict()

    def data(self, dataset: Dataset) -> LoadedData:
        """The data set, loaded once per process; its test samples are stored once per store."""
        dataset_id = content_hash(dataset)

        def load() -> LoadedData:
            data = load_dataset(dataset, Path(self.placement.data_root), processes=self.placement.cpus_per_pack)
            samples = Samples(
                dataset=dataset.name,
                target=dataset.target,
                class_names=data.class_names,
                labels_N=data.test.labels_N,
                sensitive_features=data.test.sensitive_features,
            )
            write_samples(self.store, dataset_id, samples)
            return LoadedData(data, self.device)

        return _remember(self._data, dataset_id, load, keep=_KEPT_DATASETS)

    def teacher(self, trial_id: str, data: LoadedData) -> nn.Module:
        """The committed teacher, ready to teach: evaluation mode, no gradients.

        Raises:
            TrialError: the teacher is not complete.
            CorruptObjectError: its weights are not those its record names.
        """

        def load() -> nn.Module:
            record = read_record(self.store, trial_id)
            if record is None:
                raise TrialError(f"teacher {trial_id} is not complete")
            weights = self.store.get(record.weights_key)
            if weights is None or sha256(weights) != record.weights_sha256:
                raise CorruptObjectError(
                    f"store {self.store.url}: {record.weights_key!r} is not what the record of {trial_id} names"
                )
            return self._build(record.spec, weights, record.weights_key, data).eval().requires_grad_(False)

        return _remember(self._teachers, trial_id, load, keep=_KEPT_TEACHERS)

    def given(self, spec: TrialSpec, data: LoadedData) -> nn.Module:
        """A network with the given weights that `spec.initial_weights` names.

        Raises:
            TrialError: the weights do not fit the model.
        """
        assert spec.initial_weights is not None
        key = given_weights_key(spec.initial_weights)
        weights = self.store.get(key)
        if weights is None or sha256(weights) != spec.initial_weights:
            raise CorruptObjectError(
                f"store {self.store.url}: {key!r} does not hold the given weights {spec.initial_weights}"
            )
        return self._build(spec, weights, key, data).eval()

    def _build(self, spec: TrialSpec, weights: bytes, source: str, data: LoadedData) -> nn.Module:
        model = build_model(
            spec.model, num_classes=data.resident.num_classes, image_size=data.resident.train.image_size
        )
        try:
            model.load_state_dict(from_weights(weights, source=source))
        except (RuntimeError, ValueError) as error:
            raise TrialError(f"weights {source} do not fit {spec.model}: {error}") from error
        return model.to(device=self.device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


def make_deterministic(threads: int) -> None:
    """Bind torch to `threads` CPU threads and to algorithms whose result does not change from run to run."""
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False


def device_name(device: torch.device) -> str:
    """`cpu`, or the name of the GPU."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"


@functools.cache
def package_versions() -> dict[str, str]:
    """Versions that a result may depend on."""
    found = {"python": platform.python_version()}
    for name in ("kd_ray", "torch", "numpy", "ray", "pyarrow"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


@functools.cache
def git_commit() -> str | None:
    """Commit of the checkout kd_ray runs from, with `+` when files differ from it; None for an installed package."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        git = functools.partial(subprocess.run, cwd=folder, capture_output=True, text=True, check=True, timeout=10)
        commit = git(["git", "rev-parse", "--short=12", "HEAD"]).stdout.strip()
        return commit + ("+" if git(["git", "status", "--porcelain", "--untracked-files=no"]).stdout.strip() else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _remember(cache: OrderedDict[str, T], key: str, make: Callable[[], T], *, keep: int) -> T:
    """The cached value, made if need be; the least recently used beyond `keep` are dropped."""
    if key not in cache:
        cache[key] = make()
    cache.move_to_end(key)
    while len(cache) > keep:
        cache.popitem(last=False)
    return cache[key]
