"""The wheel that `pip install` gets: every file of the package, the command, and nothing of the tests."""

import re
import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, because setuptools writes beside what it builds."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    shutil.copytree(ROOT / "kd_ray", source / "kd_ray", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*pip, "--wheel-dir", str(folder), str(source)], check=True, capture_output=True)
    (built,) = folder.glob("*.whl")
    return built


def test_wheel_holds_every_file_of_the_package_and_no_other(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    there = {str(path.relative_to(ROOT)) for path in (ROOT / "kd_ray").rglob("*") if path.is_file()}
    assert packed == {name for name in there if "__pycache__" not in name}


def test_wheel_names_its_command_licence_and_extras(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (entries,) = [name for name in archive.namelist() if name.endswith("entry_points.txt")]
        (metadata,) = [name for name in archive.namelist() if name.endswith("/METADATA")]
        assert "kd-ray = kd_ray.cli:main" in archive.read(entries).decode()
        text = archive.read(metadata).decode()
    assert "License-Expression: Apache-2.0" in text
    assert {"dev", "mlflow", "models", "text", "wandb"} <= set(
        re.findall(r"^Provides-Extra: (\w+)$", text, re.MULTILINE)
    )


def test_unpacked_wheel_runs(wheel: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    script = f"import sys; sys.path.insert(0, {str(tmp_path / 'site')!r}); from kd_ray.cli import main; main()"
    for arguments, shown in (
        (["--version"], f"kd-ray, version {version('kd_ray')}"),
        (["schema"], "trials: one row per"),
    ):
        done = subprocess.run(
            [sys.executable, "-c", script, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        assert shown in done.stdout
