"""An estimate of what each sweep file costs on one GPU, from arithmetic alone; nothing is measured. For the table of sweeps/README.md.

    python -m tests.benchmarks.sweep_costs sweeps/*.yaml

A step takes a network the longer of two times: its floating-point operations (three times those of the forward pass) at `_FLOPS`, or
`_LAYER_S` for each of its layers, because the kernels of small networks are launched more slowly than they run. Students of a pack take
turns. A teacher's logits are computed once per view and teacher where the table of them fits, else once per batch and pack.
"""

import sys
from functools import lru_cache
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from kd_ray.distill.augmentations import num_views
from kd_ray.distill.batches import steps_per_epoch
from kd_ray.models import build_model
from kd_ray.results.launch_plan import plan
from kd_ray.sweep.architectures import mlp_widths
from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.load import load_sweep
from kd_ray.sweep.spec import Role

_FLOPS = 10e12
"""Operations per second that convolutions sustain in float32 without TF32: an assumption."""
_LAYER_S = 1e-4
"""Seconds for each layer in each step, forward, backward and update, about ten kernels: an assumption."""
_NUM_TRAIN = {
    "cifar10": 50_000, "cifar100": 50_000, "svhn": 73_257, "tiny_imagenet": 100_000, "imagenet": 1_281_167, "celeba": 156_000,
    "adult": 30_162, "manifest": 16_600,
}  # fmt: skip
"""Training images of the published sets; CelebA's are balanced, the list is UTKFace."""


@lru_cache
def network(name: str, num_classes: int, image_size: int) -> tuple[float, int]:
    """(operations of the forward pass of one image, layers with weights)."""
    if (widths := mlp_widths(name)) is not None:
        return 2.0 * 100 * widths[0], len(widths) + 1
    model = build_model(name, num_classes=num_classes, image_size=image_size).eval()
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, image_size, image_size))
    return counter.get_total_flops(), sum(isinstance(layer, nn.Conv2d | nn.Linear) for layer in model.modules())


def num_train(dataset: Dataset) -> int:
    """Training samples, as the sweep file means them."""
    if dataset.name == "trifeature":
        return round(1000 * dataset.images_per_combination * (1 - dataset.test_fraction))
    if dataset.long_tail is not None:
        return 10_847 if dataset.name == "cifar100" else 115_846
    return _NUM_TRAIN[dataset.name]


def hours(path: str) -> tuple[int, float]:
    """Trials of a sweep file, and estimated hours."""
    planned = plan(load_sweep(path), None)
    seconds, tabled = 0.0, set()
    for pack in planned.packs:
        for n, trial in enumerate(pack.trials):
            spec = trial.spec
            assert spec.training is not None
            count, training = num_train(spec.dataset), spec.training
            classes, size = spec.dataset.num_classes, spec.dataset.image_size or 0
            flops, layers = network(spec.model, classes, size)
            steps = training.epochs * steps_per_epoch(count, training.batch_size)
            seconds += max(training.epochs * count * 3 * flops / _FLOPS, steps * layers * _LAYER_S)
            if spec.role is not Role.DISTILLED or spec.teacher is None:
                continue
            views = num_views(training.augmentation)
            assert views is not None
            fits = count * views * classes * 4 / 1e9 <= 4.0
            flops, layers = network(spec.teacher.model, classes, size)
            forward = max(count * flops / _FLOPS, steps_per_epoch(count, training.batch_size) * layers * _LAYER_S / 3)
            if fits and spec.teacher.trial_id not in tabled:
                tabled.add(spec.teacher.trial_id)
                seconds += min(views, training.epochs) * forward
            elif not fits and n == 0:
                seconds += training.epochs * forward
    return len(planned.planned), seconds / 3600


if __name__ == "__main__":
    for path in sys.argv[1:]:
        trials, estimate = hours(path)
        print(f"{Path(path).stem:24} {trials:4} trials  {estimate:8.2f} h")
