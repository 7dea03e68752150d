"""What a launch shows where there is no terminal."""

import io
import threading

import pytest
from rich.console import Console

from kd_ray.cluster.display import TextDisplay
from kd_ray.results.status import plan
from kd_ray.results.store import Store
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
