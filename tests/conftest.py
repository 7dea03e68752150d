"""Fixtures shared by all tests."""

import os
import shutil
from pathlib import Path

import hypothesis
import pytest
from filelock import FileLock

from kd_ray.results.store import Store, open_store
from tests.sweeps import tiny_sweep

# Tests run side by side, so no example has a time limit. Examples are the same in every run; `HYPOTHESIS_RANDOM=1` draws others.
hypothesis.settings.register_profile("kd_ray", deadline=None, derandomize="HYPOTHESIS_RANDOM" not in os.environ)
hypothesis.settings.load_profile("kd_ray")

_MEMORY = Path("/dev/shm")
"""A file system in memory, which Linux has."""
if _MEMORY.is_dir() and os.access(_MEMORY, os.W_OK) and shutil.disk_usage(_MEMORY).free > 8 << 30:
    # A store waits for the disk at every durable write; no test measures the disk.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(_MEMORY))

_REPOSITORY = Path(__file__).resolve().parents[1]
_ON_REQUEST = ("chaos", "calibration")
"""Markers of tests that run only when `-m` names them."""


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Whatever else is chosen, long tests are left out unless they are asked for by their marker."""
    unasked = [marker for marker in _ON_REQUEST if marker not in config.option.markexpr]
    left_out = [item for item in items if any(item.get_closest_marker(marker) for marker in unasked)]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout, or where KD_RAY_TEST_DATA says; tests that need it are skipped elsewhere."""
    folder = Path(os.environ.get("KD_RAY_TEST_DATA", _REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"real data sets are not at {folder}; set KD_RAY_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def cifar10_root(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data root with the first 4,000 training images of CIFAR-10, exact; the shared folder itself stays as it is."""
    root = tmp_path_factory.mktemp("cifar10")
    (root / "cifar-10-batches-py").symlink_to(shared_data / "cifar10-lossless-4000" / "cifar-10-batches-py")
    return root


@pytest.fixture(scope="session")
def session_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of this run, which test processes side by side share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if "PYTEST_XDIST_WORKER" in os.environ else base


@pytest.fixture(scope="session")
def trifeature_root(session_folder: Path) -> Path:
    """A data root in which the generated sets of the session are kept, so that each is drawn once."""
    root = session_folder / "trifeature"
    root.mkdir(exist_ok=True)
    return root


@pytest.fixture(scope="session")
def finished_tiny(session_folder: Path, trifeature_root: Path) -> Store:
    """The tiny sweep, trained once in a session by the local runner. A test that changes it copies it first."""
    from kd_ray.cluster.launch import launch

    store = open_store(session_folder / "finished_tiny")
    with FileLock(session_folder / "finished_tiny.lock"):
        report = launch(tiny_sweep(trifeature_root), store, runner="local")
    assert (report.exit_code, len(report.trials)) == (0, 7)
    return store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty local store."""
    return open_store(tmp_path / "store")
