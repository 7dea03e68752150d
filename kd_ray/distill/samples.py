"""What the store keeps of a data set's test samples."""

from kd_ray.data.texts import Data
from kd_ray.results.record import Samples
from kd_ray.sweep.datasets import Dataset


def samples_of(dataset: Dataset, data: Data) -> Samples:
    """Labels and sensitive features of the test split."""
    return Samples(
        dataset=dataset.name,
        target=dataset.target,
        class_names=data.class_names,
        labels_N=data.test.labels_N,
        sensitive_features=data.test.sensitive_features,
    )
