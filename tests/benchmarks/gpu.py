"""What a GPU says: `python -m tests.benchmarks.gpu [--device cpu] [--out FILE] [--budget-s S] [--only STAGE …]`.

The most valuable rows come first; each is printed and appended to FILE as a line of JSON as soon as it is known. No Ray is needed. With
`--device cpu` the same stages run with few images: a rehearsal, whose numbers say nothing about a GPU.
"""

import argparse
import gc
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import nn

from kd_ray.distill import captured
from kd_ray.distill.device import (
    arithmetic_of,
    forget_peak,
    layout_of,
    make_deterministic,
    name_of,
    peak_bytes,
    wait_for,
)
from kd_ray.sweep.training import Precision
from tests.benchmarks import plain
from tests.benchmarks.ours import Race, Teaching, synthetic_images

Row = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """Where, and how much."""

    device: torch.device
    batch_size: int
    steps: int
    """Of an epoch."""
    rounds: int
    workers: int
    """Processes of the plain loop's loader."""
    counts: tuple[int, ...]
    """Students of a pack."""

    def race(self, student: str, count: int = 1, *, size: int = 32, **changes: Any) -> Race:
        """Students of one architecture at `count` temperatures, from ResNet-56."""
        data = synthetic_images(self.batch_size * self.steps, size=size)
        temperatures = tuple(1.0 + place for place in range(count))
        return Race(
            student=student,
            teacher="resnet56",
            data=data,
            temperatures=temperatures,
            batch_size=self.batch_size,
            device=self.device,
            **changes,
        )


def epoch_s(laps: Iterator[object], setting: Setting, *, warm_up: int = 2) -> list[float]:
    """Seconds of each epoch, after some that do not count."""
    seconds = []
    for lap in range(warm_up + setting.rounds):
        wait_for(setting.device)
        started = time.perf_counter()
        next(laps)
        wait_for(setting.device)
        if lap >= warm_up:
            seconds.append(time.perf_counter() - started)
    return seconds


def row_of(work: str, race: Race, seconds: Sequence[float], **more: Any) -> Row:
    """A row about some students that trained for some epochs."""
    count = len(race.temperatures)
    steps = race.num_images // race.batch_size
    return {
        "work": work,
        "students": count,
        "ms per step": round(1000 * median(seconds) / steps, 3),
        "ms per student": round(1000 * median(seconds) / steps / count, 3),
        "images/s": round(count * race.num_images / median(seconds)),
        "spread": [round(min(seconds), 4), round(max(seconds), 4)],
        **more,
    }


@contextmanager
def recorded(*, lanes: int | None) -> Iterator[None]:
    """Within, steps are recorded in so many lanes; None: not at all."""
    before = captured._LANES, captured.can_be_captured
    if lanes is None:
        captured.can_be_captured = lambda students, batch: False
    else:
        captured._LANES = lanes
    try:
        yield
    finally:
        captured._LANES, captured.can_be_captured = before


def ours(race: Race, setting: Setting, work: str, *, teaching: Teaching = "ready", **more: Any) -> Row:
    """Our loop."""
    make_deterministic(1)
    gc.collect()
    if setting.device.type == "cuda":
        torch.cuda.empty_cache()
    forget_peak(setting.device)
    started = time.perf_counter()
    laps = race.ours(teaching, epochs=2 + setting.rounds)
    seconds = epoch_s(laps, setting)
    laps.close()  # type: ignore[attr-defined]
    total_s = round(time.perf_counter() - started, 1)
    peak_mb = round(peak_bytes(setting.device) / 1e6)
    torch.use_deterministic_algorithms(False)
    return row_of(work, race, seconds, teaching=teaching, **{"peak MB": peak_mb, "whole s": total_s}, **more)


def theirs(race: Race, setting: Setting, settings: plain.Settings, *, alone: bool = False, tf32: bool = False) -> Row:
    """The plain loop."""
    with arithmetic_of("tf32" if tf32 else "fp32"):
        torch.backends.cudnn.benchmark = True
        laps = race.plain(settings, alone=alone)
        seconds = epoch_s(laps, setting, warm_up=1)
        laps.close()  # type: ignore[attr-defined]
        torch.backends.cudnn.benchmark = False
    what = "plain loop, without a teacher" if alone else "plain loop"
    return row_of(f"{what} ({settings.describe()}{', tf32' if tf32 else ''})", race, seconds)


def resnet20(setting: Setting) -> Iterator[Row]:
    """Packs of ResNet-20 from ResNet-56."""
    one = setting.race("resnet20")
    yield theirs(one, setting, plain.Settings(channels_last=False, num_workers=setting.workers, waits=False))
    for count in setting.counts:
        yield ours(setting.race("resnet20", count), setting, "recorded")
    yield bare(setting, "resnet20", 10)
    with recorded(lanes=None):
        yield ours(one, setting, "not recorded")
    yield ours(setting.race("resnet20", 10), setting, "recorded, live teacher", teaching="live")
    yield theirs(one, setting, plain.Settings(channels_last=True, num_workers=setting.workers, waits=False))


def lenet5(setting: Setting) -> Iterator[Row]:
    """Packs of LeNet-5 at 32 and 64 pixels."""
    for size in (32, 64):
        one = setting.race("lenet5", size=size)
        if size == 32:
            fair = plain.Settings(channels_last=True, num_workers=setting.workers, waits=False)
            yield theirs(one, setting, fair)
        for count in (1, 10, 64):
            pixels = f", {size} px"
            yield ours(setting.race("lenet5", count, size=size), setting, f"recorded{pixels}")
            if count > 1:
                race = setting.race("lenet5", count, size=size, execution="grouped")
                yield ours(race, setting, f"grouped, recorded{pixels}")


def bare(setting: Setting, name: str, count: int) -> Row:
    """The bound: forward, backward and update of students in one graph on one fixed batch, with neither data nor a teacher."""
    race = setting.race(name, count)
    make_deterministic(1)
    replay = graph_of(setting, [race.network(name) for _ in range(count)], layout=layout_of(setting.device))
    torch.use_deterministic_algorithms(False)
    steps = race.num_images // race.batch_size

    def laps() -> Iterator[None]:
        while True:
            for _ in range(steps):
                replay()
            yield

    return row_of("bare students in one graph", race, epoch_s(laps(), setting))


def graph_of(
    setting: Setting,
    networks: Sequence[nn.Module],
    *,
    layout: torch.memory_format = torch.channels_last,
    bf16: bool = False,
    size: int = 32,
) -> Callable[[], None]:
    """One step of bare students as a call: of a CUDA graph, or plain on a CPU."""
    on_gpu = setting.device.type == "cuda"
    models = [network.to(memory_format=layout).train() for network in networks]
    optimizers = [
        torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9, weight_decay=5e-4, fused=on_gpu or None)
        for model in models
    ]
    shape = (setting.batch_size, 3, size, size)
    images_BCHW = torch.randn(shape, device=setting.device).to(memory_format=layout)
    labels_B = torch.randint(10, (setting.batch_size,), device=setting.device)

    def one(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(setting.device.type, torch.bfloat16, enabled=bf16):
            logits_BC = model(images_BCHW)
        nn.functional.cross_entropy(logits_BC.float(), labels_B).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    tasks = [partial(one, model, optimizer) for model, optimizer in zip(models, optimizers, strict=True)]
    if not on_gpu:

        def in_turn() -> None:
            for task in tasks:
                task()

        return in_turn
    for _ in range(3):
        captured.side_by_side(tasks)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured.side_by_side(tasks)
    return graph.replay


def layouts(setting: Setting) -> Iterator[Row]:
    """What a recorded step of one bare student costs, by layout, arithmetic and determinism; and its slowest kernels."""
    on_gpu = setting.device.type == "cuda"
    for name, size in (("resnet20", 32), ("lenet5", 32), ("lenet5", 64)):
        race = setting.race(name, size=size)
        tried: tuple[tuple[Precision, bool, bool], ...] = (
            ("fp32", True, False),
            ("fp32", False, False),
            ("fp32", True, True),
            ("tf32", True, False),
            ("bf16", True, False),
        )
        for precision, deterministic, chosen in tried:
            row: Row = {
                "work": f"{name}, {size} px, bare step",
                "arithmetic": precision,
                "deterministic": deterministic,
            }
            if chosen:
                row["kernels"] = "the fastest by trial"
            for layout in (torch.channels_last, torch.contiguous_format):
                make_deterministic(1)
                torch.use_deterministic_algorithms(deterministic)
                torch.backends.cudnn.benchmark = chosen
                with arithmetic_of(precision):
                    replay = graph_of(setting, [race.network(name)], layout=layout, bf16=precision == "bf16", size=size)
                    word = "channels last" if layout == torch.channels_last else "contiguous"
                    row[f"{word} ms"] = ms_of(replay, setting)
                    if on_gpu and name == "resnet20" and not chosen and deterministic:
                        yield {"work": f"kernels of {name}, {precision}, {word}", "us": kernels_of(replay)}
                torch.backends.cudnn.benchmark = False
                torch.use_deterministic_algorithms(False)
            yield row
    for layout in (torch.channels_last, torch.contiguous_format):
        make_deterministic(1)
        for count, lanes in ((10, 1), (10, 4), (10, 10)):
            with recorded(lanes=lanes):
                race = setting.race("resnet20")
                replay = graph_of(setting, [race.network("resnet20") for _ in range(count)], layout=layout)
                yield {
                    "work": f"bare ResNet-20, {count} students, {lanes} lanes, {layout}",
                    "ms per student": round(ms_of(replay, setting) / count, 3),
                }
        torch.use_deterministic_algorithms(False)
    for layout in (torch.channels_last, torch.contiguous_format):
        teacher = setting.race("resnet20").network("resnet56").to(memory_format=layout).eval()
        images_BCHW = torch.randn(512 if on_gpu else 8, 3, 32, 32, device=setting.device).to(memory_format=layout)
        with torch.no_grad():
            ms = ms_of(partial(teacher, images_BCHW), setting)
        yield {"work": f"ResNet-56 forward, {len(images_BCHW)} images, {layout}", "ms": ms}


def ms_of(call: Callable[[], object], setting: Setting) -> float:
    """Milliseconds of a call, the median of some repeats."""
    repeats = 30 if setting.device.type == "cuda" else 1
    seconds = []
    for _ in range(4):
        wait_for(setting.device)
        started = time.perf_counter()
        for _ in range(repeats):
            call()
        wait_for(setting.device)
        seconds.append((time.perf_counter() - started) / repeats)
    return round(1000 * median(seconds[1:]), 3)


def kernels_of(call: Callable[[], object], *, most: int = 10) -> dict[str, str]:
    """Time on the GPU and number of starts of the slowest kernels of a call."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call()
        torch.cuda.synchronize()
    events = sorted(profile.key_averages(), key=lambda event: -event.self_device_time_total)
    total_us, number = sum(event.self_device_time_total for event in events), sum(event.count for event in events)
    found = {event.key[:90]: f"{event.self_device_time_total:.0f} ({event.count})" for event in events[:most]}
    return {"all": f"{total_us:.0f} ({number})", **found}


def arithmetics(setting: Setting) -> Iterator[Row]:
    """TF32 and bfloat16 on both sides, and compiled students, which take long to start."""
    fair = plain.Settings(channels_last=True, num_workers=setting.workers, waits=False)
    on_gpu = setting.device.type == "cuda"
    found: tuple[Precision, ...] = ("tf32", "bf16") if on_gpu else ("bf16",)
    for precision in found:
        yield theirs(
            setting.race("resnet20"), setting, replace(fair, bf16=precision == "bf16"), tf32=precision == "tf32"
        )
        for count in (1, 10, 32):
            yield ours(setting.race("resnet20", count, precision=precision), setting, f"recorded, {precision}")
    yield ours(setting.race("resnet20", 10, execution="grouped"), setting, "grouped, recorded")
    if on_gpu:
        yield ours(
            setting.race("resnet20", 10, execution="grouped", precision="bf16"), setting, "grouped, recorded, bf16"
        )
        yield ours(setting.race("resnet20", 10, precision="bf16", compile=True), setting, "recorded, compiled, bf16")


STAGES: dict[str, Callable[[Setting], Iterator[Row]]] = {
    "resnet20": resnet20,
    "lenet5": lenet5,
    "layouts": layouts,
    "arithmetics": arithmetics,
}


def environment(device: torch.device) -> Row:
    """Card, driver and versions."""
    found: Row = {"device": name_of(device), "python": platform.python_version(), "cpus": len(os.sched_getaffinity(0))}
    for name in ("torch", "torchvision", "numpy"):
        found[name] = str(version(name))
    if device.type == "cuda":
        found |= {
            "cuda": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),  # type: ignore[no-untyped-call]
            "memory GB": round(torch.cuda.mem_get_info(device)[1] / 1e9),
            "multiprocessors": torch.cuda.get_device_properties(device).multi_processor_count,
        }
    return found


def main(arguments: Sequence[str]) -> int:
    """Run the stages in order until the budget is spent."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.gpu", description=__doc__)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--out", type=Path, default=Path(tempfile.gettempdir()) / "kd_ray_gpu.jsonl")
    parser.add_argument("--budget-s", type=float, default=480.0)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", action="append", choices=tuple(STAGES))
    chosen = parser.parse_args(arguments)
    started = time.perf_counter()
    device = torch.device(chosen.device)
    on_gpu = device.type == "cuda"
    setting = Setting(
        device=device,
        batch_size=128 if on_gpu else 8,
        steps=40 if on_gpu else 2,
        rounds=chosen.rounds if on_gpu else 1,
        workers=min(12, len(os.sched_getaffinity(0))) if on_gpu else 0,
        counts=(1, 4, 10, 16, 32) if on_gpu else (1,),
    )

    def say(row: Row) -> None:
        line = json.dumps({"at s": round(time.perf_counter() - started, 1), **row})
        print(line, flush=True)
        with chosen.out.open("a") as stream:
            stream.write(line + "\n")

    say(environment(device))
    for name in chosen.only or STAGES:
        rows = STAGES[name](setting)
        while time.perf_counter() - started < chosen.budget_s:
            try:
                row = next(rows)
            except StopIteration:
                break
            except Exception as error:  # noqa: BLE001 (the next stage may still have something to say)
                say({"stage": name, "error": f"{type(error).__name__}: {error}"[:600]})
                break
            say({"stage": name, **row})
        else:
            say({"stage": name, "error": f"the budget of {chosen.budget_s:.0f} s is spent"})
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
