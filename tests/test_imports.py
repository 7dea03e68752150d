"""The rooms and the direction between them: a module imports downwards only, and the quick commands stay quick."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import kd_ray

PACKAGE = Path(kd_ray.__file__).parent

# Each room with the rooms it may import; `errors`, `seeding` and `groups` are the ground that all stand on.
MAY_IMPORT: dict[str, set[str]] = {
    "cli": {"api", "analysis", "cluster", "housekeeping", "data", "results", "sweep"},
    "api": {"analysis", "cluster", "results", "sweep"},
    "cluster": {"distill", "data", "models", "results", "sweep"},
    "analysis": {"results", "metrics", "sweep"},
    "housekeeping": {"results", "sweep"},
    "distill": {"data", "models", "metrics", "results", "sweep"},
    "results": {"metrics", "sweep"},
    "data": {"metrics", "sweep"},
    "models": {"sweep"},
    "metrics": set(),
    "sweep": set(),
}
GROUND = {"errors", "seeding", "groups", "telemetry"}
SURFACE = ("cli", "api")
FORBIDDEN = {
    "torch": {"sweep", "metrics", "results", "housekeeping", "analysis", "data", *SURFACE},
    "ray": {
        "sweep",
        "metrics",
        "results",
        "housekeeping",
        "analysis",
        "data",
        "models",
        "distill",
        *SURFACE,
    },
}


def modules() -> list[Path]:
    return [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def room(path: Path) -> str:
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix(".py")


def imports(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= (
                {f"{node.module}.{alias.name}" for alias in node.names} if node.module == "kd_ray" else {node.module}
            )
    return names


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_downwards_only(path: Path) -> None:
    mine = room(path)
    rooms = {name.split(".")[1] for name in imports(path) if name.startswith("kd_ray.")}
    assert rooms <= MAY_IMPORT.get(mine, set()) | GROUND | {mine}
    for library, rooms_without in FORBIDDEN.items():
        if mine in rooms_without:
            assert not any(name.split(".")[0] == library for name in imports(path)), library


def test_only_the_ray_runner_and_the_jobs_import_ray() -> None:
    users = {path.parent.name for path in modules() if any(name.split(".")[0] == "ray" for name in imports(path))}
    assert users == {"ray_tune", "jobs"}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["schema"],
        ["plan", "sweeps/trifeature-color.yaml", "--store", "nowhere"],
        ["plan", "sweeps/celeba-young.yaml", "--set", "student.model='timm:resnet18'", "--store", "nowhere"],
        ["status", "none", "--store", "nowhere"],
        ["query", "SELECT 1"],
        ["launch", "--help"],
        ["compare", "--help"],
        ["data", "check", "--help"],
        ["submit", "sweeps/trifeature-quick.yaml", "--store", "nowhere", "--address", "http://127.0.0.1:1"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_quick_commands_import_neither_torch_nor_ray(arguments: list[str], tmp_path: Path) -> None:
    assert all((PACKAGE.parent / argument).exists() for argument in arguments if argument.endswith(".yaml"))
    code = (
        "import sys, kd_ray.cli\n"
        f"sys.argv = ['kd-ray', *{arguments!r}]\n"
        "try:\n    kd_ray.cli.main()\nexcept SystemExit:\n    pass\n"
        "print('heavy:', sorted({'torch', 'ray', 'scipy', 'matplotlib'} & set(sys.modules)))"
    )
    environment = {"PATH": "", "KD_RAY_STORE": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.splitlines()[-1] == "heavy: []"


def test_the_driver_of_a_sweep_does_without_torch(tmp_path: Path) -> None:
    """Guard: what trains is imported by workers only; torch would cost the driver more memory than everything else."""
    code = "import sys, kd_ray.cluster.launch, kd_ray.cluster.ray_tune.ray_runner; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_public_names() -> None:
    assert kd_ray.__all__ == ["Results", "compare", "launch", "load_sweep", "open_store", "plan", "report"]
    assert all(getattr(kd_ray, name) for name in kd_ray.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = kd_ray.nothing
