"""A search as a function of its settings and of the results that are known.

Nothing about a search is stored but the results of its trials. The searcher begins anew each time, with its seed; it is asked for the same
candidates in the same order and told the same results, so it says the same again. So a search that was killed continues with the
same candidates, two launches share one search, and a larger budget extends it:

- `random` and `grid` do not look at results: all candidates form one round. `optuna` is asked for `at_once` candidates, and told their
  results in the order of their numbers, before it is asked for the next.
- ASHA decides about a candidate at a rung after all candidates with lower numbers: the decision depends on these alone.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from kd_ray.sweep.tuning_settings import Tuning
from kd_ray.tuning.candidates import Candidate

_MOST_REPEATS = 100
"""Candidates in a row that were there before, after which the space counts as exhausted."""

State = Literal["complete", "stopped", "failed", "open"]


class Results(Protocol):
    """What is known of a candidate."""

    def value(self, candidate: Candidate, epoch: int | None) -> float | None:
        """Its metric after this epoch, or at its end; None while a trial has not got there. NaN where it is undefined."""

    def has_failed(self, candidate: Candidate) -> bool:
        """Whether one of its trials has failed."""

    def train_s(self, candidates: Sequence[Candidate]) -> float:
        """Seconds of training of all these, as far as they are."""


class SearcherLike(Protocol):
    """See `tune_search.Searcher`."""

    at_once: int | None

    def suggest(self, number: int) -> dict[str, Any] | None:
        """The next settings."""

    def tell(self, number: int, value: float | None) -> None:
        """A result."""


class HalvingLike(Protocol):
    """See `tune_search.Halving`."""

    @property
    def rungs(self) -> tuple[int, ...]:
        """Where it decides."""

    def goes_on(self, number: int, epoch: int, value: float) -> bool:
        """Its decision."""


@dataclass(frozen=True, kw_only=True)
class Placed:
    """A candidate and how far it is."""

    candidate: Candidate
    state: State
    epoch: int
    """The epoch that its value belongs to: of a stopped candidate the rung, of an open one the last rung that it has passed."""
    value: float | None
    """Its metric there."""


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """A search as far as it is known."""

    placed: tuple[Placed, ...]
    to_run: Mapping[int, int | None]
    """Epoch to train to, by number of the candidate; None for the end. Empty when the search is over."""


def replay(
    tuning: Tuning,
    searcher: SearcherLike,
    halving: HalvingLike | None,
    make: Callable[[int, Mapping[str, Any]], Candidate],
    results: Results,
    *,
    sign: int,
) -> Replayed:
    """Repeat the search; `sign` is 1 if larger values of the metric are better, -1 if smaller ones are."""
    placed: list[Placed] = []
    seen: set[str] = set()
    budget = tuning.budget
    while len(placed) < budget.candidates and not _is_spent(tuning, results, placed):
        at_once = min(searcher.at_once or budget.candidates, budget.candidates - len(placed))
        candidates = _suggested(searcher, make, at_once, len(placed), seen)
        if not candidates:
            break
        now, to_run = _placed(candidates, halving, results, sign)
        placed += now
        if to_run:
            return Replayed(placed=tuple(placed), to_run=to_run)
        for one in now:
            is_known = one.value is not None and math.isfinite(one.value)
            searcher.tell(one.candidate.number, sign * one.value if is_known and one.value is not None else None)
    return Replayed(placed=tuple(placed), to_run={})


def _is_spent(tuning: Tuning, results: Results, placed: Sequence[Placed]) -> bool:
    hours = tuning.budget.train_hours
    return hours is not None and results.train_s([one.candidate for one in placed]) >= 3600 * hours


def _suggested(
    searcher: SearcherLike,
    make: Callable[[int, Mapping[str, Any]], Candidate],
    count: int,
    before: int,
    seen: set[str],
) -> list[Candidate]:
    """The next candidates. One that repeats an earlier one is not counted; the searcher is told at once that it brought nothing."""
    found: list[Candidate] = []
    repeats = 0
    while len(found) < count and repeats < _MOST_REPEATS:
        number = before + len(found) + 1
        settings = searcher.suggest(number)
        if settings is None:
            break
        key = repr(sorted(settings.items(), key=lambda item: item[0]))
        if key in seen:
            repeats += 1
            searcher.tell(number, None)
            continue
        repeats = 0
        seen.add(key)
        found.append(make(number, settings))
    return found


def _placed(
    candidates: Sequence[Candidate], halving: HalvingLike | None, results: Results, sign: int
) -> tuple[list[Placed], dict[int, int | None]]:
    """How far each candidate of a round is, and what has to be trained to know more."""
    ends: dict[int, Placed] = {}
    to_run: dict[int, int | None] = {}
    passed: dict[int, tuple[int, float | None]] = {one.number: (0, None) for one in candidates}

    def end(one: Candidate, state: State, epoch: int, value: float | None) -> None:
        ends[one.number] = Placed(candidate=one, state=state, epoch=epoch, value=value)

    for one in candidates:
        if one.problem or results.has_failed(one):
            end(one, "failed", 0, None)
    alive = [one for one in candidates if one.number not in ends]
    for rung in halving.rungs if halving else ():
        going_on = []
        is_known_so_far = True
        for one in alive:
            if rung >= one.epochs:
                going_on.append(one)
                continue
            value = results.value(one, rung)
            if value is None:
                to_run[one.number] = rung
                is_known_so_far = False
            elif is_known_so_far:
                passed[one.number] = (rung, value)
                assert halving is not None
                if math.isnan(value) or halving.goes_on(one.number, rung, sign * value):
                    going_on.append(one)
                else:
                    end(one, "stopped", rung, value)
        alive = going_on
    for one in alive:
        value = results.value(one, None)
        if value is None:
            to_run[one.number] = None
        else:
            end(one, "complete", one.epochs, value)
    placed = [
        ends.get(one.number)
        or Placed(candidate=one, state="open", epoch=passed[one.number][0], value=passed[one.number][1])
        for one in candidates
    ]
    return placed, to_run
