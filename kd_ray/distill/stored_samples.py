"""What the store keeps of a data set's test samples."""

from kd_ray.data.modalities import Data
from kd_ray.results.record import Samples
from kd_ray.sweep.datasets import Dataset, table_name


def samples_of(dataset: Dataset, data: Data) -> Samples:
    """Labels, sensitive features and names of the test split."""
    files = data.test.files if data.modality == "images" else None
    # Only the families know the names of validation samples that are not files, and they name test samples alone.
    numbers = [str(n) for n in range(len(data.test))] if dataset.evaluated_on == "test" else None
    named = files.names() if files is not None else numbers
    return Samples(
        dataset=table_name(dataset),
        target=dataset.target,
        class_names=data.class_names,
        labels_N=data.test.labels_N,
        sensitive_features=data.test.sensitive_features,
        ids=named if data.test_ids is None else data.test_ids,
    )
