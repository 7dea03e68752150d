"""The record: what a finished trial commits, as one Parquet object with one row.

It holds the spec, the provenance, the epoch history, scalars, and the test predictions, so that a new metric or grouping never needs
retraining. Labels and sensitive features of the test samples are stored once per data set (`Samples`).
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import TypeAdapter

from kd_ray.bounded import in_a_line
from kd_ray.errors import CorruptObjectError, OtherVersionError
from kd_ray.results.parquet import MOST_VALUES
from kd_ray.results.parquet import decode_table as decode_table  # noqa: PLC0414 (users of records need both)
from kd_ray.results.parquet import encode_table as encode_table  # noqa: PLC0414
from kd_ray.results.record_schema import RECORD
from kd_ray.results.samples import Samples as Samples  # noqa: PLC0414
from kd_ray.results.samples import read_samples as read_samples  # noqa: PLC0414
from kd_ray.results.samples import write_samples as write_samples  # noqa: PLC0414
from kd_ray.results.store import Kind, Store, parse_key, record_key, stop_key
from kd_ray.sweep.spec import TrialSpec

logger = logging.getLogger("kd_ray")

RECORD_VERSION = 4
_LACKS = {2: ("per_class", "per_sample"), 3: ("per_sample",), RECORD_VERSION: ()}
"""For each version of records that can be read, the columns that it lacks; they are empty then."""


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of the training history."""

    epoch: int
    """From 1."""
    loss: float
    """Mean training loss over the epoch's samples."""
    terms: Mapping[str, float]
    """Mean of each term of the loss before weighting: `cross_entropy`, `distillation`, or other terms of the objective."""
    train_accuracy: float
    validation_accuracy: float | None
    lr: float
    """Learning rate of the last step."""
    elapsed_s: float
    """Seconds this trial took in the epoch; in a pack, its share."""


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where, when and how the trial was trained. Nothing here is part of the result."""

    launch_id: str
    generation: int
    """Number of the lease under which the record was written; above 1, another worker held the trial before."""
    restarts: int
    """How often training continued from a checkpoint."""
    retries: int
    """How often this launch had started the trial again because its worker had died."""
    host: str
    device: str
    threads: int
    pack_size: int
    """Trials that were trained side by side with this one, itself included."""
    started_at: datetime
    finished_at: datetime
    elapsed_s: float
    """Training seconds over all restarts."""
    images_per_s: float
    """Training samples per second of this trial's own time."""
    git_commit: str | None
    """Commit of the kd_ray checkout, where there is one; `+` marks local changes."""
    versions: Mapping[str, str]
    """Versions of Python and of the packages on which results depend."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluated:
    """What a trained network gives on the test split: its predictions, and the metrics that need more than predictions."""

    scalars: Mapping[str, float]
    """Test metrics that need more than predictions: `loss`, `expected_calibration_error`, `individual_fairness`, …; NaN if undefined."""
    predictions_N: npt.NDArray[np.int32]
    """Predicted class of each test sample, in the order of the data set's samples."""
    confidences_N: npt.NDArray[np.float32]
    """Probability of the predicted class, T = 1."""
    true_probabilities_N: npt.NDArray[np.float32]
    """Probability of the true class, T = 1."""
    per_sample: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)
    """More numbers for each test sample: `schema.PER_SAMPLE` lists all. Classes too are float32, which has room for 2^24 of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Record:
    """A committed trial."""

    spec: TrialSpec
    epochs: tuple[Epoch, ...]
    test: Evaluated
    weights_key: str
    weights_sha256: str
    num_parameters: int
    provenance: Provenance
    per_class: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    """Numbers of each class: `train_n`, its training samples, and numbers that the objective used. `schema.PER_CLASS` lists all."""

    @property
    def trial_id(self) -> str:
        """Identity of the trial."""
        return self.spec.trial_id


def commit_record(store: Store, record: Record) -> bool:
    """Write the record unless the trial has one already; returns whether it was written."""
    return store.put_new(record_key(record.trial_id), encode_record(record), durable=True)


def read_record(store: Store, trial_id: str) -> Record | None:
    """The record of a trial; None if it has none.

    Raises:
        CorruptObjectError: the object is not a complete record of this trial.
    """
    return _read(store, record_key(trial_id), trial_id)


def read_stop(store: Store, trial_id: str, epoch: int) -> Record | None:
    """How a trial did after this epoch, where a search stopped it; None if it did not. It names weights that were never written.

    Raises:
        CorruptObjectError: the object is not a complete record of this trial.
    """
    return _read(store, stop_key(trial_id, epoch), trial_id)


def _read(store: Store, key: str, trial_id: str) -> Record | None:
    data = store.get(key)
    if data is None:
        return None
    try:
        record = decode_record(data)
    except OtherVersionError as error:
        raise OtherVersionError(f"store {store.url}: {key!r} {error}") from error
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CorruptObjectError(f"store {store.url}: {key!r} is not a whole record: {in_a_line(error)}") from error
    if record.trial_id != trial_id:
        raise CorruptObjectError(f"store {store.url}: {key!r} holds the record of trial {record.trial_id}")
    return record


def encode_record(record: Record) -> bytes:
    """The record as Parquet with page checksums."""
    row = {
        "record_version": RECORD_VERSION,
        "trial_id": record.trial_id,
        "dataset_id": record.spec.dataset_id,
        "spec": record.spec.model_dump_json(),
        "epochs": [vars(epoch) | {"terms": sorted(epoch.terms.items())} for epoch in record.epochs],
        "scalars": sorted(record.test.scalars.items()),
        "predictions": record.test.predictions_N.astype(np.int32).tolist(),
        "confidences": record.test.confidences_N.astype(np.float32).tolist(),
        "true_probabilities": record.test.true_probabilities_N.astype(np.float32).tolist(),
        "weights_key": record.weights_key,
        "weights_sha256": record.weights_sha256,
        "num_parameters": record.num_parameters,
        "provenance": vars(record.provenance) | {"versions": sorted(record.provenance.versions.items())},
        "per_class": sorted((name, list(values)) for name, values in record.per_class.items()),
        "per_sample": [(name, values.tolist()) for name, values in sorted(record.test.per_sample.items())],
    }
    # Dictionary encoding saves nothing in a single row.
    return encode_table(pa.Table.from_pylist([row], schema=RECORD), use_dictionary=False)


def decode_record(data: bytes) -> Record:
    """Read a record; raises ArrowException, OSError, ValueError, KeyError or TypeError when it is not complete.

    Raises:
        OtherVersionError: it is complete, but another version of kd_ray has written it.
    """
    table = decode_table(data, most_values=MOST_VALUES)
    if table.num_rows != 1:
        raise ValueError(f"{table.num_rows} rows, expected 1")
    written = table["record_version"][0].as_py() if "record_version" in table.schema.names else RECORD_VERSION
    if written not in _LACKS:
        raise OtherVersionError(
            f"has record_version {written}, and this kd_ray reads {min(_LACKS)} to {RECORD_VERSION}"
        )
    if not table.schema.equals(pa.schema([column for column in RECORD if column.name not in _LACKS[written]])):
        raise ValueError("its columns are not those of a record")
    lists = {
        name: table[name].combine_chunks().flatten().to_numpy()
        for name in ("predictions", "confidences", "true_probabilities")
    }
    per_sample = _arrays(table["per_sample"]) if "per_sample" in table.schema.names else {}
    row = table.drop_columns([name for name in (*lists, "per_sample") if name in table.schema.names]).to_pylist()[0]
    provenance = row["provenance"] | {"versions": dict(row["provenance"]["versions"])}
    plain: _Plain = _PLAIN.validate_python(
        {
            **row,
            "epochs": [epoch | {"terms": dict(epoch["terms"])} for epoch in row["epochs"]],
            "scalars": dict(row["scalars"]),
            "provenance": provenance,
            "per_class": dict(row.get("per_class", ())),
        }
    )
    spec = TrialSpec.model_validate_json(row["spec"]).named(row["trial_id"])
    place = parse_key(plain.weights_key)
    if place is None or place.kind is not Kind.WEIGHTS or place.trial_id != spec.trial_id:
        raise ValueError(f"its weights_key is {plain.weights_key!r}")
    return Record(
        spec=spec,
        epochs=plain.epochs,
        test=Evaluated(
            scalars=plain.scalars,
            predictions_N=lists["predictions"],
            confidences_N=lists["confidences"],
            true_probabilities_N=lists["true_probabilities"],
            per_sample=per_sample,
        ),
        weights_key=plain.weights_key,
        weights_sha256=plain.weights_sha256,
        num_parameters=plain.num_parameters,
        provenance=plain.provenance,
        per_class=plain.per_class,
    )


@dataclass(frozen=True, kw_only=True)
class _Plain:
    """The columns of a record that are not one number for each sample. Arrow's types allow null where ours do not."""

    epochs: tuple[Epoch, ...]
    scalars: dict[str, float]
    weights_key: str
    weights_sha256: str
    num_parameters: int
    provenance: Provenance
    per_class: dict[str, tuple[float, ...]]


_PLAIN: TypeAdapter[_Plain] = TypeAdapter(_Plain)


def _arrays(column: pa.ChunkedArray) -> dict[str, npt.NDArray[np.float32]]:
    """The lists of a map by name, without a Python number for each value."""
    found = column.combine_chunks()
    return {str(name): found.items[i].values.to_numpy() for i, name in enumerate(found.keys.to_pylist())}


def misfit(record: Record, samples: Samples) -> str | None:
    """How a record does not fit the samples that it is about; None when it does."""
    n, num_classes = len(samples.labels_N), len(samples.class_names)
    test = record.test
    lengths = {len(test.predictions_N), len(test.confidences_N), len(test.true_probabilities_N)}
    lengths |= {len(values_N) for values_N in test.per_sample.values()}
    if lengths != {n}:
        return f"predicts {' and '.join(map(str, sorted(lengths)))} test samples, and its data set has {n}"
    if n and not 0 <= test.predictions_N.min() <= test.predictions_N.max() < num_classes:
        return f"predicts classes that are none of the {num_classes} of its data set"
    if wrong := [name for name, values in record.per_class.items() if len(values) != num_classes]:
        return f"has another number of values than classes: {', '.join(wrong)}"
    return None


def sha256(data: bytes) -> str:
    """Hex digest of the content."""
    return hashlib.sha256(data).hexdigest()
