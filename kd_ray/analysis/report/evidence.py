"""The comparisons of a sweep, arranged by the conditions of its study."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_ray.analysis.report.study import Condition, FloatArray, Study
from kd_ray.results.query import Results

SCRATCH = "scratch_vs_distilled"
TEACHER = "teacher_vs_distilled"
_CONDITION = "role, model, teacher, objective, temperature, alpha, t_squared, dataset_id, settings"
_BY_CLASS = ("effect", "ci_low", "ci_high", "p", "q", "p_holm")
Row = Mapping[str, Any]
Key = tuple[Any, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassBias:
    """The tests of all classes for one distilled condition against one baseline. Arrays are by class, NaN where nothing was tested."""

    effect_C: FloatArray
    """Change in the tested quantity, in [-1, 1]: 0.01 is a point of accuracy."""
    ci_low_C: FloatArray
    ci_high_C: FloatArray
    p_C: FloatArray
    q_C: FloatArray
    p_holm_C: FloatArray
    level: float

    def marks(self, place: int) -> str:
        """How a class stands: `holm`, `bh`, `raw` or nothing."""
        if self.p_holm_C[place] < self.level:
            return "holm"
        if self.q_C[place] < self.level:
            return "bh"
        return "raw" if self.p_C[place] < self.level else ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """What the comparisons of a sweep say."""

    class_bias: Mapping[tuple[str, Key], ClassBias]
    """By contrast and condition."""
    rows: Sequence[Row]
    """All other rows of `comparisons`."""

    def bias(self, contrast: str, condition: Condition) -> ClassBias | None:
        """The tests of all classes for a condition, if there are any."""
        return self.class_bias.get((contrast, key_of(condition)))

    def of(self, analysis: str, **values: Any) -> list[Row]:
        """Rows of an analysis with these values."""
        return [
            row
            for row in self.rows
            if row["analysis"] == analysis and all(row[name] == value for name, value in values.items())
        ]

    def about(self, condition: Condition, analysis: str, **values: Any) -> list[Row]:
        """Rows of an analysis about one condition."""
        key = key_of(condition)
        return [row for row in self.of(analysis, **values) if _key(row) == key]

    @property
    def has_class_tests(self) -> bool:
        """Whether any class was tested: with one run on a side there are effects without a test."""
        return any(np.isfinite(bias.p_C).any() for bias in self.class_bias.values())

    @property
    def level(self) -> float:
        """Significance level; 0.05 when nothing was tested."""
        return float(next((row["level"] for row in self.rows), 0.05))


def read_evidence(results: Results, study: Study) -> Evidence:
    """Read the comparisons of a sweep; classes stay in columns, because there may be many of them."""
    where = f"FROM comparisons WHERE sweep = '{study.sweep}' AND"
    labels = {key_of(condition): condition.label for condition in study.conditions}
    found_rows = results.query(f"SELECT * {where} analysis <> 'class_bias'").to_pylist(maps_as_pydicts="strict")
    # A condition has one name on the page; a trend, which is about several, keeps its own.
    rows = [{**row, "condition": labels.get(_key(row), row["condition"])} for row in found_rows]
    columns = ", ".join(_BY_CLASS)
    by_class = results.query(
        f"SELECT contrast, {_CONDITION}, any_value(level) AS level, list(class_index) AS class_index, "
        f"{', '.join(f'list({name}) AS {name}' for name in _BY_CLASS)} FROM (SELECT contrast, {_CONDITION}, level, "
        f"class_index, {columns} {where} analysis = 'class_bias' AND class_index IS NOT NULL) GROUP BY ALL"
    )
    size = len(study.class_names)
    found = {
        (row["contrast"], _key(row)): _class_bias(row, size) for row in by_class.to_pylist(maps_as_pydicts="strict")
    }
    return Evidence(class_bias=found, rows=rows)


def key_of(condition: Condition) -> Key:
    """What a condition and its rows have in common."""
    axes = condition.axes
    return (
        condition.role,
        axes["model"],
        axes["teacher"],
        axes["objective"],
        condition.temperature,
        axes["alpha"],
        axes["t_squared"],
        axes["dataset_id"],
        tuple(sorted(condition.settings)),
    )


def _key(row: Row) -> Key:
    names = ("role", "model", "teacher", "objective", "temperature", "alpha", "t_squared", "dataset_id")
    return (*(row[name] for name in names), tuple(sorted(dict(row["settings"]).items())))


def _class_bias(row: Row, size: int) -> ClassBias:
    def spread(name: str) -> FloatArray:
        values_C = np.full(size, np.nan)
        values_C[row["class_index"]] = np.array(row[name], dtype=np.float64)
        return values_C

    return ClassBias(**{f"{name}_C": spread(name) for name in _BY_CLASS}, level=row["level"])
