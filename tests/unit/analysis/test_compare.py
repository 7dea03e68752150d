"""The whole comparison: what it finds in drawn sweeps, what it refuses or flags, and that its table stays."""

import csv
import io
import json
import math
import shutil
from dataclasses import fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from scipy import stats

import kd_ray
from kd_ray.analysis.chance_levels import digest_of, read_levels
from kd_ray.analysis.compare import SweepComparison, compare
from kd_ray.analysis.comparisons import comparisons_table, read_comparisons
from kd_ray.analysis.measures import measure
from kd_ray.analysis.power import rejection_rate
from kd_ray.analysis.reading import read_study
from kd_ray.errors import InvalidInputError
from kd_ray.groups import Groups
from kd_ray.results.aggregate import aggregate
from kd_ray.results.comparison_schema import COMPARISONS, Comparison
from kd_ray.results.launch_plan import plan
from kd_ray.results.query import Results
from kd_ray.results.record import commit_record, write_samples
from kd_ray.results.store import Store, open_store, part_key, record_key
from kd_ray.sweep.spec import Role, TrialSpec
from tests.fakes import (
    WatchedStore,
    make_provenance,
    make_record,
    make_samples,
    make_sweep,
    plan_trials,
    random_predictions,
    write_sweep,
)
from tests.golden.make import TABLE, golden_results, to_csv
from tests.processes import run_cli_here
from tests.simulated import simulate

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Results:
    return golden_results(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def found(golden: Results) -> SweepComparison:
    return compare(golden, "demo")


def row_of(found: SweepComparison, analysis: str, **columns: object) -> Comparison:
    (row,) = [
        row for row in found.rows if row.analysis == analysis and all(getattr(row, k) == v for k, v in columns.items())
    ]
    return row


# --- the table ---------------------------------------------------------------------------------------------------------------------------


def test_committed_records_give_the_committed_comparisons(found: SweepComparison) -> None:
    """`python -m tests.golden.make --keep-records` writes the table anew; the digits allow for another build of NumPy."""
    mine, golden = (list(csv.reader(io.StringIO(it))) for it in (to_csv(found.rows), TABLE.read_text()))
    assert len(mine) == len(golden)
    for row, expected in zip(mine, golden, strict=True):
        for name, value, wanted in zip(golden[0], row, expected, strict=True):
            if value != wanted:
                assert float(value) == pytest.approx(float(wanted), rel=1e-6, abs=1e-9), (name, expected)


def test_the_table_has_the_columns_of_the_schema_and_is_read_back_as_written(
    golden: Results, found: SweepComparison
) -> None:
    assert tuple(field.name for field in fields(Comparison)) == tuple(column.name for column in COMPARISONS.columns)
    assert comparisons_table(found.rows).schema.equals(COMPARISONS.arrow_schema)
    assert tuple(read_comparisons(golden, "demo")) == found.rows
    answer = golden.query("SELECT count(*) AS n FROM comparisons WHERE analysis = 'class_bias'")
    assert answer.to_pylist() == [{"n": 3 * 4 * 2}]


def test_comparing_again_replaces_the_table(store: Store) -> None:
    results = simulate(store)
    first = compare(results, "demo")
    second = compare(results, "demo", normalise="difference", level=0.1)
    assert tuple(read_comparisons(results, "demo")) == second.rows
    assert {row.level for row in second.rows} == {0.1}
    assert first.rows != second.rows
    assert [item.key for item in store.entries("tables/comparisons")] == [part_key("comparisons", "demo", 0)]


@pytest.mark.long
def test_chance_levels_stay_with_their_trials(store: Store) -> None:
    results = simulate(store)
    first = compare(results, "demo")
    kept = results.table("chance_levels", sweep="demo")
    # Eight trials, three features with their intersection, three metrics.
    assert kept.num_rows == 8 * 3 * 3
    again = read_levels(results, "demo")
    measured = measure(read_study(results, "demo"), again)
    assert len(again.levels) == 8 * 3
    np.testing.assert_array_equal(measured.chance_TM, measure(read_study(results, "demo")).chance_TM)
    assert compare(results, "demo").rows == first.rows
    # What is known is not dealt anew: a level that was changed by hand is taken as it stands.
    key, (mean_M, sd_M) = next(iter(again.levels.items()))
    again.levels[key] = (mean_M + 1, sd_M)
    assert np.nanmax(measure(read_study(results, "demo"), again).chance_TM) > 1
    # A trial that comes in later is added, and other groups have another key.
    assert digest_of(np.array([0, 1]), Groups.from_codes(np.array([0, 1]), ["a", "b"])) != digest_of(
        np.array([0, 1]), Groups.from_codes(np.array([1, 0]), ["a", "b"])
    )


def test_a_fold_keeps_the_table_until_a_trial_changes(store: Store) -> None:
    results = simulate(store)
    compare(results, "demo")
    aggregate(store, "demo")
    assert read_comparisons(results, "demo")
    store.delete(record_key(plan_trials(make_sweep())[-1].trial_id))
    aggregate(store, "demo")
    assert read_comparisons(results, "demo") == []


def test_a_fold_drops_the_table_before_it_changes_another(tmp_path: Path) -> None:
    store = WatchedStore(str(tmp_path))
    compare(simulate(store), "demo")
    store.delete(record_key(plan_trials(make_sweep())[-1].trial_id))
    store.changed.clear()
    aggregate(store, "demo")
    assert store.changed[0] == part_key("comparisons", "demo", 0)
    assert len(store.changed) > 2


# --- numbers -----------------------------------------------------------------------------------------------------------------------------


def class_table(golden: Results, role: str, temperature: float | None) -> tuple[npt.NDArray[np.float64], ...]:
    where = "temperature IS NULL" if temperature is None else f"temperature = {temperature}"
    rows = golden.query(
        f"SELECT c.accuracy AS class, t.accuracy AS overall FROM class_metrics c JOIN trials t USING (trial_id) "
        f"WHERE c.role = '{role}' AND c.{where} ORDER BY c.seed, class_index"
    )
    return tuple(rows[name].to_numpy().reshape(3, 3) for name in ("class", "overall"))


@pytest.mark.parametrize(
    ("normalise", "overall"),
    [
        ("ratio", "per_run"),
        ("difference", "mean"),
        pytest.param("ratio", "mean", marks=pytest.mark.long),
        pytest.param("difference", "per_run", marks=pytest.mark.long),
    ],
)
def test_class_bias_is_scipys_on_relative_class_accuracy(golden: Results, normalise: str, overall: str) -> None:
    found = compare(golden, "demo", normalise=normalise, overall=overall)  # type: ignore[arg-type]

    def tested(role: str, temperature: float | None) -> npt.NDArray[np.float64]:
        class_RC, overall_RC = class_table(golden, role, temperature)
        reference = overall_RC if overall == "per_run" else overall_RC.mean()
        return np.asarray(class_RC / reference if normalise == "ratio" else class_RC - reference)

    for role in ("scratch", "teacher"):
        baseline, treatment = tested(role, None), tested("distilled", 10)
        welch = stats.ttest_ind(treatment, baseline, equal_var=False)
        paired_C = np.asarray(stats.ttest_rel(treatment, baseline).pvalue)
        interval = welch.confidence_interval(0.95)
        low_C, high_C = np.asarray(interval.low), np.asarray(interval.high)
        p_C = np.asarray(welch.pvalue)
        scale = class_table(golden, role, None)[1].mean() if normalise == "ratio" else 1
        for c in range(3):
            row = row_of(found, "class_bias", contrast=f"{role}_vs_distilled", temperature=10, class_index=c)
            assert (row.p, row.p_paired) == pytest.approx((p_C[c], paired_C[c]), rel=1e-9)
            # Against scratch a claim is held to more than the published test; against teachers pairs may say more.
            assert row.p_claim is not None and (role == "teacher" or row.p_claim >= p_C[c])
            effect = (treatment - baseline)[:, c].mean() * scale
            assert row.effect == pytest.approx(effect, rel=1e-9)
            assert (row.ci_low, row.ci_high) == pytest.approx((low_C[c] * scale, high_C[c] * scale))
            assert (row.n_baseline, row.n_treatment, row.n_pairs, row.class_n) == (3, 3, 3, 40)


def test_counts_are_those_of_the_rows_beside_what_is_expected(found: SweepComparison) -> None:
    for counts in found.of("class_bias_counts"):
        rows = [row for row in found.of("class_bias", counts.contrast) if row.condition == counts.condition]
        assert counts.num_tests == len(rows) == 3
        assert counts.num_significant == sum(row.p < 0.05 for row in rows if row.p is not None)
        assert counts.num_established == sum(row.status == "established" for row in rows)
        assert counts.expected_significant == pytest.approx(3 * rejection_rate(3, 3, 0.05))
        assert counts.p_permutation_floor == pytest.approx(0.1)


def test_the_two_kinds_of_noise_stand_apart(golden: Results, found: SweepComparison) -> None:
    row = row_of(found, "condition", role="scratch", metric="accuracy")
    accuracy = golden.query("SELECT accuracy FROM trials WHERE role = 'scratch'")["accuracy"].to_numpy()
    assert (row.mean_treatment, row.sd_treatment) == pytest.approx((accuracy.mean(), accuracy.std(ddof=1)))
    predictions = np.array(
        golden.query("SELECT predictions FROM predictions WHERE role = 'scratch'")["predictions"].to_pylist()
    )
    labels_N = golden.query("SELECT label FROM samples ORDER BY sample_index")["label"].to_numpy()
    assert row.sampling_sd == pytest.approx((predictions == labels_N).mean(axis=0).std() / math.sqrt(120))
    eod = row_of(found, "condition", role="scratch", metric="equalized_odds_difference", sensitive_feature="color")
    assert eod.sampling_sd is not None and 0.01 < eod.sampling_sd < 0.1
    # The largest of noisy rates minus the smallest is too large.
    assert eod.sampling_bias is not None and eod.sampling_bias > 0


def test_dpd_stands_beside_that_of_the_labels(golden: Results, found: SweepComparison) -> None:
    (expected,) = golden.query(
        "SELECT DISTINCT label_demographic_parity_difference AS it FROM fairness_metrics "
        "WHERE feature = 'color' AND positive_class IS NULL"
    )["it"].to_pylist()
    rows = [
        row for row in found.rows if row.metric == "demographic_parity_difference" and row.sensitive_feature == "color"
    ]
    assert {row.label_difference for row in rows if row.analysis in ("condition", "fairness")} == {expected}


def test_disagreement_is_that_of_the_view(golden: Results, found: SweepComparison) -> None:
    view = golden.query(
        "SELECT role, temperature, avg(disagreement) AS it FROM teacher_disagreement WHERE class_name IS NULL GROUP BY ALL"
    )
    for answer in view.to_pylist():
        row = row_of(found, "condition", metric="disagreement", role=answer["role"], temperature=answer["temperature"])
        assert row.mean_treatment == pytest.approx(answer["it"])


def test_trends_share_the_temperature_at_which_they_are_split(golden: Results, found: SweepComparison) -> None:
    low = row_of(found, "trend", contrast="temperature_low", metric="accuracy", test="spearman")
    high = row_of(found, "trend", contrast="temperature_high", metric="accuracy", test="spearman")
    assert (low.condition, low.n_treatment) == ("T=1…10", 9)
    assert (high.condition, high.n_treatment) == ("T=10…20", 6)
    runs = golden.query("SELECT temperature, accuracy FROM trials WHERE role = 'distilled' AND temperature <= 10")
    expected = stats.spearmanr(runs["temperature"].to_numpy(), runs["accuracy"].to_numpy())
    assert (low.effect, low.p) == pytest.approx((expected.statistic, expected.pvalue))
    # The exchange of temperatures within seeds decides; three seeds at three temperatures, and at two.
    assert low.p_claim == low.p_permutation
    assert (low.p_permutation_floor, high.p_permutation_floor) == pytest.approx((2 / 6**3, 2 / 2**3))


def test_a_family_is_one_question_of_one_contrast_over_all_conditions(found: SweepComparison) -> None:
    from statsmodels.stats.multitest import multipletests

    for analysis in ("fairness", "class_bias"):
        rows = [row for row in found.of(analysis, "scratch_vs_distilled") if row.p_claim is not None]
        assert {row.family for row in rows} == {f"{analysis} scratch_vs_distilled"}
        assert {row.condition for row in rows} == {"T=1", "T=4", "T=10", "T=20"}
        assert {row.num_tests for row in rows} == {len(rows)}
        p_M, q_M, holm_M = (np.array([getattr(row, name) for row in rows]) for name in ("p_claim", "q", "p_holm"))
        np.testing.assert_allclose(q_M, stats.false_discovery_control(p_M))
        np.testing.assert_allclose(holm_M, multipletests(p_M, method="holm")[1])


def test_chance_levels_stand_beside_differences_between_groups(found: SweepComparison) -> None:
    row = row_of(found, "condition", role="scratch", metric="equalized_odds_difference", sensitive_feature="texture")
    assert row.chance_level is not None and row.mean_treatment is not None and row.chance_sd is not None
    # Groups were drawn without any influence: the difference is what chance gives.
    assert abs(row.mean_treatment - row.chance_level) < 3 * row.chance_sd
    assert row.shrunken is not None and row.shrunken < row.mean_treatment
    assert row.bias_corrected is not None and row.bias_corrected < row.mean_treatment
    assert row_of(found, "condition", role="scratch", metric="accuracy").chance_level is None


def test_groups_of_a_few_samples_are_held_back(found: SweepComparison) -> None:
    rows = [row for row in found.of("fairness") if row.sensitive_feature == "color & texture"]
    odds = [row for row in rows if row.metric == "equalized_odds_difference"]
    assert odds and {(row.held_back, row.p_claim) for row in odds} == {("small cells", None)}
    assert {row.smallest_cell for row in odds} == {2}
    assert any("color & texture" in sentence and "2 test samples" in sentence for sentence in found.verdict.held_back)


# --- what has to be known before believing it --------------------------------------------------------------------------------------------


def only_scratch_and_teachers(spec: TrialSpec, rng: np.random.Generator) -> npt.NDArray[np.float64]:
    return np.full(3, 0.0 if spec.role is Role.SCRATCH else 0.8)


def test_one_run_is_flagged_and_the_next_step_adds_seeds(store: Store) -> None:
    found = compare(simulate(store, "grid.seed=[4]"), "demo")
    assert {row.flags for row in found.of("class_bias_counts")} == {("n<2",)}
    assert all(row.p is None and row.q is None for row in found.rows if row.analysis == "fairness")
    assert row_of(found, "class_bias_counts", contrast="scratch_vs_distilled", temperature=4).num_significant is None
    assert found.next_steps[0].overrides == ("grid.seed=4..8",)
    assert found.verdict.established == ()
    assert "1 seed cannot show how far seeds are apart" in found.verdict.not_tested[0]


def test_students_of_one_teacher_are_flagged(store: Store) -> None:
    found = compare(simulate(store, "grid.seed=[0, 1, 2]", "teacher.seed=[7]"), "demo")
    assert {row.flags for row in found.of("class_bias_counts", "teacher_vs_distilled")} == {("n<2", "shared_teacher")}
    assert {row.flags for row in found.of("class_bias_counts", "scratch_vs_distilled")} == {("shared_teacher",)}
    assert {row.scope for row in found.of("fairness")} == {"this teacher"}
    assert any("teacher.seed=paired" in step.overrides for step in found.next_steps)


def test_equal_accuracy_is_not_tested_with_one_run(store: Store) -> None:
    found = compare(simulate(store, "grid.seed=[0, 1, 2]", "teacher.seed=[7]"), "demo")
    alone, together = (found.of("matched_accuracy", f"{role}_vs_distilled") for role in ("teacher", "scratch"))
    assert alone and {(row.p, row.ci_low) for row in alone} == {(None, None)}
    assert together and all(row.p is not None and row.df == 9 - 3 - 1 for row in together)


def test_given_teachers_bring_no_advice_to_train_them(store: Store) -> None:
    given = "teacher={model: resnet20, weights: teacher.pth}"
    found = compare(simulate(store, "grid.seed=[0, 1, 2]", given, "dataset.size=32"), "demo")
    assert {row.flags for row in found.of("class_bias_counts", "teacher_vs_distilled")} == {("n<2", "shared_teacher")}
    assert "teacher_vs_distilled" not in {step.contrast for step in found.next_steps}


def test_a_seed_with_several_teachers_is_one_run(store: Store) -> None:
    found = compare(simulate(store, "grid.seed=[0, 1, 2]", "teacher.seed=[7, 8]"), "demo")
    row = row_of(found, "class_bias_counts", contrast="teacher_vs_distilled", temperature=4)
    assert (row.n_baseline, row.n_treatment, row.n_pairs) == (2, 3, None)
    assert row.flags == ("n<3", "shared_teacher")


def test_mixed_devices_are_flagged(store: Store) -> None:
    results = simulate(store)
    table = results.table("trials")
    devices = [f"cuda:{i}" if role == "scratch" else "cpu" for i, role in enumerate(table["role"].to_pylist())]
    changed = table.set_column(table.column_names.index("device"), "device", pa.array(devices))
    with io.BytesIO() as buffer:
        pq.write_table(changed, buffer)
        store.put(part_key("trials", "demo", 0), buffer.getvalue())
    found = compare(results, "demo")
    assert "mixed_devices" in row_of(found, "class_bias_counts", contrast="scratch_vs_distilled", temperature=4).flags
    assert (
        "mixed_devices" not in row_of(found, "class_bias_counts", contrast="teacher_vs_distilled", temperature=4).flags
    )


def test_axes_of_any_name_are_conditions_and_find_their_scratch_students(store: Store) -> None:
    axes = (
        "training.optimizer.lr=null",
        "grid.training.optimizer.lr=[0.1, 0.2]",
        "grid.alpha=[0.5, 0.9]",
        "distillation.alpha=null",
    )
    found = compare(simulate(store, *axes), "demo")
    counts = found.of("class_bias_counts", "scratch_vs_distilled")
    assert len({row.condition for row in counts}) == 2 * 2 * 2
    assert counts[0].condition == "T=1, alpha=0.5, lr=0.1"
    assert {(row.n_baseline, row.n_treatment) for row in counts} == {(2, 2)}
    assert len({row.condition for row in found.of("trend")}) == 4


def test_other_test_samples_are_no_baseline(store: Store) -> None:
    """Two splits in one sweep: each distilled student meets the scratch students of its own."""
    found = compare(simulate(store, "grid.dataset.split_seed=[0, 1]"), "demo")
    counts = found.of("class_bias_counts", "scratch_vs_distilled")
    assert len({row.dataset_id for row in counts}) == 2
    assert {(row.n_baseline, row.n_treatment) for row in counts} == {(2, 2)}


def test_missing_scratch_students_are_told(store: Store) -> None:
    found = compare(simulate(store, "baselines=[]"), "demo")
    assert found.of("class_bias_counts", "scratch_vs_distilled") == []
    assert "Against scratch: no such trial is complete for T=1 and T=4." in found.verdict.not_tested[0]


def test_trials_that_are_missing_are_told(store: Store) -> None:
    results = simulate(store)
    store.delete(record_key(plan_trials(make_sweep())[-1].trial_id))
    aggregate(store, "demo")
    assert "1 of 8 trials is missing; numbers will change." in compare(results, "demo").verdict.asked[0]


def test_what_cannot_be_compared_is_refused_and_nothing_is_written(store: Store) -> None:
    file = make_sweep()
    write_sweep(store, file)
    with pytest.raises(InvalidInputError, match="sweep demo: no complete trials yet"):
        compare(Results(store), "demo")
    simulate(store, "teacher=null", "distillation=null", "grid.temperature=null")
    with pytest.raises(InvalidInputError, match="sweep demo: no complete distilled student"):
        compare(Results(store), "demo")
    with pytest.raises(InvalidInputError, match=r"no sweep 'other'; it has: demo"):
        compare(Results(store), "other")
    assert not list(store.entries("tables/comparisons"))


def test_trials_that_are_complete_and_not_in_the_tables_are_no_missing_trials(tmp_path: Path) -> None:
    """Guard: `status` said 18 complete, and `compare` that there are none yet."""
    results = golden_results(tmp_path / "store")
    shutil.rmtree(tmp_path / "store" / "tables")
    assert results.sweeps_without_tables() == ["demo"]
    expected = (
        "sweep demo: 18 of its trials are complete, and none is in the tables; `kd-ray resume demo` makes the tables"
    )
    with pytest.raises(InvalidInputError, match=expected):
        compare(results, "demo")


def test_accuracy_zero_has_no_ratio(store: Store) -> None:
    results = simulate(store, rates=only_scratch_and_teachers)
    with pytest.raises(
        InvalidInputError,
        match="has accuracy 0, so class accuracies relative to it are undefined; use --normalise diff",
    ):
        compare(results, "demo")
    assert compare(results, "demo", normalise="difference").rows


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"level": 0.5}, "level is 0.5; expected a number above 0"),
        ({"split": 0.0}, "split is 0.0; expected a temperature above 0"),
        ({"normalise": "log"}, "normalise is 'log'; valid: ratio, difference"),
        ({"overall": "run"}, "overall is 'run'; valid: per_run, mean"),
    ],
)
def test_options_out_of_range_are_refused(golden: Results, option: dict[str, object], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        kd_ray.compare("demo", golden, **option)  # type: ignore[arg-type]


# --- as a person meets it ----------------------------------------------------------------------------------------------------------------


@pytest.mark.long
def test_the_command_prints_what_the_table_says(golden: Results, tmp_path: Path) -> None:
    store = str(golden.store.local_root)
    done = run_cli_here("compare", "demo", "--store", store, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("ASKED        4 distilled conditions (T=1, T=4, T=10 and T=20) against scratch students")
    counts = row_of(compare(golden, "demo"), "class_bias_counts", contrast="scratch_vs_distilled", temperature=10)
    (level,) = [line.split() for line in lines if line.startswith("T=10 ") and "±" in line]
    assert level[:2] == ["T=10", "3"]
    (count,) = [line.split() for line in lines if line.startswith("T=10 ") and "±" not in line]
    assert count[:3] == ["T=10", str(counts.num_significant), "0.1"]
    assert lines[-1] == f"every difference: kd-ray compare demo --full --store {store}"
    full = run_cli_here("compare", "demo", "--full", "--store", store, cwd=tmp_path).stdout
    assert "\nwhat more seeds would find\n" in full


def test_json_has_no_number_that_json_has_not(golden: Results, tmp_path: Path) -> None:
    done = run_cli_here(
        "compare", "demo", "--store", str(golden.store.local_root), "--json", "--split", "4", cwd=tmp_path
    )
    answer = json.loads(done.stdout, parse_constant=pytest.fail)
    assert answer["options"] == {"normalise": "ratio", "overall": "per_run", "level": 0.05, "split": 4.0}
    assert {row["analysis"] for row in answer["comparisons"]} >= {"class_bias_counts", "fairness", "trend", "power"}


def test_a_sweep_that_is_not_there_ends_with_one_line(golden: Results, tmp_path: Path) -> None:
    done = run_cli_here("compare", "nope", "--store", str(golden.store.local_root), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("no sweep 'nope'; it has: demo")


def test_the_commands_that_add_seeds_are_accepted(found: SweepComparison, golden: Results, tmp_path: Path) -> None:
    assert found.next_steps
    for step in found.next_steps:
        sweep = make_sweep(overrides=["grid.seed=[0,1,2]", "grid.temperature=[1,4,10,20]", *step.overrides])
        assert len(plan_trials(sweep)) >= 18


def test_open_store_and_compare_are_there_for_notebooks(tmp_path: Path) -> None:
    simulate(open_store(tmp_path / "store"))
    assert kd_ray.compare("demo", kd_ray.open_store(tmp_path / "store")).of("power")


@pytest.mark.slow
@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("teacher.seed=[0]",),
        ("teacher.seed=[0, 1]",),
        ("teacher.seed=[7]",),
        ("teacher.seed=[0]", "training.optimizer=null", "grid.training.optimizer=[{lr: 0.1}, {lr: 0.2}]"),
        ("baselines=[]",),
    ],
)
def test_a_step_says_how_many_trials_it_trains_and_how_long(store: Store, overrides: tuple[str, ...]) -> None:
    """The plan of the command is the right value."""
    file = make_sweep(overrides=overrides)
    trials = plan_trials(file)
    for trial in trials:
        write_samples(store, trial.spec.dataset_id, make_samples())
        provenance = make_provenance(elapsed_s=100.0 if trial.spec.role == "teacher" else 10.0)
        predictions_N = random_predictions(trial.spec)
        commit_record(store, make_record(trial.spec, predictions_N=predictions_N, provenance=provenance))
    aggregate(store, write_sweep(store, file).sweep)
    steps = [step for step in compare(Results(store), "demo").next_steps if step.overrides]
    assert steps
    for step in steps:
        planned = plan(make_sweep(overrides=(*overrides, *step.overrides)), store)
        new = [line for line in planned.trials if line.state == "pending"]
        assert step.num_trials == len(new)
        assert step.train_s == pytest.approx(sum(100 if line.role == "teacher" else 10 for line in new))
    # Of a sweep that lacks a trial the command would train that one, too, and the number is not said.
    store.delete(record_key(trials[-1].trial_id))
    aggregate(store, "demo")
    assert {step.num_trials for step in compare(Results(store), "demo").next_steps} == {0}
