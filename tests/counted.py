"""Counts of predictions for sources of a study that hold arrays."""

import numpy as np
import numpy.typing as npt

from kd_ray.analysis.collapse import PredictionCounts
from kd_ray.metrics.arrays import IntArray


def count_predictions(labels_N: IntArray, predictions_TN: npt.NDArray[np.integer]) -> PredictionCounts:
    """What `class_metrics` says of T trials with the same test samples."""
    size = int(max(labels_N.max(), predictions_TN.max())) + 1
    n_C = np.bincount(labels_N, minlength=size)
    predicted_TC = np.stack([np.bincount(predictions_N, minlength=size) for predictions_N in predictions_TN])
    count = len(predictions_TN)
    return PredictionCounts(
        num_test_T=np.full(count, len(labels_N)),
        num_correct_T=(labels_N == predictions_TN).sum(axis=1),
        largest_class_T=np.full(count, n_C.max()),
        most_predicted_T=predicted_TC.max(axis=1),
        by_chance_T=predicted_TC @ n_C,
    )
