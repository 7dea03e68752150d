"""README and docs keep their word: commands parse, queries and Python run, the sweep file is the one that runs."""

import json
import re
import shlex
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from kd_ray.cli import cli
from kd_ray.results.query import Results
from kd_ray.results.store import Store
from kd_ray.sweep.datasets import ListedDataset
from kd_ray.sweep.load import load_sweep, parse_sweep
from kd_ray.sweep.plan import expand
from kd_ray.sweep.source import read_yaml

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
README = ROOT / "README.md"


def blocks(language: str, page: Path = README) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), flags=re.DOTALL)


QUERIES = blocks("sql", DOCS / "queries.md")


@pytest.fixture(scope="module")
def results(finished_tiny: Store) -> Results:
    return Results(finished_tiny)


def test_readme_is_short() -> None:
    assert len(README.read_bytes()) <= 8192


@pytest.mark.parametrize("sql", QUERIES, ids=range(len(QUERIES)))
def test_query_of_the_docs_answers(sql: str, results: Results) -> None:
    answer = results.query(sql)
    assert answer.num_rows > 0
    assert len(QUERIES) >= 5


def test_sweep_file_of_the_docs_is_the_quick_sweep() -> None:
    (text,) = [block for block in blocks("yaml", DOCS / "sweep-file.md") if block.startswith("name: ")]
    shown = {trial.trial_id for trial in expand(parse_sweep(text, source="sweep-file.md"), lambda path: "")}
    assert shown == {
        trial.trial_id for trial in expand(load_sweep(ROOT / "sweeps" / "trifeature-quick.yaml"), lambda path: "")
    }


def test_data_set_of_the_docs_is_one() -> None:
    (text,) = [block for block in blocks("yaml", DOCS / "data.md") if "name: manifest" in block]
    raw, _ = read_yaml(text, "data.md")
    dataset = TypeAdapter(ListedDataset).validate_json(json.dumps(raw["dataset"]))
    assert dataset.bins[0].names == ("<18", "18-40", "40-60", ">=60")


def test_commands_of_the_readme_parse() -> None:
    # A line that is indented continues the one before.
    lines = [
        line.removeprefix("$ ")
        for line in re.sub(r"\n {2,}", " ", README.read_text()).splitlines()
        if line.startswith("$ kd-ray")
    ]
    assert len(lines) == 5
    for line in lines:
        name, *arguments = shlex.split(line)[1:]
        cli.commands[name].make_context(name, arguments)


def test_two_lines_of_pandas_give_what_the_query_gives(
    results: Results, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (text,) = [block for block in blocks("python") if block.startswith("import pandas\n")]
    first, second = text.strip().splitlines()[::2] if "\n\n" in text else text.splitlines()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "kd_ray_store").symlink_to(results.store.url)
    names: dict[str, object] = {}
    exec(first, names)
    found = eval(second, names)
    expected = results.query(
        "SELECT role, temperature, avg(accuracy) AS accuracy FROM trials GROUP BY ALL ORDER BY ALL"
    )
    assert list(found) == pytest.approx(expected["accuracy"].to_pylist())


@pytest.mark.long
def test_python_of_the_docs_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trifeature_root: Path) -> None:
    (text,) = [block for block in blocks("python", DOCS / "python.md") if block.startswith("import kd_ray\n")]
    text = text.replace(
        "kd_ray.launch(sweep, results)", "kd_ray.launch(sweep, results, runner='local', progress=False)"
    )
    text = text.replace('"sweeps/', f'"{ROOT}/sweeps/')
    quick = [
        "grid.seed=[0]",
        "grid.temperature=[4]",
        "dataset.size=16",
        "training.epochs=1",
        "training.schedule={name: constant}",
        "teacher.training.epochs=1",
    ]
    text = text.replace('["grid.seed=[0]"]', repr([*quick, f"placement.data_root={trifeature_root}"]))
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(text, "python.md", "exec"), names)
    assert names["report"].exit_code == 0  # type: ignore[attr-defined]
    assert len(names["fairness"]) == 3 * 3 * 11  # type: ignore[arg-type]
    assert len(names["worst"]) == 2  # type: ignore[arg-type]
    assert names["by_group"]["count"].sum() > 0  # type: ignore[index]


def test_make_targets_of_the_readme_exist_and_ci_calls_the_test_commands() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert "\ndemo:" in makefile
    for command in ("test", "test-quick", "test-long"):
        assert f"\n{command}:" in makefile
    assert (ROOT / ".ci" / "run").read_text().rstrip().endswith("make test\nmake test-long")
