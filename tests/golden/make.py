"""Committed records of a small sweep, and the comparisons they must give: `python -m tests.golden.make` makes both anew.

`store/` holds 18 drawn trials (3 teachers, 3 scratch students, 3 seeds × 4 temperatures; three classes of 40 test samples, three colors,
two textures) as a launch leaves them, without tables. `comparisons.csv` is the table that `kd-ray compare demo` makes of them, every number
at full precision. Only a change that is meant to move these numbers, or a new field of a trial's spec, is a reason to make them anew;
`--keep-records` leaves the records as they are.
"""

import argparse
import csv
import io
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt

from kd_ray.analysis.compare import compare
from kd_ray.results.aggregate import aggregate
from kd_ray.results.comparison_schema import Comparison
from kd_ray.results.query import Results
from kd_ray.results.store import open_store
from kd_ray.sweep.spec import Role, TrialSpec
from tests.simulated import simulate

FOLDER = Path(__file__).parent
STORE = FOLDER / "store"
TABLE = FOLDER / "comparisons.csv"
GRID = ("grid.seed=[0, 1, 2]", "grid.temperature=[1, 4, 10, 20]")


def rates(spec: TrialSpec, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    """Teachers are good at everything; temperature helps the first class and harms the second."""
    base_C = np.array([0.8, 0.8, 0.7]) + rng.normal(0, 0.02, 3)
    if spec.role is Role.TEACHER:
        base_C += 0.15
    if spec.temperature is not None:
        shift = min(spec.temperature, 10) / 50
        base_C += [shift / 2, -2 * shift, 0]
    return np.clip(base_C, 0, 1)


def golden_results(folder: Path) -> Results:
    """The committed records in a store of their own, with tables."""
    shutil.copytree(STORE, folder, dirs_exist_ok=True)
    store = open_store(folder)
    aggregate(store, "demo")
    return Results(store)


def to_csv(rows: Sequence[Comparison]) -> str:
    """Every column of every row, as text that gives the same numbers back."""
    names = [field.name for field in fields(Comparison)]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for row in rows:
        writer.writerow([_cell(getattr(row, name)) for name in names])
    return buffer.getvalue()


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return " ".join(value)
    return repr(value) if isinstance(value, float) else str(value)


def main() -> None:
    """Make what is committed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep-records", action="store_true", help="only make the table anew")
    if not parser.parse_args().keep_records:
        shutil.rmtree(STORE, ignore_errors=True)
        simulate(open_store(STORE), *GRID, rates=rates)
        # Tables follow from the records.
        shutil.rmtree(STORE / "tables")
        (STORE / "sweeps" / "demo" / "folded.json").unlink()
    with tempfile.TemporaryDirectory() as folder:
        TABLE.write_text(to_csv(compare(golden_results(Path(folder)), "demo").rows))


if __name__ == "__main__":
    main()
