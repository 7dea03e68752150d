"""How Tune handles a worker that Ray itself ended."""

import importlib.util
import pickle
import subprocess
import sys
from typing import Any

import pytest
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import ActorDiedError, OutOfMemoryError

from kd_ray.cluster.ray_tune.worker_errors import (
    WorkerKilledError,
    _exit_text,
    describe,
    treat_ray_errors_as_actor_deaths,
)


class Actor:
    """An actor that runs a task, with Tune's callbacks. It has the attributes that Ray's manager reads."""

    def __init__(self) -> None:
        self.actor_id = 1
        self.errors: list[Exception] = []
        self._tracked_actor = self

    def _on_error(self, tracked_actor: Any, error: Exception) -> None:
        self.errors.append(error)


def out_of_memory() -> Exception:
    return OutOfMemoryError("memory")  # type: ignore[no-untyped-call]


def manager_class() -> Any:
    """A class of its own for each test, with the method as Ray defines it, also after a launch in this process."""
    spec = importlib.util.find_spec(RayActorManager.__module__)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Manager(module.RayActorManager):  # type: ignore[name-defined,misc]  # of a module that is made here
        def __init__(self) -> None:
            self._failed_actor_ids: set[int] = set()

        def _cleanup_actor(self, tracked_actor: Any) -> None:
            pass

    return Manager


@pytest.mark.slow
def test_ray_is_as_it_was_after_the_import() -> None:
    """In a process of its own, because a launch in this one changes Ray."""
    code = (
        "from kd_ray.cluster.ray_tune import ray_runner, tune_hooks, worker_errors\n"
        "from ray.air.execution._internal.actor_manager import RayActorManager\n"
        "assert RayActorManager._actor_task_failed.__module__ == RayActorManager.__module__\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_tune_still_needs_the_patch() -> None:
    """Fails on a Ray whose Tune handles OutOfMemoryError: `treat_ray_errors_as_actor_deaths` can be deleted then."""
    with pytest.raises(RuntimeError, match="Caught unexpected exception: memory"):
        manager_class()()._actor_task_failed(Actor(), out_of_memory())


def test_an_actor_that_ran_out_of_memory_counts_as_dead() -> None:
    """Fails on a Ray whose manager no longer has the method, its arguments, or its way to report a dead actor."""
    patched = manager_class()
    treat_ray_errors_as_actor_deaths(patched)
    treat_ray_errors_as_actor_deaths(patched)
    manager, actor = patched(), Actor()
    manager._actor_task_failed(actor, out_of_memory())
    assert manager._failed_actor_ids == {1}
    # Tune's callback of the actor, and that of its task.
    assert [str(error) for error in actor.errors] == ["memory", "memory"]
    killed = pickle.loads(pickle.dumps(actor.errors[0]))
    assert isinstance(killed, WorkerKilledError)
    assert describe(killed, None).startswith(
        "WorkerDied: Ray ended its worker process, because the node was running out"
    )


def test_an_actor_that_died_is_reported_as_before() -> None:
    patched = manager_class()
    treat_ray_errors_as_actor_deaths(patched)
    actor, error = Actor(), ActorDiedError()
    patched()._actor_task_failed(actor, error)
    assert actor.errors == [error, error]


def test_what_a_worker_gave_to_exit_is_in_the_error() -> None:
    """The text is that of a worker of Ray 2.60 whose `statistics` module called `sys.exit`."""
    died = "The actor is dead because its worker process has died. Worker exit type: SYSTEM_ERROR Worker exit detail: "
    ended = f"{died}Worker exits unexpectedly. Worker exits with an exit code usage: statistics.py\nTABLE."
    assert _exit_text(RuntimeError(ended)) == "usage: statistics.py TABLE"
    killed = f"{died}Worker unexpectedly exits with a connection error code 2. End of file."
    assert _exit_text(RuntimeError(killed)) is None
