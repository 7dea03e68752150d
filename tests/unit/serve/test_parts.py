"""The parts below the pages: what is kept, where trials stand, axes, scales, pace and words."""

import asyncio
import math
import threading
from datetime import UTC, datetime, timedelta

import pytest

from kd_ray.errors import StoreError
from kd_ray.results.query import Results
from kd_ray.results.status import TrialLine
from kd_ray.results.store import Store
from kd_ray.serve import charts
from kd_ray.serve.chart_layout import axis_names, lay_out
from kd_ray.serve.csv_text import csv_text
from kd_ray.serve.kept import FRESH_S, SHARE, STALE_S, Kept, KeptByName
from kd_ray.serve.render import Templates, ago, count, duration
from kd_ray.serve.snapshot import Place, SweepNow, place_of, running_packs, take_snapshot
from tests.fakes import make_spec
from tests.unit.analysis.report.made import make_study

# --- kept values ----------------------------------------------------------------------------------------------------------------------


class Clock:
    """A clock that a test sets."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_value_is_read_once_for_all_who_ask_together() -> None:
    reads: list[None] = []
    gate = threading.Event()

    def read(before: int | None) -> int:
        reads.append(None)
        gate.wait(10)
        return len(reads)

    async def run() -> list[int]:
        kept = Kept(read)
        asking = [asyncio.create_task(kept.get()) for _ in range(20)]
        await asyncio.sleep(0)
        gate.set()
        return list(await asyncio.gather(*asking))

    assert asyncio.run(run()) == [1] * 20


def test_value_is_kept_while_fresh_shown_while_read_again_and_waited_for_when_stale() -> None:
    clock = Clock()
    versions: list[int | None] = []

    def read(before: int | None) -> int:
        versions.append(before)
        return len(versions)

    async def run() -> list[int]:
        kept = Kept(read, clock=clock)
        found = [await kept.get()]
        clock.now += FRESH_S - 0.1
        found.append(await kept.get())
        clock.now += 0.2
        found.append(await kept.get())
        assert kept._reading is not None
        await kept._reading
        found.append(await kept.get())
        clock.now += STALE_S + 1
        found.append(await kept.get())
        return found

    assert asyncio.run(run()) == [1, 1, 1, 2, 3]
    assert versions == [None, 1, 2]


def test_value_that_takes_long_is_read_less_often() -> None:
    clock = Clock()
    reads: list[None] = []

    def read(before: int | None) -> int:
        reads.append(None)
        clock.now += 5
        return len(reads)

    async def run() -> int:
        kept = Kept(read, clock=clock)
        await kept.get()
        clock.now += 5 / SHARE - 1
        return await kept.get()

    assert asyncio.run(run()) == 1
    assert len(reads) == 1


def test_error_is_told_and_the_value_read_again() -> None:
    answers = [StoreError("away"), None]

    def read(before: str | None) -> str:
        if error := answers.pop(0):
            raise error
        return "here"

    async def run() -> str:
        kept = Kept(read)
        with pytest.raises(StoreError, match="away"):
            await kept.get()
        return await kept.get()

    assert asyncio.run(run()) == "here"


def test_only_some_names_are_held() -> None:
    reads: list[str] = []

    def read(name: str, before: str | None) -> str:
        reads.append(name)
        return name.upper()

    async def run() -> None:
        kept = KeptByName(read, most=2)
        for name in ("a", "b", "a", "c", "a", "b"):
            assert await kept.get(name) == name.upper()

    asyncio.run(run())
    assert reads == ["a", "b", "c", "b"]


# --- snapshots ------------------------------------------------------------------------------------------------------------------------


def line(state: str, *, description: str = "scratch lenet5 seed=0", why: str = "") -> TrialLine:
    return TrialLine(trial_id="0" * 16, role="scratch", description=description, state=state, why=why, epochs=4)


@pytest.mark.parametrize(
    ("changes", "place"),
    [
        ({}, Place(facet="distilled lenet5 alpha=0.9 teacher_seed=0", column="4", row="3")),
        (
            {"distillation.temperature": 1.5, "distillation.t_squared": False},
            Place(facet="distilled lenet5 alpha=0.9 no T² teacher_seed=0", column="1.5", row="3"),
        ),
        ({"distillation": None, "teacher": None, "role": "scratch"}, Place(facet="scratch lenet5", column="", row="3")),
    ],
)
def test_place_of_a_trial_is_read_from_its_description(changes: dict[str, object], place: Place) -> None:
    spec = make_spec(**changes, seed=3)
    assert place_of(spec.describe()) == place


def test_place_of_a_trial_with_settings_of_other_axes() -> None:
    shown = place_of("distilled lenet5 T=10 alpha=0.5 seed=12 training.optimizer.lr=0.1")
    assert shown == Place(facet="distilled lenet5 alpha=0.5 training.optimizer.lr=0.1", column="10", row="12")


def test_pace_is_that_of_the_last_trials_without_a_pause() -> None:
    now = datetime.now(UTC)
    yesterday = [now - timedelta(days=1, minutes=i) for i in range(5)]
    today = [now - timedelta(minutes=6 * i) for i in range(11)]
    sweep = SweepNow(
        name="demo",
        lines=(line("running"), line("pending"), *[line("complete")] * 16),
        finished_at=tuple(sorted([*yesterday, *today])),
    )
    # Eleven trials in an hour; two are open.
    assert sweep.trials_per_hour == pytest.approx(10, rel=0.01)
    assert sweep.left_s == pytest.approx(720, rel=0.01)
    stopped = SweepNow(name="demo", lines=(line("complete"), line("pending")), finished_at=tuple(sorted(today)))
    assert stopped.trials_per_hour is None
    assert (stopped.state, sweep.state) == ("waiting", "running")


def test_packs_are_the_trials_of_one_process() -> None:
    lines = [
        line("running", why="held by process 7 on gpu-1"),
        line("running", why="held by process 7 on gpu-1"),
        line("running", why="held by process 7 on gpu-2"),
        line("pending", why="never run"),
    ]
    trials = [
        {"host": "gpu-1", "device": "old", "finished_at": datetime(2026, 1, 1)},
        {"host": "gpu-1", "device": "A100", "finished_at": datetime(2026, 1, 2)},
    ]
    packs = running_packs(lines, trials)
    assert [(pack.where, len(pack.lines), pack.device) for pack in packs] == [
        ("process 7 on gpu-1", 2, "A100"),
        ("process 7 on gpu-2", 1, None),
    ]


def test_snapshot_takes_manifests_over_and_names_what_it_cannot_read(unfinished: Store) -> None:
    first = take_snapshot(unfinished, None)
    assert {name: now.counts["complete"] for name, now in first.sweeps.items()} == {"demo": 4}
    second = take_snapshot(unfinished, first)
    assert second.manifests["demo", 1] is first.manifests["demo", 1]
    # Nothing has changed, so nothing has to be drawn again.
    assert second.sweeps["demo"] is first.sweeps["demo"]
    unfinished.put("sweeps/broken/manifest/000001.json", b"{")
    third = take_snapshot(unfinished, second)
    assert list(third.sweeps) == ["demo"]
    assert "no whole manifest of sweep broken is left" in third.unreadable["broken"]


# --- axes and scales ------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_temperatures_are_laid_out_in_order_with_their_baselines(golden: Results) -> None:
    study = make_study(temperatures=(1, 4, 20, 10))
    layout = lay_out(study, "")
    assert axis_names(study) == ("temperature", "condition")
    assert layout.ticks == ("1", "4", "10", "20")
    assert [(place, it.label) for place, it in layout.lines[0].points] == [
        (0, "T=1"),
        (1, "T=4"),
        (2, "T=10"),
        (3, "T=20"),
    ]
    assert [name for name, _ in layout.baselines] == ["teacher", "scratch"]


@pytest.mark.parametrize(
    ("values", "limits", "texts"),
    [
        ([0.0, 100.0], (0.0, 100.0), ["0", "20", "40", "60", "80", "100"]),
        ([71.2, 73.9], (-math.inf, math.inf), ["71.5", "72.0", "72.5", "73.0", "73.5", "74.0"]),
        ([-0.2, 0.1], (-math.inf, math.inf), ["−0.20", "−0.15", "−0.10", "−0.05", "0.00", "0.05", "0.10"]),
        ([5.0, 5.0, math.nan], (-math.inf, math.inf), ["4.8", "4.9", "5.0", "5.1", "5.2"]),
        ([], (-math.inf, math.inf), ["0.0", "0.2", "0.4", "0.6", "0.8", "1.0"]),
    ],
)
def test_ticks_are_round(values: list[float], limits: tuple[float, float], texts: list[str]) -> None:
    scale = charts.y_scale(values, limits=limits)
    ticks = charts.y_ticks(scale, about=7)
    assert [tick.text for tick in ticks] == texts
    assert all(charts.TOP <= tick.at <= charts.HEIGHT - charts.BOTTOM for tick in ticks)


def test_path_has_a_gap_where_nothing_is_defined() -> None:
    assert charts.path([(0, 1), (1, 2), (2, math.nan), (3, 4), (4, 5)]) == "M0 1L1 2M3 4L4 5"


# --- words ----------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(None, "–"), (0, "0 s"), (59.4, "59 s"), (90, "2 min"), (7500, "2 h 05 min"), (200_000, "2 d 7 h")],
)
def test_durations(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_words() -> None:
    assert count(1, "trial") == "1 trial"
    assert count(1200, "trial") == "1,200 trials"
    assert ago(None) == "–"
    assert ago(datetime.now(UTC) - timedelta(minutes=5)) == "5 min ago"


def test_cells_of_csv_have_all_digits_and_no_formula() -> None:
    row = ["=1+1", "-0.5", 0.1 + 0.2, None, math.nan, ["=x"], b"\xff", "\x1b[31m"]
    assert csv_text(["a", "@b", "c", "d", "e", "f", "g", "h"], [row]).splitlines() == [
        "a,'@b,c,d,e,f,g,h",
        '\'=1+1,-0.5,0.30000000000000004,,,"[""=x""]",ff,\\x1b[31m',
    ]


def test_pages_show_characters_that_nobody_sees_as_escapes() -> None:
    page = Templates("").render("refused", status=404, why="class \u202e<b>\x1b", asks_token=False)
    assert "class \\u202e&lt;b&gt;\\x1b" in page
