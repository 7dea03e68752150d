"""The pages keep their word: commands parse, the tutorial runs as it stands, and the numbers of the example are those of its store."""

import re
import shlex
from pathlib import Path

import click
import pytest

from kd_ray.cli import cli
from kd_ray.results.query import Results
from kd_ray.results.store import open_store
from tests.golden.make import golden_results
from tests.processes import run_cli, run_cli_here

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = sorted(
    [ROOT / "README.md", *DOCS.rglob("*.md"), *(ROOT / "docker").glob("*.md"), ROOT / "sweeps" / "README.md"]
)
_PROMPT = re.compile(r"(?:\$ |[A-Z_]+=\S+ +|pip install \S+ +&& +)*(kd-ray .+)")


def blocks(page: Path, *languages: str) -> list[str]:
    found = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    return [text for language, text in found if language in languages]


def commands(page: Path) -> list[str]:
    """The lines of a page that call kd-ray, without what stands before it. A line that is indented continues the one before."""
    lines = (line for text in blocks(page, "bash", "") for line in re.sub(r"\\?\n {2,}", " ", text).splitlines())
    return [found[1] for found in map(_PROMPT.match, lines) if found]


def words(text: str) -> str:
    return " ".join(text.split())


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_commands_of_a_page_parse(page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for line in commands(page):
        arguments = shlex.split(line, comments=True)[1:]
        command: click.Command = cli
        while isinstance(command, click.Group):
            command = command.commands[arguments.pop(0)]
        command.make_context(command.name, arguments)


def test_example_of_the_reading_page_is_what_compare_prints(tmp_path: Path) -> None:
    store = golden_results(tmp_path / "store").store.url
    printed = words(run_cli_here("compare", "demo", "--full", "--store", store, cwd=tmp_path).stdout)
    page = DOCS / "reading.md"
    lines = [line for text in blocks(page, "text") for line in text.splitlines()]
    assert len(lines) == 14
    for line in lines:
        assert words(line) in printed
    example = page.read_text().partition("## An example whose truth is known")[2].partition("\n## ")[0]
    # Accuracies of classes stand in the report of this store, which has a test of its own.
    printed += (ROOT / "tests" / "golden" / "report.txt").read_text()
    assert round(43.33 / 69.72 - 76.67 / 75.00, 3) == -0.401
    for number in set(re.findall(r"\d+\.\d+", example)) - {"0.401"}:
        assert number in printed, number
    assert "130 tests" in printed


@pytest.mark.long
def test_tutorial_runs_on_data_of_the_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = DOCS / "tutorial.md"
    (program,), (sweep, claims) = blocks(page, "python"), blocks(page, "yaml")
    monkeypatch.chdir(tmp_path)
    exec(program, {})
    (tmp_path / "loans.yaml").write_text(sweep)
    (shown,) = [text for text in blocks(page, "") if text.startswith("$ kd-ray data check")]
    _, _, expected = shown.partition("\n")
    assert run_cli_here("data", "check", "loans.yaml", cwd=tmp_path).stdout == expected
    (tmp_path / "claims.yaml").write_text(sweep + claims)
    plan = run_cli_here("plan", "claims.yaml", cwd=tmp_path).stdout
    assert "claim: equalized odds difference (region) of T=4 is higher than scratch" in plan
    assert run_cli("launch", "loans.yaml", "--runner", "local", cwd=tmp_path).returncode == 0
    assert run_cli_here("compare", "loans", cwd=tmp_path).stdout.startswith("ASKED")
    (query,) = [line for line in commands(page) if "group_metrics" in line]
    sql = shlex.split(query)[2]
    rows = Results(open_store(tmp_path / "kd_ray_store")).query(sql).to_pylist()
    accuracy = {(row["role"], row["group"]): row["accuracy"] for row in rows}
    for role in ("teacher", "scratch", "distilled"):
        assert accuracy[role, "south"] < accuracy[role, "north"]
