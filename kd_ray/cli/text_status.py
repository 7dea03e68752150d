"""What `kd-ray status` prints. Apart from the other texts, because it needs so little that it starts in half the time."""

from collections.abc import Sequence

from kd_ray.cli.tables import render, table_of
from kd_ray.errors import count_of
from kd_ray.results.status import SweepStatus
from kd_ray.results.trial_lines import TrialLine
from kd_ray.sweep.trial_states import TrialState

SHOWN = 30
"""Most trials in a list; further ones are only counted."""


def status(status: SweepStatus, *, tracebacks: bool = False) -> str:
    """The state of a sweep's trials."""
    lines = [f"sweep {status.sweep}: {count_of(len(status.trials), 'trial')} ({counts(status.trials)})"]
    unsettled = [trial for trial in status.trials if trial.state != TrialState.COMPLETE]
    lines.append(listed(unsettled) if unsettled else "everything is complete")
    lines += [f"note: {problem}" for problem in status.problems]
    lines += [ignored(status.strangers)] if status.strangers else []
    if tracebacks:
        lines += [
            f"\n{trial.trial_id}  {trial.description}\n{trial.traceback or trial.why}"
            for trial in unsettled
            if trial.traceback
        ]
    return "\n".join(lines)


def sweeps(statuses: Sequence[SweepStatus], store: str) -> str:
    """The sweeps of a store, one line each."""
    if not statuses:
        return f"store {store}: no sweeps yet"
    table = table_of(["sweep", "trials", "states"], right=[1])
    for status in statuses:
        table.add_row(status.sweep, str(len(status.trials)), counts(status.trials) if status.trials else "not readable")
    unreadable = [problem for status in statuses if not status.trials for problem in status.problems]
    return "\n".join([render(table), *(f"note: {problem}" for problem in unreadable)])


def ignored(keys: Sequence[str]) -> str:
    """Files in a store that kd_ray did not write."""
    shown = ", ".join(repr(key) for key in keys[:3]) + (", …" if len(keys) > 3 else "")
    return f"ignored: {count_of(len(keys), 'file')} that kd_ray did not write: {shown}"


def counts(trials: Sequence[TrialLine]) -> str:
    """How many trials are in each state."""
    states = [trial.state for trial in trials]
    return (
        ", ".join(f"{states.count(state.value)} {state.value}" for state in TrialState if state.value in states)
        or "none"
    )


def listed(trials: Sequence[TrialLine]) -> str:
    """The first of these trials, one line each."""
    table = table_of(["trial_id", "trial", "state", "why"])
    for trial in trials[:SHOWN]:
        why = trial.why
        if trial.epoch is not None:
            accuracy = f", training accuracy of its pack {trial.accuracy:.1%}" if trial.accuracy is not None else ""
            why = f"epoch {trial.epoch} of {trial.epochs}{accuracy}; {why}"
        table.add_row(trial.trial_id, trial.description, trial.state, next(iter(why.splitlines()), ""))
    more = f"\n… and {len(trials) - SHOWN} more; --json lists all" if len(trials) > SHOWN else ""
    return render(table) + more
