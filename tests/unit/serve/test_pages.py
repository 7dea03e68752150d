"""Every page with the golden store: it answers, and says what the study says."""

import csv
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kd_ray.analysis.closing_table import closing_table
from kd_ray.analysis.comparisons import read_comparisons
from kd_ray.analysis.reading import read_study
from kd_ray.analysis.stored import stored_or_made
from kd_ray.results.aggregate import aggregate
from kd_ray.results.query import Results
from kd_ray.results.store import Store, open_store
from kd_ray.serve.findings import find
from kd_ray.serve.page_data import Read
from kd_ray.serve.pages import classes_page, differences_page
from tests.fakes import WatchedStore, commit_trials, make_sweep, plan_trials, write_sweep
from tests.unit.serve.asked import ask, with_client

TRIAL = "fa67139ca837fa94"
"""distilled lenet5 T=10 alpha=0.9 seed=0"""


@pytest.mark.slow
def test_sweeps_lists_what_the_store_has(golden: Results) -> None:
    page, none, other = ask(golden.store, "/", "/?state=running", "/?words=dem&sort=name&down=1")
    assert page.status == none.status == other.status == 200
    assert "demo" in page.words
    assert "18 of 18" in page.words
    assert "complete" in page.words
    assert "None of the 1 sweep of this store fits" in none.words
    assert 'aria-sort="descending"' in other.text


def test_empty_store_says_what_to_do(store: Store) -> None:
    (page,) = ask(store, "/")
    assert page.status == 200
    assert "This store has no sweep yet" in page.words
    assert "kd-ray launch SWEEP.yaml" in page.words


@pytest.mark.slow
def test_live_shows_the_state_of_every_trial(unfinished: Store) -> None:
    (page,) = ask(unfinished, "/sweeps/demo")
    assert "4 of 8" in page.words
    assert "1 running 1 failed 2 pending" in page.words
    assert page.text.count('class="cell s-complete" href') == 4
    assert page.text.count('class="cell s-running" href') == 1
    # The percent of its epochs stands in the cell of a running trial.
    assert "epoch 2 of 4" in page.text
    assert ">50</a>" in page.text
    assert "62.5 % 1,234" in page.words
    assert "the loss became NaN" in page.words
    assert "Traceback: <script>alert(1)</script>" in page.words
    assert "<script>alert" not in page.text
    # Four records of 50.5 s each; two teachers and two scratch students are complete, all four distilled ones open.
    assert "teacher 2 2 min 0 0 s" in page.words
    assert "distilled 0 0 s 4 –" in page.words


@pytest.mark.slow
def test_live_colors_by_a_metric_of_the_study(golden: Results) -> None:
    (page,) = ask(golden.store, "/sweeps/demo?metric=accuracy")
    study = read_study(golden, "demo")
    values = study.values("accuracy")
    assert f"{100 * np.min(values):.2f} %" in page.words
    assert f"{100 * np.max(values):.2f} %" in page.words
    for trial, value in zip(study.trials, values, strict=True):
        cell = page.text.partition(f'id="c-{trial["trial_id"]}"')[2].partition("</a>")[0]
        assert cell.endswith(f">{100 * value:.2f}")


@pytest.mark.slow
def test_live_events_send_what_has_changed(unfinished: Store) -> None:
    async def first(client: Any) -> str:
        async with client.get("/sweeps/demo/events") as response:
            assert response.status == 200
            assert response.headers["Content-Type"] == "text/event-stream"
            assert "default-src 'none'" in response.headers["Content-Security-Policy"]
            lines: list[bytes] = [await response.content.readline(), await response.content.readline()]
            return b"".join(lines).decode()

    text = with_client(unfinished, first)
    assert text.startswith("event: change\ndata: ")
    change = json.loads(text.partition("data: ")[2])
    assert len(change["cells"]) == 8
    assert set(change["parts"]) == {"summary", "packs", "failures", "costs", "legend"}
    assert "4 of 8" in change["parts"]["summary"]
    assert "<script>" not in json.dumps(change["parts"])


@pytest.mark.slow
def test_conditions_say_what_the_study_says(golden: Results) -> None:
    page, text, sorted_page = ask(
        golden.store,
        "/sweeps/demo/conditions",
        "/sweeps/demo/conditions.csv",
        "/sweeps/demo/conditions?sort=mean",
    )
    # As the table that ends a launch has them.
    table = closing_table(read_study(golden, "demo"))
    for line in table.lines:
        spread = line.spreads[0]
        assert f"{line.label} {line.n} {100 * spread.mean:.2f} {100 * spread.sd:.2f}" in page.words
    assert "T=20 3 65.83 3.63 56.81 to 74.86" in page.words
    assert "T=20: mean 65.83 %, sd 3.63, 95 % interval 56.81 to 74.86, n = 3" in page.text
    rows = list(csv.DictReader(io.StringIO(text.text)))
    assert len(rows) == 18
    assert text.headers["Content-Type"].startswith("text/csv")
    t20 = [float(row["accuracy (%)"]) for row in rows if row["condition"] == "T=20"]
    assert np.mean(t20) == pytest.approx(65.83333)
    assert sorted_page.words.index("T=20 3 65.83") < sorted_page.words.index("teacher 3 92.50")


@pytest.mark.slow
def test_conditions_of_groups_have_the_line_of_the_labels(golden: Results) -> None:
    dpd, group, class_ = ask(
        golden.store,
        "/sweeps/demo/conditions?metric=demographic_parity_difference&feature=color",
        "/sweeps/demo/conditions?metric=group_accuracy&feature=color&group=green",
        "/sweeps/demo/conditions?metric=class_accuracy&class=class+1&axis=condition",
    )
    assert "true labels" in dpd.words
    study = read_study(golden, "demo")
    expected = study.class_accuracy_TC[:, 1][study.conditions[-1].trials].mean()
    assert f"T=20 3 {100 * expected:.2f}" in class_.words
    rows = golden.query(
        "SELECT avg(a) AS a FROM (SELECT trial_id, max(accuracy) AS a FROM group_metrics "
        "WHERE feature = 'color' AND \"group\" = 'green' AND temperature = 20 GROUP BY 1)"
    )
    assert f"T=20 3 {100 * rows['a'][0].as_py():.2f}" in group.words


@pytest.mark.slow
def test_unknown_choices_fall_back(golden: Results) -> None:
    pages = ask(
        golden.store,
        "/sweeps/demo/conditions?metric=nonsense&axis=nonsense&sort=nonsense",
        "/sweeps/demo?metric=class_accuracy&class=nonsense&from=-3",
        "/sweeps/demo/differences?correction=nonsense&sort=nonsense&analysis=nonsense",
        "/sweeps/demo/classes?against=nonsense&feature=nonsense&sort=nonsense",
    )
    assert [page.status for page in pages] == [200] * 4


@pytest.mark.slow
def test_differences_say_the_words_of_the_verdict(golden: Results) -> None:
    (page,) = ask(golden.store, "/sweeps/demo/differences")
    _, verdict = stored_or_made(golden, read_study(golden, "demo"))
    for title, sentences in verdict.parts():
        assert title in page.words
        for sentence in sentences:
            assert " ".join(sentence.split()) in page.words
    assert page.words.index("ESTABLISHED") < page.words.index("What was tested")


@pytest.mark.slow
def test_differences_switch_the_correction(golden: Results) -> None:
    none, holm, text = ask(
        golden.store,
        "/sweeps/demo/differences?correction=none&analysis=class_bias",
        "/sweeps/demo/differences?correction=holm&analysis=class_bias",
        "/sweeps/demo/differences.csv?correction=none",
    )
    rows = [row for row in read_comparisons(golden, "demo") if row.analysis == "class_bias"]
    tested = [row for row in rows if row.p_claim is not None]
    below = [row for row in tested if row.p_claim < row.level and row.held_back is None]  # type: ignore[operator]
    below_holm = [row for row in tested if row.p_holm is not None and row.p_holm < row.level and not row.held_back]
    assert f"{len(below)} of {len(tested)} tests hold at p < 0.05 without a correction" in none.words
    assert f"by chance alone {0.05 * len(tested):.1f} are expected, or fewer" in none.words
    assert f"{len(below_holm)} of {len(tested)} tests hold" in holm.words
    lines = list(csv.DictReader(io.StringIO(text.text)))
    of_classes = [line for line in lines if line["analysis"] == "classes"]
    assert len(of_classes) == len(rows)
    # A class that falls less than the others gains, so its own accuracy stands beside.
    one = next(row for row in rows if (row.class_name, row.condition) == ("class 2", "T=20"))
    (line,) = [
        it for it in of_classes if (it["what"], it["condition"]) == ("class accuracy, relative, class 2", "T=20")
    ][:1]
    assert (float(line["before"]), float(line["after"])) == pytest.approx(
        (100 * (one.accuracy_baseline or 0), 100 * (one.accuracy_treatment or 0))
    )
    assert "from → to" in none.words


@pytest.mark.slow
def test_differences_of_a_store_without_comparisons_are_made_and_not_written(tmp_path: Path, golden: Results) -> None:
    root = golden.store.local_root
    assert root is not None
    shutil.copytree(root, tmp_path / "copy")
    shutil.rmtree(tmp_path / "copy" / "tables" / "comparisons")
    store = WatchedStore(str(tmp_path / "copy"))
    (page,) = ask(store, "/sweeps/demo/differences")
    assert "This one was made for the page" in page.words
    assert store.changed == []


@pytest.mark.slow
def test_classes_and_groups(golden: Results) -> None:
    page, samples, of_group, wrong = ask(
        golden.store,
        "/sweeps/demo/classes",
        "/sweeps/demo/samples?condition=5&class=class+1",
        "/sweeps/demo/samples?condition=0&feature=color&group=red",
        "/sweeps/demo/samples?condition=99",
    )
    rows = [
        row
        for row in read_comparisons(golden, "demo")
        if row.analysis == "class_bias" and row.contrast == "scratch_vs_distilled" and row.class_name == "class 1"
    ]
    effects = [f"{100 * row.effect:.1f}".replace("-", "−") for row in rows if row.effect is not None]
    assert len(effects) == 4
    assert all(effect in page.words for effect in effects)
    assert "how many points the class gained or lost beyond its share of the change in overall accuracy" in page.words
    assert (
        "class accuracy ÷ overall accuracy, distilled minus scratch, times the overall accuracy of scratch"
        in page.words
    )
    # The worst group of all, with its n.
    assert "color & texture blue & stripes 20" in page.words
    assert "40 test samples of trifeature" in samples.words
    ids = golden.query("SELECT sample_index, sample_id FROM samples WHERE label_name = 'class 1'").to_pylist()
    assert all(f"{row['sample_index']} {row['sample_id'] or '–'} class 1" in samples.words for row in ids)
    study = read_study(golden, "demo")
    assert f"accuracy {100 * study.class_accuracy_TC[study.conditions[5].trials, 1].mean():.2f} %" in samples.words
    assert "36 test samples" in of_group.words
    assert wrong.status == 409
    assert "condition 99: the sweep has 6, from 0" in wrong.words


@pytest.mark.slow
def test_classes_are_sorted_by_effects_with_all_digits(golden: Results) -> None:
    """Guard: `Effect.value`; the shown texts are rounded, so that different effects look equal."""
    study = read_study(golden, "demo")
    read = Read(results=golden, study=study, parts=())
    lines = classes_page.view(read, find(golden, study), contrast="", feature="", sort="effect")["lines"]
    least = [min(it.value for it in line.effects) for line in lines]
    assert least == sorted(least)
    assert any(it.value != float(it.text.replace("−", "-")) for line in lines for it in line.effects)


@pytest.mark.slow
def test_differences_with_the_same_q_stand_by_their_p(golden: Results) -> None:
    """Of thousands of tests most have q = 1, and hints were scattered among them."""
    study = read_study(golden, "demo")
    read = Read(results=golden, study=study, parts=())
    rows = differences_page.view(
        read,
        find(golden, study),
        analysis="",
        against="",
        correction="report",
        only="",
        sort="",
        is_down=False,
    )["rows"]
    both = [(it.p, it.alone) for it in rows if it.p is not None]
    assert both == sorted(both)
    assert len({p for p, _ in both}) < len(set(both))


@pytest.mark.slow
def test_many_conditions_are_shown_one_setting_at_a_time(store: Store) -> None:
    """64 conditions times the classes were a page of megabytes in a sweep of 100 classes."""
    overrides = ["distillation.alpha=null", "grid={seed: [0], temperature: 1..16, alpha: [0.1, 0.3, 0.5, 0.9]}"]
    file = make_sweep(overrides=[*overrides, "teacher.seed=[0]"])
    commit_trials(store, plan_trials(file))
    aggregate(store, write_sweep(store, file).sweep)
    first, other, unknown = ask(
        store,
        "/sweeps/demo/classes",
        "/sweeps/demo/classes?settings=alpha=0.5&feature=color",
        "/sweeps/demo/classes?settings=alpha=7",
    )
    read = Read(results=Results(store), study=read_study(Results(store), "demo"), parts=())
    views = [
        classes_page.view(read, None, contrast="", feature="", sort="", settings=it) for it in ("", "alpha=0.5", "no")
    ]
    assert list(views[0]["choices"]) == ["alpha=0.1", "alpha=0.3", "alpha=0.5", "alpha=0.9"]
    labels = [[it.label for _, it in view["conditions"]] for view in views]
    assert labels[0] == [f"T={t}, alpha=0.1" for t in range(1, 17)] == labels[2]
    assert labels[1] == [f"T={t}, alpha=0.5" for t in range(1, 17)]
    # Teachers and scratch students stand beside them, and the cells lead to the samples of their own condition.
    assert [it.label for _, it in views[1]["shown"]][:2] == ["teacher", "scratch"]
    assert {len(line.values) for line in views[1]["groups"]} == {18}
    place, condition = views[1]["conditions"][3]
    assert read.study.conditions[place] is condition
    assert f"condition={place}&amp;feature=color" in other.text
    assert '<input type="hidden" name="settings" value="alpha=0.5">' in other.text
    assert "T=16, alpha=0.1" in first.words and "T=16, alpha=0.5" not in first.words
    assert unknown.status == 200 and "T=16, alpha=0.1" in unknown.words


@pytest.mark.slow
def test_trial(golden: Results) -> None:
    page, wrong = ask(golden.store, f"/sweeps/demo/trials/{TRIAL}", "/sweeps/demo/trials/0000000000000000")
    study = read_study(golden, "demo")
    row = study.index[TRIAL]
    assert f"accuracy {100 * study.values('accuracy')[row]:.2f} %" in page.words
    assert "distilled lenet5 T=10 alpha=0.9 seed=1" in page.words
    assert "taught by" in page.words
    assert '"temperature": 10' in page.words
    # 17 of the 40 samples of class 1 are right, 22 fewer than the teacher has.
    assert "17 (−22)" in page.words
    assert wrong.status == 409
    assert "has no trial 0000000000000000" in wrong.words


@pytest.mark.slow
def test_trial_without_results(unfinished: Store) -> None:
    (live,) = ask(unfinished, "/sweeps/demo")
    trial_id = live.text.partition('class="cell s-failed" href="/sweeps/demo/trials/')[2][:16]
    (page,) = ask(unfinished, f"/sweeps/demo/trials/{trial_id}")
    assert "It has no results yet." in page.words
    assert "Traceback: <script>alert(1)</script>" in page.words
    assert "<script>alert" not in page.text


@pytest.mark.slow
def test_compare_puts_sweeps_side_by_side(golden: Results) -> None:
    nothing, page, unknown = ask(
        golden.store, "/compare", "/compare?sweep=demo&metric=worst_class_accuracy", "/compare?sweep=nope"
    )
    assert "Choose two sweeps or more" in nothing.words
    assert "worst-class accuracy (%)" in page.words
    spread = closing_table(read_study(golden, "demo")).lines[0].spreads[1]
    assert f"{100 * spread.mean:.2f} ± {100 * spread.sd:.2f}" in page.words
    assert "The store has no sweep 'nope'; it has: demo." in unknown.words


@pytest.mark.slow
def test_sql(golden: Results) -> None:
    form, answer, text, bad = ask(
        golden.store,
        "/sql",
        "/sql?q=SELECT+role,+count(*)+AS+n+FROM+trials+GROUP+BY+1+ORDER+BY+1",
        "/sql.csv?q=SELECT+role,+count(*)+AS+n+FROM+trials+GROUP+BY+1+ORDER+BY+1",
        "/sql?q=SELECT+nope+FROM+trials",
    )
    assert "fairness_metrics" in form.words
    assert "3 rows" in answer.words
    assert "distilled 12 scratch 3 teacher 3" in answer.words
    assert text.text == "role,n\ndistilled,12\nscratch,3\nteacher,3\n"
    assert bad.status == 400
    assert "nope" in bad.words


@pytest.mark.slow
def test_sweep_without_a_complete_trial(tmp_path: Path) -> None:
    other = open_store(tmp_path / "other")
    write_sweep(other, make_sweep())
    live, conditions = ask(other, "/sweeps/demo", "/sweeps/demo/conditions")
    assert live.status == 200
    assert "0 of 8" in live.words
    assert conditions.status == 409
    assert "no complete trials yet" in conditions.words


def test_tables_of_kd_ray_0_1_are_not_replaced(store: Store) -> None:
    write_sweep(store, make_sweep())
    former = "tables/trials/sweep=demo/part-00000.parquet"
    store.put(former, b"as it was")
    (conditions,) = ask(store, "/sweeps/demo/conditions")
    assert conditions.status == 503
    assert "its tables have the form of kd_ray 0.1; let a user who may write to the store run" in conditions.words
    assert store.get(former) == b"as it was"


@pytest.mark.slow
def test_nothing_is_written(golden: Results) -> None:
    root = golden.store.local_root
    assert root is not None
    store = WatchedStore(str(root))
    paths = ("", "/conditions", "/differences", "/classes", f"/trials/{TRIAL}")
    answers = ask(store, "/", "/compare?sweep=demo", "/sql?q=FROM+trials", *(f"/sweeps/demo{path}" for path in paths))
    assert [answer.status for answer in answers] == [200] * 8
    assert store.changed == []
