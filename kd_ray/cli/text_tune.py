"""What `kd-ray tune` prints: the candidates, the chosen settings, and what they cost each arm."""

import json
import shlex
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from kd_ray.cli.tables import render, table_of, wrapped
from kd_ray.errors import count_of
from kd_ray.metrics.catalogue import METRICS
from kd_ray.shown import rounded

if TYPE_CHECKING:
    from kd_ray.cluster.tune import TuneReport
    from kd_ray.tuning.outcome import Outcome

_SHOWN = 12
"""Most candidates in the table; the table `tuning` has all."""


def tuned(report: "TuneReport", written: Sequence[str], *, store: str | None) -> str:
    """How a search ended."""
    outcome = report.outcome
    option = f" --store {shlex.quote(store)}" if store else ""
    lines = [_table(outcome), _counts(outcome)]
    failed = [one for one in outcome.placed if one.state == "failed"]
    lines += [
        f"failed: candidate {one.candidate.number}: {one.candidate.problem or 'a trial failed'}" for one in failed[:5]
    ]
    if outcome.chosen is not None:
        settings = ", ".join(
            f"{path} = {json.dumps(value)}" for path, value in outcome.chosen.candidate.settings.items()
        )
        so_far = "chosen" if outcome.is_over else "best so far"
        lines.append(wrapped(f"{so_far}: candidate {outcome.chosen.candidate.number}: {settings}"))
        lines.append(wrapped(_regret(outcome)))
    lines += [f"written: {name}" for name in written]
    if report.interrupted or not outcome.is_over:
        lines.append(
            f"not over; the same command continues it with the same candidates; see:  kd-ray status {outcome.name}{option}"
        )
    sql = f"SELECT candidate, arm, avg(value) AS value FROM tuning WHERE sweep = '{outcome.name}' GROUP BY ALL ORDER BY ALL"  # noqa: S608 (to be read)
    lines.append(f'query: kd-ray query "{sql}"{option}')
    return "\n".join(lines)


def to_dict(report: "TuneReport", written: Sequence[str]) -> dict[str, Any]:
    """For `--json`."""
    outcome = report.outcome
    made = outcome.tuned()
    return {
        "sweep": outcome.sweep,
        "store": report.store,
        "is_over": outcome.is_over,
        "tuned": None if made is None else made.model_dump(mode="json"),
        "candidates": [
            {
                "number": one.candidate.number,
                "settings": dict(one.candidate.settings),
                "state": one.state,
                "epoch": one.epoch,
                "value": one.value,
                "problem": one.candidate.problem,
            }
            for one in outcome.placed
        ],
        "epochs_trained": outcome.epochs_trained,
        "epochs_of_all": outcome.epochs_of_all,
        "written": list(written),
        "warnings": list(report.warnings),
    }


def _table(outcome: "Outcome") -> str:
    better = METRICS[outcome.tuning.metric].better
    known = [one for one in outcome.placed if one.value is not None]
    order = {"complete": 0, "stopped": 1, "open": 2, "failed": 3}
    known.sort(key=lambda one: (order[one.state], (one.value or 0.0) * (1 if better == "lower" else -1)))
    table = table_of(["candidate", "state", "epochs", _metric(outcome), *outcome.tuning.space], right=(0, 2, 3))
    for one in known[:_SHOWN]:
        settings = [json.dumps(value) for value in one.candidate.settings.values()]
        table.add_row(str(one.candidate.number), one.state, str(one.epoch), _shown(outcome, one.value), *settings)
    more = len(known) - _SHOWN
    return render(table) + (f"\n{more} more in the table `tuning`" if more > 0 else "")


def _counts(outcome: "Outcome") -> str:
    states = ", ".join(
        f"{n} {state}" for state in ("complete", "stopped", "open", "failed") if (n := outcome.count(state))
    )
    saved = (
        f"; {outcome.epochs_trained:,} of {outcome.epochs_of_all:,} epochs trained"
        if outcome.epochs_trained < outcome.epochs_of_all
        else ""
    )
    seeds = count_of(len(outcome.tuning.seeds), "seed")
    return (
        f"sweep {outcome.sweep}: {count_of(len(outcome.placed), 'candidate')} ({states}), {seeds} each, arm {outcome.tuning.arm}, "
        f"on the validation split{saved}; {outcome.train_s / 60:.1f} min of training"
    )


def _regret(outcome: "Outcome") -> str:
    """What one recipe for all costs each arm."""
    what = "one recipe for all costs each arm, against the candidate that is best for it alone"
    arms = ", ".join(f"{arm} {_shown(outcome, value, difference=True)}" for arm, value in outcome.regret.items())
    return f"{what}: {arms}"


def _metric(outcome: "Outcome") -> str:
    feature = f" ({outcome.tuning.feature})" if outcome.tuning.feature else ""
    return METRICS[outcome.tuning.metric].short + feature


def _shown(outcome: "Outcome", value: float | None, *, difference: bool = False) -> str:
    metric = METRICS[outcome.tuning.metric]
    if value is None:
        return "–"
    unit = (" points" if difference else " %") if metric.unit == "rate" else ""
    return f"{rounded(value * metric.scale, metric.digits)}{unit}"
