"""The command line as a person meets it: help, exit codes, messages, formats."""

import errno
import fcntl
import json
import os
import pty
import re
import shlex
import shutil
import struct
import subprocess
import termios
import time
from pathlib import Path

import click
import pyarrow.parquet as pq
import pytest
import reference
from click.shell_completion import ShellComplete

from kd_ray.cli import cli
from kd_ray.cli.base import Command
from kd_ray.cli.commands import VERBS, system_error
from kd_ray.results.manifest import read_manifest
from kd_ray.results.query import Results
from kd_ray.results.schema import TABLES
from kd_ray.results.store import Store, open_store
from tests import processes
from tests.golden.make import golden_results
from tests.processes import run_cli, run_cli_here
from tests.sweeps import assert_same_tables, write_tiny_sweep
from tests.unit.tuning.test_splits import tiny as tiny_search

SCRATCH_SEARCH = ("tune.space={training.optimizer.lr: [0.01, 0.05]}", "training.epochs=1", "tune.scheduler=null")


def commands(group: click.Group, prefix: str = "") -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name, command in group.commands.items():
        found |= commands(command, f"{prefix}{name} ") if isinstance(command, click.Group) else {prefix + name: command}
    return found


@pytest.fixture(scope="module")
def finished(finished_tiny: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that holds the finished tiny sweep."""
    root = tmp_path_factory.mktemp("finished") / "store"
    shutil.copytree(finished_tiny.url, root)
    return root


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("arguments", [["query", "SELECT 1"], ["status"], ["query", "SELECT 1", "--format", "csv"]])
def test_a_full_device_is_one_line(arguments: list[str], finished: Path) -> None:
    """Guard: `_fail`; the interpreter would write again what stdout still holds, and end with 120."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [*processes.command(*arguments), "--store", str(finished)],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "the answer cannot be written: No space left on device\n")


def test_a_closed_stdout_is_no_error(finished: Path) -> None:
    """Guard: `main`; Python has None for it."""
    line = shlex.join([*processes.command("status"), "--store", str(finished)])
    done = subprocess.run(["sh", "-c", f"{line} >&-"], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (PermissionError(errno.EACCES, "Permission denied", "/data/x"),
         "/data/x: Permission denied (this user lacks the right; name another place, or change it)", 2),
        (NotADirectoryError(errno.ENOTDIR, "Not a directory", b"/caf\xe9/x"),
         "/caf\udce9/x: Not a directory (a part of the path is a file; name another place, or change it)", 2),
        (OSError(errno.EIO, "Input/output error", "/x"), "/x: Input/output error", 1),
        (OSError("AF_UNIX path length\ncannot exceed 107 bytes"), "AF_UNIX path length cannot exceed 107 bytes", 1),
    ],
    ids=["right", "file", "disk", "words"],
)  # fmt: skip
def test_an_error_of_the_system_is_one_line(error: OSError, message: str, code: int) -> None:
    assert system_error(error) == (message, code)


@pytest.mark.parametrize("name", sorted(commands(cli)))
def test_every_command_has_help_with_an_example_and_is_in_the_docs(name: str, tmp_path: Path) -> None:
    command = commands(cli)[name]
    assert isinstance(command, Command)
    assert command.example.startswith(f"kd-ray {name}")
    done = run_cli_here(*name.split(), "--help", cwd=tmp_path)
    assert done.returncode == 0
    assert f"Example:\n  {command.example}" in done.stdout
    assert f"### `kd-ray {name}`" in reference.commands()


def test_plan_touches_nothing(tmp_path: Path, trifeature_root: Path) -> None:
    file = write_tiny_sweep(tmp_path, trifeature_root)
    done = run_cli("plan", str(file), cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout.startswith("sweep tiny: 7 trials (7 pending)\n")
    assert "\n7 to run, in 5 packs\ncost: unknown: this store has no complete trial like these;" in done.stdout
    assert "missing:" not in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.yaml"]


def test_plan_of_a_finished_sweep_says_why_nothing_runs(finished: Path, tmp_path: Path, trifeature_root: Path) -> None:
    file = write_tiny_sweep(tmp_path, trifeature_root)
    done = run_cli_here(
        "plan", str(file), "--store", str(finished), "--json", "--set", "grid.seed=[0, 1, 2]", cwd=tmp_path
    )
    plan = json.loads(done.stdout)
    assert plan["counts"] == {"complete": 7, "running": 0, "failed": 0, "interrupted": 0, "pending": 3}
    assert {trial["why"] for trial in plan["trials"] if trial["state"] == "complete"} == {"its record is in the store"}
    assert sorted(map(len, plan["packs"])) == [1, 2]


def test_launch_of_a_finished_sweep_says_so_and_shows_the_table(
    finished: Path, tmp_path: Path, trifeature_root: Path
) -> None:
    file = write_tiny_sweep(tmp_path, trifeature_root)
    done = run_cli("launch", str(file), "--store", str(finished), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sweep tiny: nothing to do, 7 of 7 trials complete" in done.stdout
    rows = [line.split() for line in done.stdout.splitlines()]
    assert [row[:2] for row in rows if row and row[0] in ("teacher", "scratch", "T=1", "T=8")] == [
        ["teacher", "1"],
        ["scratch", "2"],
        ["T=1", "2"],
        ["T=8", "2"],
    ]
    assert re.search(r"accuracy +worst-class accuracy +DPD color +EOD color +DPD texture", done.stdout)


def test_commands_that_train_have_the_same_options() -> None:
    launch, resume, tune = (
        {param.name for param in cli.commands[name].params} for name in ("launch", "resume", "tune")
    )
    assert launch - {"sweep_file"} == resume - {"sweep_name"}
    assert launch - tune == {"only", "mirrors"}
    assert tune - launch == {"as_json", "output"}


@pytest.mark.slow
def test_tune_prints_and_writes_the_chosen_settings(tmp_path: Path, trifeature_root: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(tiny_search(trifeature_root, "tune.arm=scratch", *SCRATCH_SEARCH).to_yaml())
    done = run_cli("tune", "tiny.yaml", "--runner", "local", "-o", "tuned.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:4] == ["candidate", "state", "epochs", "worst-class"]
    assert any(line.startswith("sweep tiny: 2 candidates (") for line in lines)
    reports = tmp_path / "kd_ray_store" / "reports" / "tiny.tune"
    assert [line for line in lines if line.startswith("written: ")] == [
        f"written: {reports / 'slices.svg'}",
        f"written: {reports / 'sweep.yaml'}",
        "written: tuned.yaml",
    ]
    tuned = (tmp_path / "tuned.yaml").read_text()
    assert tuned == (reports / "sweep.yaml").read_text()
    assert tuned.startswith("# Sweep tiny with settings that `kd-ray tune` has chosen: training.optimizer.lr = ")
    again = json.loads(run_cli_here("tune", "tiny.yaml", "--runner", "local", "--json", cwd=tmp_path).stdout)
    assert (again["is_over"], [one["number"] for one in again["candidates"]]) == (True, [1, 2])
    planned = json.loads(run_cli_here("plan", "tuned.yaml", "--json", cwd=tmp_path).stdout)
    assert planned["sweep"] == "tiny"
    assert "tiny.tune" in run_cli_here("status", cwd=tmp_path).stdout


@pytest.mark.long
def test_launch_without_a_terminal_prints_plain_lines_and_none_of_rays(tmp_path: Path, trifeature_root: Path) -> None:
    file = write_tiny_sweep(tmp_path, trifeature_root, "grid.seed=[0]", "grid.temperature=[1]")
    done = run_cli("launch", str(file), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sweep tiny: 3 trials, 0 complete, 3 to run" in done.stderr
    for line in done.stderr.splitlines():
        assert line == "" or line.startswith(("sweep tiny:", "preparing trifeature:", "[")), line
    assert "sweep tiny: 3 of 3 trials complete, 3 trained now in" in done.stdout
    assert (tmp_path / "kd_ray_store" / "tables" / "trials").is_dir()


def test_status_of_a_finished_sweep(finished: Path, tmp_path: Path) -> None:
    done = run_cli_here("status", "tiny", "--store", str(finished), "--watch", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "sweep tiny: 7 trials (7 complete)\neverything is complete\n")
    as_json = json.loads(run_cli_here("status", "tiny", "--store", str(finished), "--json", cwd=tmp_path).stdout)
    assert as_json["counts"]["complete"] == 7


def test_query_of_a_sweep_without_tables_says_so(tmp_path: Path) -> None:
    """Guard: where the tables had been deleted, it counted 0 trials of 18, and said no more."""
    golden_results(tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "tables")
    arguments = ("query", "SELECT count(*) AS n FROM trials", "--store", str(tmp_path / "store"), "--format", "csv")
    done = run_cli_here(*arguments, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "n\n0\n")
    assert "sweep demo has no tables" in done.stderr and "`kd-ray resume demo` makes them" in done.stderr


def test_query_in_every_format(finished: Path, tmp_path: Path) -> None:
    sql = "SELECT role, count(*) AS n FROM trials GROUP BY 1 ORDER BY 1"

    def ask(*arguments: str) -> str:
        done = run_cli_here("query", sql, "--store", str(finished), *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert ask("--format", "csv") == "role,n\ndistilled,4\nscratch,2\nteacher,1\n"
    assert json.loads(ask("--format", "json"))[0] == {"role": "distilled", "n": 4}
    assert ask().splitlines()[-1] == "3 rows"
    assert ask("-o", "out.parquet") == ""
    assert pq.read_table(tmp_path / "out.parquet").to_pylist()[2] == {"role": "teacher", "n": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["out.parquet"]


def test_query_writes_maps_as_objects_and_keeps_columns_of_one_name(finished: Path, tmp_path: Path) -> None:
    def ask(sql: str, format_: str) -> str:
        return run_cli_here("query", sql, "--store", str(finished), "--format", format_, cwd=tmp_path).stdout

    (row,) = json.loads(
        ask("SELECT MAP {'lr': 0.5} AS map, settings, versions FROM trials WHERE role = 'teacher'", "json")
    )
    assert row["map"] == {"lr": 0.5}
    assert row["settings"] == "{}"
    assert json.loads(row["versions"])["kd_ray"]
    assert ask("SELECT 1 AS a, 2 AS a", "csv") == "a,a\n1,2\n"


def test_status_without_a_name_lists_the_sweeps(finished: Path, tmp_path: Path) -> None:
    done = run_cli_here("status", "--store", str(finished), cwd=tmp_path)
    assert done.stdout.splitlines()[1].split() == ["tiny", "7", "7", "complete"]


def test_plan_says_which_results_a_changed_setting_leaves_behind(
    finished: Path, tmp_path: Path, trifeature_root: Path
) -> None:
    file = write_tiny_sweep(tmp_path, trifeature_root)
    done = run_cli_here("plan", str(file), "--store", str(finished), "--set", "training.epochs=4", cwd=tmp_path)
    assert done.stdout.splitlines()[1] == (
        "6 complete trials of this sweep are no longer asked for: their records stay, their rows leave the tables"
    )


CLAIM = "claims=[{metric: worst_class_accuracy, condition: {temperature: 8}, direction: not_lower, margin: 0.01}]"
CLAIM_TEXT = "worst-class accuracy of T=8 is not lower than scratch by more than 1 point"


def test_plan_says_what_is_claimed(tmp_path: Path, trifeature_root: Path) -> None:
    file = write_tiny_sweep(tmp_path, trifeature_root)
    assert (
        run_cli_here("plan", str(file), "--set", CLAIM, cwd=tmp_path).stdout.splitlines()[1] == f"claim: {CLAIM_TEXT}"
    )
    assert json.loads(run_cli_here("plan", str(file), "--json", "--set", CLAIM, cwd=tmp_path).stdout)["claims"] == [
        CLAIM_TEXT
    ]


def test_claims_can_be_declared_later_and_train_nothing(finished: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(finished, store)
    done = run_cli("resume", "tiny", "--store", str(store), "--runner", "local", "--set", CLAIM, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert "nothing to do, 7 of 7 trials complete" in done.stdout
    manifest = read_manifest(open_store(store), "tiny")
    assert manifest.generation == 2
    (declared,) = manifest.declared
    assert (declared.to_claim().text(), declared.num_complete, declared.num_trials) == (CLAIM_TEXT, 7, 7)


def test_claim_about_a_class_that_the_data_do_not_have_is_refused_before_anything_is_written(
    tmp_path: Path, trifeature_root: Path
) -> None:
    file = write_tiny_sweep(tmp_path, trifeature_root)
    options = ("--store", str(tmp_path / "store"), "--runner", "local")
    claim = "claims=[{metric: class_accuracy, class: nonagon}]"
    done = run_cli("launch", str(file), *options, "--set", claim, cwd=tmp_path)
    assert done.returncode == 2
    assert f"{file}: claims[0].class: must be a class of the data, valid: " in done.stderr
    assert "got 'nonagon'" in done.stderr
    assert not list((tmp_path / "store").rglob("*.json"))


def test_other_axes_are_told_in_the_description(tmp_path: Path, trifeature_root: Path) -> None:
    overrides = ("training.optimizer.lr=null", "grid.training.optimizer.lr=[0.1, 0.2]")
    file = write_tiny_sweep(tmp_path, trifeature_root, *overrides)
    trials = json.loads(run_cli_here("plan", str(file), "--json", cwd=tmp_path).stdout)["trials"]
    assert len({trial["description"] for trial in trials}) == len(trials)
    assert trials[-1]["description"].endswith("seed=1 training.optimizer.lr=0.2")


def test_schema_names_every_column_of_every_table(tmp_path: Path) -> None:
    text = run_cli_here("schema", cwd=tmp_path).stdout
    assert "settings that can be grid axes, null where they are none: `kd-ray schema trials` lists them" in text
    # The settings that can be axes are listed where their table is asked for alone.
    text += run_cli_here("schema", "trials", cwd=tmp_path).stdout
    assert all(column.meaning in text for table in TABLES.values() for column in table.columns)
    one = run_cli_here("schema", "fairness_metrics", cwd=tmp_path).stdout
    assert one.startswith("fairness_metrics: one row per trial × sensitive feature × positive class")


def test_schema_of_sweep_files_is_json_schema(tmp_path: Path) -> None:
    schema = json.loads(run_cli_here("schema", "--sweep-file", cwd=tmp_path).stdout)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["additionalProperties"] is False
    assert schema["$defs"]["Training"]["properties"]["epochs"]["description"] == "Passes over the training split."


@pytest.mark.long
def test_data_show_draws_a_contact_sheet(tmp_path: Path) -> None:
    done = run_cli(
        "data",
        "show",
        "trifeature",
        "--set",
        "size=16",
        "--set",
        "images_per_combination=1",
        "-o",
        "s.png",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "500 test images in 10 classes; sheet written to s.png\n"
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


def littered(finished: Path, root: Path) -> Path:
    """A copy of the finished store with two hours old errors of complete trials as its only garbage, however old the store is."""
    shutil.copytree(finished, root)
    # The teachers' logits are garbage as soon as they are a minute and a half old.
    shutil.rmtree(root / "teachers", ignore_errors=True)
    for trial in (root / "trials").iterdir():
        (trial / "error.json").write_text("{}")
        os.utime(trial / "error.json", (time.time() - 7200, time.time() - 7200))
    return root


def errors_in(root: Path) -> int:
    return len(list(root.rglob("error.json")))


def test_gc_without_a_terminal_only_shows_unless_told_yes(finished: Path, tmp_path: Path) -> None:
    root = littered(finished, tmp_path / "store")
    shown = run_cli_here("gc", "--store", str(root), cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert re.search(r"errors +7 +14 B +their trials are complete by now", shown.stdout)
    assert shown.stdout.endswith(
        "nothing deleted: 7 objects, 14 B; without a terminal there is no question, --yes deletes them\n"
    )
    assert json.loads(run_cli_here("gc", "--store", str(root), "--json", cwd=tmp_path).stdout)["deleted"] is False
    assert errors_in(root) == 7
    gone = run_cli_here("gc", "--store", str(root), "--yes", cwd=tmp_path)
    assert gone.stdout.endswith("deleted: 7 objects, 14 B\n")
    assert errors_in(root) == 0
    again = run_cli_here("gc", "--store", str(root), "--yes", cwd=tmp_path)
    assert (again.returncode, again.stdout) == (
        0,
        f"store {root}: nothing to delete; objects younger than a minute and a half are always kept\n",
    )


@pytest.mark.parametrize(("answer", "left"), [("n", 7), ("", 7), ("y", 0)])
def test_gc_on_a_terminal_asks(answer: str, left: int, finished: Path, tmp_path: Path) -> None:
    root = littered(finished, tmp_path / "store")
    master, terminal = pty.openpty()
    try:
        os.write(master, f"{answer}\n".encode())
        arguments = processes.command("gc", "--store", str(root))
        done = subprocess.run(arguments, stdin=terminal, stdout=terminal, stderr=terminal, timeout=60, check=False)
        assert done.returncode == 0
        assert b"delete all of these?" in os.read(master, 10_000)
    finally:
        os.close(master)
        os.close(terminal)
    assert errors_in(root) == left


@pytest.mark.parametrize("columns", [60, *(pytest.param(columns, marks=pytest.mark.long) for columns in (80, 120))])
def test_compare_fits_the_terminal_and_begins_with_the_answer(tmp_path: Path, columns: int) -> None:
    golden_results(tmp_path)
    lines = in_terminal(columns, "compare", "demo", "--full", "--store", str(tmp_path)).splitlines()
    # The folder of the store is one word of the commands, and a word is not cut.
    assert max(len(line) for line in lines if str(tmp_path) not in line) <= columns
    # On a terminal a line on stderr says what takes the time.
    assert lines[0] == "compare the conditions of demo ..."
    assert lines[1].startswith("ASKED        4 distilled conditions")
    assert "ESTABLISHED  Nothing." in lines
    assert any(line.startswith("NEXT         kd-ray resume demo") for line in lines)


def in_terminal(columns: int, *arguments: str) -> str:
    """What a command prints in a terminal of so many columns."""
    master, terminal = pty.openpty()
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    environment = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    process = subprocess.Popen(
        processes.command(*arguments), stdin=terminal, stdout=terminal, stderr=terminal, env=environment
    )
    os.close(terminal)
    shown = b""
    try:
        while part := os.read(master, 65_536):
            shown += part
    except OSError as error:
        # Linux ends a terminal that way once its last writer is gone.
        assert error.errno == errno.EIO
    finally:
        os.close(master)
    assert process.wait(timeout=60) == 0, shown.decode()
    return shown.decode()


def test_compare_as_json_has_the_verdict(tmp_path: Path) -> None:
    golden_results(tmp_path)
    found = json.loads(run_cli_here("compare", "demo", "--json", "--store", str(tmp_path), cwd=tmp_path).stdout)
    assert found["verdict"]["ESTABLISHED"] == ["Nothing."]
    assert next(iter(found["verdict"])) == "ASKED"
    assert found["verdict"]["NEXT"][0].startswith("kd-ray resume demo --set ")


def test_help_of_compare_says_what_its_headings_mean(tmp_path: Path) -> None:
    shown = run_cli_here("compare", "--help", cwd=tmp_path).stdout
    for heading in ("DECLARED", "ESTABLISHED", "HINTS", "HELD BACK", "NOT TESTED", "MORE SEEDS"):
        assert re.search(rf"^  {heading} +\w", shown, flags=re.MULTILINE), heading


def test_verify_says_that_all_is_well(finished: Path, tmp_path: Path) -> None:
    done = run_cli_here("verify", "--store", str(finished), cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.fullmatch(r"store .*: 1 sweep, 7 records, \d+ objects read, no problems\n", done.stdout)


def test_verify_names_damage_mends_it_and_says_what_to_type_next(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "store"
    shutil.copytree(finished, root)
    weights = next(root.glob("trials/*/weights-*.safetensors"))
    weights.write_bytes(b"noise")
    (root / "tables" / "epochs" / "tiny" / "part-00000.parquet").write_bytes(b"noise")
    found = run_cli_here("verify", "tiny", "--store", str(root), cwd=tmp_path)
    assert found.returncode == 1
    assert f"problem: {weights.relative_to(root)}: it is not what the record of" in found.stdout
    assert "problem: tables/epochs/tiny/part-00000.parquet: it is not a whole table part" in found.stdout
    assert found.stdout.endswith(f"repair with:  kd-ray verify tiny --repair --store {root}\n")
    mended = run_cli_here("verify", "--repair", "--store", str(root), cwd=tmp_path)
    assert mended.returncode == 1
    assert f"done: trials/{weights.parent.name}/record.parquet: moved into quarantine" in mended.stdout
    assert "done: tables of sweep tiny: rebuilt from 6 trials" in mended.stdout
    assert mended.stdout.endswith(f"continue with:  kd-ray resume tiny --store {root}\n")
    as_json = run_cli_here("verify", "--rebuild-tables", "--json", "--store", str(root), cwd=tmp_path)
    assert as_json.returncode == 0
    assert json.loads(as_json.stdout)["rebuilt"] == ["tables of sweep tiny: rebuilt from 6 trials"]
    assert [json.loads(as_json.stdout)[name] for name in ("num_quarantined", "num_set_aside")] == [1, 1]


def test_regroup_adds_a_feature(finished: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(finished, tmp_path / "kd_ray_store"))
    names = Results(open_store(root)).query("SELECT DISTINCT sample_id FROM samples")["sample_id"].to_pylist()
    table = tmp_path / "light.csv"
    table.write_text("\n".join(["image,light", *(f"{name},{('dark', 'bright')[int(name) % 2]}" for name in names)]))
    done = run_cli("regroup", "tiny", "--features", str(table), "--id", "image", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(
        f"light joined to {len(names):,} test samples; the tables of sweep tiny have 7 trials with it"
    )
    groups = run_cli("query", "SELECT DISTINCT \"group\" FROM group_metrics WHERE feature = 'light'", cwd=tmp_path)
    assert "bright" in groups.stdout
    table.write_text(f"image,light\n{names[0]},dark\n")
    refused = run_cli("regroup", "tiny", "--features", str(table), "--id", "image", "--json", cwd=tmp_path)
    assert refused.returncode == 2
    assert "light.csv: has no row for test samples" in refused.stderr


def test_adopt_merges_a_store(finished: Path, tmp_path: Path) -> None:
    root = tmp_path / "kd_ray_store"
    dry = run_cli_here("adopt", str(finished), "--dry-run", cwd=tmp_path)
    assert dry.stdout == f"{finished} → {root}: 7 trials would be adopted, 0 were there already; sweeps: tiny\n"
    assert not root.exists()
    done = run_cli_here("adopt", str(finished), cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{finished} → {root}: 7 trials adopted, 0 were there already; sweeps: tiny\n"
    assert_same_tables(open_store(root), open_store(finished))
    again = json.loads(run_cli_here("adopt", str(finished), "--json", cwd=tmp_path).stdout)
    assert (again["adopted"], len(again["present"])) == ([], 7)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["plan", "none.yaml"], "none.yaml: cannot read the sweep file"),
        (["plan", "tiny.yaml", "--set", "training.epochs=0"], "--set training.epochs=0: training.epochs: should be greater than 0, got 0"),
        (["plan", "tiny.yaml", "--store", "ftp://x"], "store ftp://x: unknown scheme 'ftp'; valid: a local path, s3://, gs://, az://"),
        (["tune", "tiny.yaml"], "tiny.yaml: tune: there is no such section; docs/tuning.md shows one"),
        (["tune", "tiny.yaml", "--set", "tune.space={training.optimizer.rl: [1]}", "--set", "tune.arm=scratch",
          "--set", "tune.budget.candidates=1", "--set", "tune.validation_fraction=0.2"], "training.optimizer.rl"),
        (["launch", "tiny.yaml", "--only", "zz"], "--only zz: no trial of this sweep begins with it"),
        (["launch", "tiny.yaml", "--runner", "local", "--address", "x:1"], "--address x:1 has no effect with --runner local"),
        (["launch", "tiny.yaml", "--set", "teacher={model: resnet20, weights: none.pt}"], "none.pt': No such file or directory"),
        (["launch", "tiny.yaml", "--set", "dataset={name: cifar10}", "--set", "sensitive_features=null", "--set", "intersections=null"],
         "cifar-10-batches-py"),
        (["launch", "tiny.yaml", "--set", "teacher={model: resnet20, weights: tiny.yaml}"], "teacher.weights: "),
        (["launch", "tiny.yaml", "--address", "127.0.0.1:1"], "--address 127.0.0.1:1: no Ray cluster answers there"),
        (["launch", "tiny.yaml", "--address", "here"], "--address here: expected HOST:PORT, ray://HOST:PORT or auto"),
        (["launch", "tiny.yaml", "--store", "tiny.yaml"], "store tiny.yaml: it is a file; a store is a folder"),
        (["resume", "none"], "there is no such folder"),
        (["status", "none", "--store", "."], "no sweep 'none'; it has: none"),
        (["query", "SELEC 1", "--store", "."], "tables and views: trials, class_metrics"),
        (["query", "SELECT 1", "--store", ".", "-o", "no/such/dir.csv"], "-o no/such/dir.csv: cannot write"),
        (["gc", "--older-than", "soon", "--store", "."], "--older-than soon: expected a number and a unit: 90s, 30m, 12h or 7d"),
        (["gc"], "there is no such folder"),
        (["verify", "none", "--store", "."], "no sweep 'none'; it has: none"),
        (["adopt", "nowhere"], "store nowhere: there is no such folder"),
        (["adopt", ".", "--store", "."], "it cannot be merged into itself"),
        (["adopt", ".", "--sweep", "none"], "no sweep 'none'; it has: none"),
        (["schema", "nothing"], "no table 'nothing'; valid: trials, class_metrics"),
        (["data", "show", "mnist", "-o", "x.png"], "must be one of 'trifeature', 'cifar10', "),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)  # fmt: skip
def test_bad_input_ends_with_exit_code_2_and_one_message(
    arguments: list[str], message: str, tmp_path: Path, trifeature_root: Path
) -> None:
    write_tiny_sweep(tmp_path, trifeature_root)
    # Ray gets a process of its own.
    run = run_cli if "--address" in arguments else run_cli_here
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    # Nothing was written before the input was known to be good.
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == {"tiny.yaml"}


def test_a_shell_completes_the_names_of_verbs_and_sweeps(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def proposed(arguments: list[str], incomplete: str) -> list[str]:
        shell = ShellComplete(cli, {}, "kd-ray", "_KD_RAY_COMPLETE")
        return [item.value for item in shell.get_completions(arguments, incomplete)]

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KD_RAY_STORE", str(finished))
    assert proposed([], "comp") == ["compare"]
    for verb in ("status", "resume", "compare", "report", "verify"):
        assert proposed([verb], "") == ["tiny"]
    assert proposed(["status"], "x") == []
    assert proposed(["status", "--store", "nowhere"], "") == []
    assert proposed(["status", "--store", "s3://lab/kd_ray"], "") == []
    assert list(tmp_path.iterdir()) == []


def test_help_groups_the_verbs(tmp_path: Path) -> None:
    shown = run_cli_here("--help", cwd=tmp_path).stdout
    places = [shown.index(f"\n{group}:\n") for group in VERBS]
    assert places == sorted(places)
    for group, verbs in VERBS.items():
        part = shown[shown.index(f"\n{group}:\n") :].split("\n\n")[0]
        assert re.findall(r"^  (\w+) ", part, re.MULTILINE) == [verb.name for verb in verbs]
