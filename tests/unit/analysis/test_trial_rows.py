"""Rows of `trials` by column."""

import json

import pyarrow as pa
import pytest

from kd_ray.analysis.trial_rows import TrialRows, column
from kd_ray.errors import CorruptObjectError

LR = [("training.optimizer.lr", "0.1")]


def rows(settings: str = json.dumps(dict(LR))) -> TrialRows:
    return TrialRows(
        pa.table({"trial_id": ["a", "b", "c"], "accuracy": [0.5, None, 0.75], "settings": ["{}", settings, settings]})
    )


def test_a_row_is_a_mapping_with_every_column() -> None:
    assert [dict(row) for row in rows()] == [
        {"trial_id": "a", "accuracy": 0.5, "settings": []},
        {"trial_id": "b", "accuracy": None, "settings": LR},
        {"trial_id": "c", "accuracy": 0.75, "settings": LR},
    ]
    assert rows()[-1]["trial_id"] == "c"
    assert [row["trial_id"] for row in rows()[1:]] == ["b", "c"]
    assert len(rows()) == 3
    assert not TrialRows(pa.table({"trial_id": pa.array([], pa.string())}))


def test_columns_are_the_same_of_rows_by_column_and_of_mappings() -> None:
    for name in ("trial_id", "accuracy", "settings"):
        assert column(rows(), name) == column([dict(row) for row in rows()], name)
    with pytest.raises(KeyError):
        rows().column("no_such")
    with pytest.raises(IndexError):
        rows()[3]


def test_a_cell_of_settings_that_is_none_of_ours_is_named() -> None:
    with pytest.raises(CorruptObjectError, match="the table `trials` holds a cell that is damaged"):
        rows("{").column("settings")
