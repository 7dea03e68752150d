"""The user's modules that are sent with a job, so that an objective need not be installed on the cluster.

The job's folder is on the Python path of its launch and its workers. Modules in it can be imported, and distribution metadata in it
provides entry points as an installed package does.
"""

import tomllib
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from kd_ray.errors import InvalidInputError

_FORMS = "a wheel (.whl), a folder with a pyproject.toml, a package, or a module (.py)"
_NOT_PART = ("tests", "test", "docs", "build", "dist")
"""Folders of a project that are not installed."""


def files_of(paths: Iterable[Path]) -> dict[str, bytes]:
    """The files that the `--module` paths add to a job: contents by path in the job's folder.

    Raises:
        InvalidInputError: a path has none of the valid forms, or two paths have different files of one name.
    """
    found: dict[str, bytes] = {}
    for path in paths:
        for name, content in _files(path):
            if found.setdefault(name, content) != content:
                raise InvalidInputError(f"--module {path}: has another {name} than an earlier --module")
    return found


def _files(path: Path) -> Iterator[tuple[str, bytes]]:
    if path.suffix == ".whl" and path.is_file():
        yield from _wheel(path)
    elif (path / "pyproject.toml").is_file():
        yield from _project(path)
    elif (path / "__init__.py").is_file() or (path.suffix == ".py" and path.is_file()):
        yield from _tree(path.resolve())
    else:
        what = "cannot be used" if path.exists() else "does not exist"
        raise InvalidInputError(f"--module {path}: {what}; expected {_FORMS}")


def _tree(path: Path) -> Iterator[tuple[str, bytes]]:
    """A module, or the files of a package without caches and hidden files."""
    for file in [path] if path.is_file() else sorted(path.rglob("*")):
        inside = file.relative_to(path.parent)
        is_hidden = any(part.startswith(".") or part == "__pycache__" for part in inside.parts)
        if file.is_file() and not is_hidden:
            yield inside.as_posix(), file.read_bytes()


def _wheel(path: Path) -> Iterator[tuple[str, bytes]]:
    try:
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                if name.startswith("/") or ".." in PurePosixPath(name).parts:
                    raise InvalidInputError(f"--module {path}: {name} would lie outside the job's folder")
                if not name.endswith("/"):
                    yield name, archive.read(name)
    except (OSError, zipfile.BadZipFile) as error:
        raise InvalidInputError(f"--module {path}: cannot read the wheel: {error}") from error


def _project(path: Path) -> Iterator[tuple[str, bytes]]:
    """The packages and modules of a project, with the metadata that an installation would write."""
    try:
        project: Mapping[str, Any] = tomllib.loads((path / "pyproject.toml").read_text()).get("project", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidInputError(f"--module {path}: cannot read pyproject.toml: {error}") from error
    for field in ("name", "version"):
        if not isinstance(project.get(field), str):
            raise InvalidInputError(
                f"--module {path}: pyproject.toml has no project.{field} as a text; build a wheel and give that"
            )
    source = path / "src" if (path / "src").is_dir() else path
    parts = [
        part
        for part in sorted(source.iterdir())
        if part.name not in _NOT_PART and ((part / "__init__.py").is_file() or _is_module(part))
    ]
    if not parts:
        raise InvalidInputError(f"--module {path}: no package and no module in {source}")
    for part in parts:
        yield from _tree(part.resolve())
    folder = f"{project['name'].replace('-', '_')}-{project['version']}.dist-info"
    yield (
        f"{folder}/METADATA",
        f"Metadata-Version: 2.1\nName: {project['name']}\nVersion: {project['version']}\n".encode(),
    )
    yield f"{folder}/entry_points.txt", _entry_points(project.get("entry-points", {})).encode()


def _is_module(path: Path) -> bool:
    return path.is_file() and path.suffix == ".py" and path.name not in ("setup.py", "conftest.py")


def _entry_points(groups: Mapping[str, Mapping[str, str]]) -> str:
    return "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in entries.items())
        for group, entries in groups.items()
    )
