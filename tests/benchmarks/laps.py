"""Contestants taking turns, so that the noise of a shared machine meets all of them."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from statistics import median
from typing import TypeVar

import torch

Name = TypeVar("Name")
Clock = Callable[[], float]
"""`time.perf_counter`, or `time.process_time` where others use the same cores: CPU seconds of this process and its threads."""


@dataclass(frozen=True, kw_only=True)
class Contestant:
    """Something that can go on lap by lap."""

    laps: Iterator[object]
    deterministic: bool
    """With torch's deterministic algorithms, as our workers run; the others do not pay for them."""


@dataclass(frozen=True)
class Ratio:
    """How many times faster one was than the other, round by round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.rounds)

    @property
    def best(self) -> float:
        """The largest."""
        return max(self.rounds)

    def __str__(self) -> str:
        return f"{self.median:.2f} ({min(self.rounds):.2f} to {self.best:.2f})"


def take_turns(
    contestants: Mapping[Name, Contestant], *, rounds: int, clock: Clock = time.perf_counter
) -> dict[Name, list[float]]:
    """Seconds per lap of each, after a first lap that does not count."""
    seconds: dict[Name, list[float]] = {name: [] for name in contestants}
    for _ in range(1 + rounds):
        for name, contestant in contestants.items():
            torch.use_deterministic_algorithms(contestant.deterministic)
            started = clock()
            next(contestant.laps)
            seconds[name].append(clock() - started)
            torch.use_deterministic_algorithms(False)
    return {name: laps[1:] for name, laps in seconds.items()}


def ratio(slow: list[float], fast: list[float], *, factor: float = 1.0) -> Ratio:
    """`factor` times the one over the other, lap by lap."""
    return Ratio(tuple(factor * a / b for a, b in zip(slow, fast, strict=True)))
