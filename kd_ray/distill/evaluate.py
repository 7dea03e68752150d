"""From a trained network to what its record says about the test split."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from kd_ray.distill.samples.kind import Resident
from kd_ray.metrics.calibration import fit_temperature, halves, scaled_confidences
from kd_ray.metrics.individual import Pairs, individual_fairness
from kd_ray.metrics.per_class import expected_calibration_error
from kd_ray.results.record import Evaluated

EVALUATION_BATCH = 100
"""Samples per forward pass of an evaluation; fixed, because the last bits of logits may depend on it. A ResNet-20 takes a third less time
per image than with 500 on one thread of a CPU, where the activations leave the cache."""
_EVALUATION_BATCH_GPU = 1000
"""The same on a GPU, which is idle between small batches."""


def predict(model: nn.Module, split: Resident) -> Tensor:
    """Logits (N, classes) of a whole split on the CPU, in order, float32; the network is left in training mode if it was."""
    return predict_all([model], split)[0]


@torch.no_grad()
def predict_all(models: Sequence[nn.Module], split: Resident) -> list[Tensor]:
    """Logits of several networks, which take each batch together: a split that is streamed is decoded once."""
    was_training = [model.training for model in models]
    found: list[list[Tensor]] = [[] for _ in models]
    try:
        batch_size = EVALUATION_BATCH if split.labels_N.device.type == "cpu" else _EVALUATION_BATCH_GPU
        for inputs, _ in split.plain_batches(batch_size):
            for model, logits in zip(models, found, strict=True):
                logits.append(model.eval()(inputs))
    finally:
        for model, was in zip(models, was_training, strict=True):
            model.train(was)
    return [torch.cat(logits).cpu() for logits in found]


def accuracy(model: nn.Module, split: Resident) -> float:
    """Share of the split that the network classifies correctly."""
    return accuracies([model], split)[0]


def accuracies(models: Sequence[nn.Module], split: Resident) -> list[float]:
    """`accuracy` of several networks."""
    labels_N = split.labels_N.cpu()
    return [float((logits_NC.argmax(1) == labels_N).double().mean()) for logits_NC in predict_all(models, split)]


def evaluate(model: nn.Module, split: Resident, pairs: Pairs, *, validation: Resident | None = None) -> Evaluated:
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
    calibrated_NC = torch.softmax(logits_NC / torch.from_numpy(temperature_N)[:, None], dim=1).numpy()
    scalars = {
        "loss": float(-log_probabilities_NC.gather(1, labels_N[:, None]).mean()),
        "expected_calibration_error": expected_calibration_error(confidences_N, correct_N),
        "calibration_temperature": float(np.exp(np.log(temperature_N).mean())),
        "calibrated_expected_calibration_error": expected_calibration_error(calibrated_N, correct_N),
        "individual_fairness": fairness.mean,
        "individual_fairness_hard": fairness.hard_mean,
        "individual_fairness_calibrated": individual_fairness(calibrated_NC, pairs).mean,
        "individual_fairness_p95": fairness.p95,
        "individual_fairness_max": fairness.maximum,
    }
    return Evaluated(
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
    validation: Resident | None,
) -> npt.NDArray[np.float64]:
    """The temperature for each test sample, fitted on others."""
    if validation is not None:
        held_out_MC = predict(model, validation).double().numpy()
        return np.full(len(labels_N), fit_temperature(held_out_MC, validation.labels_N.cpu().numpy()))
    half_N = halves(len(labels_N))
    of_half = [fit_temperature(logits_NC[half_N != half], labels_N[half_N != half]) for half in (0, 1)]
    return np.array(of_half)[half_N]
