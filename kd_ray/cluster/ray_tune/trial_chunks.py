"""The trials of a launch in Ray's object store, and the short orders by which Tune names a pack of them."""

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import ray

from kd_ray.sweep.packs import Pack
from kd_ray.sweep.plan import PlannedTrial

_TRIALS_PER_CHUNK = 500


class TrialChunks:
    """The trials of a launch, in chunks in Ray's object store.

    A worker fetches only the chunks of its packs, and Tune carries only positions in the list of trials.
    """

    def __init__(self, trials: Sequence[PlannedTrial]) -> None:
        """Store the trials. Those of a chunk are pickled together, so that shared parts are stored once."""
        starts = range(0, len(trials), _TRIALS_PER_CHUNK)
        self._chunks = [ray.put(pickle.dumps(trials[i : i + _TRIALS_PER_CHUNK])) for i in starts]
        self._positions = {trial.trial_id: i for i, trial in enumerate(trials)}
        """Position of each trial; empty in a worker."""
        self._last_chunk: tuple[int, Sequence[PlannedTrial]] = (-1, ())
        """Number and trials of the chunk that this worker read last."""

    def __getstate__(self) -> dict[str, Any]:
        return vars(self) | {"_positions": {}}

    def order(self, pack: Pack) -> dict[str, Any]:
        """The configuration by which Tune names the pack to a worker."""
        positions = " ".join(str(self._positions[trial.trial_id]) for trial in pack.trials)
        return {
            "positions": positions,
            "retries": pack.retries,
            "crashes": pack.crashes,
            "is_teacher": pack.is_teacher,
            "until_epoch": pack.until_epoch,
        }

    def pack(self, order: Mapping[str, Any]) -> Pack:
        """The pack that an order names."""
        trials = tuple(self._trial(int(position)) for position in order["positions"].split())
        return Pack(trials=trials, retries=order["retries"], crashes=order["crashes"], until_epoch=order["until_epoch"])

    def _trial(self, position: int) -> PlannedTrial:
        number, i = divmod(position, _TRIALS_PER_CHUNK)
        if self._last_chunk[0] != number:
            self._last_chunk = (number, pickle.loads(ray.get(self._chunks[number])))  # noqa: S301 (from our own driver)
        return self._last_chunk[1][i]
