"""Folders that cannot be written: one line each, which says where and what to do, or no difference at all."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.processes import command
from tests.sweeps import write_tiny_sweep

WITHOUT_PRIVILEGES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all")
"""Before a command of root: folders that are closed to their owner are closed to it."""
IS_ROOT = hasattr(os, "geteuid") and os.geteuid() == 0

pytestmark = pytest.mark.skipif(
    IS_ROOT and shutil.which(WITHOUT_PRIVILEGES[0]) is None, reason="root needs setpriv of util-linux to be refused"
)


def launched(file: Path, *options: str, home: Path) -> subprocess.CompletedProcess[str]:
    words = [*(WITHOUT_PRIVILEGES if IS_ROOT else ()), *command("launch", str(file), "--store", "store", *options)]
    environment = os.environ | {"HOME": str(home)}
    return subprocess.run(words, cwd=file.parent, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("place", ["closed", "closed/below", "file"])
def test_a_data_root_that_cannot_be_written_is_one_line(place: str, tmp_path: Path) -> None:
    """Guard: it was a traceback of whatever library tried to write first."""
    (tmp_path / "closed").mkdir(mode=0o500)
    (tmp_path / "file").touch()
    root = tmp_path / place
    file = write_tiny_sweep(tmp_path, root, "grid.seed=[0]", "grid.temperature=[1]")
    done = launched(file, "--runner", "local", home=tmp_path)
    assert done.returncode == 1, done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"{root}/trifeature/") and "cannot be made" in last
    assert last.endswith("name another placement.data_root")
    assert "Traceback" not in done.stderr


@pytest.mark.long
@pytest.mark.ray
def test_a_home_folder_that_cannot_be_written_is_not_needed(tmp_path: Path, trifeature_root: Path) -> None:
    """Guard: Ray wrote its token below `~/.ray`, and ended with a traceback."""
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray").chmod(0o500)
    home.chmod(0o500)
    file = write_tiny_sweep(tmp_path, trifeature_root, "grid.seed=[0]", "grid.temperature=[1]")
    done = launched(file, home=home)
    assert done.returncode == 0, done.stderr
    assert "3 trained now" in done.stdout
    assert [*home.rglob("*")] == [home / ".ray"]
