"""Mixup and CutMix: every sample of a batch together with a partner of the same batch, for the student, its teacher and the labels alike.

What is mixed with what follows from (seed, epoch, step), so a step in the middle of an epoch is the same whatever came before it.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from kd_ray.seeding import shuffled, stream
from kd_ray.sweep.training import Training


class Mix(NamedTuple):
    """What becomes of a batch."""

    weight: float
    """λ, the share of the sample itself; its partner has 1 − λ."""
    partners_B: Tensor
    """Place in the batch of each one's partner; on the CPU."""
    box: tuple[int, int, int, int] | None
    """CutMix: top, bottom, left and right of the pixels that come from the partner. Mixup: None."""


def draw_mix(training: Training, count: int, side: int, *, seed: int, epoch: int, step: int) -> Mix | None:
    """The mix of one step for a batch of `count` images; None where the settings ask for none.

    λ is drawn once for the batch, from Beta(α, α). With both settings each step takes one of the two, with p = 0.5 each.
    """
    if not training.mixes:
        return None
    random = stream(seed, "mix", epoch, step)
    uniforms = iter(float(raw >> 11) * 2.0**-53 for raw in iter(random.bit_generator.random_raw, None))
    is_cutmix = training.mixup == 0 or (training.cutmix > 0 and next(uniforms) < 0.5)
    weight = symmetric_beta(training.cutmix if is_cutmix else training.mixup, uniforms)
    box = None
    if is_cutmix:
        box = cut_box(side, weight, next(uniforms), next(uniforms))
        weight = 1 - (box[1] - box[0]) * (box[3] - box[2]) / side**2
    partners_B = torch.from_numpy(shuffled(count, stream(seed, "mix partners", epoch, step)))
    return Mix(weight, partners_B, box)


def symmetric_beta(alpha: float, uniforms: Iterator[float]) -> float:
    """A draw from Beta(α, α), 0 < α ≤ 1: U^(1/α) over its sum with V^(1/α), of the first pair whose sum is at most 1.

    Jöhnk, "Erzeugung von betaverteilten und gammaverteilten Zufallszahlen", Metrika 8 (1964).
    """
    while True:
        x, y = math.pow(next(uniforms), 1 / alpha), math.pow(next(uniforms), 1 / alpha)
        if 0 < x + y <= 1:
            return x / (x + y)


def cut_box(side: int, weight: float, down: float, across: float) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of a square of side · √(1 − λ) around a point (shares of the side), cut off where the image ends.

    Yun et al., "CutMix" (ICCV 2019); λ is afterwards what the square really leaves of the image.
    """
    half = int(side * math.sqrt(1 - weight)) // 2
    row, column = int(down * side), int(across * side)
    return max(0, row - half), min(side, row + half), max(0, column - half), min(side, column + half)


def mixed(images_BCHW: Tensor, mix: Mix) -> Tensor:
    """λ · x + (1 − λ) · partner (Zhang et al., "mixup", ICLR 2018); or x with the partner's pixels in the box."""
    partners_BCHW = images_BCHW[mix.partners_B.to(images_BCHW.device)]
    if mix.box is None:
        return images_BCHW * mix.weight + partners_BCHW * (1 - mix.weight)
    top, bottom, left, right = mix.box
    result_BCHW = images_BCHW.clone()
    result_BCHW[:, :, top:bottom, left:right] = partners_BCHW[:, :, top:bottom, left:right]
    return result_BCHW
