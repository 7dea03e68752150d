"""Read a study from the tables of a store."""

from collections import defaultdict
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from kd_ray.analysis.claim_tests import Declared
from kd_ray.analysis.collapse import PredictionCounts
from kd_ray.analysis.conditions import make_conditions
from kd_ray.analysis.study import FAIRNESS, Classes, Fairness, Study, TestSet
from kd_ray.analysis.trial_rows import TrialRows, column
from kd_ray.bounded import JsonForm
from kd_ray.errors import CorruptObjectError, InvalidInputError
from kd_ray.groups import Groups, intersect, joint_name
from kd_ray.lasting import without_garbage_search
from kd_ray.metrics.arrays import FloatArray, IntArray
from kd_ray.results.manifest import read_manifest
from kd_ray.results.query import Results
from kd_ray.results.status import sweep_status
from kd_ray.results.table_parts import read_cell
from kd_ray.results.trial_lines import TrialLine, count_states
from kd_ray.sweep.load import parse_sweep
from kd_ray.sweep.tuning_settings import Tuned, is_tuning

VECTORS = ("held_out_n", "teacher_held_out_accuracy", "teacher_held_out_margin", "class_alpha", "class_margin")
"""What objectives hold of each class, as the table `class_metrics` names it."""
_TRIAL = (
    "trial_id, role, dataset, target, model, teacher, teacher_seed, objective, temperature, alpha, t_squared, seed, "
    "settings, teacher_trial_id, dataset_id, num_parameters, epochs, num_test, accuracy, loss, expected_calibration_error, "
    "worst_class_accuracy, balanced_accuracy, individual_fairness, individual_fairness_hard, individual_fairness_calibrated, "
    "mean_confidence, elapsed_s, device, threads, host, started_at, finished_at"
)
_GROUPS_CELL: JsonForm[dict[str, list[str]]] = JsonForm(kind=dict[str, list[str]])
"""The column `sensitive_features`: the groups of a test sample, by feature."""


@without_garbage_search()
def read_study(results: Results, sweep: str, lines: Sequence[TrialLine] | None = None) -> Study:
    """Read a sweep. Its large tables are read when they are asked for. `lines` are the states of its trials, if they are known.

    Raises:
        InvalidInputError: the store has no such sweep; the message names those it has. Or none of its trials is complete, or it is a
            search.
    """
    read_manifest(results.store, sweep)
    if is_tuning(sweep):
        raise InvalidInputError(f"sweep {sweep}: it is a search; its candidates are in the table `tuning` alone")
    trials = TrialRows(_Tables(results=results, sweep=sweep, trials=()).ask(_TRIAL, "trials"))
    if lines is None:
        lines = sweep_status(results.store, sweep).trials
    if not trials:
        complete = sum(trial.state == "complete" for trial in lines)
        raise InvalidInputError(
            f"sweep {sweep}: {complete} of its trials are complete, and none is in the tables; `kd-ray resume {sweep}` makes the tables"
            if complete
            else f"sweep {sweep}: no complete trials yet; `kd-ray status {sweep}` says how far it is"
        )
    return Study(
        sweep=sweep,
        trials=trials,
        states=count_states(lines),
        failed=tuple(trial.description for trial in lines if trial.state == "failed"),
        conditions=make_conditions(trials),
        source=_Tables(results=results, sweep=sweep, trials=trials),
    )


def read_declared(results: Results, sweep: str) -> list[Declared]:
    """The claims that the sweep declares now, with the dates of their declarations.

    A claim counts as declared before a trial only if the trial was finished after it: trials of an adopted store may be older than they
    look.
    """
    manifest = read_manifest(results.store, sweep)
    dates = results.query_own(f"SELECT finished_at FROM trials WHERE sweep = '{sweep}'", sweep=sweep)
    finished = dates["finished_at"].to_pylist()
    withdrawn = sum(it.is_withdrawn for it in manifest.declared)
    return [
        Declared(
            claim=it.to_claim(),
            declared_at=it.declared_at,
            num_complete=max(it.num_complete, sum(at < _moment(it.declared_at) for at in finished)),
            num_withdrawn=withdrawn,
        )
        for it in manifest.declared
        if not it.is_withdrawn
    ]


def read_tuned(results: Results, sweep: str) -> Tuned | None:
    """How the settings of a sweep were found, as its sweep file says; None where it does not."""
    return parse_sweep(read_manifest(results.store, sweep).sweep_yaml, source=f"sweep {sweep}").sweep.tuned


def _moment(declared_at: str) -> datetime:
    """A date of the manifest as the tables hold theirs: UTC, without a zone."""
    return datetime.fromisoformat(declared_at).astimezone(UTC).replace(tzinfo=None)


@dataclass(frozen=True, kw_only=True)
class _Tables:
    """A `StudySource`: the tables of one sweep."""

    results: Results
    sweep: str
    trials: Sequence[Mapping[str, Any]]

    def ask(self, columns: str, table: str, more: str = "") -> Any:
        sql = f"SELECT {columns} FROM {table} WHERE sweep = '{self.sweep}' {more}"
        return self.results.query_own(sql, sweep=self.sweep)

    @cached_property
    def _row(self) -> dict[str, int]:
        return {trial_id: row for row, trial_id in enumerate(column(self.trials, "trial_id"))}

    def _rows_of(self, ids: pa.ChunkedArray) -> IntArray:
        """Row of each trial_id of a column; -1 for a trial that was committed since the trials were read."""
        row_of = self._row
        # The rows of a trial stand together, so that each id is looked up once.
        runs = pc.run_end_encode(ids.combine_chunks())
        row_D = np.array([row_of.get(trial_id, -1) for trial_id in runs.values.to_pylist()], dtype=np.int64)
        return np.repeat(row_D, np.diff(runs.run_ends.to_numpy(), prepend=0))

    def classes(self) -> dict[str, Classes]:
        first: dict[str, str] = {}
        for dataset_id, trial_id in zip(
            *(column(self.trials, name) for name in ("dataset_id", "trial_id")), strict=True
        ):
            first.setdefault(dataset_id, trial_id)
        found = {}
        for dataset_id, trial_id in first.items():
            rows = self.ask("class_name, n", "class_metrics", f"AND trial_id = '{trial_id}' ORDER BY class_index")
            found[dataset_id] = Classes(names=tuple(rows["class_name"].to_pylist()), n_C=rows["n"].to_numpy())
        return found

    def class_accuracy(self) -> FloatArray:
        rows = self.ask("trial_id, class_index, accuracy", "class_metrics")
        size = int(rows["class_index"].to_numpy().max(initial=-1)) + 1
        values_TC = np.full((len(self.trials), size), np.nan)
        row_K = self._rows_of(rows["trial_id"])
        known_K = row_K >= 0
        values = rows["accuracy"].to_numpy().astype(np.float64)
        values_TC[row_K[known_K], rows["class_index"].to_numpy()[known_K]] = values[known_K]
        return values_TC

    def fairness(self) -> tuple[Fairness, ...]:
        rows = self.ask(
            f"trial_id, feature, num_groups, {', '.join(FAIRNESS)}", "fairness_metrics", "AND positive_class IS NULL"
        )
        features = rows["feature"].combine_chunks().dictionary_encode()
        names = features.dictionary.to_pylist()
        feature_K, row_K = features.indices.to_numpy(), self._rows_of(rows["trial_id"])
        num_groups_K = rows["num_groups"].to_numpy()
        joint = {
            joint_name(features)
            for features in read_manifest(self.results.store, self.sweep).row_settings.intersections
        }
        found = []
        for feature in sorted(names, key=joint.__contains__):
            is_its_K = feature_K == names.index(feature)
            known_K = is_its_K & (row_K >= 0)
            metrics = {name: np.full(len(self.trials), np.nan) for name in FAIRNESS}
            for name, values_T in metrics.items():
                values_T[row_K[known_K]] = rows[name].to_numpy().astype(np.float64)[known_K]
            groups = int(num_groups_K[is_its_K].max())
            found.append(Fairness(feature=feature, metrics=metrics, num_groups=groups, is_joint=feature in joint))
        return tuple(found)

    def epochs(self) -> dict[str, tuple[IntArray, FloatArray, FloatArray]]:
        rows = self.ask("trial_id, epoch, loss, train_accuracy", "epochs", "ORDER BY trial_id, epoch")
        ids = np.array(rows["trial_id"].to_pylist(), dtype=object)
        if not len(ids):
            return {}
        columns = [rows[name].to_numpy() for name in ("epoch", "loss", "train_accuracy")]
        starts = [0, *(np.flatnonzero(ids[1:] != ids[:-1]) + 1), len(ids)]
        return {ids[a]: (columns[0][a:b], columns[1][a:b], columns[2][a:b]) for a, b in pairwise(starts)}

    def class_vectors(self) -> dict[str, FloatArray]:
        rows = self.ask(f"trial_id, class_index, {', '.join(VECTORS)}", "class_metrics", "AND held_out_n IS NOT NULL")
        if not rows.num_rows:
            return {}
        row_of = self._row
        index = rows["class_index"].to_numpy()
        place = np.array([row_of[trial_id] for trial_id in rows["trial_id"].to_pylist()])
        found = {}
        for name in VECTORS:
            found[name] = np.full((len(self.trials), int(index.max()) + 1), np.nan)
            found[name][place, index] = rows[name].to_numpy()
        return found

    def predictions(self, rows: Sequence[int]) -> dict[int, IntArray]:
        if not len(rows):
            return {}
        wanted = ", ".join(f"'{self.trials[row]['trial_id']}'" for row in rows)
        some = f"AND trial_id IN ({wanted})" if len(rows) < len(self.trials) else ""
        table = self.ask("trial_id, predictions", "predictions", some)
        lists = table["predictions"].combine_chunks()
        values, ends = lists.values.to_numpy(), lists.offsets.to_numpy()
        row_of = self._row
        ids = table["trial_id"].to_pylist()
        found = {row_of[it]: values[ends[i] : ends[i + 1]] for i, it in enumerate(ids) if it in row_of}
        self._refuse_missing(rows, found, "predictions")
        return found

    def prediction_counts(self) -> PredictionCounts:
        counted = {
            "num_test_T": "sum(n)::BIGINT",
            "num_correct_T": "sum(num_correct)::BIGINT",
            "largest_class_T": "max(n)",
            "most_predicted_T": "max(num_predicted)",
            "by_chance_T": "sum(n * num_predicted)::BIGINT",
        }
        columns = ", ".join(f"{sql} AS {name}" for name, sql in counted.items())
        table = self.ask(f"trial_id, {columns}", "class_metrics", "GROUP BY trial_id")
        row_K = self._rows_of(table["trial_id"])
        known_K = row_K >= 0
        self._refuse_missing(range(len(self.trials)), set(row_K.tolist()), "class_metrics")
        found = {}
        for name in counted:
            found[name] = np.empty(len(self.trials), dtype=np.int64)
            found[name][row_K[known_K]] = table[name].to_numpy()[known_K]
        return PredictionCounts(**found)

    def _refuse_missing(self, rows: Iterable[int], found: Container[int], table: str) -> None:
        missing = next((self.trials[row]["trial_id"] for row in rows if row not in found), None)
        if missing is not None:
            raise CorruptObjectError(
                f"sweep {self.sweep}: the table `{table}` lacks trial {missing}; `kd-ray verify --repair` rebuilds it"
            )

    def _compared_groups(self, dataset_id: str) -> dict[str, set[str]]:
        """The groups of each feature that the tables compare: small joint groups may be left out."""
        trial_id = next(trial["trial_id"] for trial in self.trials if trial["dataset_id"] == dataset_id)
        rows = self.ask('DISTINCT feature, "group"', "group_metrics", f"AND trial_id = '{trial_id}'")
        found: dict[str, set[str]] = defaultdict(set)
        for row in rows.to_pylist():
            found[row["feature"]].add(row["group"])
        return found

    def test_set(self, dataset_id: str) -> TestSet:
        settings = read_manifest(self.results.store, self.sweep).row_settings
        table = self.ask(
            "sample_index, label, sensitive_features",
            "samples",
            f"AND dataset_id = '{dataset_id}' ORDER BY sample_index",
        )
        if table.num_rows == 0:
            raise CorruptObjectError(
                f"sweep {self.sweep}: the table `samples` lacks data set {dataset_id}; `kd-ray verify --repair` rebuilds it"
            )
        groups: dict[str, Groups] = {}
        features = settings.sensitive_features
        texts = table["sensitive_features"].to_pylist() if features else []
        lists = [read_cell(_GROUPS_CELL, text, "samples") for text in texts]
        for feature in features:
            if any(feature not in row for row in lists):
                raise CorruptObjectError(
                    f"sweep {self.sweep}: the table `samples` lacks feature {feature!r}; `kd-ray verify --repair` rebuilds it"
                )
            of_samples = [row[feature] for row in lists]
            names = sorted({name for row in of_samples for name in row})
            groups[feature] = Groups.from_lists(of_samples, names)
        compared = self._compared_groups(dataset_id) if settings.intersections else {}
        for joint in settings.intersections:
            each = intersect([groups[feature] for feature in joint])
            name = joint_name(joint)
            kept_G = np.flatnonzero([group in compared.get(name, ()) for group in each.names])
            groups[name] = each.only(kept_G)
        return TestSet(labels_N=table["label"].to_numpy(), features=groups)
