"""What must not become slow unnoticed: counts of operations, and ratios inside one run, far below what is usual, the best of a few rounds.
CPU time, because CI shares its cores.

How fast it is, `python -m tests.benchmarks.speed` tells.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.benchmarks import plain
from tests.benchmarks.laps import Contestant, ratio, take_turns
from tests.benchmarks.ours import Race, synthetic_images

pytestmark = pytest.mark.alone

ROUNDS = 4
TEMPERATURES = (1.0, 2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0)


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.long
def test_one_student_with_a_ready_table_outruns_the_plain_loop() -> None:
    race = Race(student="resnet20", teacher="resnet56", data=synthetic_images(4 * 64))
    settings = plain.Settings(channels_last=True, num_workers=0)
    laps = take_turns(
        {
            "plain": Contestant(laps=race.plain(settings), deterministic=False),
            "ours": Contestant(laps=race.ours("ready", epochs=1 + ROUNDS), deterministic=True),
        },
        rounds=ROUNDS,
        clock=time.process_time,
    )
    assert ratio(laps["plain"], laps["ours"]).best >= 1.3


def test_eight_grouped_students_take_a_fifth_of_the_operations_of_a_loop_and_less_time() -> None:
    data = synthetic_images(8 * 64)
    loop = Race(student="lenet5", teacher="lenet5", data=data, temperatures=TEMPERATURES)
    grouped = Race(student="lenet5", teacher="lenet5", data=data, temperatures=TEMPERATURES, execution="grouped")
    assert operations_of_an_epoch(loop) >= 5 * operations_of_an_epoch(grouped)
    laps = take_turns(
        {
            "loop": Contestant(laps=loop.ours("ready", epochs=1 + ROUNDS), deterministic=True),
            "grouped": Contestant(laps=grouped.ours("ready", epochs=1 + ROUNDS), deterministic=True),
        },
        rounds=ROUNDS,
        clock=time.process_time,
    )
    # What a saved operation is worth follows the machine: the loop took 1.18 to 1.55 times as long.
    assert ratio(laps["loop"], laps["grouped"]).best > 1.0


def operations_of_an_epoch(race: Race) -> int:
    """Operations of torch that the second epoch takes; the same on every machine."""
    laps = race.ours("ready", epochs=2)
    next(laps)
    operations = Operations()
    with operations:
        next(laps)
    return operations.count


class Operations(TorchDispatchMode):
    """Counts operations of torch, those of the backward pass included."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        self.count += 1
        return func(*args, **(kwargs or {}))
