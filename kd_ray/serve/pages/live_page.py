"""One sweep while it runs: the grid as a heat map, what runs now, what failed, and what it costs."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from kd_ray.results.status import TrialLine
from kd_ray.serve.page_data import Read
from kd_ray.serve.quantities import GROUP_ACCURACY, OF_CLASS, OF_GROUPS, Chosen, Quantity, metric_names, quantity
from kd_ray.serve.snapshot import SweepNow, costs, place_of, running_packs
from kd_ray.sweep.spec import Role, TrialState

STATE = "state"
"""What cells are colored by, if not by a metric."""
ROWS = 100
"""Seeds on one page."""
STEPS = 9
"""Colors of the scale of a metric."""
MAX_FAILURES = 50
SIGNS = {"complete": "✓", "running": "▸", "failed": "✕", "interrupted": "‖", "pending": "·", "blocked": "–"}
"""What stands in a cell beside its color."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One trial of the heat map."""

    trial_id: str
    css: str
    """Class of its color."""
    sign: str
    words: str
    """What a pointer on it shows."""


@dataclass(frozen=True, kw_only=True)
class Facet:
    """The trials that differ in temperature and seed only."""

    label: str
    columns: tuple[str, ...]
    rows: tuple[str, ...]
    cells: Mapping[tuple[str, str], tuple[Cell, ...]]
    """By row and column; more than one where a seed learned from several teachers."""


@dataclass(frozen=True, kw_only=True)
class Legend:
    """The scale of a metric."""

    low: str
    high: str
    unit: str


def view(now: SweepNow, read: Read | None, chosen: Chosen, *, first_row: int) -> Mapping[str, Any]:
    """What the page shows. `first_row` is the first seed of the heat map that is shown, of many."""
    is_metric = read is not None and chosen.metric != STATE
    it = quantity(read, chosen) if read is not None and is_metric else None
    cell_of, legend = coloring(read, it)
    facets, num_rows = lay_out(now.lines, cell_of, first_row)
    trials = read.study.trials if read else ()
    failed = [line for line in now.lines if line.state == TrialState.FAILED or line.is_blocked]
    return {
        "now": now,
        "facets": facets,
        "cells": {cell.trial_id: cell for facet in facets for some in facet.cells.values() for cell in some},
        "num_rows": num_rows,
        "first_row": first_row,
        "rows_per_page": ROWS,
        "legend": legend,
        "signs": SIGNS,
        "metrics": metric_names(read) if read else {},
        "chosen": it.chosen if it else Chosen(metric=STATE),
        "classes": read.study.class_names if read and it and it.chosen.metric in OF_CLASS else (),
        "features": (
            [f.feature for f in read.study.fairness]
            if read and it and it.chosen.metric in (*OF_GROUPS, GROUP_ACCURACY)
            else ()
        ),
        "groups": list(read.groups.get(it.chosen.feature, ()))
        if read and it and it.chosen.metric == GROUP_ACCURACY
        else (),
        "packs": running_packs(now.lines, trials),
        "failed": failed[:MAX_FAILURES],
        "num_failed": len(failed),
        "costs": costs(now.lines, trials),
    }


def coloring(read: Read | None, it: Quantity | None) -> tuple[Callable[[TrialLine], Cell], Legend | None]:
    """What makes the cell of a trial, by its state or by its value; and the scale of the values."""
    if read is None or it is None:
        return _by_state, None
    values = dict(zip((trial["trial_id"] for trial in read.study.trials), it.values_T.tolist(), strict=True))
    has_any = not np.isnan(it.values_T).all()
    low, high = (float(np.nanmin(it.values_T)), float(np.nanmax(it.values_T))) if has_any else (math.nan, math.nan)

    def by_value(line: TrialLine) -> Cell:
        cell = _by_state(line)
        if line.state != TrialState.COMPLETE:
            return cell
        value = values.get(line.trial_id, math.nan)
        if math.isnan(value):
            return replace(cell, css="s-unknown", sign="?", words=f"{cell.words}, not in the tables yet, or undefined")
        step = 0 if high <= low else min(STEPS - 1, int(STEPS * (value - low) / (high - low)))
        words = f"{line.description}: {it.title} {it.shown(value)} {it.unit}".rstrip()
        return replace(cell, css=f"q{step}", sign=it.shown(value), words=words)

    return by_value, Legend(low=it.shown(low), high=it.shown(high), unit=it.unit)


def _by_state(line: TrialLine) -> Cell:
    state = "blocked" if line.is_blocked else line.state
    sign, words = SIGNS[state], f"{line.description}: {state}"
    if state == TrialState.RUNNING and line.epoch is not None:
        sign, words = f"{100 * line.epoch // max(line.epochs, 1)}", f"{words}, epoch {line.epoch} of {line.epochs}"
    return Cell(trial_id=line.trial_id, css=f"s-{state}", sign=sign, words=words)


def lay_out(
    lines: Sequence[TrialLine], cell_of: Callable[[TrialLine], Cell], first_row: int
) -> tuple[tuple[Facet, ...], int]:
    """The facets of the heat map with some of their rows, and the number of rows of the longest."""
    members: dict[str, dict[tuple[str, str], list[TrialLine]]] = {}
    for line in lines:
        place = place_of(line.description)
        members.setdefault(place.facet, {}).setdefault((place.row, place.column), []).append(line)
    facets, longest = [], 0
    roles = [role.value for role in Role]
    for label, found in sorted(members.items(), key=lambda it: (roles.index(it[0].split(" ", 1)[0]), it[0])):
        rows = sorted({row for row, _ in found}, key=_order)
        longest = max(longest, len(rows))
        shown = tuple(rows[first_row : first_row + ROWS])
        if not shown:
            continue
        columns = tuple(sorted({column for _, column in found}, key=_order))
        places = [(row, column) for row in shown for column in columns if (row, column) in found]
        cells = {place: tuple(cell_of(line) for line in found[place]) for place in places}
        facets.append(Facet(label=label, columns=columns, rows=shown, cells=cells))
    return tuple(facets), longest


def _order(value: str) -> tuple[bool, float, str]:
    try:
        return (False, float(value), "")
    except ValueError:
        return (True, 0.0, value)
