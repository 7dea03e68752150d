"""Where the time of one of our epochs goes: the parts of a step, each wrapped in a clock."""

import functools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import torch

from kd_ray.distill import batches as stream
from kd_ray.distill import fit
from tests.benchmarks.laps import Clock
from tests.benchmarks.ours import Race, Teaching, epochs_of, synthetic_images

PARTS = (
    "draw, data, augmentation",
    "teacher's logits",
    "student forward",
    "loss",
    "backward",
    "optimiser",
    "sums, bookkeeping",
)
"""In the order of a step; the last is what no clock sees."""


class Clocks:
    """Seconds in each part since the last reset; parts do not nest."""

    def __init__(self, now: Clock) -> None:
        self.now = now
        self.seconds: dict[str, float] = {}

    def wrapped(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """The function, with a clock around it."""

        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            started = self.now()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[part] = self.seconds.get(part, 0.0) + self.now() - started

        return timed

    @contextmanager
    def around(self, owner: Any, name: str, part: str) -> Iterator[None]:
        """Within, `owner.name` has a clock around it."""
        original = getattr(owner, name)
        setattr(owner, name, self.wrapped(part, original))
        try:
            yield
        finally:
            setattr(owner, name, original)

    @contextmanager
    def around_steps(self, owner: Any, name: str, part: str) -> Iterator[None]:
        """Within, the steps of the iterator that `owner.name` returns have a clock around them."""
        original = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Iterator[Any]:
            steps = original(*args, **kwargs)
            following = self.wrapped(part, lambda: next(steps, None))
            while (value := following()) is not None:
                yield value

        setattr(owner, name, timed)
        try:
            yield
        finally:
            setattr(owner, name, original)


def ms_per_step(race: Race, teaching: Teaching, *, rounds: int, clock: Clock = time.perf_counter) -> dict[str, float]:
    """Milliseconds of each part in one step of the pack: medians over epochs after the first."""
    clocks = Clocks(clock)
    samples: list[dict[str, float]] = []
    torch.use_deterministic_algorithms(True)
    with ExitStack() as stack, ThreadPoolExecutor(1) as background:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kd_ray_speed_")))
        teacher = race.our_teacher(teaching, folder, background, epochs=1 + rounds)
        students = race.students()
        for name in ("prepare", "logits"):
            stack.enter_context(clocks.around(teacher, name, "teacher's logits"))
        stack.enter_context(clocks.around(type(race.resident.train), "inputs", "draw, data, augmentation"))
        stack.enter_context(clocks.around(fit, "draw_of", "draw, data, augmentation"))
        stack.enter_context(clocks.around(torch.Tensor, "backward", "backward"))
        for student in students:
            stack.enter_context(clocks.around(student, "loss", "loss"))
            stack.enter_context(clocks.around(student.model, "forward", "student forward"))
            stack.enter_context(clocks.around(student.optimizer, "step", "optimiser"))
            stack.enter_context(clocks.around(student.optimizer, "zero_grad", "optimiser"))
        epochs = epochs_of(students, teacher, race.resident)
        for _ in range(1 + rounds):
            clocks.seconds = {}
            started = clock()
            next(epochs)
            total = clock() - started
            samples.append({**clocks.seconds, "total": total, PARTS[-1]: total - sum(clocks.seconds.values())})
    torch.use_deterministic_algorithms(False)
    steps = stream.steps_per_epoch(race.num_images, race.batch_size)
    return {part: 1000 * median(sample.get(part, 0.0) for sample in samples[1:]) / steps for part in (*PARTS, "total")}


def table(columns: Sequence[tuple[str, dict[str, float]]]) -> str:
    """Milliseconds per step, and shares, as Markdown."""
    lines = [
        "| part of a step | " + " | ".join(f"{name}, ms | %" for name, _ in columns) + " |",
        "|:---|" + "---:|---:|" * len(columns),
    ]
    for part in (*PARTS, "total"):
        cells = (f"{ms[part]:.2f} | {100 * ms[part] / ms['total']:.1f}" for _, ms in columns)
        lines.append(f"| {part} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def augmentation_ms(
    num_images: int, *, batch_size: int = 64, calls: int = 60, clock: Clock = time.perf_counter
) -> float:
    """One batch of augmented images from a set of so many: does the size of the set matter?"""
    race = Race(student="lenet5", teacher="lenet5", data=synthetic_images(num_images))
    laps: list[float] = []
    while len(laps) < calls:
        draw = stream.epoch_draw(num_images, "crop_flip", seed=0, epoch=len(laps))
        batches = stream.batches(race.resident.train, draw, batch_size=batch_size)
        for _ in range(min(calls, num_images // batch_size)):
            started = clock()
            next(batches)
            laps.append(1000 * (clock() - started))
    return median(laps)
