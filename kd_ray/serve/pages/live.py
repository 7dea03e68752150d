"""One sweep while it runs: the grid as a heat map, what runs now, what failed, and what it costs."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from kd_ray.results.status import TrialLine
from kd_ray.serve.quantities import GROUP_ACCURACY, OF_CLASS, OF_GROUPS, Chosen, Quantity, metric_names, quantity
from kd_ray.serve.reading import Read
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
    cells, legend = color(now.lines, read, it)
    facets, num_rows = lay_out(now.lines, cells, first_row)
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


def color(
    lines: Sequence[TrialLine], read: Read | None, it: Quantity | None
) -> tuple[Mapping[str, Cell], Legend | None]:
    """The cell of every trial, by its state or by its value."""
    legend, values = None, {}
    low = high = math.nan
    if read is not None and it is not None:
        values = dict(zip((trial["trial_id"] for trial in read.study.trials), it.values_T.tolist(), strict=True))
        if not np.isnan(it.values_T).all():
            low, high = float(np.nanmin(it.values_T)), float(np.nanmax(it.values_T))
        legend = Legend(low=it.shown(low), high=it.shown(high), unit=it.unit)
    cells = {}
    for line in lines:
        state = "blocked" if line.is_blocked else line.state
        sign, css, words = SIGNS[state], f"s-{state}", f"{line.description}: {state}"
        if state == "running" and line.epoch is not None:
            sign, words = f"{100 * line.epoch // max(line.epochs, 1)}", f"{words}, epoch {line.epoch} of {line.epochs}"
        value = values.get(line.trial_id, math.nan)
        if it is not None and state == "complete":
            if math.isnan(value):
                css, sign, words = "s-unknown", "?", f"{words}, not in the tables yet"
            else:
                step = 0 if high <= low else min(STEPS - 1, int(STEPS * (value - low) / (high - low)))
                css, sign = f"q{step}", it.shown(value)
                words = f"{line.description}: {it.title} {it.shown(value)} {it.unit}".rstrip()
        cells[line.trial_id] = Cell(trial_id=line.trial_id, css=css, sign=sign, words=words)
    return cells, legend


def lay_out(lines: Sequence[TrialLine], cells: Mapping[str, Cell], first_row: int) -> tuple[tuple[Facet, ...], int]:
    """The facets of the heat map with some of their rows, and the number of rows of the longest."""
    members: dict[str, dict[tuple[str, str], list[Cell]]] = {}
    for line in lines:
        place = place_of(line)
        members.setdefault(place.facet, {}).setdefault((place.row, place.column), []).append(cells[line.trial_id])
    facets, longest = [], 0
    roles = [role.value for role in Role]
    for label, found in sorted(members.items(), key=lambda it: (roles.index(it[0].split(" ", 1)[0]), it[0])):
        rows = sorted({row for row, _ in found}, key=_order)
        longest = max(longest, len(rows))
        shown = tuple(rows[first_row : first_row + ROWS])
        if not shown:
            continue
        columns = tuple(sorted({column for _, column in found}, key=_order))
        kept = {(row, column): tuple(some) for (row, column), some in found.items() if row in shown}
        facets.append(Facet(label=label, columns=columns, rows=shown, cells=kept))
    return tuple(facets), longest


def _order(value: str) -> tuple[bool, float, str]:
    try:
        return (False, float(value), "")
    except ValueError:
        return (True, 0.0, value)
