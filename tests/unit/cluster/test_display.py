"""What a launch shows: lines where there is no terminal, also while no pack reports, and the time that is left."""

import io
import threading

import pytest
from rich.console import Console

from kd_ray.cluster.display import SweepProgress, TextDisplay
from kd_ray.distill.worker_protocol import PackProgress
from kd_ray.results.launch_plan import plan
from kd_ray.results.store import Store
from kd_ray.sweep.packs import make_packs
from tests.fakes import make_sweep


class Told(io.StringIO):
    """Text that wakes who waits for it."""

    def __init__(self, awaited: str) -> None:
        super().__init__()
        self._awaited = awaited
        self.is_told = threading.Event()

    def write(self, text: str) -> int:
        if self._awaited in text:
            self.is_told.set()
        return super().write(text)


@pytest.mark.parametrize("awaited", ["6 pending, 0 failed, 0 images/s, – left | waiting for a worker"])
def test_lines_come_also_while_no_pack_reports(store: Store, awaited: str) -> None:
    """Guard: where workers start slowly, a launch said nothing for minutes."""
    told = Told(awaited)
    planned = plan(make_sweep(overrides=["grid.temperature=[4]"]), store)
    with TextDisplay(Console(file=told, width=200), line_every_s=0.01) as display:
        display.begin(planned, planned.planned)
        assert told.is_told.wait(30), told.getvalue()
    assert not [it for it in threading.enumerate() if it.name == "kd_ray-lines"]


class Sweep:
    """A teacher with 3 epochs and students with 5, whose packs report at given times."""

    def __init__(self) -> None:
        file = make_sweep(
            overrides=(
                "teacher.training={epochs: 3, batch_size: 16, optimizer: {lr: 0.1}, schedule: {name: constant}}",
                "training.epochs=5",
                "grid={seed: [0], temperature: [1, 4]}",
            )
        )
        found = plan(file, None)
        self.seconds = 0.0
        self.progress = SweepProgress(lambda: self.seconds)
        self.progress.begin(found, found.planned)
        self.models = {trial.trial_id: trial.spec.model for trial in found.planned}
        self.packs = make_packs(found.planned, pack_size=8)

    def report(self, pack: int, epoch: int, at_s: float) -> float | None:
        """The estimate after a report."""
        self.seconds = at_s
        self.progress.progressed(self.packs[pack], PackProgress(epoch=epoch, epochs=5))
        return self.progress.seconds_left(self.models.get)


def test_time_left_leaves_the_first_epoch_out_and_waits_for_every_model() -> None:
    sweep = Sweep()
    teacher, _, scratch = sweep.packs
    assert [len(pack.trials) for pack in sweep.packs] == [1, 2, 1]
    assert sweep.progress.seconds_left(sweep.models.get) is None
    sweep.progress.started(teacher)
    sweep.progress.started(scratch)
    # Both begin slowly; no student has shown a whole epoch after its first one.
    assert sweep.report(0, 0, 5) is None
    assert sweep.report(2, 0, 6) is None
    assert sweep.report(0, 1, 100) is None
    assert sweep.report(2, 1, 106) is None
    assert sweep.report(0, 2, 110) is None
    # 10 s for the teacher's last epoch; 2 s for each of 3 epochs of the scratch student and 5 of two distilled ones; two packs at once.
    assert sweep.report(2, 2, 108) == (10 + 2 * (3 + 10)) / 2


def test_a_finished_model_needs_no_rate() -> None:
    sweep = Sweep()
    teacher, distilled, _ = sweep.packs
    sweep.progress.started(teacher)
    sweep.progress.ended(teacher, 1, 0)
    sweep.progress.started(distilled)
    for epoch, at_s in ((0, 0.0), (1, 50.0)):
        assert sweep.report(1, epoch, at_s) is None
    # Two students take 4 s for an epoch of both: 2 s each for the 3 epochs that are left, and for 5 of the scratch student.
    assert sweep.report(1, 2, 54.0) == 2 * (3 + 3 + 5)
