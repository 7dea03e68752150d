"""Which pack may start now. Pure bookkeeping, shared by both runners.

A pack waits until its teachers are committed. A pack whose worker died is started again with what is left of it, a bounded number of
times, and in two halves until the trial that kills its worker is alone. A pack that lost its node or its store is not at fault.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field, replace

from kd_ray.sweep.plan import Pack, PlannedTrial

_RETRIES_WITHOUT_FAULT = 100
"""How often a pack is started again when it is not at fault; only there so that a launch ends."""


@dataclass(kw_only=True)
class PackQueue:
    """Packs that wait, run, and have ended."""

    waiting: deque[Pack]
    done: set[str]
    """Committed trials."""
    max_retries: int
    """How often a trial that is alone in its pack may be started again after its worker died."""
    running: dict[str, Pack] = field(default_factory=dict)
    given_up: set[str] = field(default_factory=set)
    """Trials whose worker died once too often."""

    @classmethod
    def of(cls, packs: Iterable[Pack], done: Collection[str], max_retries: int) -> "PackQueue":
        """A queue of packs, in the order in which they should start."""
        return cls(waiting=deque(packs), done=set(done), max_retries=max_retries)

    def take(self, fits: Callable[[Pack], bool] = lambda _: True) -> Pack | None:
        """The first waiting pack whose teachers are committed, if it `fits`; it counts as running from now on."""
        for i, pack in enumerate(self.waiting):
            if pack.teachers <= self.done:
                if not fits(pack):
                    return None
                del self.waiting[i]
                self.running[pack.pack_id] = pack
                return pack
        return None

    def is_exhausted(self) -> bool:
        """Whether nothing runs and nothing that waits can ever start."""
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
        """A pack has ended. After a crash its other trials queue again, unless they have had all their retries.

        `at_fault` is False when the worker died with its node, or ended because of the store. A pack that was too large for the memory
        queues again in two halves; its worker lives, so nothing is counted.
        """
        self.running.pop(pack.pack_id, None)
        self.done.update(committed)
        left = [trial for trial in pack.trials if trial.trial_id not in committed and trial.trial_id not in failed]
        if is_too_large and left:
            self._again(left, pack, in_halves=True)
            return
        if not crashed or not left:
            return
        is_last = self.max_retries == 0 or (len(pack.trials) == 1 and pack.crashes >= self.max_retries)
        if (at_fault and is_last) or pack.retries >= _RETRIES_WITHOUT_FAULT:
            self.given_up.update(trial.trial_id for trial in left)
            return
        # In two halves: what was too much together may fit apart, and a trial that kills its worker ends up alone.
        died = Pack(trials=pack.trials, retries=pack.retries + 1, crashes=pack.crashes + at_fault)
        self._again(left, died, in_halves=at_fault)

    def _again(self, left: Sequence[PlannedTrial], pack: Pack, *, in_halves: bool) -> None:
        half = -(-len(left) // 2) if in_halves else len(left)
        for part in (left[half:], left[:half]):
            if part:
                self.waiting.appendleft(replace(pack, trials=tuple(part)))
