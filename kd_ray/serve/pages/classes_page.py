"""Classes and groups: where each temperature helps and harms, the worst groups, and the samples behind a cell."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_ray.analysis.conditions import Condition, make_series
from kd_ray.analysis.report.evidence import ClassBias, Evidence, make_evidence, shared_baseline
from kd_ray.analysis.row_words import BASELINE
from kd_ray.analysis.study import CONTRASTS, SCRATCH, Study, spread
from kd_ray.errors import InvalidInputError
from kd_ray.metrics.arrays import FloatArray
from kd_ray.serve.findings import Findings
from kd_ray.serve.page_data import Read
from kd_ray.shown import rounded

MAX_CLASSES = 200
MAX_SAMPLES = 500
MOST_TOGETHER = 60
"""Distilled conditions that a table has columns for. Of more, those of one setting are shown, at all temperatures."""
_STEPS = 4
"""Colors on each side of no effect."""
MARKS = {"established": "✱", "hint": "?"}


@dataclass(frozen=True, kw_only=True)
class Effect:
    """What distillation did to one class in one condition, in points of accuracy."""

    value: float
    """NaN where there is none."""
    text: str
    css: str
    mark: str
    words: str
    condition: int
    """Place of the condition in the study."""


@dataclass(frozen=True, kw_only=True)
class ClassLine:
    """One class."""

    name: str
    n: int
    baseline: str
    effects: tuple[Effect, ...]


@dataclass(frozen=True, kw_only=True)
class GroupLine:
    """One group of a sensitive feature; accuracies in percent, mean over runs."""

    feature: str
    group: str
    n: int
    is_joint: bool
    values: tuple[str, ...]
    worst: int
    """Which of the values is the lowest; -1 where there is none."""
    lowest: float


def view(
    read: Read, found: Findings | None, *, contrast: str, feature: str, sort: str, settings: str = ""
) -> Mapping[str, Any]:
    """What the page shows; `found` is None while the comparisons are being made."""
    study, evidence = read.study, found.evidence if found else make_evidence((), read.study)
    contrast = contrast if contrast in CONTRASTS else SCRATCH
    choices = _by_settings(study)
    settings = settings if settings in choices else next(iter(choices), "")
    shown = [
        (place, it)
        for place, it in enumerate(study.conditions)
        if it.role != "distilled" or not choices or place in choices[settings]
    ]
    conditions = [(place, it) for place, it in shown if it.role == "distilled" and study.baseline(contrast, it)]
    effects_C = {place: _effects(read, evidence, contrast, it) for place, it in conditions}
    largest = max((float(np.nanmax(abs(it))) for it in effects_C.values() if not np.isnan(it).all()), default=0.0)
    baseline = study.baseline(contrast, conditions[0][1]) if conditions else None
    baseline_C = None if baseline is None else _class_means(read, baseline)
    lines = []
    for c, name in enumerate(study.class_names):
        effects = tuple(
            _effect(it, place, evidence.bias(contrast, it), c, effects_C[place], largest) for place, it in conditions
        )
        value = math.nan if baseline_C is None else float(baseline_C[c])
        lines.append(ClassLine(name=name, n=int(study.class_n_C[c]), baseline=_number(value, 1), effects=effects))
    if sort == "effect":
        lines.sort(key=lambda it: min((e.value for e in it.effects if not math.isnan(e.value)), default=math.inf))
    elif sort == "class":
        lines.sort(key=lambda it: it.name)
    else:
        sort = ""
    groups = read.remember(("groups", feature, settings), lambda: _group_lines(read, feature, shown))
    return {
        "lines": lines[:MAX_CLASSES],
        "num_classes": len(lines),
        "conditions": conditions,
        "largest": largest,
        "contrast": contrast,
        "contrasts": BASELINE,
        "meaning": _meaning(
            found, BASELINE[contrast], has_tests=any(evidence.bias(contrast, it) for _, it in conditions)
        ),
        "shared_baseline": shared_baseline(study),
        "is_being_compared": found is None,
        "why_not": found.why_not if found else "The comparisons are being made.",
        "shown": shown,
        "settings": settings,
        "choices": {label: label for label in choices},
        "groups": groups,
        "features": [it.feature for it in study.fairness],
        "feature": feature if feature in {it.feature for it in study.fairness} else "",
        "sort": sort,
    }


def _by_settings(study: Study) -> Mapping[str, Collection[int]]:
    """Places of the distilled conditions by what tells them apart beside the temperature, where there are too many for one table."""
    if len(study.distilled) <= MOST_TOGETHER:
        return {}
    place = {id(it): number for number, it in enumerate(study.conditions)}
    choices = {line.label: {place[id(it)] for it in line.conditions} for line in make_series(study.conditions)}
    without = {place[id(it)] for it in study.distilled if it.temperature is None}
    return choices | ({"without a temperature": without} if without else {})


def _meaning(found: Findings | None, baseline: str, *, has_tests: bool) -> Sequence[str]:
    """What the number of a cell is: in plain words, and how it is computed."""
    if found is None or not has_tests:
        return (f"Each cell: accuracy on the class, distilled minus {baseline}, in points.", "Mean over runs.")
    if not found.evidence.is_ratio:
        return (
            "Each cell: how many points the class gained or lost more than overall accuracy did.",
            f"It is class accuracy minus overall accuracy, distilled minus {baseline}, mean over runs.",
        )
    return (
        "Each cell: how many points the class gained or lost beyond its share of the change in overall accuracy.",
        f"It is class accuracy ÷ overall accuracy, distilled minus {baseline}, times the overall accuracy of {baseline}; mean over runs.",
    )


def samples(read: Read, *, condition: int, class_name: str, feature: str, group: str) -> Mapping[str, Any]:
    """The places and names of the test samples of a class or a group, those first that most runs of a condition get wrong.

    Raises:
        InvalidInputError: there is no such condition, class or group.
    """
    study = read.study
    if not 0 <= condition < len(study.conditions):
        raise InvalidInputError(f"condition {condition}: the sweep has {len(study.conditions)}, from 0")
    it = study.conditions[condition]
    dataset_id = it.axes["dataset_id"]
    classes, test_set = study.classes[dataset_id], study.test_sets[dataset_id]
    keep_N = np.ones(len(test_set.labels_N), dtype=bool)
    if class_name:
        if class_name not in classes.names:
            raise InvalidInputError(f"class {class_name!r}: the data set has no such class")
        keep_N &= test_set.labels_N == classes.names.index(class_name)
    if group:
        groups = test_set.features.get(feature)
        if groups is None or group not in groups.names:
            raise InvalidInputError(f"group {group!r} of feature {feature!r}: the sweep has no such group")
        keep_N &= groups.membership_NG[:, groups.names.index(group)]
    predictions = read.study.source.predictions([int(row) for row in it.trials])
    right_N = np.mean(
        [np.mean([predictions[int(row)] == test_set.labels_N for row in run], axis=0) for run in it.runs], axis=0
    )
    places = np.flatnonzero(keep_N)
    places = places[np.argsort(right_N[places], kind="stable")]
    names = _sample_names(read, dataset_id, places[:MAX_SAMPLES].tolist())
    return {
        "condition": it,
        "class_name": class_name,
        "feature": feature,
        "group": group,
        "dataset": it.axes["dataset"],
        "dataset_id": dataset_id,
        "num_samples": len(places),
        "rows": [
            (int(i), names.get(int(i)), classes.names[int(test_set.labels_N[i])], f"{100 * right_N[i]:.0f}")
            for i in places[:MAX_SAMPLES]
        ],
        "accuracy": _number(float(100 * right_N[places].mean()) if len(places) else math.nan, 2),
    }


def _sample_names(read: Read, dataset_id: str, places: Sequence[int]) -> dict[int, str]:
    """The names of samples in their source, by their place; none for samples and tables of an older kd_ray."""
    sweep, query = read.study.sweep, read.results.query_own
    if not places or "sample_id" not in query("SELECT * FROM samples LIMIT 0", sweep=sweep).column_names:
        return {}
    rows = query(
        f"SELECT sample_index, sample_id FROM samples WHERE sweep = '{sweep}' AND dataset_id = '{dataset_id}' "
        f"AND sample_id IS NOT NULL AND sample_index IN ({', '.join(map(str, places))})",
        sweep=sweep,
    )
    return dict(zip(rows["sample_index"].to_pylist(), rows["sample_id"].to_pylist(), strict=True))


def _effects(read: Read, evidence: Evidence, contrast: str, condition: Condition) -> FloatArray:
    """Effects on all classes as they were tested; where nothing was tested, the difference in accuracy."""
    bias = evidence.bias(contrast, condition)
    if bias is not None:
        return 100 * bias.effect_C
    baseline = read.study.baseline(contrast, condition)
    assert baseline is not None
    difference: FloatArray = _class_means(read, condition) - _class_means(read, baseline)
    return difference


def _class_means(read: Read, condition: Condition) -> FloatArray:
    """Accuracy on each class, mean over runs, in percent."""
    means_C: FloatArray = read.remember(
        ("classes", id(condition)), lambda: _means(100 * condition.over_runs(read.study.class_accuracy_TC))
    )
    return means_C


def _effect(it: Condition, place: int, bias: ClassBias | None, c: int, effects_C: FloatArray, largest: float) -> Effect:
    value = float(effects_C[c]) if c < len(effects_C) else math.nan
    status = bias.status[c] if bias else ""
    words = f"{it.label}: {_number(value, 2)} points"
    if bias is not None and math.isfinite(bias.ci_total_low_C[c]):
        words += f", interval {_number(100 * bias.ci_total_low_C[c], 2)} to {_number(100 * bias.ci_total_high_C[c], 2)}"
        words += f", q = {bias.q_C[c]:.3f}, {status.replace('_', ' ')}"
    step = 0 if math.isnan(value) or not largest else round(_STEPS * value / largest)
    css = "s-unknown" if math.isnan(value) else f"d{'n' if step < 0 else 'p'}{abs(step)}"
    return Effect(
        value=value,
        text=("+" if value > 0 else "") + _number(value, 1),
        css=css,
        mark=MARKS.get(status, ""),
        words=words,
        condition=place,
    )


def _group_lines(read: Read, feature: str, shown: Sequence[tuple[int, Condition]]) -> list[GroupLine]:
    """Groups with their accuracy in each condition, the worst first; those without test samples last."""
    study = read.study
    joint = {it.feature for it in study.fairness if it.is_joint}
    lines = []
    for name, groups in read.groups.items():
        if feature not in ("", name) or not groups:
            continue
        accuracy_TG = np.stack([found.accuracy_T for found in groups.values()], axis=1)
        of_conditions = [_means(100 * it.over_runs(accuracy_TG)) for _, it in shown]
        for g, (group, found) in enumerate(groups.items()):
            means = [float(mean_G[g]) for mean_G in of_conditions]
            defined = [(value, i) for i, value in enumerate(means) if not math.isnan(value)]
            lowest, worst = min(defined, default=(math.inf, -1))
            lines.append(
                GroupLine(
                    feature=name,
                    group=group,
                    n=found.n,
                    is_joint=name in joint,
                    values=tuple(_number(value, 1) for value in means),
                    worst=worst,
                    lowest=lowest,
                )
            )
    return sorted(lines, key=lambda it: (it.lowest, it.feature, it.group))


def _means(values_RK: FloatArray) -> FloatArray:
    """Mean over the runs in which a value is defined, (K,); NaN where none is."""
    return np.array([spread(values_R).mean for values_R in values_RK.T])


def _signed(value: float) -> str:
    """`+1.2`, `−0.5`, `0.0`."""
    text = _number(value, 1)
    return f"+{text}" if value > 0 and float(text) else text


def _number(value: float, digits: int) -> str:
    if math.isnan(value):
        return "–"
    text = rounded(value, digits)
    return text.removeprefix("-") if float(text) == 0 else text.replace("-", "−")
