"""Each test belongs to a command of the Makefile, and the commands that run over some folders only miss none of theirs."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
MAKEFILE = (ROOT / "Makefile").read_text()


@pytest.mark.parametrize(("variable", "marker"), [("ALONE", "alone")])
def test_every_marked_test_is_where_its_command_looks(variable: str, marker: str) -> None:
    (paths,) = re.findall(rf"^{variable} := (.+)$", MAKEFILE, re.MULTILINE)
    looked_at = [ROOT / path for path in paths.split()]
    assert all(path.exists() for path in looked_at)
    marked = [path for path in (ROOT / "tests").rglob("test_*.py") if re.search(rf"mark\.{marker}\b", path.read_text())]
    assert marked
    for path in marked:
        if path != Path(__file__):
            assert any(path.is_relative_to(parent) for parent in looked_at), path
