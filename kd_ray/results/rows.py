"""From one record to its rows in every table. The rows depend on the record, the samples and the settings alone."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from itertools import chain
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kd_ray.groups import Groups, intersect, joint_name
from kd_ray.metrics.arrays import divide
from kd_ray.metrics.catalogue import METRICS
from kd_ray.metrics.fairness import OneVsRest, fairness_metrics, group_rates, one_vs_rest
from kd_ray.metrics.per_class import class_metrics
from kd_ray.results.axis_columns import axis_values
from kd_ray.results.record import Record, Samples
from kd_ray.results.row_settings import RowSettings
from kd_ray.results.schema import PER_CLASS, PER_SAMPLE, TABLES, TERMS
from kd_ray.sweep.datasets import table_name
from kd_ray.sweep.spec import TrialSpec

_BY_CLASS = tuple(field.name for field in fields(OneVsRest))
"""Fairness metrics that have a value for each class taken as the positive one, and the mean of these values."""
_OF_ALL_CLASSES = [metric.name for metric in METRICS.values() if metric.of == "groups" and metric.name not in _BY_CLASS]
"""Fairness metrics that do not depend on a positive class."""

Columns = Mapping[str, Any]
"""Column name → one value for all rows, or a sequence with one value for each row."""


@dataclass(frozen=True, kw_only=True)
class _Chunk:
    """Rows of one table as NumPy arrays and lists. Many chunks are converted to Arrow at once, which is several times faster."""

    num_rows: int
    columns: Columns


class TrialInput(NamedTuple):
    """What the rows of a trial are made of."""

    record: Record
    samples: Samples
    axes: Mapping[str, str]
    """Values of the grid axes that are not among the first columns."""
    dataset_id: str
    """Of the samples. The record may name another, which groups the same test samples in another way."""


def trial_rows(record: Record, samples: Samples, settings: RowSettings, axes: Mapping[str, str]) -> dict[str, pa.Table]:
    """The rows of one trial with the groups that its record names, by table."""
    return dict(part_rows([TrialInput(record, samples, axes, record.spec.dataset_id)], settings))


def part_rows(trials: Iterable[TrialInput], settings: RowSettings) -> Iterator[tuple[str, pa.Table]]:
    """The rows of several trials, one trial after another, table after table: who is done with one before the next needs less memory."""
    chunks: dict[str, list[_Chunk]] = {name: [] for name in TABLES if name != "samples"}
    for record, samples, axes, dataset_id in trials:
        keys = key_columns(record.spec, settings.sweep)
        of_dataset = {"dataset_id": dataset_id}
        chunks["trials"].append(_Chunk(num_rows=1, columns=keys | of_dataset | _trial(record, samples, axes)))
        chunks["class_metrics"].append(_class_rows(keys, record, samples))
        least = settings.least_joint_group(record.spec.dataset, dataset_id)
        for group_chunk, fairness_chunk in _group_rows(keys, record, samples, settings, least):
            chunks["group_metrics"].append(group_chunk)
            chunks["fairness_metrics"].append(fairness_chunk)
        chunks["epochs"].append(_epoch_rows(keys, record))
        chunks["predictions"].append(_prediction_row(keys | of_dataset, record))
    for name in tuple(chunks):
        yield name, _table(name, chunks.pop(name))


def sample_rows(dataset_id: str, samples: Samples, sweep: str) -> pa.Table:
    """The rows of the `samples` table for one data set."""
    n = len(samples.labels_N)
    lists = {name: groups.to_lists() for name, groups in samples.sensitive_features.items()}
    columns = {
        "sweep": sweep,
        "dataset": samples.dataset,
        "target": samples.target,
        "dataset_id": dataset_id,
        "sample_index": np.arange(n),
        "sample_id": None if samples.ids is None else list(samples.ids),
        "label": samples.labels_N,
        "label_name": [samples.class_names[label] for label in samples.labels_N],
        "sensitive_features": [as_json({name: lists[name][i] for name in lists}) for i in range(n)],
    }
    return _table("samples", [_Chunk(num_rows=n, columns=columns)])


def key_columns(spec: TrialSpec, sweep: str) -> dict[str, Any]:
    """The columns that every row of a trial begins with."""
    return {
        "sweep": sweep,
        "trial_id": spec.trial_id,
        "role": spec.role.value,
        "dataset": table_name(spec.dataset),
        "target": spec.dataset.target,
        "model": spec.model,
        "teacher": spec.teacher_name,
        "teacher_seed": spec.teacher.seed if spec.teacher else None,
        "objective": spec.objective,
        "temperature": spec.temperature,
        "alpha": spec.alpha,
        "t_squared": spec.t_squared,
        "seed": spec.seed,
    }


def _trial(record: Record, samples: Samples, axes: Mapping[str, str]) -> dict[str, Any]:
    per_class = class_metrics(samples.labels_N, record.test.predictions_N, num_classes=len(samples.class_names))
    provenance = record.provenance
    return {
        "settings": as_json(axes),
        "teacher_trial_id": record.spec.teacher.trial_id if record.spec.teacher else None,
        "num_parameters": record.num_parameters,
        "epochs": record.spec.epochs,
        "num_test": len(samples.labels_N),
        "accuracy": per_class.accuracy,
        "worst_class_accuracy": per_class.worst_class_accuracy,
        "balanced_accuracy": per_class.balanced_accuracy,
        **dict.fromkeys(
            ("calibration_temperature", "calibrated_expected_calibration_error", "individual_fairness_calibrated")
        ),
        **{name: _null(value) for name, value in record.test.scalars.items()},
        "mean_confidence": float(np.mean(record.test.confidences_N, dtype=np.float64)),
        "calibrated_on": _calibrated_on(record),
        "robust_accuracy": _null(float(np.mean(_robust(record, samples)))),
        **vars(provenance),
        "started_at": _utc(provenance.started_at),
        "finished_at": _utc(provenance.finished_at),
        "versions": as_json(provenance.versions),
        "weights": record.weights_key,
        **axis_values(axes),
    }


def _class_rows(keys: dict[str, Any], record: Record, samples: Samples) -> _Chunk:
    num_classes = len(samples.class_names)
    metrics = class_metrics(samples.labels_N, record.test.predictions_N, num_classes=num_classes)
    unknown_C = np.full(num_classes, np.nan)
    return _Chunk(
        num_rows=num_classes,
        columns=keys
        | {
            "class_index": np.arange(num_classes),
            "class_name": list(samples.class_names),
            "n": metrics.n_C,
            "num_correct": metrics.num_correct_C,
            "num_predicted": metrics.num_predicted_C,
            "accuracy": metrics.accuracy_C,
            "relative_accuracy": metrics.relative_accuracy_C,
            "precision": metrics.precision_C,
            "robust_accuracy": divide(
                np.bincount(samples.labels_N, _robust(record, samples), minlength=num_classes), metrics.n_C
            ),
        }
        | {name: np.array(record.per_class.get(name, unknown_C)) for name in PER_CLASS},
    )


def _group_rows(
    keys: dict[str, Any], record: Record, samples: Samples, settings: RowSettings, least: int
) -> Iterable[tuple[_Chunk, _Chunk]]:
    """Rows of `group_metrics` and `fairness_metrics` for every feature and intersection."""
    for feature, groups in compared_groups(samples, settings, least):
        rates = group_rates(samples.labels_N, record.test.predictions_N, groups, num_classes=len(samples.class_names))
        fairness = fairness_metrics(rates)
        macro = one_vs_rest(fairness)
        g, c = len(groups.names), len(samples.class_names)
        of_groups = {
            "feature": feature,
            "group": [name for name in groups.names for _ in range(c)],
            "positive_class": list(samples.class_names) * g,
            "n": np.repeat(rates.n_G, c),
            "num_positives": rates.num_positive_GC.ravel(),
            "accuracy": np.repeat(rates.accuracy_G, c),
            "robust_accuracy": np.repeat(divide(_robust(record, samples) @ groups.membership_NG, rates.n_G), c),
            "selection_rate": rates.selection_rate_GC.ravel(),
            "true_positive_rate": rates.true_positive_rate_GC.ravel(),
            "false_positive_rate": rates.false_positive_rate_GC.ravel(),
        }
        of_classes = {
            "feature": feature,
            "positive_class": [*samples.class_names, None],
            "num_groups": fairness.num_groups,
            **{name: _null(getattr(fairness, name)) for name in _OF_ALL_CLASSES},
            **{name: np.append(getattr(fairness, f"{name}_C"), getattr(macro, name)) for name in _BY_CLASS},
        }
        yield _Chunk(num_rows=g * c, columns=keys | of_groups), _Chunk(num_rows=c + 1, columns=keys | of_classes)


def compared_groups(samples: Samples, settings: RowSettings, least: int) -> Iterable[tuple[str, Groups]]:
    """The sensitive features, then their intersections, without joint groups of fewer than `least` test samples."""
    for feature in settings.sensitive_features:
        yield feature, samples.sensitive_features[feature]
    for features in settings.intersections:
        yield (
            joint_name(features),
            intersect([samples.sensitive_features[feature] for feature in features], least=least),
        )


def _prediction_row(keys: dict[str, Any], record: Record) -> _Chunk:
    return _Chunk(
        num_rows=1,
        columns=keys
        | {
            "predictions": [record.test.predictions_N],
            "confidences": [record.test.confidences_N],
            "true_probabilities": [record.test.true_probabilities_N],
            **{name: [record.test.per_sample.get(name)] for name in PER_SAMPLE},
        },
    )


def _robust(record: Record, samples: Samples) -> npt.NDArray[np.float64]:
    """1 where the attacked sample is predicted correctly, 0 where not; NaN throughout where no attack was asked for."""
    if "robust_predictions" not in record.test.per_sample:
        return np.full(len(samples.labels_N), np.nan)
    return np.asarray(record.test.per_sample["robust_predictions"] == samples.labels_N, dtype=np.float64)


def _calibrated_on(record: Record) -> str | None:
    if "calibrated_confidences" not in record.test.per_sample:
        return None
    return "validation" if record.spec.dataset.has_validation else "halves of test"


def _epoch_rows(keys: dict[str, Any], record: Record) -> _Chunk:
    epochs = record.epochs
    return _Chunk(
        num_rows=len(epochs),
        columns=keys
        | {
            "epoch": [epoch.epoch for epoch in epochs],
            "loss": [epoch.loss for epoch in epochs],
            "terms": [as_json(epoch.terms) for epoch in epochs],
            "train_accuracy": [epoch.train_accuracy for epoch in epochs],
            "validation_accuracy": [epoch.validation_accuracy for epoch in epochs],
            "lr": [epoch.lr for epoch in epochs],
            "elapsed_s": [epoch.elapsed_s for epoch in epochs],
        }
        | {name: [epoch.terms.get(name) for epoch in epochs] for name in TERMS},
    )


def _table(name: str, chunks: Sequence[_Chunk]) -> pa.Table:
    """A table with exactly the columns of the schema; scalars are repeated over their chunk's rows, NaN becomes null."""
    schema = TABLES[name].arrow_schema
    for chunk in chunks:
        if chunk.columns.keys() != set(schema.names):
            wrong = sorted(set(chunk.columns) ^ set(schema.names))
            raise ValueError(f"{name}: columns {wrong} are missing or unknown")
    if not chunks:
        return schema.empty_table()
    repeats = pa.array(np.repeat(np.arange(len(chunks)), [chunk.num_rows for chunk in chunks]))
    return pa.table(
        [_array([chunk.columns[item.name] for chunk in chunks], item.type, repeats) for item in schema], schema=schema
    )


def _array(values: list[Any], type_: pa.DataType, repeats: pa.Array) -> pa.Array:
    """One column from the values of each chunk: arrays, lists, or scalars for all rows of their chunk."""
    if isinstance(values[0], np.ndarray):
        return _from_numpy(np.concatenate(values), type_)
    if isinstance(values[0], Sequence) and not isinstance(values[0], str):
        return pa.array(list(chain.from_iterable(values)), type=type_)
    return pa.array(values, type=type_).take(repeats)


def _from_numpy(values: npt.NDArray[Any], type_: pa.DataType) -> pa.Array:
    mask = np.isnan(values) if np.issubdtype(values.dtype, np.floating) else None
    return pa.array(values, type=type_, mask=mask)


def as_json(values: Mapping[str, Any]) -> str:
    """What has no columns of its own as the text of a JSON object, which every reader of Parquet takes; keys in order."""
    return json.dumps({name: _finite(values[name]) for name in sorted(values)}, ensure_ascii=False)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _utc(moment: datetime) -> datetime:
    """Without its zone, as the tables keep it."""
    return moment.astimezone(UTC).replace(tzinfo=None)


def _null(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
