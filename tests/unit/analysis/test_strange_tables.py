"""Damaged JSON in cells of a table: each function that reads the table raises an error of one line."""

import pyarrow as pa
import pytest

from kd_ray.analysis.comparisons import read_comparisons
from kd_ray.analysis.reading import read_study
from kd_ray.errors import CorruptObjectError
from kd_ray.results.aggregate import aggregate
from kd_ray.results.query import Results
from kd_ray.results.record import encode_table
from kd_ray.results.store import Store, part_key
from kd_ray.results.table_parts import read_part
from tests.fakes import commit_trials, make_sweep, plan_trials, write_sweep

DEEP = "[" * 100_000


@pytest.fixture
def results(store: Store) -> Results:
    """Of a complete sweep."""
    file = make_sweep()
    write_sweep(store, file)
    commit_trials(store, plan_trials(file))
    aggregate(store, "demo")
    return Results(store)


def spoil(store: Store, table: str, column: str, text: str) -> None:
    """Write the text into every cell of a column."""
    part = read_part(store, part_key(table, "demo", 0))
    place = part.schema.get_field_index(column)
    cells = pa.array([text] * part.num_rows, type=pa.string()).cast(part.schema.field(place).type)
    store.put(part_key(table, "demo", 0), encode_table(part.set_column(place, part.schema.field(place), cells)))


@pytest.mark.slow
@pytest.mark.parametrize("text", [DEEP, "[]", "{", '"words"', "9" * 5000])
def test_settings_of_a_stranger_are_named(results: Results, text: str) -> None:
    """Guard: nesting of 100,000 ended `compare` and `report` with a traceback."""
    spoil(results.store, "trials", "settings", text)
    with pytest.raises(CorruptObjectError, match="the table `trials` holds a cell that is damaged"):
        read_study(results, "demo")
    with pytest.raises(CorruptObjectError, match="--rebuild-tables"):
        results.frame("trials")


@pytest.mark.slow
@pytest.mark.parametrize("text", [DEEP, "[]", '{"color": 5}', "{}"])
def test_groups_of_a_stranger_are_named(results: Results, text: str) -> None:
    spoil(results.store, "samples", "sensitive_features", text)
    study = read_study(results, "demo")
    with pytest.raises(CorruptObjectError, match=r"table `samples` (holds a cell that is damaged|lacks feature)"):
        dict(study.test_sets)


def test_comparisons_of_a_sweep_without_any_are_none(results: Results) -> None:
    assert read_comparisons(results, "demo") == []
