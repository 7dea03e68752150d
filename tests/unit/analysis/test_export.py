"""Tables for other programs: each format is read back by another library, and no spreadsheet computes what a stranger wrote."""

import csv
import io
import sys
from pathlib import Path

import numpy as np
import openpyxl
import pandas as pd
import pyarrow.parquet as pq
import pytest
from scipy import stats

from kd_ray.analysis import export as module
from kd_ray.analysis.export import FORMATS, SUFFIXES, conditions_frame, export
from kd_ray.analysis.reading import read_study
from kd_ray.cli.share_commands import _FORMATS
from kd_ray.errors import InvalidInputError
from kd_ray.results.aggregate import aggregate
from kd_ray.results.query import Results
from kd_ray.results.record import commit_record, write_samples
from kd_ray.results.store import Store
from kd_ray.sweep.plan import PlannedTrial
from tests.fakes import LABELS_N, make_record, make_samples, make_sweep, plan_trials, write_sweep
from tests.processes import run_cli, run_cli_here


def commit(store: Store, trials: tuple[PlannedTrial, ...]) -> None:
    """Trial k is wrong about k modulo 7 of the 12 samples."""
    for k, trial in enumerate(trials):
        predictions_N = LABELS_N.astype(np.int32)
        predictions_N[: k % 7] = 2
        write_samples(store, trial.spec.dataset_id, make_samples())
        commit_record(store, make_record(trial.spec, predictions_N=predictions_N))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    from kd_ray.results.store import open_store

    store = open_store(tmp_path_factory.mktemp("export"))
    file = make_sweep(overrides=("training.optimizer.lr=null", "grid.training.optimizer.lr=[0.1, 0.2]"))
    commit(store, plan_trials(file))
    aggregate(store, write_sweep(store, file).sweep)
    return Results(store)


def frame_of(results: Results) -> pd.DataFrame:
    return conditions_frame(read_study(results, "demo"))


@pytest.mark.slow
def test_conditions_have_n_mean_sd_and_students_interval(results: Results) -> None:
    frame = frame_of(results)
    row = frame[(frame["condition"] == "T=4, lr=0.2") & (frame["metric"] == "accuracy")].iloc[0]
    trials = results.frame("trials", sweep="demo")
    mine = trials[(trials["temperature"] == 4) & (trials["training.optimizer.lr"] == 0.2)]["accuracy"]
    assert (row["n"], row["temperature"], row["training.optimizer.lr"], row["unit"]) == (2, 4.0, 0.2, "rate")
    assert [row["mean"], row["sd"]] == pytest.approx([mine.mean(), mine.std(ddof=1)], rel=1e-12)
    expected = stats.t.interval(0.95, 1, loc=mine.mean(), scale=mine.sem())
    assert [row["ci_low"], row["ci_high"]] == pytest.approx(expected, rel=1e-9)
    assert set(frame["feature"].dropna()) == {"color", "texture"}


def assert_same(found: pd.DataFrame, expected: pd.DataFrame) -> None:
    """Whatever stands for what is missing."""
    one, other = (it.astype(object).where(it.notna(), None) for it in (found, expected))
    pd.testing.assert_frame_equal(one, other, check_dtype=False)


@pytest.mark.slow
def test_every_format_can_be_read_back(results: Results, tmp_path: Path) -> None:
    frame = frame_of(results)
    from_csv = pd.read_csv(io.BytesIO(export(results, "demo", to="csv")))
    assert_same(from_csv, frame)
    from_excel = pd.read_excel(io.BytesIO(export(results, "demo", to="xlsx")))
    assert_same(from_excel, frame)
    from_parquet = pd.read_parquet(io.BytesIO(export(results, "demo", to="parquet")))
    assert_same(from_parquet, frame)
    lines = export(results, "demo", to="markdown").decode().splitlines()
    assert len(lines) == len(frame) + 2
    assert lines[0].split() == ["|", *" | ".join(frame.columns).replace("_", "\\_").split(), "|"]
    tex = export(results, "demo", to="latex").decode()
    assert tex.count(r" \\") == len(frame) + 1
    assert r"ci\_low" in tex
    assert r"\begin{tabular}{llllllllrrrrlllrrrrr}" in tex


@pytest.mark.slow
@pytest.mark.parametrize("table", ["trials", "class_metrics", "fairness_metrics", "epochs", "predictions", "samples"])
def test_every_table_can_be_exported_in_every_format(table: str, results: Results) -> None:
    rows = results.table(table, sweep="demo").num_rows
    for to in FORMATS:
        data = export(results, "demo", to=to, table=table)
        if to == "csv":
            assert len(pd.read_csv(io.BytesIO(data))) == rows
        if to == "xlsx":
            assert len(pd.read_excel(io.BytesIO(data))) == rows
        if to == "parquet":
            assert pq.read_metadata(io.BytesIO(data)).num_rows == rows


@pytest.mark.slow
def test_parquet_says_what_its_columns_mean(results: Results) -> None:
    schema = pq.read_schema(io.BytesIO(export(results, "demo", to="parquet", table="trials")))
    assert schema.field("accuracy").metadata[b"better"] == b"higher"
    assert "training.optimizer.lr" in schema.names


EVIL = '=HYPERLINK("http://x"), |<b>&%_\x1b[2J'


def test_no_cell_is_a_formula() -> None:
    frame = pd.DataFrame({"=name": [EVIL, "-x", "plain"], "n": [-1.5, 2.0, np.nan], "items": [[1], ["=1"], None]})
    rows = list(csv.reader(io.StringIO(FORMATS["csv"](frame, "t").decode())))
    assert rows[0] == ["'=name", "n", "items"]
    assert [row[0] for row in rows[1:]] == ["'" + EVIL.replace("\x1b", "\\x1b"), "'-x", "plain"]
    assert [row[1] for row in rows[1:]] == ["-1.5", "2.0", ""]
    assert [row[2] for row in rows[1:]] == ["[1]", '["=1"]', ""]
    sheet = openpyxl.load_workbook(io.BytesIO(FORMATS["xlsx"](frame, "t"))).active
    assert all(cell.data_type != "f" for line in sheet.iter_rows() for cell in line)
    assert sheet["A2"].value == rows[1][0]
    markdown = FORMATS["markdown"](frame, "t").decode().splitlines()
    assert all(line.replace("\\|", "").count("|") == 4 for line in markdown)
    assert "<b>" not in markdown[2].replace("\\<", "")
    assert r"\&\%\_" in FORMATS["latex"](frame, "t").decode()


def test_excel_refuses_what_it_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(module._MOST_IN_EXCEL, "characters in a cell", 10)
    frame = pd.DataFrame({"x": [list(range(100))]})
    with pytest.raises(InvalidInputError, match="table t has 390 characters in a cell, and Excel takes 10; use csv"):
        FORMATS["xlsx"](frame, "t")


def test_what_is_not_there_is_refused(results: Results) -> None:
    with pytest.raises(InvalidInputError, match="no table 'trial'; valid: conditions, trials,"):
        export(results, "demo", to="csv", table="trial")
    with pytest.raises(InvalidInputError, match="no sweep 'other'; it has: demo"):
        export(results, "other", to="csv")


def test_a_format_without_its_library_names_the_extra(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tabulate", None)
    with pytest.raises(InvalidInputError, match=r"--to markdown: .*tabulate.*pip install 'kd_ray\[export\]'"):
        export(results, "demo", to="markdown")


@pytest.mark.slow
def test_the_command_never_overwrites_silently(results: Results, tmp_path: Path) -> None:
    arguments = ["export", "demo", "--to", "csv", "--store", results.store.url]
    file = tmp_path / "demo-conditions.csv"
    assert run_cli_here(*arguments, cwd=tmp_path).returncode == 0
    before = file.read_bytes()
    file.write_bytes(b"mine")
    done = run_cli_here(*arguments, cwd=tmp_path)
    assert done.returncode == 2
    assert "demo-conditions.csv: exists already; give another name, or --overwrite" in done.stderr
    assert file.read_bytes() == b"mine"
    assert run_cli_here(*arguments, "--overwrite", cwd=tmp_path).returncode == 0
    assert file.read_bytes() == before == run_cli(*arguments, "-o", "-", cwd=tmp_path).stdout.encode()
    assert set(FORMATS) == set(SUFFIXES) == set(_FORMATS)
