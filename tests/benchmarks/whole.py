"""Whole processes: how long commands take, what a sweep takes end to end, how much memory workers hold.

`python -m tests.benchmarks.whole` is for `speed.py` to call; it is not a benchmark by itself.
"""

import argparse
import json
import os
import pickle
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
QUICK = ROOT / "sweeps" / "trifeature-quick.yaml"
PLANNED_TRIALS = 10_000
_NUM_TRAIN, _NUM_TEST = 50_000, 10_000
"""Images of CIFAR-10."""


def seconds(*arguments: str) -> float:
    """Wall time of a Python process, from start to end.

    Raises:
        RuntimeError: it failed.
    """
    started = time.perf_counter()
    output(*arguments)
    return time.perf_counter() - started


def output(*arguments: str) -> str:
    """What a Python process prints.

    Raises:
        RuntimeError: it failed.
    """
    done = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{arguments}: exit code {done.returncode}\n{done.stdout}\n{done.stderr}")
    return done.stdout


def help_seconds() -> float:
    """`kd-ray --help`."""
    return seconds("-m", "kd_ray.cli", "--help")


def plan_seconds(folder: Path) -> float:
    """`kd-ray plan` of a sweep of about 10,000 trials in an empty store."""
    from tests.benchmarks.synthetic import synthetic_sweep

    sweep = folder / "plan.yaml"
    if not sweep.exists():
        sweep.write_text(synthetic_sweep(PLANNED_TRIALS, str(folder)).to_yaml())
    return seconds("-m", "kd_ray.cli", "plan", str(sweep), "--store", str(folder / "empty"))


# ---------------------------------------------------------------- the quick sweep


def draw_data(sweep: Path, data_root: Path) -> None:
    """Draw the images of a sweep, which both sides find ready."""
    from kd_ray.data.families import load_dataset
    from kd_ray.sweep.load import load_sweep

    load_dataset(load_sweep(sweep).sweep.dataset, data_root)


def our_sweep_seconds(sweep: Path, data_root: Path, folder: Path, *overrides: str) -> float:
    """`kd-ray launch` in a fresh store, beside data without any table of logits."""
    fresh = folder / "fresh"
    shutil.rmtree(fresh, ignore_errors=True)
    shutil.copytree(data_root, fresh / "data")
    settings = _settings(f"placement.data_root={fresh / 'data'}", *overrides)
    return seconds("-m", "kd_ray.cli", "launch", str(sweep), "--store", str(fresh / "store"), *settings)


def _settings(*overrides: str) -> list[str]:
    return [word for override in overrides for word in ("--set", override)]


def repeated_sweep_seconds(sweep: Path, data_root: Path, store: Path, seeds: Sequence[int]) -> float:
    """From the command to the first report of a pack that trains, where the store has the same short sweep for fewer seeds.

    A pack reports after a second of training, or after an epoch. The launch runs to its end.
    """
    settings = _settings(
        f"placement.data_root={data_root}",
        f"grid.seed={list(seeds)}",
        *(
            "training.epochs=2",
            "training.schedule.warmup_epochs=0",
            "teacher.training.epochs=1",
            "tune=null",
            "tuned=null",
        ),
    )
    command = ["-m", "kd_ray.cli", "launch", str(sweep), "--store", str(store), "--log-format", "json", *settings]
    started, found = time.perf_counter(), None
    with subprocess.Popen([sys.executable, *command], cwd=ROOT, stderr=subprocess.PIPE, text=True) as launch:
        assert launch.stderr is not None
        for line in launch.stderr:
            if found is None and "images/s" in line:
                found = time.perf_counter() - started
    if found is None or launch.returncode:
        raise RuntimeError(f"{command}: exit code {launch.returncode}, no report of a pack")
    return found


def plain_sweep_seconds(sweep: Path, data_root: Path, threads: int, *, trials: int = 1000) -> float:
    """The same trials, or the first of them, one after another in one process."""
    arguments = (str(sweep), str(data_root), str(threads), str(trials))
    return seconds("-m", "tests.benchmarks.whole", "--plain-sweep", *arguments)


def plain_sweep(sweep: Path, data_root: Path, threads: int, trials: int) -> None:
    """Train and test the first trials of a sweep with the plain loop."""
    import torch

    from kd_ray.data.families import load_dataset
    from kd_ray.data.image_data import ImageData
    from kd_ray.models import build_model
    from kd_ray.sweep.datasets import input_size
    from kd_ray.sweep.distillation import KnowledgeDistillation
    from kd_ray.sweep.load import load_sweep
    from kd_ray.sweep.plan import expand
    from tests.benchmarks import plain

    torch.set_num_threads(threads)
    file = load_sweep(sweep)
    data = load_dataset(file.sweep.dataset, data_root)
    assert isinstance(data, ImageData)
    settings = plain.Settings(channels_last=True, num_workers=0)
    trained: dict[str, torch.nn.Module] = {}
    for trial in expand(file, lambda path: path)[:trials]:
        spec = trial.spec
        assert spec.training is not None
        assert spec.seed is not None
        torch.manual_seed(spec.seed)
        model = build_model(spec.model, num_classes=10, image_size=input_size(file.sweep.dataset))
        batches = plain.loader(
            data, data.train, spec.training.augmentation, batch_size=spec.training.batch_size, num_workers=0
        )
        teacher = trained[spec.teacher.trial_id] if spec.teacher else None
        loss = spec.distillation
        assert loss is None or isinstance(loss, KnowledgeDistillation)
        for _ in plain.train(model, teacher, batches, spec.training, loss, settings):
            pass
        test = plain.loader(data, data.test, "none", batch_size=500, num_workers=0, shuffle=False)
        plain.accuracy_on(model, test, settings)
        trained[trial.trial_id] = model.requires_grad_(False)


# ---------------------------------------------------------------- memory


def write_cifar10(root: Path) -> str:
    """Random images in the files of CIFAR-10, as many as there are; returns their fingerprint."""
    from kd_ray.data.cifar10 import FILES, FOLDER, fingerprint

    random = np.random.default_rng(0)
    folder = root / FOLDER
    folder.mkdir(parents=True)
    for name in FILES:
        content: dict[str, object] = {"label_names": list("abcdefghij")}
        if name != "batches.meta":
            count = _NUM_TRAIN // 5 if name.startswith("data") else _NUM_TEST
            pixels = random.integers(0, 256, (count, 3072), dtype=np.uint8)
            content = {"data": pixels, "labels": random.integers(0, 10, count).tolist()}
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))
    return fingerprint(root)


def memory_mb(data_root: Path, version: str, workers: int) -> dict[str, float]:
    """MB per worker process that has CIFAR-10 loaded and has taken a step, with so many of them: mean PSS and RSS."""
    command = [sys.executable, "-m", "tests.benchmarks.whole", "--hold", str(data_root), version]
    running = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(workers)
    ]
    try:
        for process in running:
            _wait_for_line(process.stdout)
        found = [_smaps_mb(process.pid) for process in running]
    finally:
        for process in running:
            process.communicate()
    return {key: sum(one[key] for one in found) / workers for key in ("Pss", "Rss")}


def hold(data_root: Path, version: str) -> None:
    """Be a worker: load the data, take a step, say so, and stay until stdin is closed."""
    from kd_ray.distill.fit import fit
    from kd_ray.distill.student import new_student
    from kd_ray.distill.worker import Worker
    from kd_ray.results.store import open_store
    from kd_ray.sweep.datasets import Cifar10Dataset
    from kd_ray.sweep.placement import Placement
    from kd_ray.sweep.spec import Role, TrialSpec
    from kd_ray.sweep.training import Sgd, Training

    placement = Placement(data_root=str(data_root), cpus_per_pack=1)
    worker = Worker(open_store(data_root / "store"), placement, launch_id="memory")
    dataset = Cifar10Dataset(name="cifar10", version=version)
    data = worker.data(dataset)
    training = Training.model_validate_json(
        json.dumps(
            {
                "epochs": 1,
                "batch_size": 64,
                "optimizer": Sgd(lr=0.1).model_dump(),
                "schedule": {"name": "constant"},
                "augmentation": "crop_flip",
            }
        )
    )
    spec = TrialSpec(role=Role.SCRATCH, dataset=dataset, model="resnet20", training=training, seed=0)
    student = new_student(spec, training, data.resident, worker.device, None)
    next(fit([student], {}, data.resident, on_failure=_raise, report_every_s=0.0))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.read()


def _raise(student: object, error: Exception) -> None:
    del student
    raise error


def _wait_for_line(stream: IO[str] | None) -> None:
    assert stream is not None
    if stream.readline().strip() != "ready":
        raise RuntimeError("a worker ended before it was ready; its error stands above")


def _smaps_mb(pid: int) -> dict[str, float]:
    return {key: kib * 1024 / 1e6 for key, kib in _smaps(pid)}


def _smaps(pid: int) -> Iterator[tuple[str, int]]:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        key, kib, _ = line.split()
        yield key.rstrip(":"), int(kib)


def main() -> None:
    """Be one of the processes that are measured."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--plain-sweep", nargs=4, metavar=("SWEEP", "DATA_ROOT", "THREADS", "TRIALS"))
    parser.add_argument("--hold", nargs=2, metavar=("DATA_ROOT", "VERSION"))
    options = parser.parse_args()
    if options.plain_sweep:
        sweep, data_root, threads, trials = options.plain_sweep
        plain_sweep(Path(sweep), Path(data_root), int(threads), int(trials))
    elif options.hold:
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        hold(Path(options.hold[0]), options.hold[1])


if __name__ == "__main__":
    main()
