"""Whole commands and whole sweeps, for `speed.py`."""

import os
import tempfile
from pathlib import Path
from statistics import median

from tests.benchmarks import many as many_trials
from tests.benchmarks import whole
from tests.benchmarks.laps import ratio
from tests.benchmarks.rows import Options, Row, timed


def startup(options: Options) -> list[Row]:
    """Commands as whole processes."""
    with tempfile.TemporaryDirectory(prefix="kd_ray_speed_") as folder:
        whole.help_seconds()
        rounds = [(whole.help_seconds(), whole.plan_seconds(Path(folder))) for _ in range(options.rounds)]
    helps, plans = zip(*rounds, strict=True)
    return [
        timed("`kd-ray --help`", helps, 0.3),
        timed(f"`kd-ray plan` of {whole.PLANNED_TRIALS:,} trials", plans, 2.0),
    ]


def memory(options: Options) -> list[Row]:
    """Worker processes side by side."""
    del options
    rows = []
    with tempfile.TemporaryDirectory(prefix="kd_ray_speed_") as folder:
        version_id = whole.write_cifar10(Path(folder))
        for workers in (1, 2, 4):
            found = whole.memory_mb(Path(folder), version_id, workers)
            work = f"memory per worker with CIFAR-10 loaded, {workers} workers"
            rows.append(Row(work=work, found=f"{found['Pss']:,.0f} MB PSS, {found['Rss']:,.0f} MB RSS"))
    return rows


def sweep(options: Options) -> list[Row]:
    """The quick sweep from launch to tables on all cores, against its trials one after another."""
    forms = {"": (), ", grouped": ("training.execution=grouped",)}
    laps: dict[str, list[float]] = {form: [] for form in (*forms, "plain")}
    with tempfile.TemporaryDirectory(prefix="kd_ray_speed_") as folder:
        data_root = Path(folder) / "data"
        whole.draw_data(whole.QUICK, data_root)
        # The plain loop may use all cores too, through torch's threads.
        choices = sorted({1, os.cpu_count() or 1})
        first = {threads: whole.plain_sweep_seconds(whole.QUICK, data_root, threads, trials=2) for threads in choices}
        threads = min(first, key=lambda choice: first[choice])
        for _ in range(options.rounds):
            for form, overrides in forms.items():
                laps[form].append(whole.our_sweep_seconds(whole.QUICK, data_root, Path(folder), *overrides))
            laps["plain"].append(whole.plain_sweep_seconds(whole.QUICK, data_root, threads))
    theirs = laps["plain"]
    found = {form: ratio(theirs, laps[form]) for form in forms}
    return [
        Row(
            work=f"the quick sweep end to end, Ray and tables included{form}",
            against=f"its trials with plain loops in one process ({threads} threads)",
            ours=f"{median(laps[form]):.0f} s",
            theirs=f"{median(theirs):.0f} s",
            found=f"{found[form]} ×",
            target="≥ 3 ×",
            met=found[form].median >= 3.0,
        )
        for form in forms
    ]


def repeat(options: Options) -> list[Row]:
    """A sweep of one seed more than the store has: from the command to the first report of training."""
    with tempfile.TemporaryDirectory(prefix="kd_ray_speed_") as folder:
        data_root, store = Path(folder) / "data", Path(folder) / "store"
        begins = [
            whole.repeated_sweep_seconds(whole.QUICK, data_root, store, range(seeds))
            for seeds in range(1, options.rounds + 2)
        ]
    work = "a sweep that is launched again with one seed more: from the command to the first report of a pack"
    return [timed(work, begins[1:], 5.0)]


def many(options: Options) -> list[Row]:
    """A sweep of 105 trials, once: the share of the cores' time that is training."""
    with tempfile.TemporaryDirectory(prefix="kd_ray_speed_") as folder:
        found = many_trials.launch_many(Path(folder), epochs=options.epochs)
    return [
        Row(
            work=f"a sweep of {found.trials} trials from launch to last table: training as a share of the cores' time",
            against=f"{found.wall_s:.0f} s × {os.cpu_count()} cores",
            ours=f"{found.training_s:.0f} s",
            found=f"{100 * found.share:.0f} %",
            target="≥ 90 %",
            met=found.share >= 0.9,
        )
    ]
