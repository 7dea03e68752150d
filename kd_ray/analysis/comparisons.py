"""One statement about conditions: the row of the `comparisons` table, and how rows are kept in the store.

A condition is everything in a student's key but its seed. The columns mean what `results/schema.py` says; every number is as it is there:
rates in [0, 1], undefined is None.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import pyarrow as pa

from kd_ray.results.comparison_schema import COMPARISONS
from kd_ray.results.query import Results
from kd_ray.results.rows import as_json
from kd_ray.results.store import part_key
from kd_ray.results.table_parts import encode_part


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One row; the fields are the columns of `results.schema.COMPARISONS`, which gives units and meanings."""

    sweep: str
    dataset: str
    dataset_id: str
    target: str
    model: str
    teacher: str | None = None
    analysis: str
    """condition, class_bias, class_bias_counts, fairness, trend, frontier, matched_accuracy, claim or power."""
    contrast: str | None = None
    """scratch_vs_distilled, teacher_vs_distilled; of a trend temperature_low, temperature_high."""
    family: str | None = None
    role: str
    objective: str | None = None
    temperature: float | None = None
    alpha: float | None = None
    t_squared: bool | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    condition: str
    metric: str
    class_index: int | None = None
    class_name: str | None = None
    class_n: int | None = None
    sensitive_feature: str | None = None
    positive_class: str | None = None
    n_baseline: int | None = None
    n_treatment: int | None = None
    mean_baseline: float | None = None
    mean_treatment: float | None = None
    sd_baseline: float | None = None
    sd_treatment: float | None = None
    accuracy_baseline: float | None = None
    accuracy_treatment: float | None = None
    effect: float | None = None
    effect_scale: float | None = None
    ci_low: float | None = None
    ci_high: float | None = None
    level: float
    scope: str | None = None
    ci_total_low: float | None = None
    ci_total_high: float | None = None
    standard_error: float | None = None
    df_claim: float | None = None
    p_claim: float | None = None
    p_family: float | None = None
    status: str | None = None
    held_back: str | None = None
    hedges_g: float | None = None
    sampling_sd: float | None = None
    sampling_bias: float | None = None
    label_difference: float | None = None
    chance_level: float | None = None
    chance_sd: float | None = None
    chance_baseline: float | None = None
    bias_corrected: float | None = None
    shrunken: float | None = None
    smallest_cell: int | None = None
    test: str | None = None
    statistic: float | None = None
    df: float | None = None
    p: float | None = None
    q: float | None = None
    p_holm: float | None = None
    n_pairs: int | None = None
    p_paired: float | None = None
    p_permutation: float | None = None
    p_permutation_floor: float | None = None
    normalisation: str | None = None
    overall: str | None = None
    num_tests: int | None = None
    num_significant: int | None = None
    num_established: int | None = None
    expected_significant: float | None = None
    power: float | None = None
    smallest_detectable: float | None = None
    smallest_detectable_uncorrected: float | None = None
    claim: str | None = None
    flags: tuple[str, ...] = ()

    def but(self, **values: Any) -> "Comparison":
        """The same row with other values in some columns."""
        return replace(self, **values)


_NAMES = tuple(item.name for item in fields(Comparison))


def comparisons_table(rows: Sequence[Comparison]) -> pa.Table:
    """The rows as the store keeps them."""
    schema = COMPARISONS.arrow_schema
    columns = []
    for item in schema:
        values: list[Any] = [getattr(row, item.name) for row in rows]
        if item.name == "settings":
            values = [as_json(value) for value in values]
        columns.append(pa.array(values, type=item.type))
    return pa.table(columns, schema=schema)


def write_comparisons(results: Results, sweep: str, rows: Sequence[Comparison]) -> None:
    """Replace the comparisons of a sweep, all of them in one atomic write."""
    results.store.put(
        part_key(COMPARISONS.name, sweep, 0), encode_part(comparisons_table(rows), COMPARISONS.name, sweep)
    )


def read_comparisons(results: Results, sweep: str) -> list[Comparison]:
    """The comparisons of a sweep as they were written last; empty when there are none.

    Raises:
        QueryError: the store has no such sweep.
    """
    return [
        Comparison(
            **{name: row[name] for name in _NAMES}
            | {"flags": tuple(row["flags"]), "settings": json.loads(row["settings"])}
        )
        for row in results.table(COMPARISONS.name, sweep=sweep).to_pylist()
    ]
