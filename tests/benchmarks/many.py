"""A sweep of 105 trials from its launch to its last table: how much of the time of the cores is training, and where the rest goes."""

import os
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from kd_ray.results.query import Results
from kd_ray.results.store import open_store
from tests.benchmarks import whole
from tests.benchmarks.where import Clocks

MANY = """
name: many
dataset: {{name: trifeature, size: 32, images_per_combination: 4, test_fraction: 0.5}}
sensitive_features: [color, texture]
teacher:
  model: resnet20
  training:
    epochs: 4
    batch_size: 64
    optimizer: {{name: sgd, lr: 0.1}}
    schedule: {{name: cosine}}
student: {{model: lenet5}}
training:
  epochs: {epochs}
  batch_size: 64
  optimizer: {{name: sgd, lr: 0.02}}
  schedule: {{name: cosine}}
  augmentation: crop_flip
distillation: {{alpha: 0.5, t_squared: true}}
grid:
  seed: {seeds}
  temperature: [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12, 14, 16, 18, 20, 25, 30, 35, 40]
placement: {{cpus_per_pack: 1, pack_size: auto}}
"""
"""With five seeds 5 teachers, 5 scratch and 95 distilled students, on 2,000 images."""


@dataclass(frozen=True, kw_only=True)
class Many:
    """What became of the sweep."""

    trials: int
    training_s: float
    """Summed over the trials."""
    wall_s: float
    """Of the whole command, Ray and Python included."""

    @property
    def share(self) -> float:
        """Of the time of all cores that is training."""
        return self.training_s / (self.wall_s * (os.cpu_count() or 1))


def launch_many(folder: Path, *, epochs: int) -> Many:
    """`kd-ray launch` of the sweep in a fresh store; its images are drawn before."""
    sweep = folder / "many.yaml"
    sweep.write_text(MANY.format(epochs=epochs, seeds=[0, 1, 2, 3, 4]))
    whole.draw_data(sweep, folder / "data")
    store = folder / "store"
    setting = f"placement.data_root={folder / 'data'}"
    wall_s = whole.seconds("-m", "kd_ray.cli", "launch", str(sweep), "--store", str(store), "--set", setting)
    trials = Results(open_store(store)).query("SELECT count(*) AS n, sum(elapsed_s) AS s FROM trials").to_pylist()[0]
    return Many(trials=trials["n"], training_s=trials["s"], wall_s=wall_s)


PARTS = (
    "training: batches and students",
    "teachers' logits",
    "data",
    "evaluation",
    "commit: weights and records",
    "checkpoints",
    "tables",
    "the rest",
)


def seconds_of_parts(folder: Path, *, epochs: int) -> dict[str, float]:
    """Where one seed of the sweep (21 trials) spends its time in one process, without Ray."""
    from kd_ray.cluster import launch_checks, launch_report
    from kd_ray.cluster.launch import launch
    from kd_ray.cluster.local import LocalRunner
    from kd_ray.distill import pack_run as pack
    from kd_ray.distill import worker
    from kd_ray.distill.teacher import TabledTeacher
    from kd_ray.sweep.load import parse_sweep

    clocks = Clocks(time.perf_counter)
    file = parse_sweep(
        MANY.format(epochs=epochs, seeds=[0]),
        source="many.yaml",
        overrides=[f"placement.data_root={folder / 'data'}", "placement.pack_size=8"],
    )
    with ExitStack() as stack:
        for owner, name, part in (
            (worker, "load_data", "data"),
            (launch_checks, "load_dataset", "data"),
            (worker, "evaluate", "evaluation"),
            (pack._Run, "_commit", "commit: weights and records"),
            (pack._Run, "_save", "checkpoints"),
            (launch_report, "aggregate", "tables"),
            (TabledTeacher, "_compute", "teachers' logits"),
        ):
            stack.enter_context(clocks.around(owner, name, part))
        stack.enter_context(clocks.around_steps(worker, "fit", PARTS[0]))
        started = time.perf_counter()
        launch(file, open_store(folder / "parts"), runner=LocalRunner())
        total = time.perf_counter() - started
    found = dict(clocks.seconds)
    found[PARTS[0]] -= found["teachers' logits"]
    # Trials are committed by threads, beside the evaluation of the next one.
    beside = found["commit: weights and records"]
    found["the rest"] = total - sum(found.values()) + beside
    return {**found, "total": total}


def table(seconds: dict[str, float]) -> str:
    """Seconds and shares, as Markdown."""
    lines = ["| part of a sweep | s | % |", "|:---|---:|---:|"]
    lines += [
        f"| {part} | {seconds.get(part, 0.0):.2f} | {100 * seconds.get(part, 0.0) / seconds['total']:.1f} |"
        for part in (*PARTS, "total")
    ]
    return "\n".join(lines)
