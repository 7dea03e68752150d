"""Which pack may start now. Pure bookkeeping, shared by both runners.

A pack waits until its teachers are committed. A pack whose worker died is started again with what is left of
it, in two halves, a bounded number of times.
"""

from collections import deque
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field

from kd_ray.sweep.plan import Pack


@dataclass(kw_only=True)
class PackQueue:
    """Packs that wait, run, and have ended."""

    waiting: deque[Pack]
    done: set[str]
    """Committed trials."""
    max_retries: int
    """How often a pack may be started again after its worker died."""
    running: dict[str, Pack] = field(default_factory=dict)
    retries: dict[str, int] = field(default_factory=dict)
    """By trial: how often its pack was started again."""
    given_up: set[str] = field(default_factory=set)
    """Trials whose worker died once too often."""

    @classmethod
    def of(cls, packs: Iterable[Pack], done: Collection[str], max_retries: int) -> "PackQueue":
        """A queue of packs, in the order in which they should start."""
        return cls(waiting=deque(packs), done=set(done), max_retries=max_retries)

    def take(self) -> Pack | None:
        """The first waiting pack whose teachers are committed; it counts as running from now on."""
        for i, pack in enumerate(self.waiting):
            if pack.teachers <= self.done:
                del self.waiting[i]
                self.running[pack.pack_id] = pack
                return pack
        return None

    def is_exhausted(self) -> bool:
        """Whether nothing runs and nothing that waits can ever start."""
        return not self.running and not any(pack.teachers <= self.done for pack in self.waiting)

    def end(self, pack: Pack, *, committed: Collection[str], failed: Collection[str], crashed: bool) -> None:
        """A pack has ended. After a crash its other trials queue again, unless they have had all their retries."""
        self.running.pop(pack.pack_id, None)
        self.done.update(committed)
        if not crashed:
            return
        left = [trial for trial in pack.trials if trial.trial_id not in committed and trial.trial_id not in failed]
        for trial in left:
            self.retries[trial.trial_id] = self.retries.get(trial.trial_id, 0) + 1
        again = [trial for trial in left if self.retries[trial.trial_id] <= self.max_retries]
        self.given_up.update(trial.trial_id for trial in left if trial not in again)
        # In two halves: what was too much together may fit apart, and a trial that kills its worker ends up alone.
        half = -(-len(again) // 2)
        for part in (again[half:], again[:half]):
            if part:
                self.waiting.appendleft(Pack(trials=tuple(part)))
