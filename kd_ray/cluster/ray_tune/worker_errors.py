"""Why a worker process ended, from the exception that Ray raises."""

import re
from pathlib import Path
from typing import Any

import ray
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError

_LONGEST_EXIT_TEXT = 300


class WorkerKilledError(RayActorError):
    """Ray itself ended the worker."""

    def __init__(self, reason: str = "", *, for_memory: bool = False) -> None:
        super().__init__(error_msg=reason)
        self.for_memory = for_memory
        """Whether Ray's memory monitor ended it."""

    def __reduce__(self) -> tuple[object, ...]:
        return (WorkerKilledError, (str(self),), {"for_memory": self.for_memory})


def treat_ray_errors_as_actor_deaths(manager_class: type[RayActorManager] = RayActorManager) -> None:
    """Make Tune handle every error of Ray as the death of one actor. A second call changes nothing.

    Tune (2.60) knows RayActorError and RayTaskError and ends the whole experiment with a RuntimeError at any other error of Ray. One of
    these is OutOfMemoryError, which Ray raises when its memory monitor ends a worker. Tune has no public hook before that point, so a
    private method is replaced. tests/unit/cluster/test_worker_errors.py fails on a Ray that does not need this or lacks the method.
    """
    original = manager_class._actor_task_failed
    if original.__module__ == __name__:
        return

    def _actor_task_failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            exception = WorkerKilledError(str(exception), for_memory=isinstance(exception, OutOfMemoryError))
        original(self, tracked_actor_task, exception)

    manager_class._actor_task_failed = _actor_task_failed  # type: ignore[method-assign]


def error_of(trial: Any) -> Exception:
    """The exception with which a Tune trial ended, from the file that Tune writes before `get_pickled_error` can find it."""
    path = trial.pickled_error_file
    if path is None or not Path(path).exists():
        return RuntimeError("Ray gives no reason")
    error: Exception = ray.cloudpickle.loads(Path(path).read_bytes())
    return error


def describe(error: Exception, node_ip: str | None) -> str:
    """The cause of a worker's end in one sentence."""
    if isinstance(error, WorkerKilledError) and error.for_memory:
        return "WorkerDied: Ray ended its worker process, because the node was running out of memory"
    if was_told_to_end(error):
        return f"WorkerStopped: its worker received SIGTERM, as before a planned shutdown of its machine ({node_ip or 'unknown'})"
    if died_with_its_node(error, node_ip):
        return f"NodeDied: the node {node_ip or ''} of its worker died, or could not be reached"
    if text := _exit_text(error):
        return f"WorkerDied: its worker process ended itself with {text!r}; a module that it imports may have done that"
    return "WorkerDied: its worker process died (killed, or out of memory)"


def _exit_text(error: Exception) -> str | None:
    """What a worker gave to `sys.exit`, a number or a text; None when it was killed. The text before it is Ray's."""
    found = re.search(r"Worker exits with an exit code (.+)", str(error), re.DOTALL)
    return " ".join(found[1].split()).removesuffix(".")[:_LONGEST_EXIT_TEXT] if found else None


def died_with_its_node(error: Exception, node_ip: str | None) -> bool:
    """Whether the worker died because its node did: the error says so, or Ray no longer has the node."""
    alive = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    return "node has died" in str(error) or (node_ip is not None and node_ip not in alive)


def was_told_to_end(error: Exception) -> bool:
    """Whether the worker ended because of SIGTERM, after its checkpoints (see `PackTrainable`). The text is Ray's."""
    return "receives a SIGTERM" in str(error)
