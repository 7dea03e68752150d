"""The comparisons of a sweep, arranged by the conditions of its study."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from kd_ray.analysis.conditions import Condition
from kd_ray.analysis.study import Study
from kd_ray.metrics.arrays import FloatArray
from kd_ray.results.comparison_schema import Comparison

_BY_CLASS = ("effect", "ci_low", "ci_high", "ci_total_low", "ci_total_high", "p", "p_claim", "q")
_KEY = ("role", "model", "teacher", "objective", "temperature", "alpha", "t_squared", "dataset_id")
Key = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassBias:
    """The tests of all classes for one distilled condition against one baseline. Arrays are by class, NaN where nothing was tested."""

    effect_C: FloatArray
    """Change in the tested quantity, in [-1, 1]: 0.01 is a point of accuracy."""
    ci_low_C: FloatArray
    """Over runs."""
    ci_high_C: FloatArray
    ci_total_low_C: FloatArray
    """Over runs, teachers and test samples."""
    ci_total_high_C: FloatArray
    p_C: FloatArray
    """Uncorrected, as #SC and #TC count it."""
    p_claim_C: FloatArray
    q_C: FloatArray
    status: tuple[str, ...]
    """Of each class: established, hint, held_back, none or not_tested."""
    level: float

    def mark(self, place: int) -> str:
        """How a class is marked: `established`, `published` for p below the level uncorrected, or nothing."""
        if self.status[place] == "established":
            return "established"
        return "published" if self.p_C[place] < self.level else ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What the comparisons of a sweep say."""

    class_bias: Mapping[tuple[str, Key], ClassBias]
    """By contrast and condition."""
    rows: Sequence[Comparison]
    """All other rows of `comparisons`."""

    def bias(self, contrast: str, condition: Condition) -> ClassBias | None:
        """The tests of all classes for a condition, if there are any."""
        return self.class_bias.get((contrast, key_of(condition)))

    def of(self, analysis: str, **values: Any) -> list[Comparison]:
        """Rows of an analysis with these values."""
        return _with_values(self._by_analysis.get(analysis, ()), values)

    def about(self, condition: Condition, analysis: str, **values: Any) -> Comparison | None:
        """The row of an analysis about one condition."""
        found = _with_values(self._by_condition.get((analysis, key_of(condition)), ()), values)
        return found[0] if found else None

    def chance(self, condition: Condition, metric: str, feature: str) -> tuple[float, float]:
        """Chance level of a difference between groups and its sd; NaN where it is not known."""
        row = self.about(condition, "condition", metric=metric, sensitive_feature=feature)
        values = (None, None) if row is None else (row.chance_level, row.chance_sd)
        return (np.nan if values[0] is None else values[0], np.nan if values[1] is None else values[1])

    @cached_property
    def _by_analysis(self) -> Mapping[str, Sequence[Comparison]]:
        found: dict[str, list[Comparison]] = defaultdict(list)
        for row in self.rows:
            found[row.analysis].append(row)
        return dict(found)

    @cached_property
    def _by_condition(self) -> Mapping[tuple[str, Key], Sequence[Comparison]]:
        found: dict[tuple[str, Key], list[Comparison]] = defaultdict(list)
        for row in self.rows:
            found[row.analysis, _key(row)].append(row)
        return dict(found)

    @property
    def is_ratio(self) -> bool:
        """Whether class accuracy was divided by overall accuracy, and not lessened by it (`--normalise difference`)."""
        return not any(row.normalisation == "difference" for row in self.of("class_bias_counts"))

    @property
    def relative(self) -> str:
        """What is tested of a class, in words."""
        return f"accuracy {'÷' if self.is_ratio else '−'} overall accuracy"

    @property
    def has_class_tests(self) -> bool:
        """Whether any class was tested: with one run on a side there are effects without a test."""
        return any(np.isfinite(bias.p_C).any() for bias in self.class_bias.values())

    @property
    def level(self) -> float:
        """Significance level; 0.05 when nothing was tested."""
        return float(next((row.level for row in self.rows), 0.05))


def make_evidence(rows: Sequence[Comparison], study: Study) -> Evidence:
    """Arrange the rows of `comparisons`; those of single classes as arrays, because there may be many."""
    of_class: dict[tuple[str, Key], list[Comparison]] = defaultdict(list)
    others = []
    for row in rows:
        if row.analysis == "class_bias" and row.class_index is not None:
            of_class[row.contrast or "", _key(row)].append(row)
        else:
            others.append(row)
    size = len(study.class_names)
    return Evidence(class_bias={key: _class_bias(found, size) for key, found in of_class.items()}, rows=others)


def _with_values(rows: Sequence[Comparison], values: Mapping[str, Any]) -> list[Comparison]:
    return [row for row in rows if all(getattr(row, name) == value for name, value in values.items())]


def shared_baseline(study: Study) -> str:
    """What is said wherever the effects of several conditions on one class stand side by side; empty where there is one condition."""
    what = "Conditions that share a baseline share its luck: equal signs along a row are no replication."
    return what if len(study.distilled) > 1 else ""


def key_of(condition: Condition) -> Key:
    """What a condition and its rows have in common."""
    axes = {**condition.axes, "role": condition.role, "temperature": condition.temperature}
    return (*(axes[name] for name in _KEY), tuple(sorted(condition.settings)))


def _key(row: Comparison) -> Key:
    return (*(getattr(row, name) for name in _KEY), tuple(sorted(row.settings.items())))


def _class_bias(rows: Sequence[Comparison], size: int) -> ClassBias:
    arrays = {name: np.full(size, np.nan) for name in _BY_CLASS}
    status = ["not_tested"] * size
    for row in rows:
        assert row.class_index is not None
        for name, values_C in arrays.items():
            value = getattr(row, name)
            values_C[row.class_index] = np.nan if value is None else value
        status[row.class_index] = row.status or "not_tested"
    return ClassBias(
        **{f"{name}_C": values_C for name, values_C in arrays.items()}, status=tuple(status), level=rows[0].level
    )
