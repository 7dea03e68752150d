"""The sweeps of a store."""

from collections.abc import Mapping
from typing import Any

from kd_ray.serve.snapshot import Snapshot, SweepNow

SORTS = {
    "name": lambda it: it.name,
    "state": lambda it: it.state,
    "done": lambda it: it.counts["complete"] / max(len(it.lines), 1),
    "trials": lambda it: len(it.lines),
    "pace": lambda it: it.trials_per_hour or 0.0,
    "left": lambda it: it.left_s or 0.0,
    "changed": lambda it: it.changed_at.timestamp() if it.changed_at else 0.0,
}
STATES = ("running", "complete", "failed", "waiting")


def view(snapshot: Snapshot, *, words: str, state: str, sort: str, is_down: bool) -> Mapping[str, Any]:
    """The sweeps whose name has these words, in this state; the last changed first, or sorted."""
    found: list[SweepNow] = [
        it
        for it in snapshot.sweeps.values()
        if all(word in it.name for word in words.lower().split()) and state in ("", it.state)
    ]
    chosen = sort if sort in SORTS else ""
    found.sort(key=SORTS[chosen or "changed"], reverse=is_down if chosen else True)
    return {
        "sweeps": found,
        "num_all": len(snapshot.sweeps),
        "unreadable": snapshot.unreadable,
        "words": words,
        "state": state if state in STATES else "",
        "states": STATES,
        "sort": chosen,
        "is_down": is_down,
    }
