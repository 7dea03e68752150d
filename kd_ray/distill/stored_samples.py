"""What the store keeps of a data set's test samples."""

from kd_ray.data.modalities import Data
from kd_ray.results.record import Samples
from kd_ray.sweep.datasets import Dataset, table_name


def samples_of(dataset: Dataset, data: Data) -> Samples:
    """Labels and sensitive features of the test split."""
    return Samples(
        dataset=table_name(dataset),
        target=dataset.target,
        class_names=data.class_names,
        labels_N=data.test.labels_N,
        sensitive_features=data.test.sensitive_features,
    )
