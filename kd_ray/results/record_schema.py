"""The columns of a record, as Parquet has them."""

import pyarrow as pa

_EPOCH = pa.struct(
    [
        ("epoch", pa.int32()),
        ("loss", pa.float64()),
        ("terms", pa.map_(pa.string(), pa.float64())),
        ("train_accuracy", pa.float64()),
        ("validation_accuracy", pa.float64()),
        ("lr", pa.float64()),
        ("elapsed_s", pa.float64()),
    ]
)
_TIME = pa.timestamp("us", tz="UTC")
_PROVENANCE = pa.struct(
    [
        ("launch_id", pa.string()),
        ("generation", pa.int32()),
        ("restarts", pa.int32()),
        ("retries", pa.int32()),
        ("host", pa.string()),
        ("device", pa.string()),
        ("threads", pa.int32()),
        ("pack_size", pa.int32()),
        ("started_at", _TIME),
        ("finished_at", _TIME),
        ("elapsed_s", pa.float64()),
        ("images_per_s", pa.float64()),
        ("git_commit", pa.string()),
        ("versions", pa.map_(pa.string(), pa.string())),
    ]
)
RECORD = pa.schema(
    [
        ("record_version", pa.int32()),
        ("trial_id", pa.string()),
        ("dataset_id", pa.string()),
        ("spec", pa.string()),
        ("epochs", pa.list_(_EPOCH)),
        ("scalars", pa.map_(pa.string(), pa.float64())),
        ("predictions", pa.list_(pa.int32())),
        ("confidences", pa.list_(pa.float32())),
        ("true_probabilities", pa.list_(pa.float32())),
        ("weights_key", pa.string()),
        ("weights_sha256", pa.string()),
        ("num_parameters", pa.int64()),
        ("provenance", _PROVENANCE),
        ("per_class", pa.map_(pa.string(), pa.list_(pa.float64()))),
        ("per_sample", pa.map_(pa.string(), pa.list_(pa.float32()))),
    ]
)
"""One row: a finished trial."""
