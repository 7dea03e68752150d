"""Searchers and schedulers of Ray Tune, asked one candidate after another.

Tune's own objects choose and decide; when they are asked is ours (`replay.py`), so that a search follows from its settings, its seed and
the results in the store alone. They keep no state on disk.
"""

import logging
import warnings
from collections.abc import Iterator, Mapping
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from ray import tune
from ray.tune.schedulers import AsyncHyperBandScheduler, TrialScheduler
from ray.tune.search.variant_generator import generate_variants

from kd_ray.errors import InvalidInputError
from kd_ray.sweep.tuning_settings import Asha, Dimension, Integers, LogUniform, Tuning, Uniform

_METRIC = "value"
_EPOCH = "epoch"
_MODE = "max"
_DIGITS = 3


class Searcher(Protocol):
    """Chooses candidates."""

    at_once: int | None
    """Candidates to choose before results are told; None where results do not matter."""

    def suggest(self, number: int) -> dict[str, Any] | None:
        """The settings of the next candidate; None at the end of the space."""

    def tell(self, number: int, value: float | None) -> None:
        """The result of a candidate, larger is better; None if it has none."""


def make_searcher(tuning: Tuning) -> Searcher:
    """The searcher that the settings ask for.

    Raises:
        InvalidInputError: Optuna is asked for and not installed.
    """
    if tuning.searcher == "optuna":
        return _Optuna(tuning)
    return _Variants(tuning)


class _Variants:
    """Random candidates, or those of a grid in order: Tune's own variants."""

    at_once: int | None = None

    def __init__(self, tuning: Tuning) -> None:
        self._variants = self._grid(tuning) if tuning.searcher == "grid" else self._random(tuning)

    @staticmethod
    def _grid(tuning: Tuning) -> Iterator[dict[str, Any]]:
        # Numbers stand for values, because Tune would look into a value that is a mapping or a list.
        choices = {path: values for path, values in tuning.space.items() if isinstance(values, tuple)}
        space = {_key(i): tune.grid_search(list(range(len(values)))) for i, values in enumerate(choices.values())}
        for _, variant in generate_variants(space):
            yield {path: values[variant[_key(i)]] for i, (path, values) in enumerate(choices.items())}

    @staticmethod
    def _random(tuning: Tuning) -> Iterator[dict[str, Any]]:
        state = np.random.RandomState(tuning.seed)
        space = {_key(i): _domain(dimension) for i, dimension in enumerate(tuning.space.values())}
        while True:
            for _, variant in generate_variants(space, random_state=state):
                yield _settings(tuning, variant)

    def suggest(self, number: int) -> dict[str, Any] | None:
        return next(self._variants, None)

    def tell(self, number: int, value: float | None) -> None:
        return


class _Optuna:
    """Tune's Optuna, with its default sampler and our seed."""

    def __init__(self, tuning: Tuning) -> None:
        try:
            import optuna
        except ImportError as error:
            raise InvalidInputError("tune.searcher: optuna is not installed: pip install 'kd_ray[optuna]'") from error
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(logging.WARNING)
        self.at_once: int | None = tuning.at_once
        self._tuning = tuning
        self._asked = 0
        self._ids: dict[int, str] = {}
        space = {_key(i): _domain(dimension) for i, dimension in enumerate(tuning.space.values())}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._search = OptunaSearch(space=space, metric=_METRIC, mode=_MODE, seed=tuning.seed)

    def suggest(self, number: int) -> dict[str, Any] | None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # A candidate that repeats another leaves its number to the next one, which Optuna must know by another name.
            self._asked += 1
            self._ids[number] = str(self._asked)
            found = self._search.suggest(self._ids[number])
        return None if found is None else _settings(self._tuning, found)

    def tell(self, number: int, value: float | None) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = None if value is None else {_METRIC: value, "training_iteration": 1}
            self._search.on_trial_complete(self._ids[number], result=result, error=value is None)


def _key(i: int) -> str:
    """A name for Tune: it would take the dots of a path for a nested space."""
    return f"setting_{i}"


def _domain(dimension: Dimension) -> Any:
    if isinstance(dimension, LogUniform):
        return tune.loguniform(*dimension.log_uniform)
    if isinstance(dimension, Uniform):
        return tune.uniform(*dimension.uniform)
    if isinstance(dimension, Integers):
        low, high = dimension.integers
        return tune.randint(low, high + 1)
    return tune.choice(list(range(len(dimension))))


def _settings(tuning: Tuning, variant: Mapping[str, Any]) -> dict[str, Any]:
    """The values by path: of a list its value, of a range a number with three digits, which people can read."""
    found: dict[str, Any] = {}
    for i, (path, dimension) in enumerate(tuning.space.items()):
        value = variant[_key(i)]
        if isinstance(dimension, tuple):
            found[path] = dimension[int(value)]
        elif isinstance(dimension, Integers):
            found[path] = int(value)
        else:
            low, high = dimension.log_uniform if isinstance(dimension, LogUniform) else dimension.uniform
            found[path] = min(max(float(f"{value:.{_DIGITS}g}"), low), high)
    return found


class Halving:
    """Tune's ASHA: which candidates go on after a rung."""

    def __init__(self, settings: Asha, most_epochs: int) -> None:
        """`most_epochs` is the largest number of epochs of a candidate."""
        self._settings = settings
        self._most_epochs = max(most_epochs, settings.grace_epochs)
        self._scheduler = AsyncHyperBandScheduler(
            time_attr=_EPOCH,
            metric=_METRIC,
            mode=_MODE,
            max_t=self._most_epochs,
            grace_period=settings.grace_epochs,
            reduction_factor=settings.reduction_factor,
        )
        self._known: set[int] = set()

    @property
    def rungs(self) -> tuple[int, ...]:
        """The epochs after which it decides."""
        found = []
        epoch = self._settings.grace_epochs
        while epoch < self._most_epochs:
            found.append(epoch)
            epoch *= self._settings.reduction_factor
        return tuple(found)

    def goes_on(self, number: int, epoch: int, value: float) -> bool:
        """Whether the candidate continues, by its value (larger is better) after a rung. Asked in the order of candidates at each rung."""
        trial: Any = SimpleNamespace(trial_id=str(number))
        controller: Any = None
        if number not in self._known:
            self._known.add(number)
            self._scheduler.on_trial_add(controller, trial)
        action = self._scheduler.on_trial_result(controller, trial, {_EPOCH: epoch, _METRIC: value})
        return bool(action == TrialScheduler.CONTINUE)
