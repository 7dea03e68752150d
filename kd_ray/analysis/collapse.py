"""Which trials have collapsed: their predictions say next to nothing about the labels.

Seen from how often each class is there, is predicted, and is predicted correctly, as `class_metrics` has it, without the predictions.
"""

from dataclasses import dataclass

import numpy as np

from kd_ray.metrics.arrays import IntArray

COLLAPSED_SHARE = 0.99
"""Share of the predictions above which they count as one class."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PredictionCounts:
    """How T trials predict their test samples."""

    num_test_T: IntArray
    num_correct_T: IntArray
    largest_class_T: IntArray
    """Test samples of the most frequent class."""
    most_predicted_T: IntArray
    """Test samples that are predicted as the class which is predicted most."""
    by_chance_T: IntArray
    """Sum over the classes of samples of the class times samples predicted as the class: `num_test`² times the accuracy by chance."""


def collapses(counts: PredictionCounts) -> list[str]:
    """Why the predictions of each trial say next to nothing about the labels, in words; empty where they say something.

    Either (nearly) all of them are one class, or they are right no more often than labels and predictions would agree by chance, with the
    shares that both have (Cohen's kappa not above 0 by two standard errors).
    """
    n_T = counts.num_test_T.astype(np.float64)
    is_one_class_T = counts.most_predicted_T / n_T >= COLLAPSED_SHARE
    has_one_class_T = is_one_class_T & (counts.largest_class_T < COLLAPSED_SHARE * n_T)
    chance_T = counts.by_chance_T / n_T**2
    is_chance_T = counts.num_correct_T / n_T <= chance_T + 2 * np.sqrt(chance_T * (1 - chance_T) / n_T)
    return [
        "predicts one class" if has_one else "is at chance level" if is_chance else ""
        for has_one, is_chance in zip(has_one_class_T.tolist(), is_chance_T.tolist(), strict=True)
    ]
