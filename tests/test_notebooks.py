"""The notebooks of the docs run from top to bottom, one after another in one folder, as a reader would run them."""

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "notebooks"
NAMES = ("first-sweep", "own-data", "ask-the-tables")


def read(name: str) -> Any:
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)  # type: ignore[no-untyped-call]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the notebooks run: the store of one is that of the others."""
    return tmp_path_factory.mktemp("notebooks")


@pytest.mark.long
@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_runs(name: str, folder: Path) -> None:
    notebook = read(name)
    NotebookClient(
        notebook, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    text = str(outputs)
    assert not [output for output in outputs if output.output_type == "error" or output.get("name") == "stderr"]
    expected = {
        "first-sweep": ["plan of sweep first", "10 pending", "image/png", "text/html"],
        "own-data": ["'version': '[0-9a-f]{16}'", "digits +teacher +ink +little", "loans +scratch +sex +f"],
        "ask-the-tables": [r"distilled +1\.0 +3", "selection_rate", "zero_one_loss"],
    }
    for words in expected[name]:
        assert re.search(words, text), words


@pytest.mark.parametrize("name", NAMES)
def test_a_notebook_is_stored_without_outputs(name: str) -> None:
    notebook = read(name)
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)
    assert sorted(path.stem for path in FOLDER.glob("*.ipynb")) == sorted(NAMES)


def test_data_of_your_own_take_less_than_ten_lines() -> None:
    cells = [
        cell.source for cell in read("own-data").cells if "kd_ray.dataset(" in cell.source and cell.cell_type == "code"
    ]
    assert len(cells) == 2
    assert all(len(source.splitlines()) < 10 for source in cells)
