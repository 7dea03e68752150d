"""Which pack may start next, and what happens to the trials of a pack that ended early. Shared by both runners; no I/O.

A pack waits until its teachers are committed. A pack whose worker died starts again with its unfinished trials, a limited number of times.
It is split into two halves each time, until the trial that makes its worker die is alone. A pack that lost its node or its store is not at
fault and is not split.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from kd_ray.sweep.packs import Pack
from kd_ray.sweep.plan import PlannedTrial

_MAX_RETRIES_WITHOUT_FAULT = 100
"""How often a pack that is not at fault starts again; the limit only makes sure that a launch ends."""


@dataclass(kw_only=True)
class PackQueue:
    """Packs that wait, packs that run, and the trials of ended packs."""

    waiting: deque[Pack]
    done: set[str]
    """Committed trials."""
    max_retries: int
    """How often a trial that is alone in its pack may start again after its worker died."""
    running: dict[str, Pack] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)
    """Trials that have used all their retries."""

    @classmethod
    def of(cls, packs: Iterable[Pack], done: Collection[str], max_retries: int) -> "PackQueue":
        """A queue of packs, in the order in which they should start."""
        return cls(waiting=deque(packs), done=set(done), max_retries=max_retries)

    def take(self, fits: Callable[[Pack], bool] = lambda _: True) -> Pack | None:
        """Take the first waiting pack whose teachers are committed, and count it as running; None if there is none or it does not fit."""
        for i, pack in enumerate(self.waiting):
            if pack.teachers <= self.done:
                if not fits(pack):
                    return None
                del self.waiting[i]
                self.running[pack.pack_id] = pack
                return pack
        return None

    def is_exhausted(self) -> bool:
        """Whether no pack runs and no waiting pack can ever start."""
        return not self.running and not any(pack.teachers <= self.done for pack in self.waiting)

    def end(
        self,
        pack: Pack,
        *,
        committed: Collection[str],
        failed: Collection[str],
        crashed: bool,
        at_fault: bool = True,
        is_too_large: bool = False,
    ) -> None:
        """A pack has ended. After a crash, its unfinished trials are queued again unless they have used all their retries.

        `at_fault` is False when the worker died with its node, or ended because of the store. A pack that was too large for the memory is
        queued again in two halves; its worker is alive, so this is not counted as a retry.
        """
        self.running.pop(pack.pack_id, None)
        self.done.update(committed)
        unfinished = [
            trial for trial in pack.trials if trial.trial_id not in committed and trial.trial_id not in failed
        ]
        if not unfinished:
            return
        if is_too_large:
            self._queue_again(pack, unfinished, in_halves=True)
        elif crashed and self._has_used_its_retries(pack, at_fault=at_fault):
            self.given_up.update(trial.trial_id for trial in unfinished)
        elif crashed:
            crashes = pack.crashes + 1 if at_fault else pack.crashes
            again = replace(pack, retries=pack.retries + 1, crashes=crashes)
            # Trials that needed too much memory together may fit apart, and a trial that makes its worker die ends up alone.
            self._queue_again(again, unfinished, in_halves=at_fault)

    def _has_used_its_retries(self, pack: Pack, *, at_fault: bool) -> bool:
        if pack.retries >= _MAX_RETRIES_WITHOUT_FAULT:
            return True
        is_last_crash = self.max_retries == 0 or (len(pack.trials) == 1 and pack.crashes >= self.max_retries)
        return at_fault and is_last_crash

    def _queue_again(self, pack: Pack, trials: Sequence[PlannedTrial], *, in_halves: bool) -> None:
        """Put these trials of a pack at the front of the queue."""
        size_of_first = (len(trials) + 1) // 2 if in_halves else len(trials)
        for part in (trials[size_of_first:], trials[:size_of_first]):
            if part:
                self.waiting.appendleft(replace(pack, trials=tuple(part)))
