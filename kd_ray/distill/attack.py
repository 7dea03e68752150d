"""Projected gradient descent on images (Madry et al. 2018): for training on what it finds, and for accuracy under it."""

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from kd_ray.distill.samples.kind import PixelRange, Resident, images_of
from kd_ray.seeding import stream
from kd_ray.sweep.fields import Attack

_BATCH = 100
"""As for any evaluation."""


def pgd(
    model: nn.Module, images_BCHW: Tensor, labels_B: Tensor, attack: Attack, pixels: PixelRange, start_BCHW: Tensor
) -> Tensor:
    """Images within epsilon of these, and within black and white, on which the cross-entropy is large.

    From `start_BCHW`, in [−1, 1] as a share of epsilon, `steps` times: a step of `step_size` along the sign of the gradient, then back into
    the box. The network is asked in evaluation mode, so that the search does not move its running statistics; its mode is left as it was.
    """
    radius, step = attack.epsilon * pixels.width, attack.step_size * pixels.width
    low_BCHW = torch.maximum(images_BCHW - radius, pixels.low)
    high_BCHW = torch.minimum(images_BCHW + radius, pixels.low + pixels.width)
    was_training = model.training
    model.eval()
    try:
        found_BCHW = (images_BCHW + radius * start_BCHW).clamp(low_BCHW, high_BCHW)
        for _ in range(attack.steps):
            found_BCHW = found_BCHW.detach().requires_grad_()
            with torch.enable_grad():
                loss = functional.cross_entropy(model(found_BCHW), labels_B, reduction="sum")
                (gradient_BCHW,) = torch.autograd.grad(loss, found_BCHW)
            found_BCHW = (found_BCHW + step * gradient_BCHW.sign()).clamp(low_BCHW, high_BCHW)
        return found_BCHW.detach()
    finally:
        model.train(was_training)


def random_start(like_BCHW: Tensor, seed: int, *names: str | int) -> Tensor:
    """Uniform in [−1, 1), from the named stream of the seed; raw draws, as NumPy may change its distributions between versions."""
    raw = stream(seed, *names).bit_generator.random_raw(like_BCHW.numel())
    uniform = (raw >> np.uint64(40)).astype(np.float32) * np.float32(2**-23) - np.float32(1)
    # Channels last, as the images are.
    batch, channels, height, width = like_BCHW.shape
    start_BHWC = torch.from_numpy(uniform).view(batch, height, width, channels)
    return start_BHWC.permute(0, 3, 1, 2).to(like_BCHW.device)


def robust_predictions(model: nn.Module, split: Resident, attack: Attack) -> npt.NDArray[np.int32]:
    """Predicted class of each sample of a split under attack; the start is the same for every network."""
    pixels = split.pixels
    assert pixels is not None
    was_training = model.training
    model.eval()
    found = []
    try:
        for number, (inputs, labels_B) in enumerate(split.plain_batches(_BATCH)):
            images_BCHW = images_of(inputs)
            start_BCHW = random_start(images_BCHW, 0, "pgd", number)
            attacked_BCHW = pgd(model, images_BCHW, labels_B, attack, pixels, start_BCHW)
            with torch.no_grad():
                found.append(model(attacked_BCHW).argmax(1).cpu())
    finally:
        model.train(was_training)
    return np.asarray(torch.cat(found).numpy().astype(np.int32))
