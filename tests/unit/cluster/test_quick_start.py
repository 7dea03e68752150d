"""What a launch's own Ray starts without, and when its workers import ahead."""

import os

import pytest
from ray._private.node import Node

from kd_ray.cluster.ray_tune.quick_start import idle_workers, quick_start
from kd_ray.sweep.placement import Placement

pytestmark = pytest.mark.slow

NICENESS, MODULES = NAMES = ("RAY_worker_niceness", "RAY_preload_python_modules")
METHODS = ("start_monitor", "start_api_server", "start_log_monitor")


def test_ray_starts_without_unused_processes_only_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails on a Ray that starts its processes by other methods."""
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)
    before = {name: getattr(Node, name) for name in METHODS}
    for verbose, replaced in ((False, METHODS), (True, METHODS[:2])):
        with quick_start(Placement(), num_cpus=2, trains=True, verbose=verbose):
            assert {name for name in METHODS if getattr(Node, name) is not before[name]} == set(replaced)
            assert os.environ[NICENESS] == "0"
        assert {name: getattr(Node, name) for name in METHODS} == before
        assert not set(NAMES) & set(os.environ)


@pytest.mark.parametrize(
    ("placement", "num_cpus", "trains", "imports"),
    [
        (Placement(), 8, True, True),
        (Placement(), 9, True, False),
        (Placement(), 2, False, False),
        (Placement(cpus_per_pack=2), 2, True, False),
        (Placement(gpus_per_pack=0.5), 2, True, False),
    ],
)
def test_workers_import_ahead_where_all_of_them_get_packs(
    placement: Placement, num_cpus: int, trains: bool, imports: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(MODULES, raising=False)
    with quick_start(placement, num_cpus=num_cpus, trains=trains, verbose=False):
        assert (MODULES in os.environ) is imports


def test_choices_of_the_user_stand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NICENESS, "15")
    with quick_start(Placement(), num_cpus=1, trains=True, verbose=False):
        assert os.environ[NICENESS] == "15"
    assert os.environ[NICENESS] == "15"


def test_tune_asks_for_no_environment_only_inside() -> None:
    """Guard: for an actor with a runtime environment Ray starts a new process, and those that have imported ahead stay idle."""
    from ray.tune.execution.class_cache import _ActorClassCache as Cache

    class Trainable:
        """Stands for any."""

    with idle_workers():
        cache = Cache()  # type: ignore[no-untyped-call]
        actor = cache.get(Trainable)  # type: ignore[no-untyped-call]
        assert actor is cache.get(Trainable)  # type: ignore[no-untyped-call]
        assert not actor._default_options.get("runtime_env")
    outside = Cache().get(Trainable)  # type: ignore[no-untyped-call]
    assert outside._default_options["runtime_env"]["env_vars"]
