"""One trial: what was asked for, how it came about, its curves, and what it gets wrong that its teacher gets right."""

import json
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

from kd_ray.errors import InvalidInputError
from kd_ray.metrics.arrays import FloatArray, IntArray
from kd_ray.metrics.catalogue import METRICS, Metric
from kd_ray.results.record import Record, read_record
from kd_ray.results.trial_lines import TrialLine
from kd_ray.serve import charts
from kd_ray.serve.charts import Chart
from kd_ray.serve.page_data import Read
from kd_ray.serve.quantities import OF_TRIAL
from kd_ray.serve.snapshot import SweepNow, place_of
from kd_ray.shown import rounded

MAX_MATRIX = 30
"""Classes of a confusion matrix that is drawn whole; of more, the pairs that are confused most are listed."""
MAX_PAIRS = 30
MAX_CLASSES = 300
MAX_MATES = 60
PROVENANCE = {
    "started_at": "started",
    "finished_at": "finished",
    "elapsed_s": "training time (s)",
    "host": "host",
    "device": "device",
    "threads": "threads",
    "num_parameters": "parameters",
    "epochs": "epochs",
    "num_test": "test samples",
}
"""Columns of `trials` that say how a trial came about, with their names for people."""


def view(now: SweepNow, read: Read | None, trial_id: str) -> Mapping[str, Any]:
    """What the page shows.

    Raises:
        InvalidInputError: the sweep has no such trial.
    """
    line = next((it for it in now.lines if it.trial_id == trial_id), None)
    if line is None:
        raise InvalidInputError(f"The sweep {now.name} has no trial {trial_id}.")
    row = read.study.index.get(trial_id) if read else None
    found: dict[str, Any] = {"line": line, "mates": _mates(now, line), "row": None, "metrics": (), "provenance": {}}
    found |= {
        "spec": None,
        "versions": {},
        "charts": (),
        "confusion": None,
        "classes": (),
        "groups": (),
        "teacher_line": None,
        "given_logits": None,
    }
    if read is None or row is None:
        return found
    trial = read.study.trials[row]
    teacher = read.study.index.get(trial["teacher_trial_id"]) if trial["teacher_trial_id"] else None
    # Two records are less to read than the table of all predictions.
    record = read_record(read.results.store, trial_id)
    teachers = None
    if teacher is not None and read.study.trials[teacher]["dataset_id"] == trial["dataset_id"]:
        teachers = read_record(read.results.store, read.study.trials[teacher]["trial_id"])
    return found | {
        "row": trial,
        "teacher_line": None if teacher is None else read.study.trials[teacher],
        "given_logits": trial["teacher"] if trial["teacher_trial_id"] is None else None,
        "metrics": _metrics(trial, None if teacher is None else read.study.trials[teacher]),
        "provenance": {words: _shown(trial[name]) for name, words in PROVENANCE.items() if trial[name] is not None},
        "spec": json.dumps(record.spec.model_dump(mode="json"), indent=2, ensure_ascii=False) if record else None,
        "versions": dict(record.provenance.versions) if record else {},
        "charts": _curves(read, trial_id, teacher),
        "confusion": _confusion(read, row, record, teachers) if record else None,
        "classes": _classes(read, row, teacher),
        "groups": _groups(read, row, teacher),
    }


def _metrics(trial: Mapping[str, Any], teacher: Mapping[str, Any] | None) -> list[tuple[str, str, str]]:
    """Name, value and value of the teacher (or nothing) of every metric that the trial has, as on the other pages."""

    def shown(metric: Metric, row: Mapping[str, Any] | None) -> str:
        value = None if row is None else row[metric.name]
        unit = " %" if metric.unit == "rate" else ""
        return "" if value is None else f"{rounded(value * metric.scale, metric.digits)}{unit}".replace("-", "−")

    metrics = [METRICS[name] for name in OF_TRIAL if trial[name] is not None]
    return [(it.short, shown(it, trial), shown(it, teacher)) for it in metrics]


def _shown(value: Any) -> str:
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S} UTC"
    return f"{value:,.1f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def _mates(now: SweepNow, line: TrialLine) -> list[tuple[str, TrialLine]]:
    """Trials of the same condition with another teacher or seed, and those of the same seed under other conditions."""
    mine = place_of(line.description)
    found = []
    for other in now.lines:
        place = place_of(other.description)
        if other.trial_id == line.trial_id:
            continue
        if (place.facet, place.column) == (mine.facet, mine.column):
            found.append(("other teacher" if place.row == mine.row else "other seed", other))
        elif place.row == mine.row:
            found.append(("same seed", other))
    return sorted(found, key=lambda pair: pair[0])[:MAX_MATES]


def _curves(read: Read, trial_id: str, teacher: int | None) -> tuple[Chart, ...]:
    """Training loss and accuracy by epoch, beside those of its teacher."""
    # The teacher comes first, so that this trial is drawn over it.
    shown = [] if teacher is None else [(1, "its teacher", str(read.study.trials[teacher]["trial_id"]))]
    shown.append((0, "this trial", trial_id))
    curves = [(number, label, read.study.epochs[it]) for number, label, it in shown if it in read.study.epochs]
    if not curves:
        return ()
    last = int(max(epochs[-1] for _, _, (epochs, _, _) in curves))
    found = []
    for which, title, factor in ((1, "mean training loss", 1.0), (2, "training accuracy (%)", 100.0)):
        values = [factor * it[which] for _, _, it in curves]
        scale = charts.y_scale(
            [float(v) for some in values for v in some], limits=(0.0, math.inf if which == 1 else 100.5)
        )
        found.append(
            Chart(
                x_title="epoch",
                y_title=title,
                x_ticks=charts.epoch_ticks(last),
                y_ticks=charts.y_ticks(scale),
                series=tuple(
                    charts.curve(it[0], some, number=number, label=label, scale=scale, last=last)
                    for (number, label, it), some in zip(curves, values, strict=True)
                ),
                levels=(),
                words=f"{title} of each of {last} epochs",
            )
        )
    return tuple(found)


def _confusion(read: Read, row: int, record: Record, teachers: Record | None) -> Mapping[str, Any]:
    """Where the predictions go, and how many more or fewer go there than the teacher's."""
    dataset_id = read.study.trials[row]["dataset_id"]
    names = read.study.classes[dataset_id].names
    labels_N = read.study.test_sets[dataset_id].labels_N
    mine_CC = _counts(labels_N, record.test.predictions_N, len(names))
    other_CC = _counts(labels_N, teachers.test.predictions_N, len(names)) if teachers else None
    wrong = [(int(mine_CC[a, b]), a, b) for a, b in zip(*np.nonzero(mine_CC), strict=True) if a != b]
    wrong.sort(key=lambda it: -it[0])
    pairs = [
        (names[a], names[b], count, None if other_CC is None else count - int(other_CC[a, b]))
        for count, a, b in wrong[:MAX_PAIRS]
    ]
    is_small = len(names) <= MAX_MATRIX
    share_CC: FloatArray = mine_CC / np.maximum(mine_CC.sum(axis=1, keepdims=True), 1)
    cells = [
        [
            (
                int(mine_CC[a, b]),
                f"q{min(8, int(9 * share_CC[a, b]))}",
                None if other_CC is None else int(mine_CC[a, b] - other_CC[a, b]),
            )
            for b in range(len(names))
        ]
        for a in range(len(names) if is_small else 0)
    ]
    return {"names": names, "cells": cells, "pairs": pairs, "has_teacher": other_CC is not None}


def _counts(labels_N: IntArray, predictions_N: npt.NDArray[np.integer], num_classes: int) -> IntArray:
    """Samples by true class and predicted class."""
    places = labels_N.astype(np.int64) * num_classes + predictions_N
    return np.bincount(places, minlength=num_classes**2).reshape(num_classes, num_classes)


def _classes(read: Read, row: int, teacher: int | None) -> list[tuple[str, int, float, float]]:
    """Name, test samples, accuracy and that of the teacher, in percent, of every class."""
    classes = read.study.classes[read.study.trials[row]["dataset_id"]]
    values_TC = 100 * read.study.class_accuracy_TC
    return [
        (
            name,
            int(classes.n_C[c]),
            float(values_TC[row, c]),
            math.nan if teacher is None else float(values_TC[teacher, c]),
        )
        for c, name in enumerate(classes.names[:MAX_CLASSES])
    ]


def _groups(read: Read, row: int, teacher: int | None) -> list[tuple[str, str, int, float, float]]:
    """Feature, group, test samples, accuracy and that of the teacher, in percent, of every group."""
    return [
        (
            feature,
            group,
            found.n,
            float(100 * found.accuracy_T[row]),
            math.nan if teacher is None else float(100 * found.accuracy_T[teacher]),
        )
        for feature, groups in read.groups.items()
        for group, found in groups.items()
    ]
