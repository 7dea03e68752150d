"""Results as pandas frames and fairlearn `MetricFrame`s. pandas and fairlearn are imported when they are asked for."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from kd_ray.errors import QueryError
from kd_ray.groups import Groups
from kd_ray.results.added_features import samples_with
from kd_ray.results.axis_columns import axis_type, plain, typed
from kd_ray.results.manifest import read_manifest
from kd_ray.results.record import Record, Samples, read_record, read_samples
from kd_ray.results.store import Store
from kd_ray.results.table_parts import SETTINGS_CELL, read_cell
from kd_ray.sweep.spec import Role

if TYPE_CHECKING:
    import pandas as pd
    from fairlearn.metrics import MetricFrame

_CATEGORIES = ("sweep", "dataset", "target", "model", "teacher", "objective", "feature", "group", "positive_class")
"""Columns with few values, which are categorical without an order."""


def to_frame(table: pa.Table, axes: pa.Table) -> "pd.DataFrame":
    """A table as a frame: each grid axis as a column at the end, integers and truth values that may be missing, categories.

    `axes` has `sweep`, `trial_id` and `settings` of the trials. Ordered are `temperature` by value, `role`
    from teacher to distilled, `class_name` by class index.
    """
    import pandas as pd

    types = {
        pa.int64(): pd.Int64Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.bool_(): pd.BooleanDtype(),
    }
    table = table.drop_columns([name for name in table.column_names if axis_type(name) is not None])
    # Arrow finds the few values of a column faster than pandas does.
    for name in {"role", "class_name", *_CATEGORIES} & set(table.column_names):
        values = table[name].combine_chunks().dictionary_encode()
        table = table.set_column(table.column_names.index(name), name, values)
    frame = table.to_pandas(types_mapper=types.get)
    for name in set(_CATEGORIES) & set(frame):
        frame[name] = frame[name].cat.reorder_categories(sorted(frame[name].cat.categories))
    if "role" in frame:
        frame["role"] = frame["role"].cat.set_categories([str(role) for role in Role], ordered=True)
    if "temperature" in frame:
        frame["temperature"] = _ordered(frame["temperature"])
    if "class_index" in frame:
        # Rows of `comparisons` about a whole model have no class.
        classes = frame[["class_index", "class_name"]].dropna().drop_duplicates()
        names = classes.sort_values("class_index")["class_name"]
        if names.is_unique:
            frame["class_name"] = frame["class_name"].cat.set_categories(names.astype(str), ordered=True)
    if "trial_id" in frame and len(frame):
        columns = _axis_columns(table, axes)
        frame = pd.concat([frame, pd.DataFrame(columns, index=frame.index)], axis=1)
    return frame


def _axis_columns(table: pa.Table, axes: pa.Table) -> dict[str, Any]:
    """The values of each axis, for each row of the table."""
    by_trial = {
        (row["sweep"], row["trial_id"]): read_cell(SETTINGS_CELL, row["settings"], "trials") for row in axes.to_pylist()
    }
    trials = table["trial_id"].combine_chunks().dictionary_encode()
    sweeps = table["sweep"].combine_chunks()
    codes = trials.indices.to_numpy().astype(np.int64) * len(sweeps.dictionary) + sweeps.indices.to_numpy()
    unique, place = np.unique(codes, return_inverse=True)
    names = sweeps.dictionary.to_pylist(), trials.dictionary.to_pylist()
    keys = [(names[0][code % len(names[0])], names[1][code // len(names[0])]) for code in unique.tolist()]
    settings = [by_trial.get(key, {}) for key in keys]
    found = sorted({name for it in settings for name in it})
    return {name: _axis(name, [it.get(name) for it in settings]).array.take(place) for name in found}


def _ordered(values: "pd.Series[Any]") -> Any:
    import pandas as pd

    return pd.Categorical(values, categories=sorted(values.dropna().unique()), ordered=True)


def _axis(name: str, texts: Sequence[str | None]) -> "pd.Series[Any]":
    """The values of an axis, of which `settings` keeps the text, in the type of its column; in their own where it has no column."""
    import pandas as pd

    kind = axis_type(name)
    if kind is None:
        values = [None if text is None else plain(text) for text in texts]
        kinds = {type(value) for value in values if value is not None}
        own = {bool: pa.bool_(), int: pa.int64(), float: pa.float64()}
        kind = pa.float64() if kinds == {int, float} else own.get(next(iter(kinds))) if len(kinds) == 1 else None
    else:
        values = [None if text is None else typed(kind, text) for text in texts]
    dtypes = {pa.bool_(): "boolean", pa.int64(): "Int64", pa.float64(): "float64"}
    return pd.Series(values, dtype=dtypes[kind]) if kind in dtypes else pd.Series(texts, dtype="category")


# --- one trial ------------------------------------------------------------------------------------------------------------------------


def read_trial(store: Store, trial_id: str, sweeps: Mapping[str, str]) -> tuple[Record, Samples]:
    """The record of a trial and the samples it was tested on, with the features that every sweep compares.

    `sweeps` maps each sweep that lists the trial to the dataset_id under which it does; if it is empty, the record names the samples.

    Raises:
        QueryError: the store has no such trial, or it is not complete.
        CorruptObjectError: an object cannot be read.
    """
    record = read_record(store, trial_id)
    found = [
        samples_with(store, dataset_id, read_manifest(store, sweep).row_settings.added)
        for sweep, dataset_id in sweeps.items()
    ]
    known = [
        samples for samples in found or [read_samples(store, record.spec.dataset_id) if record else None] if samples
    ]
    if record is None or not known:
        raise QueryError(f"store {store.url}: no complete trial {trial_id!r}; the table `trials` lists them")
    features: dict[str, Groups] = {}
    for samples in known:
        for name, groups in samples.sensitive_features.items():
            features.setdefault(name, groups)
    return record, replace(known[0], sensitive_features=features)


def predictions_frame(record: Record, samples: Samples) -> "pd.DataFrame":
    """The test samples of a trial, one row each: name, label, prediction, whether it is right, probabilities, and groups of each feature.

    A sensitive feature has the name of the sample's group, missing for none; a feature with samples in several groups has tuples.
    """
    import pandas as pd

    names = list(samples.class_names)
    columns: dict[str, Any] = {
        **({"sample_id": list(samples.ids)} if samples.ids is not None else {}),
        "label": pd.Categorical.from_codes(samples.labels_N, names),
        "predicted": pd.Categorical.from_codes(record.test.predictions_N, names),
        "is_correct": record.test.predictions_N == samples.labels_N,
        "confidence": record.test.confidences_N,
        "true_probability": record.test.true_probabilities_N,
    }
    columns |= {name: record.test.per_sample[name] for name in sorted(record.test.per_sample)}
    for feature, groups in samples.sensitive_features.items():
        if groups.membership_NG.sum(axis=1).max(initial=0) > 1:
            columns[feature] = pd.Series([tuple(it) for it in groups.to_lists()], dtype="object")
        else:
            codes_N = (groups.membership_NG.argmax(axis=1) + 1) * groups.membership_NG.any(axis=1) - 1
            columns[feature] = pd.Categorical.from_codes(codes_N, list(groups.names))
    return pd.DataFrame(columns).rename_axis("sample_index")


def metric_frame(
    record: Record,
    samples: Samples,
    features: Sequence[str],
    *,
    positive_class: str | None = None,
    metrics: Mapping[str, Callable[..., Any]] | Callable[..., Any] | None = None,
) -> "MetricFrame":
    """fairlearn's `MetricFrame` of a trial; see `Results.metric_frame`."""
    from fairlearn.metrics import MetricFrame, count, false_positive_rate, selection_rate, true_positive_rate
    from sklearn.metrics import accuracy_score

    _refuse_unknown(features, samples.sensitive_features, "sensitive feature")
    frame = predictions_frame(record, samples)
    for feature in features:
        frame = frame.explode(feature) if frame[feature].dtype == object else frame
    frame = frame.dropna(subset=list(features))
    truth, answer = frame["label"].astype(str), frame["predicted"].astype(str)
    found: Any = {"accuracy": accuracy_score, "count": count}
    if positive_class is not None:
        # Classes are texts; that of a column of numbers may be given as its number.
        positive_class = str(positive_class)
        _refuse_unknown([positive_class], samples.class_names, "class")
        truth, answer = (truth == positive_class).astype(int), (answer == positive_class).astype(int)
        found |= {
            "selection_rate": selection_rate,
            "true_positive_rate": true_positive_rate,
            "false_positive_rate": false_positive_rate,
        }
    groups = frame[list(features)].astype(str)
    return MetricFrame(metrics=metrics or found, y_true=truth, y_pred=answer, sensitive_features=groups)


def _refuse_unknown(asked: Iterable[str], valid: Iterable[str], what: str) -> None:
    valid = list(valid)
    for name in asked:
        if name not in valid:
            raise QueryError(f"no {what} {name!r}; valid: {', '.join(valid) or 'none'}")
