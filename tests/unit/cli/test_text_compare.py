"""What `kd-ray compare` prints: the verdict first, tables that fit, commands that a shell reads as they are meant."""

import re
import subprocess
from dataclasses import replace

import pytest

from kd_ray.analysis.compare import SweepComparison, compare_study
from kd_ray.analysis.contrast import Options
from kd_ray.cli.text_compare import command, compared
from tests.calibration.drawn import Design, draw
from tests.fakes import make_sweep

SEEDS = (
    "kd-ray resume demo --set 'grid.seed=[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19]' --set teacher.seed=paired"
)


@pytest.fixture(scope="module")
def comparison() -> SweepComparison:
    """True effects on a class, a group and over temperature; joint groups are small."""
    design = Design(
        seeds=4, per_class=20, class_shift=-0.6, group_shift=-0.5, trend=-0.8, teachers=0, intersections=True
    )
    return compare_study(draw(design, 1), Options())


@pytest.mark.slow
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("width", [40, 60, 80, 120])
def test_no_line_is_wider_than_the_terminal(comparison: SweepComparison, width: int, full: bool) -> None:
    store = "s3://bucket/folder"
    lines = compared(comparison, store=store, full=full, width=width).splitlines()
    assert max(map(len, lines)) <= width


@pytest.mark.slow
def test_the_answer_comes_first_and_its_commands_before_the_tables(comparison: SweepComparison) -> None:
    shown = compared(comparison, store="./else where", width=80)
    titles = re.findall(r"^([A-Z]{2,}(?: [A-Z]+)*)  ", shown, flags=re.MULTILINE)
    assert titles == [title for title, _ in comparison.verdict.parts()]
    assert (titles[0], titles[-1]) == ("ASKED", "NEXT")
    verdict, table = shown.split("\n\n")[:2]
    assert re.search(r"--store(?: \\\n +| )'\./else where'", verdict)
    assert table.startswith("condition")
    assert shown.endswith("--full --store './else where'")


@pytest.mark.slow
def test_a_statement_hangs_below_its_heading(comparison: SweepComparison) -> None:
    verdict = compared(comparison, store=None, width=80).split("\n\n")[0]
    for line in verdict.splitlines():
        assert re.match(r"[A-Z]{2,}| {13}\S| {15}\S| {4}\S", line), line


@pytest.mark.slow
def test_differences_between_groups_stand_beside_chance_and_joint_groups_are_for_full(
    comparison: SweepComparison,
) -> None:
    shown = compared(comparison, store=None)
    rows = {
        (row.condition, row.metric): row
        for row in comparison.of("condition")
        if row.sensitive_feature in (None, "color")
    }
    eod = rows["T=2", "equalized_odds_difference"]
    assert eod.mean_treatment is not None and eod.sd_treatment is not None and eod.chance_level is not None
    cell = f"{100 * eod.mean_treatment:.2f} ± {100 * eod.sd_treatment:.2f} (chance {100 * eod.chance_level:.2f})"
    assert cell in shown
    assert "color & texture" not in shown.split("\n\n")[1]
    assert "EOD color & texture" in compared(comparison, store=None, full=True)


@pytest.mark.slow
def test_published_counts_stand_beside_what_chance_gives(comparison: SweepComparison) -> None:
    shown = compared(comparison, store=None)
    for row in comparison.of("class_bias_counts", "scratch_vs_distilled"):
        assert re.search(
            rf"^{row.condition} +{row.num_significant} +{row.expected_significant:.1f} ", shown, flags=re.MULTILINE
        )
    assert "#SC: of 10 classes, those whose accuracy (divided by overall accuracy) differs from scratch" in shown


def test_the_p_of_every_table_is_the_one_that_decides(comparison: SweepComparison) -> None:
    """Guard: EOD at equal accuracy, and declared claims, had the p over runs under the same name: 0.029 beside `none`."""
    matched = comparison.of("matched_accuracy")[0]
    claim = matched.but(analysis="claim", claim="EOD is lower", p=0.0311, p_claim=0.0722, p_holm=0.0722, status="none")
    rows = [matched.but(p=0.0311, p_claim=0.0722), claim]
    shown = compared(replace(comparison, rows=tuple(rows)), store=None, full=True)
    assert "0.031" not in shown
    assert shown.count("0.072") == 3


@pytest.mark.slow
def test_full_has_every_established_row_and_hint(comparison: SweepComparison) -> None:
    shown = compared(comparison, store=None, full=True)
    part = next(it for it in shown.split("\n\n") if it.startswith("differences: established ones, then hints"))
    tested = [row for row in comparison.rows if row.analysis in ("class_bias", "fairness", "matched_accuracy")]
    for status in ("established", "hint"):
        found = re.findall(rf"^\d+ .* {status} ", part, flags=re.MULTILINE)
        assert len(found) == sum(row.status == status for row in tested) > 0
    for heading in ("trends with temperature", "counts of classes", "what more seeds would find"):
        assert f"\n\n{heading}\n" in shown


@pytest.mark.parametrize("width", [None, 40, 60, 80, 200])
def test_a_command_of_several_lines_is_one_command(width: int | None) -> None:
    shown = command(f"{SEEDS} --store './else where'", width, before="NEXT         ")
    assert shown.startswith("NEXT         kd-ray")
    if width is not None:
        assert max(map(len, shown.splitlines())) <= width
    script = f'kd-ray() {{ printf "%s|" "$@"; }}\n{shown.removeprefix("NEXT         ")}'
    words = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split("|")[:-1]
    seeds = re.sub(r"\s", "", words[3])
    assert seeds == "grid.seed=[0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19]"
    assert [*words[:3], *words[4:]] == [
        "resume",
        "demo",
        "--set",
        "--set",
        "teacher.seed=paired",
        "--store",
        "./else where",
    ]


@pytest.mark.slow
def test_individual_fairness_is_not_called_fair_at_0(comparison: SweepComparison) -> None:
    shown = compared(comparison, store=None, full=True)
    assert "0 is fair" not in shown
    assert "follows the model's confidence" in shown


def test_an_override_with_a_new_line_is_read_like_one_without() -> None:
    broken = make_sweep(overrides=("grid.seed=[0,1,\n    2]",))
    assert replace(broken, source="") == replace(make_sweep(overrides=("grid.seed=[0,1,2]",)), source="")
