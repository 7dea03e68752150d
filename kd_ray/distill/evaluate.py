"""From a trained network to what its record says about the test split."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kd_ray.data.images import ImageData
from kd_ray.distill.stream import ResidentSplit, plain_batches
from kd_ray.metrics.calibration import fit_temperature, halves, scaled_confidences
from kd_ray.metrics.individual import Pairs, choose_pairs, individual_fairness
from kd_ray.metrics.per_class import expected_calibration_error

EVALUATION_BATCH = 100
"""Samples per forward pass of an evaluation; fixed, because the last bits of logits may depend on it. A ResNet-20 takes a third less time
per image than with 500 on one thread of a CPU, where the activations leave the cache."""
PAIR_IMAGE_SIZE = 32
"""Images are averaged to at most this side before distances between them are taken."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Test predictions and the scalars that need more than them."""

    predictions_N: npt.NDArray[np.int32]
    confidences_N: npt.NDArray[np.float32]
    true_probabilities_N: npt.NDArray[np.float32]
    scalars: dict[str, float]
    per_sample: dict[str, npt.NDArray[np.float32]]
    """See `Record.per_sample`."""


@torch.no_grad()
def predict(model: nn.Module, split: ResidentSplit) -> Tensor:
    """Logits (N, classes) of a whole split on the CPU, in order, float32; the network is left in training mode if it was."""
    was_training = model.training
    model.eval()
    try:
        return torch.cat([model(images_BCHW).cpu() for images_BCHW, _ in plain_batches(split, EVALUATION_BATCH)])
    finally:
        model.train(was_training)


def accuracy(model: nn.Module, split: ResidentSplit) -> float:
    """Share of the split that the network classifies correctly."""
    return float((predict(model, split).argmax(1) == split.labels_N.cpu()).double().mean())


def evaluate(
    model: nn.Module, split: ResidentSplit, pairs: Pairs, *, validation: ResidentSplit | None = None
) -> Evaluation:
    """What every record says about the test split. Probabilities are softmax at T = 1, in float64.

    The temperature that calibrates the network is fitted on the validation split; without one, on each half of the test split for the
    other.
    """
    logits_NC = predict(model, split).double()
    labels_N = split.labels_N.cpu()
    log_probabilities_NC = torch.log_softmax(logits_NC, dim=1)
    probabilities_NC = log_probabilities_NC.exp().numpy()
    predictions_N = logits_NC.argmax(1)
    confidences_N = probabilities_NC.max(1)
    correct_N = (predictions_N == labels_N).numpy()
    temperature_N = _temperatures(model, logits_NC.numpy(), labels_N.numpy(), validation)
    calibrated_N = scaled_confidences(logits_NC.numpy(), temperature_N)
    fairness = individual_fairness(probabilities_NC, pairs)
    scalars = {
        "loss": float(-log_probabilities_NC.gather(1, labels_N[:, None]).mean()),
        "expected_calibration_error": expected_calibration_error(confidences_N, correct_N),
        "calibration_temperature": float(np.exp(np.log(temperature_N).mean())),
        "calibrated_expected_calibration_error": expected_calibration_error(calibrated_N, correct_N),
        "individual_fairness": fairness.mean,
        "individual_fairness_hard": fairness.hard_mean,
        "individual_fairness_p95": fairness.p95,
        "individual_fairness_max": fairness.maximum,
    }
    return Evaluation(
        predictions_N=predictions_N.numpy().astype(np.int32),
        confidences_N=confidences_N.astype(np.float32),
        true_probabilities_N=probabilities_NC[np.arange(len(labels_N)), labels_N.numpy()].astype(np.float32),
        scalars=scalars,
        per_sample={"calibrated_confidences": calibrated_N.astype(np.float32)},
    )


def _temperatures(
    model: nn.Module,
    logits_NC: npt.NDArray[np.float64],
    labels_N: npt.NDArray[np.int64],
    validation: ResidentSplit | None,
) -> npt.NDArray[np.float64]:
    """The temperature for each test sample, fitted on others."""
    if validation is not None:
        held_out_MC = predict(model, validation).double().numpy()
        return np.full(len(labels_N), fit_temperature(held_out_MC, validation.labels_N.cpu().numpy()))
    half_N = halves(len(labels_N))
    of_half = [fit_temperature(logits_NC[half_N != half], labels_N[half_N != half]) for half in (0, 1)]
    return np.array(of_half)[half_N]


def fairness_pairs(data: ImageData) -> Pairs:
    """Pairs of test images for individual fairness: standardised pixels, averaged to at most 32 × 32, Euclidean distance.

    The choice is ours: the paper's distance and pairs are not known to us (see `metrics/individual.py`).
    """
    mean_C, std_C = torch.tensor(data.mean).view(3, 1, 1), torch.tensor(data.std).view(3, 1, 1)
    features = []
    # In blocks: a test split of large images as float would be four times its size.
    for start in range(0, len(data.test), EVALUATION_BATCH):
        images_BHWC = torch.as_tensor(data.test.images_NHWC[start : start + EVALUATION_BATCH])
        images_BCHW = images_BHWC.permute(0, 3, 1, 2).float()
        if images_BCHW.shape[-1] > PAIR_IMAGE_SIZE:
            images_BCHW = torch.nn.functional.adaptive_avg_pool2d(images_BCHW, PAIR_IMAGE_SIZE)
        features.append(((images_BCHW / 255 - mean_C) / std_C).flatten(1))
    return choose_pairs(torch.cat(features).numpy())
