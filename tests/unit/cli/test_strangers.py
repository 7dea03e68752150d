"""What a stranger's store holds is shown, and not obeyed."""

import ast
import csv
import io
import json
import logging
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

import kd_ray.cli
from kd_ray.analysis.report.table import ReportColumn, report_table
from kd_ray.cli import text
from kd_ray.cli.commands import _cleaned_record
from kd_ray.results.store import error_key, open_store
from kd_ray.shown import cleaned, csv_cell
from tests.fakes import make_sweep, plan_trials, write_sweep

ATTACK = "\x1b]52;c;cm0gLXJmIH4=\x07\x1b[2J\x9b31m\u202eevil"
SHOWN = r"\x1b]52;c;cm0gLXJmIH4=\x07\x1b[2J\x9b31m\u202eevil"


def test_escape_sequences_are_shown_as_text() -> None:
    assert cleaned(ATTACK) == SHOWN
    assert cleaned("two\nlines\tand ± é 中 👩‍🔬") == "two\nlines\tand ± é 中 👩‍🔬"


@pytest.mark.slow
def test_status_shows_a_cause_and_a_traceback_as_text(tmp_path: Path) -> None:
    store = open_store(tmp_path / "store")
    write_sweep(store, make_sweep())
    trial_id = plan_trials(make_sweep())[0].trial_id
    fields = {"cause": ATTACK, "traceback": f"Traceback\n{ATTACK}", "host": "h", "launch_id": "l", "failed_at": "x"}
    store.put(error_key(trial_id), json.dumps(fields).encode())
    command = [sys.executable, "-m", "kd_ray.cli", "status", "demo", "--failed", "--store", store.url]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert SHOWN in done.stdout
    assert not set(ATTACK[:1] + "\x07\x9b\u202e") & set(done.stdout + done.stderr)


def test_answer_of_sql_is_shown_as_text() -> None:
    shown = text.encode(pa.table({ATTACK: [ATTACK]}), "table").decode()
    # rich itself leaves out a bell.
    assert shown.count(SHOWN.replace(r"\x07", "")) == 2
    assert "\x1b" not in shown


def test_log_is_shown_as_text() -> None:
    record = _cleaned_record("kd_ray", logging.WARNING, "f.py", 1, "found %s", (ATTACK,), None)
    assert record.getMessage() == f"found {SHOWN}"


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ('=HYPERLINK("http://x","y")', '\'=HYPERLINK("http://x","y")'),
        ("+1+2", "'+1+2"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-cmd|' /C calc'!A0", "'-cmd|' /C calc'!A0"),
        ("\t=1+1", "'\t=1+1"),
        ("-0.5", "-0.5"),
        ("+3", "+3"),
        ("a=b", "a=b"),
        ("", ""),
    ],
)
def test_csv_cell_that_begins_a_formula_is_quoted(cell: str, written: str) -> None:
    assert csv_cell(cell) == written
    column = pa.array([cell])
    (head, row) = csv.reader(io.StringIO(text.encode(pa.table({"a": column, "n": [-1.5]}), "csv").decode()))
    assert head == ["a", "n"]
    assert row == [written, "-1.5"]
    table = report_table("t", "T", "C", [ReportColumn(name="a"), ReportColumn(name="n")], [(cell or "x", -1.5)])
    assert list(csv.reader(io.StringIO(table.to_csv())))[1] == [written or "x", "-1.5"]


def test_numbers_of_numpy_stay_numbers() -> None:
    table = report_table("t", "T", "C", [ReportColumn(name="n")], [(float(np.float64(-2.5)),)])
    assert table.to_csv() == "n\n-2.5\n"


def test_all_commands_print_through_one_function() -> None:
    """`say` cleans; the one line that moves the cursor itself has fixed words."""
    calls = []
    for path in Path(kd_ray.cli.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("click.echo", "print", "sys.stdout.write"):
                calls.append((path.name, ast.unparse(node.args[0])[:8]))
    assert sorted(calls) == [("base.py", "cleaned("), ("keep_commands.py", "f'\\r\\x1b")]
