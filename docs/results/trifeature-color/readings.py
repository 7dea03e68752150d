"""Individual fairness under several readings of its definition: `python readings.py SWEEP STORE DATA_ROOT`.

The paper gives E[|f(x) - f(x')| / d(x, x')], and neither f nor d nor which pairs are meant. Each line of the answer is one choice; it has
the mean over seeds of each condition.
"""

import sys
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

import kd_ray

PAIRS, ANCHORS, NEIGHBOURS = 10_000, 1_000, 5


def features_of(model: nn.Module, batches: Iterable[tuple[Any, Any]]) -> np.ndarray:
    """What the last linear layer of a network is given, (N, F)."""
    last = [module for module in model.modules() if isinstance(module, nn.Linear)][-1]
    found: list[torch.Tensor] = []
    handle = last.register_forward_hook(lambda module, given, output: found.append(given[0]))
    for inputs, _ in batches:
        model(inputs)
    handle.remove()
    return torch.cat(found).numpy()


def pairs_of(pixels_ND: np.ndarray, labels_N: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Pairs of samples: at random, the nearest in pixels, and at random within a class."""
    random, count = np.random.default_rng(0), len(labels_N)
    first_P = random.integers(count, size=PAIRS)
    second_P = (first_P + random.integers(1, count, size=PAIRS)) % count
    anchors_A = random.permutation(count)[:ANCHORS]
    squares_N = (pixels_ND**2).sum(1)
    gaps_AN = squares_N[anchors_A, None] - 2 * pixels_ND[anchors_A] @ pixels_ND.T + squares_N[None]
    gaps_AN[np.arange(ANCHORS), anchors_A] = np.inf
    near_AK = np.argpartition(gaps_AN, NEIGHBOURS, axis=1)[:, :NEIGHBOURS]
    is_same_P = labels_N[first_P] == labels_N[second_P]
    return {
        "random": (first_P, second_P),
        "nearest": (np.repeat(anchors_A, NEIGHBOURS), near_AK.ravel()),
        "same class": (first_P[is_same_P], second_P[is_same_P]),
    }


def softmax(logits_NC: np.ndarray) -> np.ndarray:
    """Probabilities of each row."""
    shifted_NC = np.exp(logits_NC - logits_NC.max(1, keepdims=True))
    return shifted_NC / shifted_NC.sum(1, keepdims=True)


def main(sweep: str, store: str, data_root: str) -> None:
    """Print a table: a line for each reading, a column for each condition."""
    results = kd_ray.open_store(store)
    trials = results.query("SELECT * FROM trials ORDER BY role DESC, t_squared, temperature, seed").to_pylist()
    trials = [trial for trial in trials if trial["sweep"] == sweep]
    teacher = kd_ray.trained(
        next(it["trial_id"] for it in trials if it["role"] == "teacher"), results, data_root=data_root
    )
    pixels = teacher.data.test.pixels
    assert pixels is not None
    images = torch.cat([inputs for inputs, _ in teacher.batches()])  # type: ignore[misc]
    pixels_ND = (images / pixels.width).flatten(1).double().numpy()
    spaces = {"pixels": pixels_ND, "teacher's features": features_of(teacher.model, teacher.batches())}
    pairs = pairs_of(pixels_ND, teacher.data.test.labels_N.numpy())
    distances = {
        (how, space): np.linalg.norm(points[i] - points[j], axis=1)
        for how, (i, j) in pairs.items()
        for space, points in spaces.items()
    }
    found: dict[tuple[str, ...], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for trial in trials:
        logits_NC = kd_ray.trained(trial["trial_id"], results, data_root=data_root).logits().astype(np.float64)
        outputs = {
            "probabilities": softmax(logits_NC),
            "calibrated": softmax(logits_NC / trial["calibration_temperature"]),
            "labels": np.eye(logits_NC.shape[1])[logits_NC.argmax(1)],
        }
        squared = {None: "", True: " T² on", False: " T² off"}[trial["t_squared"]]
        condition = trial["role"] if trial["temperature"] is None else f"T={trial['temperature']:g}{squared}"
        for (how, space), distance_P in distances.items():
            i, j = (index_P[distance_P > 0] for index_P in pairs[how])
            for what, f_NC in outputs.items():
                change_P = 0.5 * np.abs(f_NC[i] - f_NC[j]).sum(1)
                found[how, space, what][condition].append(float((change_P / distance_P[distance_P > 0]).mean()))
    for reading, by_condition in found.items():
        texts = [f"{name} {np.mean(values):.4f}" for name, values in by_condition.items()]
        print(", ".join(reading), "; ".join(texts), sep=": ")


if __name__ == "__main__":
    main(*sys.argv[1:])
