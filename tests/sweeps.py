"""Small real sweeps for tests, and how to compare what they leave."""

from pathlib import Path

import pyarrow as pa

from kd_ray.results.query import Results
from kd_ray.results.schema import TABLES, TIMING_NAMES
from kd_ray.results.store import Store
from kd_ray.sweep.load import SweepFile, parse_sweep

TINY = """
name: tiny
dataset: {name: trifeature, size: 16, images_per_combination: 1, test_fraction: 0.5}
sensitive_features: [color, texture]
intersections: [[color, texture]]
teacher:
  model: resnet20
  seed: [7]
  training:
    epochs: 1
    batch_size: 50
    optimizer: {name: sgd, lr: 0.05}
    schedule: {name: constant}
student: {model: lenet5}
training:
  epochs: 3
  batch_size: 50
  optimizer: {name: sgd, lr: 0.02}
  schedule: {name: cosine}
  augmentation: crop_flip
distillation: {alpha: 0.9, t_squared: true}
grid:
  seed: [0, 1]
  temperature: [1, 8]
placement: {checkpoint_interval_s: 0}
"""
"""1 teacher, 2 scratch and 4 distilled students on 500 images of 16 pixels: seconds."""


def tiny_sweep(data_root: Path, *overrides: str) -> SweepFile:
    """The tiny sweep with its data in `data_root`."""
    return parse_sweep(TINY, source="tiny.yaml", overrides=[f"placement.data_root={data_root}", *overrides])


def write_tiny_sweep(folder: Path, data_root: Path, *overrides: str) -> Path:
    """The tiny sweep as a file."""
    path = folder / "tiny.yaml"
    path.write_text(tiny_sweep(data_root, *overrides).to_yaml())
    return path


def comparable_tables(store: Store, sweep: str = "tiny") -> dict[str, pa.Table]:
    """Every table of a sweep without the columns that may differ between two runs, which are named in `schema.TIMING_NAMES`."""
    results = Results(store)
    return {
        name: results.table(name, sweep=sweep).drop_columns([c.name for c in table.columns if c.name in TIMING_NAMES])
        for name, table in TABLES.items()
    }


def assert_same_tables(a: Store, b: Store, sweep: str = "tiny") -> None:
    """Every table of a sweep is the same in both stores, bit for bit."""
    tables_a, tables_b = comparable_tables(a, sweep), comparable_tables(b, sweep)
    for name in TABLES:
        assert tables_a[name].num_rows > 0, name
        assert tables_a[name].equals(tables_b[name]), difference(name, tables_a[name], tables_b[name])


def difference(name: str, a: pa.Table, b: pa.Table) -> str:
    """In which columns and of which trials two tables differ, with the first values."""
    if a.num_rows != b.num_rows:
        return f"{name}: {a.num_rows} and {b.num_rows} rows"
    lines = [f"{name}:"]
    for column in a.column_names:
        values = zip(a.column(column).to_pylist(), b.column(column).to_pylist(), strict=True)
        rows = [i for i, (x, y) in enumerate(values) if x != y]
        if rows:
            trials = a.column("trial_id").to_pylist() if "trial_id" in a.column_names else list(range(a.num_rows))
            x, y = a.column(column)[rows[0]].as_py(), b.column(column)[rows[0]].as_py()
            lines.append(f"{column}: {str(x)[:80]} and {str(y)[:80]} in {[trials[i] for i in rows][:20]}")
    return "\n".join(lines)
