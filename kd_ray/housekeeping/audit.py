"""Recomputes the numbers of a sweep with other people's code: per-class numbers with scikit-learn, fairness numbers with fairlearn.

They start from the stored predictions, labels and groups, and are compared with the tables. Nothing of `kd_ray.metrics` is used. The
definitions differ on purpose where a rate is undefined, such as the true positive rate of a group without positives: fairlearn counts it as
0, kd_ray leaves it out and says null. Such numbers are compared over the groups that have the rate, and counted.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import pyarrow.compute as pc

from kd_ray.errors import CorruptObjectError
from kd_ray.groups import Groups
from kd_ray.housekeeping.problems import Progress
from kd_ray.results.added_features import samples_with
from kd_ray.results.manifest import read_manifest
from kd_ray.results.query import Results
from kd_ray.results.record import Record, Samples, read_record
from kd_ray.results.row_settings import RowSettings
from kd_ray.results.rows import compared_groups
from kd_ray.results.store import Store

TOLERANCE = 1e-9
"""Largest difference of two equal numbers: both are sums of few rounded quotients."""
DEFINITIONS = (
    "rates without samples, such as the true positive rate of a group without positives, are null here and 0 in fairlearn; differences "
    "and ratios leave them out, and with fewer than two groups they are null here, and 0 or 1 in fairlearn"
)
"""Where the definitions differ on purpose."""

Row = tuple[Any, ...]
"""Table, then what tells the row of a trial: a class, or feature, group and positive class."""
Numbers = dict[Row, dict[str, float]]


@dataclass(frozen=True, kw_only=True)
class Disagreement:
    """A number of a table that another library does not confirm."""

    sweep: str
    trial_id: str
    table: str
    row: str
    """What tells the row among those of the trial."""
    column: str
    stored: float | None
    recomputed: float | None
    library: str

    def __str__(self) -> str:
        place = f"{self.table}.{self.column} of trial {self.trial_id}{f' ({self.row})' if self.row else ''}"
        return f"sweep {self.sweep}: {place} is {_shown(self.stored)}, {self.library} has {_shown(self.recomputed)}"


@dataclass(frozen=True, kw_only=True)
class AuditReport:
    """What was recomputed, and what is not confirmed."""

    sweeps: tuple[str, ...]
    num_trials: int
    num_numbers: int
    num_undefined: int
    """Of these, numbers with a rate that is undefined for a group, where the definitions differ on purpose."""
    disagreements: tuple[Disagreement, ...]

    def to_dict(self) -> dict[str, Any]:
        """For `--json`."""
        return asdict(self) | {"definitions": DEFINITIONS}


def audit(store: Store, sweeps: Iterable[str], *, on_progress: Progress | None = None) -> AuditReport:
    """Recompute every per-class and fairness number of sweeps from the stored predictions.

    Raises:
        InvalidInputError: the store has no such sweep.
        CorruptObjectError: a record or samples cannot be read.
    """
    tell = on_progress or (lambda *_: None)
    names = tuple(sweeps)
    found: list[Disagreement] = []
    num_trials = num_numbers = num_undefined = 0
    for sweep in names:
        manifest = read_manifest(store, sweep)
        settings = manifest.row_settings
        datasets = {line.trial_id: line.dataset_id for line in manifest.trials}
        stored = _Stored(Results(store), sweep)
        for done, trial_id in enumerate(stored.trial_ids, start=1):
            dataset_id = datasets[trial_id]
            record, samples = _read(store, trial_id, dataset_id, settings)
            for library, numbers, undefined in (
                ("scikit-learn", _of_classes(record, samples), 0),
                ("fairlearn", *_of_groups(record, samples, settings, dataset_id)),
            ):
                found += _differences(sweep, trial_id, library, numbers, stored.of(trial_id))
                num_numbers += sum(map(len, numbers.values()))
                num_undefined += undefined
            num_trials += 1
            tell(f"audit of sweep {sweep}", done, len(stored.trial_ids))
    return AuditReport(
        sweeps=names,
        num_trials=num_trials,
        num_numbers=num_numbers,
        num_undefined=num_undefined,
        disagreements=tuple(found),
    )


def _read(store: Store, trial_id: str, dataset_id: str, settings: RowSettings) -> tuple[Record, Samples]:
    record = read_record(store, trial_id)
    samples = samples_with(store, dataset_id, settings.added)
    if record is None or samples is None:
        raise CorruptObjectError(
            f"store {store.url}: the tables have trial {trial_id}, and its record or samples are missing"
        )
    return record, samples


class _Stored:
    """The numbers of a sweep as its tables have them."""

    _KEYS: Mapping[str, tuple[str, ...]] = {
        "trials": (),
        "class_metrics": ("class_name",),
        "group_metrics": ("feature", "group", "positive_class"),
        "fairness_metrics": ("feature", "positive_class"),
    }

    def __init__(self, results: Results, sweep: str) -> None:
        self._tables = {name: results.table(name, sweep=sweep) for name in self._KEYS}
        self.trial_ids: list[str] = self._tables["trials"]["trial_id"].to_pylist()

    def of(self, trial_id: str) -> dict[Row, dict[str, Any]]:
        """Every row of a trial."""
        return {
            (name, *(row[key] for key in self._KEYS[name])): row
            for name, table in self._tables.items()
            for row in table.filter(pc.equal(table["trial_id"], trial_id)).to_pylist()
        }


def _differences(
    sweep: str, trial_id: str, library: str, numbers: Numbers, stored: Mapping[Row, Mapping[str, Any]]
) -> Iterator[Disagreement]:
    for place, columns in numbers.items():
        row = stored.get(place, {})
        for column, value in columns.items():
            there = row.get(column)
            if there is None and math.isnan(value):
                continue
            if there is None or math.isnan(value) or abs(there - value) > TOLERANCE:
                yield Disagreement(
                    sweep=sweep,
                    trial_id=trial_id,
                    table=place[0],
                    row=", ".join("mean over classes" if it is None else it for it in place[1:]),
                    column=column,
                    stored=there,
                    recomputed=None if math.isnan(value) else value,
                    library=library,
                )


def _of_classes(record: Record, samples: Samples) -> Numbers:
    """By scikit-learn: the numbers of `class_metrics`, and of `trials` what follows from predictions alone."""
    from sklearn.metrics import accuracy_score, confusion_matrix, precision_score, recall_score

    truth_N, answer_N = samples.labels_N, record.test.predictions_N
    classes = list(range(len(samples.class_names)))
    options: dict[str, Any] = {"labels": classes, "average": None, "zero_division": np.nan}
    counts = confusion_matrix(truth_N, answer_N, labels=classes)
    recall_C, precision_C = recall_score(truth_N, answer_N, **options), precision_score(truth_N, answer_N, **options)
    accuracy = float(accuracy_score(truth_N, answer_N))
    found: Numbers = {
        ("trials",): {
            "accuracy": accuracy,
            "num_test": len(truth_N),
            "worst_class_accuracy": float(np.nanmin(recall_C)),
            "balanced_accuracy": float(np.nanmean(recall_C)),
        }
    }
    for c, name in enumerate(samples.class_names):
        found["class_metrics", name] = {
            "n": int(counts[c].sum()),
            "num_correct": int(counts[c, c]),
            "num_predicted": int(counts[:, c].sum()),
            "accuracy": float(recall_C[c]),
            "precision": float(precision_C[c]),
            "relative_accuracy": float(recall_C[c]) / accuracy if accuracy else math.nan,
        }
    return found


def _of_groups(record: Record, samples: Samples, settings: RowSettings, dataset_id: str) -> tuple[Numbers, int]:
    """By fairlearn: the numbers of `group_metrics` and `fairness_metrics`, and how many of them have an undefined rate."""
    features = dict(compared_groups(samples, settings, settings.least_joint_group(record.spec.dataset, dataset_id)))
    found: Numbers = {}
    num_undefined = 0
    for feature, groups in features.items():
        rates, fairness, undefined = _of_feature(record, samples, groups)
        found |= {("group_metrics", feature, *place): row for place, row in rates.items()}
        found |= {("fairness_metrics", feature, name): row for name, row in fairness.items()}
        same = ("worst_group_accuracy", "num_groups")
        found["fairness_metrics", feature, None] = {
            column: value if column in same else _mean([row[column] for row in fairness.values()])
            for column, value in next(iter(fairness.values())).items()
        }
        num_undefined += undefined
    return found, num_undefined


def _of_feature(
    record: Record, samples: Samples, groups: Groups
) -> tuple[dict[tuple[str, str], dict[str, float]], dict[str, dict[str, float]], int]:
    """Rates by group and positive class, differences between groups by positive class, and how many rates are undefined."""
    from fairlearn.metrics import MetricFrame, count, false_positive_rate, selection_rate, true_positive_rate
    from sklearn.metrics import accuracy_score

    # A sample counts in each of its groups.
    member_M, group_M = np.nonzero(groups.membership_NG)
    if not len(member_M):
        return (
            {},
            {name: dict.fromkeys(_DIFFERENCES, math.nan) | {"num_groups": 0.0} for name in samples.class_names},
            0,
        )
    metrics: dict[str, Any] = {"n": count, "accuracy": accuracy_score}
    for c in range(len(samples.class_names)):
        metrics[f"rate {c}"] = _for_class(selection_rate, c)
        metrics[f"tpr {c}"] = _for_class(true_positive_rate, c)
        metrics[f"fpr {c}"] = _for_class(false_positive_rate, c)
        metrics[f"label {c}"] = _for_labels(selection_rate, c)
    frame = MetricFrame(
        metrics=metrics,
        y_true=samples.labels_N[member_M],
        y_pred=record.test.predictions_N[member_M],
        sensitive_features=np.array(groups.names, dtype=object)[group_M],
    )
    whole = (
        frame.difference(method="between_groups"),
        frame.ratio(method="between_groups"),
        float(frame.group_min()["accuracy"]),
    )
    by_group = frame.by_group.astype(float)
    unknown = {"n": 0.0, "num_positives": 0.0} | dict.fromkeys(("accuracy", *_RATES), math.nan)
    rates: dict[tuple[str, str], dict[str, float]] = {}
    fairness: dict[str, dict[str, float]] = {}
    num_undefined = 0
    for c, name in enumerate(samples.class_names):
        mine = by_group[[f"rate {c}", f"tpr {c}", f"fpr {c}", f"label {c}"]].set_axis(
            ["rate", "tpr", "fpr", "label"], axis=1
        )
        num_positives = (mine["label"] * by_group["n"]).round()
        mine["tpr"] = mine["tpr"].where(num_positives > 0)
        mine["fpr"] = mine["fpr"].where(num_positives < by_group["n"])
        rates |= {(group, name): dict(unknown) for group in groups.names}
        for group in mine.index:
            values = (mine["rate"][group], mine["tpr"][group], mine["fpr"][group])
            rates[group, name] = {
                "n": by_group["n"][group],
                "num_positives": num_positives[group],
                "accuracy": by_group["accuracy"][group],
                **dict(zip(_RATES, map(float, values), strict=True)),
            }
        undefined = int(mine[["tpr", "fpr"]].isna().sum().sum())
        if undefined or len(mine) < 2:
            difference, ratio = _over_defined(mine)
        else:
            difference, ratio = ({it: float(values[f"{it} {c}"]) for it in mine} for values in whole[:2])
        fairness[name] = _fairness(difference, ratio) | {
            "worst_group_accuracy": whole[2],
            "num_groups": float(len(mine)),
        }
        num_undefined += undefined
    return rates, fairness, num_undefined


_RATES = ("selection_rate", "true_positive_rate", "false_positive_rate")
_DIFFERENCES = (
    *("demographic_parity_difference", "demographic_parity_ratio", "equalized_odds_difference", "equalized_odds_ratio"),
    *("worst_group_accuracy", "label_demographic_parity_difference"),
)


def _for_class(metric: Callable[..., float], c: int) -> Callable[..., float]:
    """A metric of fairlearn with class c as the positive one."""
    return lambda truth, answer: metric((truth == c).astype(int), (answer == c).astype(int), pos_label=1)


def _for_labels(metric: Callable[..., float], c: int) -> Callable[..., float]:
    """The metric with the true labels in the place of the predictions."""
    return lambda truth, _: metric((truth == c).astype(int), (truth == c).astype(int), pos_label=1)


def _fairness(difference: Mapping[str, float], ratio: Mapping[str, float]) -> dict[str, float]:
    is_defined = not (math.isnan(difference["tpr"]) or math.isnan(difference["fpr"]))
    # As fairlearn: the ratio of true positive rates where no group has a false positive.
    ratios = [value for value in (ratio["tpr"], ratio["fpr"]) if not math.isnan(value)]
    has_ratio = is_defined and not math.isnan(ratio["tpr"])
    return {
        "demographic_parity_difference": difference["rate"],
        "demographic_parity_ratio": ratio["rate"],
        "equalized_odds_difference": max(difference["tpr"], difference["fpr"]) if is_defined else math.nan,
        "equalized_odds_ratio": min(ratios) if has_ratio else math.nan,
        "label_demographic_parity_difference": difference["label"],
    }


def _over_defined(by_group: Any) -> tuple[dict[str, float], dict[str, float]]:
    """Differences and ratios over the groups that have each rate; undefined with fewer than two."""
    difference, ratio = {}, {}
    for name in by_group:
        values = by_group[name].dropna()
        is_compared = len(values) >= 2
        difference[name] = float(values.max() - values.min()) if is_compared else math.nan
        ratio[name] = float(values.min() / values.max()) if is_compared and values.max() > 0 else math.nan
    return difference, ratio


def _mean(values: list[float]) -> float:
    defined = [value for value in values if not math.isnan(value)]
    return float(np.mean(defined)) if defined else math.nan


def _shown(value: float | None) -> str:
    return "null" if value is None else f"{value:.9g}"
