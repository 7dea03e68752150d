"""Pages keep their word: what they name exists, and their commands parse."""

import re
import shlex
from pathlib import Path

import pytest

from kd_ray import telemetry
from kd_ray.cli import cli

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    ROOT / "README.md",
    ROOT / "CHANGELOG.md",
    *sorted((ROOT / "docker").glob("*.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
FROM_ELSEWHERE = {"docker/certificates", "docker/secrets"}
"""What a command of a page makes."""


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_and_files_of_a_page_exist(page: Path) -> None:
    text = page.read_text()
    prose = re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    for link in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", prose):
        assert link.startswith("https://") or (page.parent / link).exists(), link
    for name in re.findall(r"\b((?:docker|sweeps)/[\w./-]*\w)", text):
        if not any(name.startswith(made) for made in FROM_ELSEWHERE):
            assert (ROOT / name).exists(), name


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_commands_of_a_page_parse(page: Path) -> None:
    """Those that this checkout has; the ones that speak to a job server are tested with it."""
    for block in re.findall(r"```\n(.*?)```", page.read_text(), flags=re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if match := re.search(r"(?:^|&& (?:\w+=\S+ )?|/)kd-ray (?P<name>\w+) (?P<rest>[^|&#]*)", line):
                command = cli.commands.get(match["name"])
                assert command or match["name"] in {"submit", "jobs", "logs", "stop"}, line
                if command:
                    command.make_context(match["name"], shlex.split(match["rest"]))


def test_pages_say_what_it_costs_and_how_to_tear_it_down() -> None:
    for name in ("compose", "kubernetes", "cloud", "slurm"):
        text = (ROOT / "docker" / f"{name}.md").read_text()
        assert "**What it costs**" in text
        assert "**Tear down**" in text
        assert "sweeps/trifeature-quick.yaml" in text


def test_the_page_of_metrics_names_each_with_its_tags() -> None:
    rows = re.findall(
        r"^\| `ray_(\w+)` \| (\w+) \| ([\w, ]*?) ?\|",
        (ROOT / "docs" / "observability.md").read_text(),
        flags=re.MULTILINE,
    )
    assert {(name.removesuffix("_total"), kind, tags.strip()) for name, kind, tags in rows} == {
        (metric.name, metric.kind, ", ".join(metric.tags)) for metric in telemetry.MEASUREMENTS
    }
