"""A line for each trial of a sweep: its state, the reason, and how far it is. `plan`, `status` and the site show them."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from kd_ray import notebook
from kd_ray.results.ledger import TrialStatus
from kd_ray.results.manifest import Manifest
from kd_ray.results.store import record_key
from kd_ray.sweep.trial_states import TrialState

_COMPLETE = TrialState.COMPLETE.value


@dataclass(frozen=True, kw_only=True, slots=True)
class TrialLine:
    """The state of one trial, as `plan` and `status` show it."""

    trial_id: str
    role: str
    description: str
    state: str
    why: str
    epoch: int | None = None
    """Finished epochs of a running trial."""
    epochs: int = 0
    accuracy: float | None = None
    """Training (or validation) accuracy of a running trial's last epoch."""
    images_per_s: float | None = None
    traceback: str | None = None
    is_blocked: bool = False
    """Whether its teacher failed, so that it cannot run."""
    is_stopped: bool = False
    """Whether a search has stopped it, early or for now."""

    @property
    def is_settled(self) -> bool:
        """Whether it stays in this state until a launch asks for it."""
        return self.state in (TrialState.COMPLETE, TrialState.FAILED) or self.is_blocked or self.is_stopped


def states_html(title: str, trials: Sequence[TrialLine]) -> str:
    """For notebooks: how many trials are in each state, and the trials."""
    counts = ", ".join(f"{count} {state}" for state, count in count_states(trials).items() if count)
    rows = [(trial.description, trial.state, trial.why) for trial in trials]
    lines = notebook.table(("trial", "state", "why"), rows)
    return notebook.page(title, notebook.paragraph(counts or "no trials"), lines)


def count_states(trials: Sequence[TrialLine]) -> dict[str, int]:
    """Trials by state; every state is there, also with 0."""
    counts = Counter(trial.state for trial in trials)
    return {state.value: counts[state.value] for state in TrialState}


def manifest_lines(
    manifest: Manifest, statuses: Mapping[str, TrialStatus], *, damaged: Collection[str] = ()
) -> tuple[TrialLine, ...]:
    """The trials that a manifest asks for; `damaged` are the keys of records that are in quarantine."""
    return tuple(
        trial_line(
            line.trial_id,
            line.role,
            line.description,
            line.epochs,
            line.teacher,
            statuses,
            was_damaged=bool(damaged) and record_key(line.trial_id) in damaged,
        )
        for line in manifest.active
    )


def trial_line(
    trial_id: str,
    role: str,
    description: str,
    epochs: int,
    teacher: str | None,
    statuses: Mapping[str, TrialStatus],
    *,
    retry_failed: bool = False,
    was_damaged: bool = False,
) -> TrialLine:
    """The line of a trial, from the states of all trials of its sweep."""
    status = statuses[trial_id]
    if status.state is TrialState.COMPLETE:
        # Most lines of a large sweep are such lines.
        return TrialLine(
            trial_id=trial_id,
            role=role,
            description=description,
            state=_COMPLETE,
            why="its record is in the store",
            epochs=epochs,
        )
    error = status.error or {}
    lease = status.lease
    progress = (lease.progress or {}) if lease else {}
    is_blocked = False
    teacher_state = statuses[teacher].state if teacher is not None and teacher in statuses else None
    match status.state:
        case TrialState.RUNNING:
            why = f"held by process {lease.pid} on {lease.host}" if lease else "held"
        case TrialState.FAILED:
            why = str(error.get("cause", "unknown")) + ("" if retry_failed else "; --retry-failed runs it again")
        case TrialState.INTERRUPTED:
            why = (
                f"a search stopped it after epoch {at}"
                if (at := status.stopped_at)
                else "continues from its checkpoint"
            )
        case _:
            why = "ended before its first checkpoint" if status.was_begun else "never run"
            if was_damaged:
                why = "its record was damaged and is in quarantine"
    if status.state in (TrialState.PENDING, TrialState.INTERRUPTED):
        is_blocked = teacher_state is TrialState.FAILED and not retry_failed
        if is_blocked:
            why = f"blocked: its teacher {teacher} failed"
        elif teacher_state not in (None, TrialState.COMPLETE):
            why += f"; waits for its teacher {teacher}"
    return TrialLine(
        trial_id=trial_id,
        role=role,
        description=description,
        state=status.state.value,
        why=why,
        epoch=epoch if isinstance(epoch := progress.get("epoch"), int) else None,
        epochs=epochs,
        accuracy=progress.get("accuracy"),
        images_per_s=progress.get("images_per_s"),
        traceback=error.get("traceback"),
        is_blocked=is_blocked,
        is_stopped=status.state is TrialState.INTERRUPTED and status.stopped_at > 0,
    )
