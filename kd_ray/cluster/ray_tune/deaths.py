"""What Ray says when a worker is gone, and what Tune makes of it."""

from pathlib import Path
from typing import Any

import ray
from ray.air.execution._internal.actor_manager import RayActorManager
from ray.exceptions import OutOfMemoryError, RayActorError, RayError, RayTaskError


class EndedError(RayActorError):
    """The worker was ended by Ray itself."""

    def __init__(self, why: str = "", *, for_memory: bool = False) -> None:
        super().__init__()
        self.why = why
        self.for_memory = for_memory

    def __str__(self) -> str:
        return self.why

    def __reduce__(self) -> tuple[object, ...]:
        return (EndedError, (self.why,), {"for_memory": self.for_memory})


def _count_as_death(manager_class: type[RayActorManager]) -> None:
    """Let Tune take every error of Ray for the death of one actor.

    It knows two kinds and ends the experiment with a RuntimeError at any other, such as that of a worker which Ray's memory monitor ended
    (seen with Ray 2.60).
    """
    known = manager_class._actor_task_failed

    def _actor_task_failed(self: RayActorManager, tracked_actor_task: Any, exception: Exception) -> None:
        if isinstance(exception, RayError) and not isinstance(exception, RayActorError | RayTaskError):
            exception = EndedError(str(exception), for_memory=isinstance(exception, OutOfMemoryError))
        known(self, tracked_actor_task, exception)

    manager_class._actor_task_failed = _actor_task_failed  # type: ignore[method-assign]


_count_as_death(RayActorManager)


def death_of(trial: Any) -> Exception:
    """What Ray says of the death of a pack's worker. Tune has written it beside the pack's results and not yet copied it to where
    `get_pickled_error` looks for it.
    """
    path = trial.pickled_error_file
    if path is None or not Path(path).exists():
        return RuntimeError("Ray does not say why")
    death: Exception = ray.cloudpickle.loads(Path(path).read_bytes())
    return death


def cause_of(death: Exception, node_ip: str | None) -> str:
    """In a sentence, for people."""
    if isinstance(death, EndedError) and death.for_memory:
        return "WorkerDied: Ray ended its worker process, because the node was running out of memory"
    if was_told_to_end(death):
        return f"WorkerStopped: its worker was told to end (SIGTERM), as on a machine that is about to go ({node_ip or 'unknown'})"
    if died_with_its_node(death, node_ip):
        return f"NodeDied: the node {node_ip or ''} of its worker died, or could not be reached"
    return "WorkerDied: its worker process died (killed, or out of memory)"


def died_with_its_node(death: Exception, node_ip: str | None) -> bool:
    """Whether the worker died because its node did: Ray says so, or has lost the node by now."""
    alive = {node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}  # type: ignore[no-untyped-call]
    return "node has died" in str(death) or (node_ip is not None and node_ip not in alive)


def was_told_to_end(death: Exception) -> bool:
    """Whether the worker ended because of SIGTERM, after its checkpoints (see `PackTrainable`); the words are Ray's."""
    return "receives a SIGTERM" in str(death)
