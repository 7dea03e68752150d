"""The site of the docs: it builds without a network, every link in it leads somewhere, and its reference says all that there is."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import reference

import kd_ray
from kd_ray.results.schema import QUERIED
from kd_ray.results.sql_views import SQL_VIEWS
from kd_ray.sweep.config import Sweep
from kd_ray.sweep.distillation import OBJECTIVES

ROOT = Path(__file__).resolve().parents[1]
OFFLINE = """
import runpy, sys
sys.addaudithook(lambda event, _: event == "socket.connect" and sys.exit("it asks a network"))
runpy.run_module("mkdocs", run_name="__main__")
"""


@pytest.mark.long
def test_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    """Strict: a page, a heading or a file that is linked and is not there is an error, as is a page that no menu has."""
    command = [sys.executable, "-c", OFFLINE, "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    given = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, check=False, cwd=ROOT, env=given, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    pages = {path.relative_to(tmp_path).as_posix(): path.read_text() for path in tmp_path.rglob("*.html")}
    assert {"index.html", "docker/index.html", "sweeps.html", "reference/python.html"} <= set(pages)
    for name, page in pages.items():
        loaded = re.findall(r"<(?:script|img|iframe)[^>]* src=\"?([^\" >]+)|<link[^>]* href=\"?([^\" >]+)", page)
        assert not [it for pair in loaded for it in pair if "//" in it], name
        # Marks that were not turned into what they stand for.
        text = re.sub(r"<(pre|code|script)\b.*?</\1>", "", page, flags=re.DOTALL)
        assert not re.findall(r"generated:|:::|```|\n(?:- |\d+\. |\| )", text), name
    for name in kd_ray.__all__:
        if callable(getattr(kd_ray, name)):
            assert f'id="kd_ray.{name}"' in pages["reference/python.html"]


def test_reference_has_every_key_of_a_sweep_file() -> None:
    text = reference.sweep_file() + reference.objectives()
    for model in [Sweep.model_json_schema(), *Sweep.model_json_schema()["$defs"].values()]:
        for name in model.get("properties", {}):
            assert f"| `{name}` |" in text
    for name in (
        "training",
        "training.schedule`: `cosine",
        "teacher` with `weights",
        "dataset`: `manifest",
        "placement",
    ):
        assert f"\n## `{name}`\n" in text


@pytest.mark.parametrize("name", [name for name in OBJECTIVES if name != "imported"])
def test_reference_has_every_objective(name: str) -> None:
    (section,) = [
        it for it in reference.objectives().split("\n## ") if it.removeprefix("## ").startswith(f"`{name}`\n")
    ]
    for term in OBJECTIVES[name].TERMS:
        assert f"`{term}`" in section


def test_reference_has_every_column() -> None:
    text = reference.tables()
    for table in QUERIED.values():
        assert f"\n## `{table.name}`\n" in text
        for column in table.columns:
            assert f"| {column.name} |".replace("_", "\\_") in text
    assert all(f"`{view.signature}`" in text for view in SQL_VIEWS.values())


def test_text_in_a_table_means_itself() -> None:
    rows = iter([("a_b*c <d> [e](f)", "`x_y | z`")])
    assert reference._table(("one", "two"), rows).splitlines()[2] == r"| a\_b\*c &lt;d> \[e](f) | `x_y \| z` |"
