"""How fast we train against a plain loop, as ratios inside one run: `python -m tests.benchmarks.speed [--only NAME …] [--long]`.

Contestants take turns epoch by epoch, so that the noise of the machine meets all of them; a ratio is the median over the rounds. One
thread, float32, batches of 64, images of CIFAR-10's shape. The plain loop (`plain.py`) has the fastest settings that a short probe finds.
`--long` adds whole sweeps and accuracies on real images, which take many minutes.
"""

import argparse
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from itertools import islice
from pathlib import Path
from statistics import mean, median
from typing import get_args

import torch

from kd_ray.data.image_data import ImageData
from tests.benchmarks import agreement, launches, plain, texts, where
from tests.benchmarks import many as many_trials
from tests.benchmarks.laps import Contestant, ratio, take_turns
from tests.benchmarks.ours import Execution, Race
from tests.benchmarks.rows import Options, Row, compared

TEMPERATURES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)
AS_WRITTEN = plain.Settings(channels_last=False, num_workers=0)
"""What stands in most scripts."""
_CIFAR10_SIZE = 50_000
_PROBE_STEPS = 6


def resnet20(options: Options) -> list[Row]:
    """One ResNet-20 that learns from ResNet-56."""
    settings = fastest_plain("resnet20", options)
    race = Race(student="resnet20", teacher="resnet56", data=options.images(options.steps))
    laps = take_turns(
        {
            "plain": Contestant(laps=race.plain(settings), deterministic=False),
            "ready": Contestant(laps=race.ours("ready", epochs=1 + options.rounds), deterministic=True),
            "alone": Contestant(laps=race.student_alone(), deterministic=False),
            "as written": Contestant(laps=race.plain(AS_WRITTEN), deterministic=False),
            "live": Contestant(laps=race.ours("live", epochs=0), deterministic=True),
            "cold": Contestant(laps=race.ours("cold", epochs=0), deterministic=True),
        },
        rounds=options.rounds,
        clock=options.clock,
    )
    work, fair = "ResNet-20 from ResNet-56", f"plain loop ({settings.describe()})"
    told = f"plain loop as mostly written ({AS_WRITTEN.describe()})"
    return [
        compared(f"{work}, table ready", fair, race, laps["ready"], laps["plain"], 2.2),
        compared(f"{work}, table ready", told, race, laps["ready"], laps["as written"], 2.2),
        compared(f"{work}, table cold (first epoch)", fair, race, laps["cold"], laps["plain"], 1.0),
        compared(f"{work}, live teacher", fair, race, laps["live"], laps["plain"], 1.0),
        compared(f"{work}, table ready", "the student alone, one fixed batch", race, laps["ready"], laps["alone"], 0.9),
    ]


def packs(options: Options) -> list[Row]:
    """Eight temperatures of ResNet-20 in one pack."""
    settings = fastest_plain("resnet20", options)
    race = _eight("resnet20", options.images(options.steps // 3))
    laps = take_turns(
        {
            "plain": Contestant(laps=race.plain(settings), deterministic=False),
            "ours": Contestant(laps=race.ours("ready", epochs=1 + options.rounds), deterministic=True),
            "live": Contestant(laps=race.ours("live", epochs=0), deterministic=True),
        },
        rounds=options.rounds,
        clock=options.clock,
    )
    work, against = "8 × ResNet-20 from ResNet-56, loop", f"8 × the time of one plain loop ({settings.describe()})"
    return [
        compared(f"{work}, table ready", against, race, laps["ours"], laps["plain"], 2.5),
        compared(f"{work}, live teacher", against, race, laps["live"], laps["plain"], 1.0),
    ]


def lenet5(options: Options) -> list[Row]:
    """Eight temperatures of LeNet-5 in one pack, as a loop and grouped, from a small teacher and from a large one."""
    return [*_lenet5("resnet20", options), *_lenet5("resnet56", options)]


def _lenet5(teacher: str, options: Options) -> list[Row]:
    settings = fastest_plain("lenet5", options, teacher=teacher)
    data = options.images(options.steps)
    race = _eight("lenet5", data, teacher=teacher)
    contestants = {
        "plain": Contestant(laps=race.plain(settings), deterministic=False),
        "loop": Contestant(laps=race.ours("ready", epochs=1 + options.rounds), deterministic=True),
        "live": Contestant(laps=race.ours("live", epochs=0), deterministic=True),
    }
    grouped = _eight("lenet5", data, teacher=teacher, execution="grouped")
    contestants["grouped"] = Contestant(laps=grouped.ours("ready", epochs=1 + options.rounds), deterministic=True)
    laps = take_turns(contestants, rounds=options.rounds, clock=options.clock)
    work = f"8 × LeNet-5 from ResNet-{teacher.removeprefix('resnet')}"
    against = f"8 × the time of one plain loop ({settings.describe()})"
    rows = [
        compared(f"{work}, loop, table ready", against, race, laps["loop"], laps["plain"], 4.0),
        compared(f"{work}, loop, live teacher", against, race, laps["live"], laps["plain"], 1.0),
    ]
    return [*rows, compared(f"{work}, grouped, table ready", against, race, laps["grouped"], laps["plain"], 7.0)]


def _eight(student: str, data: ImageData, *, teacher: str = "resnet56", execution: Execution = "loop") -> Race:
    return Race(student=student, teacher=teacher, data=data, temperatures=TEMPERATURES, execution=execution)


def fastest_plain(student: str, options: Options, *, teacher: str = "resnet56") -> plain.Settings:
    """The settings a user of the plain loop would end up with."""
    race = Race(student=student, teacher=teacher, data=options.images(_PROBE_STEPS))
    # Processes of the loader do not show in the CPU time of this one.
    most_workers = 2 if options.clock is time.perf_counter else 0
    return plain.fastest_settings(race.plain, most_workers=most_workers, clock=options.clock)


def grouped(options: Options) -> list[Row]:
    """LeNet-5 with AdamW, as one network and one after another, with one thread and with two."""
    rows = []
    data = options.images(options.steps)
    for threads in (1, 2):
        torch.set_num_threads(threads)
        for count in (5, 10):
            temperatures = tuple(float(1 + place) for place in range(count))
            races = {
                execution: Race(
                    student="lenet5",
                    teacher="resnet20",
                    data=data,
                    temperatures=temperatures,
                    batch_size=32,
                    execution=execution,
                    optimizer={"name": "adamw", "lr": 1e-4},
                )
                for execution in get_args(Execution)
            }
            laps = take_turns(
                {
                    name: Contestant(laps=race.ours("ready", epochs=1 + options.rounds), deterministic=True)
                    for name, race in races.items()
                },
                rounds=options.rounds,
                clock=options.clock,
            )
            images = count * races["loop"].num_images
            rows.append(
                Row(
                    work=f"{count} × LeNet-5, AdamW, batches of 32, grouped, table ready, {threads} threads",
                    against="the same students in a loop",
                    ours=f"{images / median(laps['grouped']):,.0f}",
                    theirs=f"{images / median(laps['loop']):,.0f}",
                    found=f"{ratio(laps['loop'], laps['grouped'])} ×",
                )
            )
    torch.set_num_threads(1)
    return rows


def agree(options: Options) -> list[Row]:
    """Accuracy on real images, five seeds each."""
    if options.data_root is None or options.teacher is None:
        raise SystemExit("--only agree needs --data-root and --teacher")
    data, teacher = agreement.cifar10_images(options.data_root), agreement.teacher_of(options.teacher)
    found = agreement.compare(data, teacher, student="resnet20", epochs=8, seeds=range(options.rounds))
    low, high = found.interval
    return [
        Row(
            work=f"test accuracy of ResNet-20 from ResNet-56, 8 epochs of {len(data.train):,} images, "
            f"{len(data.test):,} to test, {options.rounds} seeds each",
            against="plain loop",
            ours=f"{100 * mean(found.ours):.1f} %",
            theirs=f"{100 * mean(found.theirs):.1f} %",
            found=f"{100 * found.difference:+.1f} points (95 %: {100 * low:+.1f} to {100 * high:+.1f}, Welch p = {found.p:.2f})",
            target="the interval holds 0",
            met=low <= 0 <= high,
        )
    ]


def profile(options: Options) -> str:
    """Where the time of a step goes, as a second table."""
    one = Race(student="resnet20", teacher="resnet56", data=options.images(options.steps))
    few = Race(student="lenet5", teacher="resnet56", data=one.data)
    eight = _eight("lenet5", one.data)
    columns = [
        ("ResNet-20, table ready", where.ms_per_step(one, "ready", rounds=options.rounds, clock=options.clock)),
        ("ResNet-20, live", where.ms_per_step(one, "live", rounds=options.rounds, clock=options.clock)),
        ("LeNet-5, table ready", where.ms_per_step(few, "ready", rounds=options.rounds, clock=options.clock)),
        ("8 × LeNet-5, table ready", where.ms_per_step(eight, "ready", rounds=options.rounds, clock=options.clock)),
    ]
    with tempfile.TemporaryDirectory(prefix="kd_ray_speed_") as folder:
        parts = many_trials.seconds_of_parts(Path(folder), epochs=options.epochs)
    small, large = (where.augmentation_ms(count, clock=options.clock) for count in (one.num_images, _CIFAR10_SIZE))
    return (
        f"{where.table(columns)}\n\nOne batch of augmented images: {small:.2f} ms from {one.num_images:,} images, "
        f"{large:.2f} ms from {_CIFAR10_SIZE:,}.\n\n"
        f"One seed of the sweep of `many.py` ({options.epochs} epochs, 21 trials) in one process:\n\n"
        f"{many_trials.table(parts)}"
    )


def of_texts(options: Options) -> list[Row]:
    """Two and three of the six layers of a BERT of 384 units learn from all."""
    rows = []
    for name, layers in (("2", (1, 4)), ("3", (0, 2, 4))):
        steps = max(2, options.steps // 4)
        laps = texts.race(layers, rounds=options.rounds, steps=steps, clock=options.clock)
        count = texts.BATCH * steps
        for ours, theirs, work, against, least in (
            ("ready", "plain", "table ready", "plain loop (padded to the longest of a batch)", 1.8),
            ("ready", "as written", "table ready", f"plain loop as mostly written (padded to {texts.MAX_LENGTH})", 1.8),
            ("cold", "plain", "table cold (first epoch)", "plain loop (padded to the longest of a batch)", 1.0),
        ):
            found = ratio(laps[theirs], laps[ours])
            rows.append(
                Row(
                    work=f"{name} of 6 layers of a small BERT, texts, {work}",
                    against=against,
                    ours=f"{count / median(laps[ours]):,.0f}",
                    theirs=f"{count / median(laps[theirs]):,.0f}",
                    found=f"{found} ×",
                    target=f"≥ {least:g} ×",
                    met=found.median >= least,
                )
            )
    return rows


ROWS: dict[str, Callable[[Options], list[Row]]] = {
    "texts": of_texts,
    "resnet20": resnet20,
    "packs": packs,
    "lenet5": lenet5,
    "grouped": grouped,
    "startup": launches.startup,
    "memory": launches.memory,
    "sweep": launches.sweep,
    "repeat": launches.repeat,
    "many": launches.many,
    "agree": agree,
}
"""Benchmarks with lines in the table, by name."""
LONG = ("sweep", "repeat", "many", "agree")
"""Left out unless asked for."""


def environment() -> str:
    """Hardware and versions."""
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "numpy", "ray"))
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} CPUs ({cpu_name()}, {torch.backends.cpu.get_cpu_capability()}), {memory_gib:.0f} GiB, "
        f"Python {platform.python_version()}, {packages}"
    )


def cpu_name() -> str:
    """Of the first core, as Linux tells it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(islice(names, 1), platform.processor())


HEAD = (
    "| work | against | ours, images/s | theirs, images/s | median (smallest to largest) | target | met |\n"
    "|:---|:---|---:|---:|:---|---:|:---|"
)


def main() -> None:
    """Measure, and print the tables."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", maxsplit=1)[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=30, help="steps of an epoch")
    parser.add_argument("--only", action="append", choices=[*ROWS, "profile"], help="may be given several times")
    parser.add_argument("--epochs", type=int, default=30, help="of the students of the sweep of 105 trials")
    parser.add_argument("--long", action="store_true", help="whole sweeps and accuracies too")
    parser.add_argument("--teacher", type=Path, help="weights of a ResNet-56 for CIFAR-10, for the accuracies")
    parser.add_argument("--data-root", type=Path, help="folder with cifar-10-batches-py; left out, images are random")
    parser.add_argument("--cpu-time", action="store_true", help="count CPU seconds of training: for a shared machine")
    chosen = parser.parse_args()
    clock = time.process_time if chosen.cpu_time else time.perf_counter
    options = Options(
        rounds=chosen.rounds,
        steps=chosen.steps,
        epochs=chosen.epochs,
        data_root=chosen.data_root,
        teacher=chosen.teacher,
        clock=clock,
    )
    names = chosen.only or [name for name in [*ROWS, "profile"] if chosen.long or name not in LONG]
    torch.set_num_threads(1)
    started = f"{environment()}; 1 thread, n = {options.rounds} rounds of {options.steps} steps, median"
    started += ", CPU time" if chosen.cpu_time else ", wall time"
    sys.stdout.write(f"{started}\n\n")
    rows = [row for name in names if name in ROWS for row in _measured(name, options)]
    if rows:
        sys.stdout.write("\n".join([HEAD, *map(str, rows)]) + "\n\n")
    if "profile" in names:
        sys.stdout.write(profile(options) + "\n")


def _measured(name: str, options: Options) -> list[Row]:
    rows = ROWS[name](options)
    sys.stderr.write("\n".join(map(str, rows)) + "\n")
    return rows


if __name__ == "__main__":
    main()
