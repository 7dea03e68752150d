"""Each Parquet file of a table says what it is, and what its columns mean."""

import io
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from kd_ray.cli.text import schema
from kd_ray.results.query import Results
from kd_ray.results.schema import QUERIED, SCHEMA_VERSION, TABLES
from kd_ray.results.store import part_key
from tests.golden.make import golden_results

PROMISED = Path(__file__).parents[2] / "golden" / "schema.json"
"""Type and unit of every column of this schema version, as they were when it began or the column was added."""


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return golden_results(tmp_path_factory.mktemp("golden"))


def test_a_file_names_its_table_sweep_and_versions(results: Results) -> None:
    for table in TABLES:
        data = results.store.get(part_key(table, "demo", 0))
        assert data is not None
        metadata = pq.read_metadata(io.BytesIO(data)).metadata
        assert metadata[b"kd_ray_schema_version"] == b"2"
        assert metadata[b"kd_ray_version"] == b"0.1.0"
        assert metadata[b"kd_ray_table"] == table.encode()
        assert metadata[b"kd_ray_sweep"] == b"demo"


def test_a_column_says_its_unit_range_direction_and_meaning(results: Results) -> None:
    root = results.store.local_root
    assert root is not None
    said = pq.read_schema(root / part_key("fairness_metrics", "demo", 0))
    assert said.field("equalized_odds_difference").metadata == {
        b"unit": b"1",
        b"range": b"[0, 1]",
        b"better": b"lower",
        b"meaning": b"larger of the differences in true and false positive rate; 0 is parity",
    }
    loss = pq.read_schema(root / part_key("trials", "demo", 0)).field("loss").metadata
    assert (loss[b"unit"], loss[b"range"], loss[b"better"]) == (b"nat", b"[0, inf)", b"lower")


@pytest.mark.slow
def test_files_and_the_command_say_the_same(results: Results) -> None:
    root = results.store.local_root
    assert root is not None
    for table in TABLES:
        shown = " ".join(schema(table).split())
        for field in pq.read_schema(root / part_key(table, "demo", 0)):
            assert field.metadata[b"meaning"].decode() in shown


def test_a_schema_version_keeps_every_column_with_its_type_and_unit() -> None:
    """Columns may be added: add them to the file. Anything else raises `SCHEMA_VERSION`."""
    promised = json.loads(PROMISED.read_text())
    assert promised["schema_version"] == SCHEMA_VERSION
    now = {name: {it.name: [str(it.type), it.unit] for it in table.columns} for name, table in QUERIED.items()}
    assert now == promised["tables"]
