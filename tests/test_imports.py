"""The rooms and the direction between them: a module imports downwards only, and the quick commands stay quick."""

import ast
import functools
import subprocess
import sys
from collections import Counter
from importlib.metadata import version
from pathlib import Path

import pytest

import kd_ray
from kd_ray.results.aggregate import aggregate
from kd_ray.results.store import open_store
from tests.datasets import write_cifar10
from tests.fakes import commit_trials, make_sweep, plan_trials, write_sweep

PACKAGE = Path(kd_ray.__file__).parent

# Each room with the rooms it may import; `errors`, `seeding` and `groups` are the ground that all stand on.
MAY_IMPORT: dict[str, set[str]] = {
    "cli": {"api", "serve", "analysis", "cluster", "tuning", "housekeeping", "data", "metrics", "results", "sweep"},
    "serve": {"analysis", "housekeeping", "metrics", "results", "sweep"},
    "api": {"analysis", "cluster", "distill", "results", "sweep"},
    "cluster": {"distill", "tuning", "data", "models", "results", "sweep"},
    "analysis": {"tuning", "results", "metrics", "sweep"},
    "tuning": {"results", "metrics", "sweep"},
    "housekeeping": {"results", "sweep"},
    "distill": {"data", "models", "metrics", "results", "sweep"},
    "results": {"metrics", "sweep"},
    "data": {"metrics", "sweep"},
    "models": {"sweep"},
    "metrics": set(),
    "sweep": set(),
}
GROUND = {"bounded", "errors", "lasting", "seeding", "groups", "notebook", "offered", "shown", "telemetry"}
SURFACE = ("cli", "api", "serve")
FORBIDDEN = {
    "torch": {"sweep", "metrics", "results", "housekeeping", "tuning", "analysis", "data", *SURFACE},
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


@functools.cache
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


def test_no_two_modules_have_the_same_name() -> None:
    names = Counter(path.name for path in modules())
    assert [name for name, count in names.items() if count > 1] == ["__init__.py"]


@pytest.mark.slow
def test_only_the_ray_runner_the_jobs_and_the_searchers_import_ray() -> None:
    users = {path for path in modules() if any(name.split(".")[0] == "ray" for name in imports(path))}
    searchers = PACKAGE / "tuning" / "tune_search.py"
    assert searchers in users
    assert {path.parent.name for path in users - {searchers}} == {"ray_tune", "jobs"}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a complete sweep, `demo`, and its tables."""
    root = tmp_path_factory.mktemp("finished")
    store = open_store(root)
    file = make_sweep()
    write_sweep(store, file)
    commit_trials(store, plan_trials(file))
    # DuckDB reads files itself; to take tables from memory, it imports pandas.
    aggregate(store, "demo")
    return root


COLOR = "sweeps/trifeature-color.yaml"
NO_HEAD = ["--address", "http://127.0.0.1:1"]


QUICK: tuple[tuple[list[str], int, str, list[str]], ...] = (
    (["--help"], 0, "Run a sweep:", []),
    (["schema"], 0, "worst_classes", []),
    (["plan", COLOR], 0, "75 to run, in 15 packs", []),
    (["plan", "sweeps/celeba-young.yaml", "--set", "student.model='timm:resnet18'"], 0, "75 to run", []),
    (["status", "demo"], 0, "complete", []),
    (["query", "SELECT count(*) AS n FROM trials"], 0, "n", []),
    (["launch", "--help"], 0, "Usage:", []),
    (["tune", "--help"], 0, "Usage:", []),
    (["compare", "--help"], 0, "Usage:", []),
    (["export", "--help"], 0, "Usage:", []),
    (["mirror", "demo", "--to", "neptune"], 2, "unknown service", []),
    (["serve", "--help"], 0, "Usage:", []),
    (["data", "check", "--help"], 0, "Usage:", []),
    (["data", "prepare", "--help"], 0, "Usage:", []),
    (["submit", COLOR, *NO_HEAD], 2, "placement.data_root: './data' is a relative path", []),
    (["submit", COLOR, *NO_HEAD, "--set", "placement.data_root=/data"], 2, "no Ray job server answers", ["ray"]),
)
"""Commands with their exit code, what they say, and what they and those before them have imported of what takes long."""


@pytest.mark.slow
def test_quick_commands_import_neither_torch_nor_ray(finished: Path) -> None:
    """Only `submit` needs Ray, for its job client, and only after the submission was found right. One process runs all."""
    script = (
        "import io, sys, kd_ray.cli\n"
        "heavy = {'torch', 'torchvision', 'ray', 'scipy', 'matplotlib', 'pandas', 'fairlearn', 'sklearn'}\n"
        f"for arguments in {[arguments for arguments, *_ in QUICK]!r}:\n"
        "    sys.argv, code = ['kd-ray', *arguments], 0\n"
        "    sys.stdout = sys.stderr = shown = io.TextIOWrapper(io.BytesIO(), write_through=True)\n"
        "    try:\n        kd_ray.cli.main()\n    except SystemExit as end:\n        code = end.code or 0\n"
        "    found = [code, sorted(heavy & set(sys.modules)), shown.buffer.getvalue().decode()]\n"
        "    print(repr(found), file=sys.__stdout__)\n"
    )
    # Without a token, what `submit` says would follow whether this user has ever used Ray.
    environment = {"PATH": "", "KD_RAY_STORE": str(finished), "RAY_AUTH_TOKEN": "a token"}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=PACKAGE.parent, capture_output=True, text=True, check=True, env=environment
    )
    for (arguments, code, says, heavy), line in zip(QUICK, done.stdout.splitlines(), strict=True):
        found = ast.literal_eval(line)
        assert found[:2] == [code, heavy], (arguments, found)
        assert says in found[2], (arguments, found)


@pytest.mark.slow
def test_a_plan_reads_neither_data_modules_nor_the_source_of_models(finished: Path) -> None:
    """Guard: what reads data takes 75 ms to import, and Pydantic read docstrings from the source of each model for 145 ms of CPU time."""
    code = (
        "import sys, kd_ray.cli\n"
        f"sys.argv = ['kd-ray', 'plan', {COLOR!r}]\n"
        "try:\n    kd_ray.cli.main()\nexcept SystemExit:\n    pass\n"
        "from kd_ray.sweep import docstrings\n"
        "print(sorted({'PIL', 'kd_ray.data', 'kd_ray.distill', 'numpy.random'} & set(sys.modules)))\n"
        "print(docstrings._of_module.cache_info().currsize)"
    )
    environment = {"PATH": "", "KD_RAY_STORE": str(finished)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.splitlines()[-2:] == ["[]", "0"]


@pytest.mark.slow
def test_what_workers_run_imports_neither_pandas_nor_fairlearn() -> None:
    """Ray Tune imports pandas itself; what trains does without."""
    code = (
        "import sys, kd_ray.distill.worker, kd_ray.distill.pack_run, kd_ray.cluster.local\n"
        "print(sorted({'pandas', 'fairlearn', 'sklearn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]


@pytest.mark.slow
def test_the_first_page_of_the_site_waits_for_no_model_and_no_array(finished: Path) -> None:
    """Guard: states of trials are read without the models of sweep files, NumPy and Arrow, which take a second to import."""
    code = (
        "import sys, kd_ray.serve.app\n"
        "from kd_ray.results.store import open_store\n"
        "from kd_ray.serve.snapshot import take_snapshot\n"
        f"print(take_snapshot(open_store({str(finished)!r}), None).sweeps['demo'].state)\n"
        "print(sorted({'numpy', 'pyarrow', 'duckdb', 'kd_ray.sweep.fields'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["complete", "[]"]


@pytest.mark.slow
def test_the_driver_of_a_sweep_does_without_torch(tmp_path: Path) -> None:
    """Guard: only workers import the modules that train; torch would take more of the driver's memory than all other modules."""
    code = (
        "import sys, kd_ray.cluster.launch, kd_ray.cluster.ray_tune.ray_runner\n"
        "from pathlib import Path\n"
        "from kd_ray.data.cifar10 import fingerprint\n"
        "from kd_ray.data.families import load_dataset\n"
        "from kd_ray.errors import DataError\n"
        "from kd_ray.sweep.load import parse_dataset\n"
        f"root = Path({str(write_cifar10(tmp_path))!r})\n"
        "try:\n    load_dataset(parse_dataset('cifar10'), root)\n"
        "except DataError as error:\n    print('checksums differ' in str(error))\n"
        "print(len(load_dataset(parse_dataset('cifar10', ['version=' + repr(fingerprint(root))]), root).train))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["True", "40", "False"]


def test_public_names() -> None:
    verbs = [
        "compare",
        "dataset",
        "figures",
        "launch",
        "load_sweep",
        "open_store",
        "plan",
        "report",
        "results",
        "trained",
    ]
    assert kd_ray.__all__ == ["Results", "__version__", *verbs]
    assert dir(kd_ray) == kd_ray.__all__
    assert kd_ray.__version__ == version("kd_ray")
    assert kd_ray.figures.__all__ == sorted(kd_ray.figures.__all__)
    assert all(getattr(kd_ray, name) for name in kd_ray.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = kd_ray.nothing
