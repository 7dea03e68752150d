"""What a step of each objective takes against one of plain `kd`: `python -m tests.benchmarks.objectives [--rounds N] [--steps N]`.

Contestants take turns epoch by epoch in one process, as in `speed.py`; a ratio is the median over the rounds. Random images of CIFAR-10's
shape, batches of 64, one thread, float32, the teacher's logits from a ready table. With `--only NAME` (also more than once) some of them.
"""

import argparse
import platform
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from kd_ray.distill.fit import fit
from kd_ray.distill.objective_background import background_of, teacher_for
from kd_ray.distill.student import new_student, source_of_logits
from kd_ray.distill.teacher import Teacher
from kd_ray.groups import Groups
from kd_ray.sweep.distillation import Distillation
from tests.benchmarks.laps import Clock, Contestant, ratio, take_turns
from tests.benchmarks.ours import CPU, Race, synthetic_images

_SOFT = {"temperature": 4.0, "alpha": 0.9, "t_squared": True}
_ATTACK = {"epsilon": 0.031, "step_size": 0.01, "steps": 5}
CONTESTANTS: dict[str, dict[str, Any]] = {
    "kd": _SOFT,
    "kd again": _SOFT,
    "kd_shuffled": _SOFT,
    "label_smoothing": {"smoothing": 0.1},
    "scratch_long": {},
    "dkd": _SOFT,
    "logit_standardization": _SOFT,
    "ltkd": _SOFT,
    "kd_pt": _SOFT,
    "kd_sim": _SOFT,
    "kd_topk": _SOFT | {"k": 3},
    "iad": _SOFT,
    "iad, attack of 5 steps": _SOFT | {"attack": _ATTACK},
    "kd_groups": _SOFT | {"feature": "kind"},
    "adversarial": _SOFT | {"feature": "kind"},
    "adversarial, equalized odds": _SOFT | {"feature": "kind", "criterion": "equalized_odds"},
    "ada_alpha": _SOFT,
    "ada_margin": _SOFT,
}
"""Settings by what the table calls them: the objective's name, and what tells it apart. The second `kd` shows what is noise."""


def settings_of(name: str) -> Distillation:
    """The settings of a contestant."""
    adapter: TypeAdapter[Distillation] = TypeAdapter(Distillation)
    return adapter.validate_python({"objective": name.replace(",", " ").split()[0], **CONTESTANTS[name]})


def laps_of(name: str, race: Race, teacher: Teacher) -> Iterator[None]:
    """One student with this objective; a step is an epoch."""
    settings = settings_of(name)
    random = np.random.default_rng(0)
    groups = Groups.from_codes(random.integers(0, 4, race.num_images), ["a", "b", "c", "d"])
    data = replace(race.resident, validation=race.resident.test, sensitive_features={"kind": groups})
    plain = race.students()[0].spec
    spec = plain.model_copy(
        update={"distillation": settings, "teacher": plain.teacher if settings.NEEDS_TEACHER else None}
    )
    background = background_of(settings, teacher, data) if settings.NEEDS_TEACHER else None
    student = new_student(spec, race.training, data, CPU, None, background)
    source = source_of_logits(spec)
    teachers = {source: teacher_for(spec, teacher, data.train)} if source else {}

    def fail(_: object, error: Exception) -> None:
        raise error

    for progress in fit([student], teachers, replace(data, validation=None), on_failure=fail):
        if progress.end_of_epoch:
            yield


def measure(names: list[str], student: str, *, steps: int, rounds: int, clock: Clock) -> None:
    """Print a row for each contestant."""
    race = Race(student=student, teacher="resnet20", data=synthetic_images(64 * steps))
    with ExitStack() as stack:
        folder = stack.enter_context(TemporaryDirectory(prefix="kd_ray_speed_"))
        background = stack.enter_context(ThreadPoolExecutor(1))
        teacher = race.our_teacher("ready", Path(folder), background, epochs=2 + rounds)
        contestants = {
            name: Contestant(laps=laps_of(name, race, teacher), deterministic=True) for name in ["kd", *names]
        }
        laps = take_turns(contestants, rounds=rounds, clock=clock)
    for name in names:
        found = ratio(laps[name], laps["kd"])
        print(f"| {student} | `{name}` | {found} × |", flush=True)


def main() -> None:
    """Read the options and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", action="append", choices=[name for name in CONTESTANTS if name != "kd"])
    parser.add_argument("--student", action="append", choices=["lenet5", "resnet20"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--cpu-time", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    clock = time.process_time if options.cpu_time else time.perf_counter
    what = "CPU time" if options.cpu_time else "wall time"
    print(
        f"{platform.processor() or platform.machine()}, torch {torch.__version__}, 1 thread, {what}; n = {options.rounds} rounds"
    )
    print("| student | objective | time of an epoch over that of `kd` |\n|:---|:---|:---|")
    names = options.only or [name for name in CONTESTANTS if name != "kd"]
    for student in options.student or ["resnet20", "lenet5"]:
        measure(names, student, steps=options.steps, rounds=options.rounds, clock=clock)


if __name__ == "__main__":
    main()
