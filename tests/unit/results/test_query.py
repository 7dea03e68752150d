"""SQL over the tables of a store."""

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from kd_ray.errors import InvalidInputError, KdRayError, QueryError
from kd_ray.metrics.disagreement import disagreement
from kd_ray.results.aggregate import aggregate
from kd_ray.results.query import Results
from kd_ray.results.record import decode_table, read_record
from kd_ray.results.schema import QUERIED
from kd_ray.results.store import Store, StoredObject, manifest_key, open_store, part_key, table_columns_key
from kd_ray.results.table_form import columns_digest, have_one_form
from kd_ray.results.table_parts import FINGERPRINT, encode_part, read_part
from tests.fakes import CLASSES, LABELS_N, commit_trials, make_sweep, plan_trials, random_predictions, write_sweep

NAMES = (
    "trials, class_metrics, group_metrics, fairness_metrics, epochs, predictions, samples, comparisons, chance_levels, tuning, "
    "teacher_disagreement, teacher_errors, calibration, gradient_rescaling, class_shares, worst_classes(k), disagreement(a, b), "
    "disagreement_matrix(a, b)"
)
TRIALS = plan_trials(make_sweep())


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The demo sweep, complete and aggregated; only read."""
    store = open_store(tmp_path_factory.mktemp("store"))
    commit_trials(store, TRIALS)
    aggregate(store, write_sweep(store, make_sweep()).sweep)
    return Results(store)


@pytest.fixture
def empty(store: Store) -> Results:
    assert store.local_root is not None
    store.local_root.mkdir()
    return Results(store)


def test_a_store_that_does_not_exist_is_refused(store: Store) -> None:
    with pytest.raises(QueryError, match="store: no such folder; a launch makes it"):
        Results(store).query("SELECT 1")
    with pytest.raises(QueryError, match="no such folder"):
        Results(store).table("trials")


def rows(results: Results, sql: str) -> list[tuple[Any, ...]]:
    return [tuple(row.values()) for row in results.query(sql).to_pylist()]


@pytest.mark.slow
def test_sql_sees_every_table(results: Results) -> None:
    for name in QUERIED:
        assert rows(results, f"SELECT count(*) FROM {name}") == [(results.table(name).num_rows,)]
        assert results.query(f"SELECT * FROM {name} LIMIT 0").column_names == results.table(name).column_names


@pytest.mark.slow
def test_aggregate_by_sql_is_that_by_hand(results: Results) -> None:
    expected = {
        t.trial_id: float(np.mean(random_predictions(t.spec) == LABELS_N)) for t in TRIALS if t.spec.temperature == 4
    }
    ((mean, n),) = rows(results, "SELECT avg(accuracy), count(*) FROM trials WHERE temperature = 4")
    assert n == len(expected) == 2
    assert mean == pytest.approx(np.mean(list(expected.values())), rel=1e-12)


@pytest.mark.slow
def test_maps_and_lists_can_be_asked(results: Results) -> None:
    assert rows(
        results,
        "SELECT label_name, count(*) FROM samples WHERE list_contains((sensitive_features -> 'color')::VARCHAR[], 'red')"
        " GROUP BY 1 ORDER BY 1",
    ) == [("circle", 2), ("square", 2), ("star", 2)]
    assert rows(
        results, "SELECT DISTINCT versions ->> 'torch', len(predictions) FROM trials JOIN predictions USING (trial_id)"
    ) == [("2.6.0", 12)]


def test_times_are_utc(results: Results) -> None:
    assert rows(results, "SELECT DISTINCT strftime(started_at, '%Y-%m-%d %H:%M:%S.%f') FROM trials") == [
        ("2024-05-06 07:08:09.123456",)
    ]


QUESTIONS = {
    "accuracy against temperature": (
        "SELECT role, temperature, count(*) AS n, avg(accuracy) AS accuracy, stddev_samp(accuracy) AS sd FROM trials "
        "GROUP BY ALL ORDER BY role, temperature",
        4,
    ),
    "fairness against temperature": (
        "SELECT feature, role, temperature, avg(equalized_odds_difference) AS eod, "
        "avg(label_demographic_parity_difference) AS label_dpd FROM fairness_metrics WHERE positive_class IS NULL "
        "GROUP BY ALL ORDER BY ALL",
        12,
    ),
    "classes that gain or lose": (
        "SELECT class_name, temperature, avg(accuracy) - any_value(scratch) AS change FROM class_metrics JOIN "
        "(SELECT class_name, avg(accuracy) AS scratch FROM class_metrics WHERE role = 'scratch' GROUP BY 1) USING (class_name) "
        "WHERE role = 'distilled' GROUP BY ALL ORDER BY abs(change) DESC",
        6,
    ),
    "students that contradict their teacher": (
        "SELECT role, temperature, avg(disagreement) AS disagreement FROM teacher_disagreement WHERE class_name IS NULL "
        "GROUP BY ALL ORDER BY ALL",
        3,
    ),
    "the group served worst": (
        'SELECT trial_id, feature, arg_min("group", accuracy) AS worst_group, min(accuracy) AS accuracy '
        "FROM group_metrics GROUP BY ALL ORDER BY accuracy",
        24,
    ),
}
"""What people ask: the SQL, and how many rows answer it."""


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_is_answered(results: Results, question: str) -> None:
    sql, num_rows = QUESTIONS[question]
    answer = results.query(sql)
    assert answer.num_rows == num_rows
    assert all(column.null_count < len(column) for column in answer.columns)


@pytest.mark.parametrize("question", QUESTIONS)
def test_question_to_an_empty_store_has_no_answer(empty: Results, question: str) -> None:
    assert empty.query(QUESTIONS[question][0]).num_rows == 0


def test_group_served_worst_by_hand(results: Results) -> None:
    accuracies = [row[-1] for row in rows(results, QUESTIONS["the group served worst"][0])]
    assert accuracies[0] == min(a for a in results.table("group_metrics")["accuracy"].to_pylist() if a is not None)


# --- disagreement ----------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("a", "b"), [(0, 4), (4, 0), (5, 7), (3, 3)])
def test_disagreement_agrees_with_the_metric(results: Results, a: int, b: int) -> None:
    one, other = TRIALS[a], TRIALS[b]
    expected = disagreement(random_predictions(one.spec), random_predictions(other.spec), LABELS_N, num_classes=3)
    found = {row[0]: row[1:] for row in rows(results, f"FROM disagreement('{one.trial_id}', '{other.trial_id}')")}
    expected_rows: dict[Any, Any] = {
        None: (12, int(expected.num_disagree_C.sum()), expected.rate),
        **{
            name: (int(expected.n_C[c]), int(expected.num_disagree_C[c]), expected.rate_C[c])
            for c, name in enumerate(CLASSES)
        },
    }
    assert found == expected_rows
    matrix_CC = np.zeros((3, 3), dtype=np.int64)
    for i, j, n in rows(results, f"FROM disagreement_matrix('{one.trial_id}', '{other.trial_id}')"):
        matrix_CC[CLASSES.index(i), CLASSES.index(j)] = n
    np.testing.assert_array_equal(matrix_CC, expected.matrix_CC)
    assert (expected.num_disagree_C.sum() > 0) == (a != b)


def test_teacher_disagreement_agrees_with_the_metric(results: Results) -> None:
    found = {
        (trial_id, class_name): (teacher, n, num, rate)
        for trial_id, class_name, teacher, n, num, rate in rows(
            results,
            "SELECT trial_id, class_name, teacher_trial_id, n, num_disagree, disagreement FROM teacher_disagreement",
        )
    }
    teachers = {trial.spec.seed: trial for trial in TRIALS[:2]}
    assert len(found) == 6 * 4
    for trial in TRIALS[2:]:
        teacher = teachers[trial.spec.seed]
        expected = disagreement(
            random_predictions(teacher.spec), random_predictions(trial.spec), LABELS_N, num_classes=3
        )
        assert found[trial.trial_id, None] == (teacher.trial_id, 12, expected.num_disagree_C.sum(), expected.rate)
        for c, name in enumerate(CLASSES):
            assert found[trial.trial_id, name] == (
                teacher.trial_id,
                expected.n_C[c],
                expected.num_disagree_C[c],
                expected.rate_C[c],
            )


@pytest.mark.slow
def test_teacher_disagreement_of_listed_teachers_has_a_row_for_each(store: Store) -> None:
    file = make_sweep(overrides=["teacher.seed=[5, 6]", "grid.temperature=[1, 4]", "grid.seed=[0]"])
    commit_trials(store, plan_trials(file))
    aggregate(store, write_sweep(store, file).sweep)
    assert rows(
        Results(store),
        "SELECT role, temperature, count(*), count(DISTINCT teacher_trial_id) FROM teacher_disagreement "
        "WHERE class_name IS NULL GROUP BY ALL ORDER BY ALL",
    ) == [("distilled", 1.0, 2, 2), ("distilled", 4.0, 2, 2), ("scratch", None, 2, 2)]


def test_disagreement_of_an_unknown_trial_has_no_samples(results: Results) -> None:
    assert rows(results, f"FROM disagreement('{TRIALS[0].trial_id}', 'ffffffffffffffff')") == [(None, 0, 0, None)]


# --- several sweeps --------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_sweeps_that_share_trials_are_both_visible(store: Store) -> None:
    other = make_sweep(overrides=["name=other", "grid.temperature=[4, 9]"])
    for file in (make_sweep(), other):
        commit_trials(store, plan_trials(file))
        aggregate(store, write_sweep(store, file).sweep)
    results = Results(store)
    assert results.sweeps() == ["demo", "other"]
    assert rows(results, "SELECT sweep, count(*) FROM trials GROUP BY 1 ORDER BY 1") == [("demo", 8), ("other", 8)]
    shared = rows(results, "SELECT trial_id, count(*) FROM trials GROUP BY 1 HAVING count(*) = 2")
    assert len(shared) == 6
    assert rows(
        results, f"SELECT n FROM disagreement('{TRIALS[0].trial_id}', '{TRIALS[2].trial_id}') WHERE class_name IS NULL"
    ) == [(12,)]
    assert rows(results, "SELECT DISTINCT sweep, n FROM teacher_disagreement WHERE class_name IS NULL ORDER BY 1") == [
        ("demo", 12),
        ("other", 12),
    ]
    assert results.table("trials", sweep="other")["sweep"].to_pylist() == ["other"] * 8
    assert results.table("trials").num_rows == 16


# --- queries of kd_ray's own -------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_own_queries_share_one_database(results: Results, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    connect = duckdb.connect

    def counted(*args: Any, **more: Any) -> duckdb.DuckDBPyConnection:
        opened.append(1)
        return connect(*args, **more)

    monkeypatch.setattr("duckdb.connect", counted)
    again = Results(open_store(results.store.url))
    with ThreadPoolExecutor(4) as pool:
        found = list(
            pool.map(lambda _: again.query_own("SELECT count(*) AS n FROM trials")["n"].to_pylist(), range(20))
        )
    assert found == [[8]] * 20
    assert len(opened) <= 4  # one, or one for each thread that came first


@pytest.mark.slow
def test_query_of_a_sweep_sees_its_rows_alone_and_opens_no_other_part(store: Store) -> None:
    commit_trials(store, TRIALS)
    for name in ("one", "two"):
        aggregate(store, write_sweep(store, make_sweep(overrides=[f"name={name}"])).sweep)
    results = Results(store)
    sql = "SELECT DISTINCT sweep FROM trials JOIN class_metrics USING (sweep, trial_id)"
    assert results.query(sql, sweep="one")["sweep"].to_pylist() == ["one"]
    assert results.query("SELECT count(*) AS n FROM calibration", sweep="one")["n"].to_pylist()[0] > 0
    assert store.local_root is not None
    (store.local_root / part_key("trials", "two", 0)).write_bytes(b"no table")
    assert results.query(sql, sweep="one").num_rows == 1
    with pytest.raises(QueryError, match="no sweep 'three'; it has: one, two"):
        results.query(sql, sweep="three")


def test_own_query_of_a_sweep_opens_its_parts_alone_and_sees_new_ones(store: Store) -> None:
    other = make_sweep(overrides=["name=other", "grid.temperature=[4, 9]"])
    for file in (make_sweep(), other):
        commit_trials(store, plan_trials(file))
        aggregate(store, write_sweep(store, file).sweep)
    results = Results(store)
    sql = "SELECT sweep, count(*) AS n FROM trials GROUP BY 1 ORDER BY 1"
    assert results.query_own(sql)["n"].to_pylist() == [8, 8]
    assert results.query_own(sql, sweep="other").to_pylist() == [{"sweep": "other", "n": 8}]
    wider = make_sweep(overrides=["name=other", "grid.temperature=[4, 9, 16]"])
    commit_trials(store, [trial for trial in plan_trials(wider) if trial.spec.temperature == 16])
    aggregate(store, write_sweep(store, wider).sweep)
    store.put(part_key("trials", "demo", 0), b"junk")
    assert results.query_own(sql, sweep="other").to_pylist() == [{"sweep": "other", "n": 10}]
    assert results.query_own(sql, sweep="nope").num_rows == 0
    # A link within the store is followed.
    root = Path(store.url)
    (root / "tables").rename(root / "moved")
    (root / "tables").symlink_to("moved")
    assert results.query_own(sql, sweep="other").to_pylist() == [{"sweep": "other", "n": 10}]


def test_own_query_reads_no_other_file(results: Results, tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    for source in (f"'{secret}'", f"'{results.store.url}/../secret.csv'", "secret", "tmp_path"):
        with pytest.raises(QueryError):
            results.query_own(f"SELECT * FROM {source}")


# --- what cannot be answered -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT * FROM nope", "nope"),
        ("SELECT nope FROM trials", '"nope" not found'),
        ("SELECT CAST(role AS INTEGER) FROM trials", "Could not convert string"),
    ],
)
def test_bad_sql_is_refused_with_the_reason_and_the_tables(results: Results, sql: str, reason: str) -> None:
    with pytest.raises(QueryError) as caught:
        results.query(sql)
    assert str(caught.value).startswith("SQL: ")
    assert reason in str(caught.value)
    assert str(caught.value).endswith(f"\ntables and views: {NAMES}")
    assert isinstance(caught.value, InvalidInputError)


def test_an_axis_by_its_last_word_is_told_its_path(results: Results) -> None:
    for sql in ("SELECT LR FROM trials", "SELECT t.lr FROM trials t", "SELECT avg(accuracy) FROM trials GROUP BY lr"):
        with pytest.raises(QueryError, match=r'its path, in quotes: .*"training\.optimizer\.lr".*\ntables and views'):
            results.query(sql)
    with pytest.raises(QueryError) as caught:
        results.query("SELECT nope FROM trials")
    assert "in quotes" not in str(caught.value)


@pytest.mark.slow
def test_damaged_part_is_an_error_of_ours(store: Store) -> None:
    commit_trials(store, TRIALS)
    aggregate(store, write_sweep(store, make_sweep()).sweep)
    store.put(part_key("trials", "demo", 0), b"junk")
    with pytest.raises(KdRayError, match=r"part-00000\.parquet"):
        Results(store).query("SELECT count(*) FROM trials")


class ChangingStore(Store):
    """A store in which another content is written under a key before each listing."""

    def __init__(self, url: str, key: str, contents: list[bytes]) -> None:
        super().__init__(url)
        self.key = key
        self.contents = contents

    def entries(self, prefix: str) -> Iterator[StoredObject]:
        self.put(self.key, self.contents.pop(0))
        return super().entries(prefix)


@pytest.mark.slow
def test_a_part_that_is_replaced_under_a_query_is_looked_at_again(store: Store) -> None:
    """Seen with DuckDB 2.0: it takes the size of a file from one look and its contents from another."""
    commit_trials(store, TRIALS)
    aggregate(store, write_sweep(store, make_sweep()).sweep)
    results = Results(store)
    expected = results.query("SELECT sum(accuracy) AS total FROM trials")
    key = part_key("trials", "demo", 0)
    good = store.get(key)
    assert good is not None
    changing = ChangingStore(store.url, key, [good[len(good) // 2 :], good[len(good) // 2 :], good])
    assert Results(changing).query("SELECT sum(accuracy) AS total FROM trials").equals(expected)
    assert changing.contents == []


def test_unknown_table_or_sweep_is_refused_with_the_valid_ones(results: Results, empty: Results) -> None:
    valid = "trials, class_metrics, group_metrics, fairness_metrics, epochs, predictions, samples, comparisons, chance_levels, tuning"
    with pytest.raises(QueryError, match=f"^no table 'nope'; valid: {valid}$"):
        results.table("nope")
    with pytest.raises(QueryError, match=r"no sweep 'nope'; it has: demo$"):
        results.table("trials", sweep="nope")
    with pytest.raises(QueryError, match=r"no sweep 'demo'; it has: none$"):
        empty.table("trials", sweep="demo")


@pytest.mark.slow
def test_empty_store_gives_empty_tables(empty: Results) -> None:
    assert empty.sweeps() == []
    for name, table in QUERIED.items():
        assert empty.table(name).schema.equals(table.arrow_schema)
        assert empty.table(name).num_rows == 0
        assert empty.query(f"SELECT * FROM {name}").num_rows == 0
        assert empty.query(f"SELECT * FROM {name}").column_names == table.arrow_schema.names
    assert empty.query("FROM teacher_disagreement").num_rows == 0


@pytest.mark.parametrize("which", ["results", "empty"])
def test_show_tables_names_all(which: str, request: pytest.FixtureRequest) -> None:
    found = {row[0] for row in rows(request.getfixturevalue(which), "SHOW TABLES")}
    assert found == {
        *QUERIED,
        "teacher_disagreement",
        "teacher_errors",
        "calibration",
        "gradient_rescaling",
        "class_shares",
    }


def _lacks(store: Store, column: str, *, sweep: str = "demo", place: int = 0) -> None:
    """A part of `trials` lacks a column, as if an older kd_ray had written it."""
    key = part_key("trials", sweep, place)
    store.put(key, encode_part(read_part(store, key).drop_columns([column]), "trials", sweep))


@pytest.mark.parametrize("sweep", ["demo", None])
def test_parts_of_an_older_kd_ray_lack_columns_and_stay_readable(store: Store, sweep: str | None) -> None:
    commit_trials(store, TRIALS)
    aggregate(store, write_sweep(store, make_sweep()).sweep, trials_per_part=4)
    _lacks(store, "threads")
    store.put(table_columns_key(), b'{"columns": "of an older kd_ray"}')
    # Who may not write cannot bring them up to date.
    only_read = Results(store, may_write=False)
    for ask in (only_read.query, only_read.query_own):
        assert ask("SELECT threads FROM trials", sweep=sweep)["threads"].to_pylist() == [None] * 4 + [1] * 4
        assert "threads" in ask("SELECT * FROM trials", sweep=sweep).column_names


@pytest.mark.parametrize("sweep", ["demo", None])
def test_comparisons_of_an_older_kd_ray_have_its_new_columns_as_null(store: Store, sweep: str | None) -> None:
    """Guard: they stay until `kd-ray compare` makes them anew, and SQL that named a new column was refused."""
    write_sweep(store, make_sweep())
    whole = QUERIED["comparisons"].arrow_schema.empty_table()
    rows = pa.table({it.name: pa.array([None], type=it.type) for it in whole.schema})
    former = rows.drop_columns(["usual_significant", "claim"])
    store.put(part_key("comparisons", "demo", 0), encode_part(former, "comparisons", "demo"))
    results = Results(store)
    for ask in (results.query, results.query_own):
        found = ask("SELECT usual_significant, claim, p FROM comparisons", sweep=sweep)
        assert found.to_pylist() == [{"usual_significant": None, "claim": None, "p": None}]
        assert ask("SELECT * FROM comparisons", sweep=sweep).column_names == whole.column_names


def test_a_sweep_that_cannot_be_upgraded_keeps_its_columns_and_hides_none_of_the_others(store: Store) -> None:
    for name in ("a", "demo"):
        file = make_sweep(overrides=[f"name={name}"])
        commit_trials(store, TRIALS)
        aggregate(store, write_sweep(store, file).sweep)
    assert have_one_form(store, None)
    _lacks(store, "threads", sweep="a")
    store.put(manifest_key("a", 1), b"{")
    store.delete(table_columns_key())
    results = Results(store)
    assert "threads" in results.query("SELECT * FROM trials").column_names
    assert [have_one_form(store, sweep) for sweep in ("a", "demo", None)] == [False, True, False]
    assert results.query("SELECT count(threads) AS n FROM trials")["n"].to_pylist() == [8]


@pytest.mark.parametrize("place", [0, 1])
def test_a_part_with_fewer_columns_than_the_store_says_is_read_all_the_same(store: Store, place: int) -> None:
    commit_trials(store, TRIALS)
    aggregate(store, write_sweep(store, make_sweep()).sweep, trials_per_part=4)
    _lacks(store, "threads", place=place)
    assert have_one_form(store, "demo")
    found = Results(store).query("SELECT * FROM trials", sweep="demo")["threads"].to_pylist()
    assert found[4 * place : 4 * place + 4] == [None] * 4
    assert found.count(1) == 4


def test_who_does_not_name_exceptions_is_not_believed(store: Store) -> None:
    """An older kd_ray with the same columns said nothing of sweeps that it could not upgrade."""
    commit_trials(store, TRIALS)
    aggregate(store, write_sweep(store, make_sweep()).sweep)
    said = json.loads(store.get(table_columns_key()) or b"")
    store.put(table_columns_key(), json.dumps({"columns": said["columns"]}).encode())
    assert not have_one_form(store, "demo")


def test_samples_of_an_older_form_are_made_again_too(store: Store) -> None:
    commit_trials(store, TRIALS)
    aggregate(store, write_sweep(store, make_sweep()).sweep)
    key = part_key("samples", "demo", 0)
    metadata = decode_table(store.get(key) or b"").schema.metadata
    former = metadata[FINGERPRINT].decode().replace(columns_digest(), "5")
    store.put(key, encode_part(read_part(store, key).drop_columns(["label_name"]), "samples", "demo", former))
    store.put(table_columns_key(), b'{"columns": "of an older kd_ray"}')
    assert Results(store).query("SELECT count(label_name) AS n FROM samples")["n"].to_pylist() == [12]


def test_statement_without_an_answer_says_ok(results: Results) -> None:
    assert rows(results, "-- nothing") == [(True,)]


@pytest.mark.slow
def test_queries_leave_the_store_as_it_was(results: Results) -> None:
    before = {item.key: item.modified_at for item in results.store.entries("")}
    results.query("CREATE TABLE mine AS SELECT * FROM trials", unsafe=True)
    assert {item.key: item.modified_at for item in results.store.entries("")} == before
    assert read_record(results.store, TRIALS[0].trial_id) is not None
    with pytest.raises(QueryError, match="mine"):
        results.query("SELECT * FROM mine")


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{secret}')",
        "SELECT * FROM read_text('{secret}')",
        "SELECT * FROM '{secret}'",
        "SELECT * FROM glob('{folder}/*')",
        "SELECT * FROM read_parquet('{store}/trials/*/record.parquet')",
        "COPY (SELECT 1 AS a) TO '{folder}/written.csv'",
        "ATTACH '{folder}/other.db'",
        "EXPORT DATABASE '{folder}/export'",
        "INSTALL httpfs",
        "LOAD httpfs",
        "SET enable_external_access = true",
        "SET allowed_directories = ['/']",
        "RESET lock_configuration",
        "SELECT * FROM sql",
        "PRAGMA temp_directory='{folder}'",
    ],
)
def test_sql_sees_the_tables_and_no_file(results: Results, tmp_path: Path, sql: str) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("a\n1\n")
    asked = sql.format(secret=secret, folder=tmp_path, store=results.store.url)
    with pytest.raises(QueryError):
        results.query(f"{asked}")
    assert [path.name for path in tmp_path.iterdir()] == ["secret.csv"]


@pytest.mark.parametrize(
    "sql",
    [
        "COPY ({select}) TO '{part}' (FORMAT csv, USE_TMP_FILE false)",
        "COPY ({pivot}) TO '{part}' (FORMAT csv, USE_TMP_FILE false)",
        "EXPLAIN ANALYZE COPY ({select}) TO '{part}' (FORMAT csv, USE_TMP_FILE false)",
        "{select}; COPY ({select}) TO '{part}' (FORMAT csv, USE_TMP_FILE false)",
    ],
)
def test_sql_does_not_overwrite_the_part_of_a_table(results: Results, sql: str) -> None:
    assert results.store.local_root is not None
    key = part_key("trials", "demo", 0)
    before = results.store.get(key)
    asked = sql.format(
        part=results.store.local_root / key,
        select="SELECT role FROM trials",
        pivot="PIVOT trials ON role USING count(*)",
    )
    with pytest.raises(QueryError, match="only statements that read"):
        results.query(asked)
    assert results.store.get(key) == before
    allowed = "PIVOT (SELECT role FROM trials) ON role IN ('teacher') USING count(*)"
    assert results.query(allowed).column_names == ["teacher"]


def test_unsafe_sql_reads_and_writes_files(results: Results, tmp_path: Path) -> None:
    path = tmp_path / "written.csv"
    results.query(f"COPY (SELECT count(*) AS n FROM trials) TO '{path}'", unsafe=True)
    assert path.read_text() == f"n\n{len(TRIALS)}\n"
    assert results.query(f"SELECT n FROM read_csv('{path}')", unsafe=True)["n"].to_pylist() == [len(TRIALS)]


def test_refusal_names_the_way_out(results: Results) -> None:
    with pytest.raises(
        QueryError, match="SQL sees the tables of the store only; `kd-ray query --unsafe` lets it see files, too"
    ):
        results.query("SELECT * FROM read_csv('/etc/passwd')")
