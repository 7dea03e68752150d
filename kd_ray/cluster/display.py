"""Shows the progress of a launch: a live display on a terminal, plain lines elsewhere."""

import threading
import time
from collections.abc import Callable, Collection
from typing import Protocol, Self

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from kd_ray.cluster.runner import Observer
from kd_ray.distill.worker_protocol import PackProgress
from kd_ray.errors import count_of
from kd_ray.results.launch_plan import Plan
from kd_ray.shown import cleaned
from kd_ray.sweep.packs import Pack
from kd_ray.sweep.plan import PlannedTrial
from kd_ray.sweep.spec import TrialState

LINE_EVERY_S = 10.0
"""Shortest pause between two plain lines."""


class Display(Observer, Protocol):
    """Shows the events of a launch."""

    def __enter__(self) -> Self:
        """Start showing."""

    def __exit__(self, *_: object) -> None:
        """Stop showing, and restore the terminal."""

    def preparing(self, dataset: str) -> Callable[[int, int], None]:
        """A data set is being prepared; the returned function is called with (done, total)."""

    def begin(self, plan: Plan, todo: Collection[PlannedTrial]) -> None:
        """The launch has planned the sweep; `todo` are the trials to run."""

    def nothing_to_run(self, sweep: str, num_trials: int) -> None:
        """Every trial of the sweep was complete before the launch."""

    def waiting(self, num_held: int) -> None:
        """Only trials that another launch holds are left, this many."""

    def warn(self, warning: str) -> None:
        """A problem occurred that does not stop the launch."""


class SweepProgress:
    """The counts that a display shows."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """`now` is the time in seconds."""
        self.total = 0
        self.complete = 0
        self.failed = 0
        self.running: dict[str, tuple[Pack, PackProgress | None]] = {}
        self._epochs_left: dict[str, int] = {}
        self._now = now
        self._rates: dict[str, tuple[float, int]] = {}
        """By model: seconds, and the epochs of trials that they took."""
        self._marks: dict[str, tuple[float | None, int]] = {}
        """By pack: when it reached its last epoch, and which; no time before the first end of an epoch."""

    def begin(self, plan: Plan, todo: Collection[PlannedTrial]) -> None:
        """Start counting."""
        self.total = len(plan.trials)
        self.complete = plan.counts()[TrialState.COMPLETE]
        again = {trial.trial_id for trial in todo}
        self.failed = sum(view.state == TrialState.FAILED and view.trial_id not in again for view in plan.trials)
        for trial in todo:
            self._epochs_left[trial.trial_id] = trial.spec.epochs

    def started(self, pack: Pack) -> None:
        """A worker has begun a pack."""
        self.running[pack.pack_id] = (pack, None)
        self._marks[pack.pack_id] = (None, -1)

    def progressed(self, pack: Pack, progress: PackProgress) -> None:
        """A running pack reports its progress."""
        if pack.pack_id not in self.running:
            return
        self.running[pack.pack_id] = (pack, progress)
        mark, epoch = self._marks[pack.pack_id]
        if progress.epoch > epoch and not progress.done:
            now = self._now()
            if mark is not None:
                model = pack.trials[0].spec.model
                seconds, count = self._rates.get(model, (0.0, 0))
                self._rates[model] = (seconds + now - mark, count + (progress.epoch - epoch) * len(pack.trials))
            # The first epoch is slower than the others: imports, compilation, the table of a teacher's logits.
            self._marks[pack.pack_id] = (None if epoch < 0 else now, progress.epoch)
            for trial in pack.trials:
                self._epochs_left[trial.trial_id] = trial.spec.epochs - progress.epoch

    def ended(self, pack: Pack, committed: int, failed: int) -> None:
        """A pack has ended."""
        self.running.pop(pack.pack_id, None)
        self.complete += committed
        self.failed += failed
        for trial in pack.trials:
            self._epochs_left.pop(trial.trial_id, None)

    @property
    def pending(self) -> int:
        """Trials that are not running, complete or failed."""
        return max(0, self.total - self.complete - self.failed - self.num_running)

    @property
    def num_running(self) -> int:
        """Trials in running packs."""
        return sum(len(pack.trials) for pack, _ in self.running.values())

    @property
    def images_per_s(self) -> float:
        """Samples per second, summed over the running packs."""
        return sum(progress.images_per_s for _, progress in self.running.values() if progress)

    def seconds_left(self, models: Callable[[str], str | None]) -> float | None:
        """Estimated seconds to the end, from the mean epoch time of each model; None while one that has still to train has none."""
        work = 0.0
        for trial_id, left in list(self._epochs_left.items()):
            if not left:
                continue
            seconds, count = self._rates.get(models(trial_id) or "", (0.0, 0))
            if not count:
                return None
            work += left * seconds / count
        return work / max(1, len(self.running))


def clock(seconds: float | None) -> str:
    """`1:02:03`, `2:03`, or `–`."""
    if seconds is None:
        return "–"
    minutes, secs = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{secs:02d}" if hours else f"{minutes}:{secs:02d}"


class QuietDisplay:
    """Shows nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return

    def preparing(self, dataset: str) -> Callable[[int, int], None]:
        return lambda done, total: None

    def begin(self, plan: Plan, todo: Collection[PlannedTrial]) -> None:
        return

    def nothing_to_run(self, sweep: str, num_trials: int) -> None:
        return

    def waiting(self, num_held: int) -> None:
        return

    def warn(self, warning: str) -> None:
        return

    def started(self, pack: Pack) -> None:
        return

    def progressed(self, pack: Pack, progress: PackProgress) -> None:
        return

    def ended(self, pack: Pack, committed: int, failed: int) -> None:
        return


class TextDisplay:
    """A live display on a terminal; elsewhere a plain line every `LINE_EVERY_S` seconds, also while no pack reports."""

    def __init__(self, console: Console, *, line_every_s: float = LINE_EVERY_S) -> None:
        self._console = console
        self._line_every_s = line_every_s
        self._state = SweepProgress()
        self._models: dict[str, str] = {}
        self._started = time.monotonic()
        self._last_line = 0.0
        self._note = ""
        self._sweep = ""
        self._live = Live(console=console, get_renderable=self._render, refresh_per_second=4, transient=True)
        self._is_over = threading.Event()
        self._lines = threading.Thread(target=self._keep_telling, name="kd_ray-lines", daemon=True)

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        else:
            self._lines.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()
        self._is_over.set()
        if self._lines.is_alive():
            self._lines.join()

    def _keep_telling(self) -> None:
        while not self._is_over.wait(self._line_every_s):
            if self._sweep:
                self._line()

    def preparing(self, dataset: str) -> Callable[[int, int], None]:
        bar = Progress(
            TextColumn(f"preparing {dataset}"),
            BarColumn(),
            TextColumn("{task.completed:,.0f} / {task.total:,.0f}"),
            TimeElapsedColumn(),
            console=self._console,
        )
        task = bar.add_task("", total=None)

        def update(done: int, total: int) -> None:
            if self._console.is_terminal:
                if done < total:
                    bar.start()
                bar.update(task, completed=done, total=total)
                bar.refresh()
            elif done >= total or time.monotonic() - self._last_line >= self._line_every_s:
                self._last_line = time.monotonic()
                self._console.print(f"preparing {dataset}: {done:,} / {total:,}")
            if done >= total:
                bar.stop()

        return update

    def begin(self, plan: Plan, todo: Collection[PlannedTrial]) -> None:
        self._sweep = plan.sweep
        self._state.begin(plan, todo)
        self._models = {trial.trial_id: trial.spec.model for trial in todo}
        self._started = time.monotonic()
        done = self._state.complete
        if plan.num_dropped:
            self._console.print(plan.dropped(), soft_wrap=True)
        if todo:
            self._console.print(
                f"sweep {plan.sweep}: {count_of(len(plan.trials), 'trial')}, {done} complete, {len(todo)} to run → {plan.store}",
                soft_wrap=True,
                markup=False,
            )

    def nothing_to_run(self, sweep: str, num_trials: int) -> None:
        return

    def waiting(self, num_held: int) -> None:
        self._note = f"waiting for {count_of(num_held, 'trial')} that another launch holds"
        self._line()

    def warn(self, warning: str) -> None:
        self._console.print(cleaned(f"warning: {warning}"), soft_wrap=True, markup=False)

    def started(self, pack: Pack) -> None:
        self._note = ""
        self._state.started(pack)

    def progressed(self, pack: Pack, progress: PackProgress) -> None:
        self._state.progressed(pack, progress)
        self._line()

    def ended(self, pack: Pack, committed: int, failed: int) -> None:
        self._state.ended(pack, committed, failed)
        self._line(force=bool(failed))

    def _line(self, *, force: bool = False) -> None:
        now = time.monotonic()
        if not self._console.is_terminal and (force or now - self._last_line >= self._line_every_s):
            self._last_line = now
            packs = "; ".join(_describe(pack, progress) for pack, progress in list(self._state.running.values()))
            idle = "waiting for a worker" if self._state.pending else "writing the tables"
            self._console.print(
                f"[{clock(now - self._started)}] {self._counts()} | {packs or self._note or idle}",
                soft_wrap=True,
                markup=False,
            )

    def _counts(self) -> str:
        state = self._state
        left = clock(state.seconds_left(self._models.get))
        return (
            f"{state.complete}/{state.total} complete, {state.num_running} running, {state.pending} pending, "
            f"{state.failed} failed, {state.images_per_s:,.0f} images/s, {left} left"
        )

    def _render(self) -> Group:
        table = Table(box=None, pad_edge=False, show_header=bool(self._state.running))
        for name in ("running", "epoch", "accuracy", "images/s"):
            table.add_column(name, justify="left" if name == "running" else "right")
        for pack, progress in list(self._state.running.values()):
            epoch = f"{progress.epoch}/{progress.epochs}" if progress else f"0/{pack.trials[0].spec.epochs}"
            accuracy = f"{progress.accuracy:.1%}" if progress and progress.accuracy is not None else "–"
            speed = f"{progress.images_per_s:,.0f}" if progress else "–"
            table.add_row(_pack_name(pack), epoch, accuracy, speed)
        head = f"{self._sweep} {clock(time.monotonic() - self._started)} · {self._counts()}"
        return Group(head, *([self._note] if self._note else []), table)


def _pack_name(pack: Pack) -> str:
    spec = pack.trials[0].spec
    if len(pack.trials) == 1:
        return spec.describe()
    temperatures = [f"{trial.spec.temperature:g}" for trial in pack.trials if trial.spec.temperature is not None]
    objectives = dict.fromkeys(trial.spec.objective for trial in pack.trials if trial.spec.objective != "kd")
    words = [spec.role.value, spec.model, ",".join(objectives) if spec.distillation else ""]
    words += [f"T={','.join(dict.fromkeys(temperatures))}", f"seed={spec.seed}"]
    return " ".join(word for word in words if word)


def _describe(pack: Pack, progress: PackProgress | None) -> str:
    if progress is None:
        return f"{_pack_name(pack)} starting"
    accuracy = f" {progress.accuracy:.1%}" if progress.accuracy is not None else ""
    return f"{_pack_name(pack)} epoch {progress.epoch}/{progress.epochs}{accuracy}"
