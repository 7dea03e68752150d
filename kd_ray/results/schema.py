"""The columns of every table: name, type, unit and meaning, in one place.

`kd-ray schema` prints them, the aggregation writes exactly these columns with unit, range and meaning, and a test compares the two.
"""

import functools
import math

import pyarrow as pa

from kd_ray.metrics.catalogue import METRICS
from kd_ray.results.axis_columns import AXIS_COLUMNS
from kd_ray.results.columns import TEXT as _TEXT
from kd_ray.results.columns import Column, Table
from kd_ray.results.columns import column as _column
from kd_ray.results.columns import rate as _rate
from kd_ray.results.comparison_schema import CHANCE_LEVELS, COMPARISONS


def _count(name: str, meaning: str) -> Column:
    return Column(name=name, type=pa.int64(), unit="", says=meaning, low=0.0, high=math.inf)


def _metric(name: str) -> Column:
    """The column of a metric of the catalogue."""
    metric = METRICS[name]
    unit = metric.unit if metric.unit == "nat" else "1" if metric.high <= 1 else ""
    return Column(
        name=name,
        type=pa.float64(),
        unit=unit,
        says=metric.meaning,
        low=metric.low,
        high=metric.high,
        better=metric.better,
    )


SCHEMA_VERSION = 2
"""Raised when a column goes, or gets another name, type, unit or meaning. Columns that are added do not raise it (docs/tables.md).

1: kd_ray 0.1, whose files do not say so. 2: JSON text instead of maps; folders that name no column."""

# Without a zone, because DuckDB needs an extension for time zones that it would have to download.
_TIME = pa.timestamp("us")

TERMS = {
    "cross_entropy": "mean cross-entropy term, before weighting",
    "distillation": "mean distillation term, before weighting; null for objectives without it",
    "target_class": "dkd: divergence of (true class, all others), before weighting; null for others",
    "non_target_class": "dkd: divergence among the other classes, before its beta (after it where coupled); null for others",
    "between_groups": "ltkd: divergence between head, medium and tail, before weighting; null for others",
    "within_groups": "ltkd: sum of the weighted divergences within them; null for others",
    "uniform": "label_smoothing: mean of -log p over all classes; null for others",
    "worst_group": "kd_groups: largest mean loss of a group in a batch; null for others",
    "adversary": "adversarial: cross-entropy of the adversary that guesses the groups; null for others",
    "self_distillation": "iad with an attack: divergence of the attacked answer from the student's own; null for others",
    "margin_cross_entropy": "ada_margin: cross-entropy with the margins; null for others",
}
"""Terms of the losses that are there by name; those of an imported objective stand in `epochs.terms` only."""

PER_CLASS = {
    "train_n": ("training samples of the class; null for records of kd_ray 0.1", ""),
    "class_alpha": ("ada_alpha: weight of the distillation term for samples of the class; null for others", "1"),
    "class_margin": ("ada_margin: margin that the class got, in logits; null for others", ""),
    "held_out_n": ("validation samples of the class that the teacher was judged on; null where it was not", ""),
    "teacher_held_out_accuracy": ("its teacher's accuracy on them; 0 without any", "1"),
    "teacher_held_out_margin": ("its teacher's mean of p(y) - the largest other p on them; 0 without any", "1"),
}
"""What a record holds of each class besides predictions: of the training split, and because of its objective."""

PER_SAMPLE = {
    "calibrated_confidences": ("probability of the predicted class after temperature scaling", "1"),
    "robust_predictions": ("predicted class index under attack; null unless evaluation.pgd asks for it", ""),
    "true_logit_pulls": (
        "minus the derivative of the loss by the logit of the true class; null unless evaluation.gradient_rescaling asks for it",
        "",
    ),
}
"""What a record may hold of each test sample besides its prediction; null in `predictions` where it does not."""

KEYS = (
    _column("sweep", _TEXT, "name of the sweep"),
    _column("trial_id", _TEXT, "identity of the trial: hash of its complete spec"),
    _column("role", _TEXT, "teacher, scratch (non-distilled student) or distilled"),
    _column("dataset", _TEXT, "name of the data set"),
    _column("target", _TEXT, "what is classified"),
    _column("model", _TEXT, "architecture of this trial"),
    _column(
        "teacher",
        _TEXT,
        "architecture of its teacher, or logits: and 8 digits of the file of its logits; null without one",
    ),
    _column(
        "teacher_seed",
        pa.int64(),
        "seed of its teacher; null without one, with pretrained weights or with a file of logits",
    ),
    _column("objective", _TEXT, "training loss: cross_entropy, kd, another name, or an import path"),
    _column("temperature", pa.float64(), "T of the distillation term; null without one"),
    _column(
        "alpha",
        pa.float64(),
        "weight of the distillation term (1 - alpha weighs the cross-entropy); null without one",
        "1",
    ),
    _column("t_squared", pa.bool_(), "whether the distillation term is multiplied by T²; null without one"),
    _column("seed", pa.int64(), "seed of initialisation, data order and augmentation; null for pretrained weights"),
)
"""The first columns of every row."""

PROVENANCE = (
    _column("started_at", _TIME, "when this trial's training started for the last time", "UTC"),
    _column("finished_at", _TIME, "when the record was made", "UTC"),
    _column("elapsed_s", pa.float64(), "training time of this trial over all restarts; in a pack, its share", "s"),
    _column("images_per_s", pa.float64(), "training samples per second of the trial's own time", "1/s"),
    _column("restarts", pa.int64(), "checkpoints it went on from, on the way to the committed state"),
    _column("retries", pa.int64(), "times the launch started it again because its worker had died"),
    _column("generation", pa.int64(), "lease generation that committed; above 1 the trial was taken over"),
    _column("pack_size", pa.int64(), "students that shared its stream of batches, itself included"),
    _column("threads", pa.int64(), "CPU threads"),
    _column("device", _TEXT, "device that trained it"),
    _column("host", _TEXT, "host that trained it"),
    _column("launch_id", _TEXT, "launch that trained it"),
    _column("git_commit", _TEXT, "commit of the kd_ray checkout; null for an installed package"),
    _column("versions", _TEXT, "versions of Python and packages, a JSON object: versions ->> 'torch'"),
    _column("weights", _TEXT, "key of the weights in the store"),
)
"""How a row came about. These columns, and only these, may differ between two runs of the same sweep on one device type."""

PROVENANCE_NAMES = frozenset(column.name for column in PROVENANCE)

_POSITIVE = _column("positive_class", _TEXT, "class taken as positive, all others being negative")

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        Table(
            name="trials",
            one_row_per="complete trial",
            columns=(
                *KEYS,
                _column(
                    "settings",
                    _TEXT,
                    "values of the other grid axes, a JSON object: settings ->> 'training.optimizer.lr'",
                ),
                _column(
                    "teacher_trial_id", _TEXT, "trial_id of its teacher; null without one or with a file of logits"
                ),
                _column("dataset_id", _TEXT, "identity of the data set with its version, target and splits"),
                _count("num_parameters", "weights and biases of the model"),
                _count("epochs", "epochs trained; 0 for pretrained weights"),
                _count("num_test", "test samples"),
                _metric("accuracy"),
                _metric("loss"),
                _metric("expected_calibration_error"),
                _column(
                    "calibration_temperature",
                    pa.float64(),
                    "temperature that calibrates it best; of two halves, the geometric mean; null for records of kd_ray 0.1",
                ),
                _column(
                    "calibrated_on", _TEXT, "what that was fitted on: validation, or each half of test for the other"
                ),
                _rate("calibrated_expected_calibration_error", "ECE after temperature scaling", "lower"),
                _rate(
                    "robust_accuracy",
                    "accuracy under projected gradient descent; null unless evaluation.pgd asks for it",
                    "higher",
                ),
                _metric("worst_class_accuracy"),
                _metric("balanced_accuracy"),
                _metric("individual_fairness"),
                _metric("individual_fairness_hard"),
                _metric("individual_fairness_calibrated"),
                _metric("mean_confidence"),
                _column("individual_fairness_p95", pa.float64(), "95 % quantile over pairs, on probabilities"),
                _column("individual_fairness_max", pa.float64(), "largest value over pairs, on probabilities"),
                *PROVENANCE,
                *AXIS_COLUMNS,
            ),
        ),
        Table(
            name="class_metrics",
            one_row_per="trial × class",
            columns=(
                *KEYS,
                _count("class_index", "index of the class"),
                _column("class_name", _TEXT, "name of the class"),
                _count("n", "test samples of the class"),
                _count("num_correct", "of these, predicted correctly"),
                _count("num_predicted", "test samples predicted as the class"),
                _rate("accuracy", "num_correct / n (recall); null when n = 0", "higher"),
                _metric("relative_accuracy"),
                _rate("precision", "num_correct / num_predicted; null when the class is never predicted", "higher"),
                _rate(
                    "robust_accuracy",
                    "accuracy under projected gradient descent; null unless evaluation.pgd asks for it",
                    "higher",
                ),
                *(_column(name, pa.float64(), meaning, unit) for name, (meaning, unit) in PER_CLASS.items()),
            ),
        ),
        Table(
            name="group_metrics",
            one_row_per="trial × sensitive feature × group × positive class",
            columns=(
                *KEYS,
                _column("feature", _TEXT, "sensitive feature; `a & b` for an intersection"),
                _column("group", _TEXT, "group of the feature"),
                _POSITIVE,
                _count("n", "test samples of the group"),
                _count("num_positives", "of these, with the positive class as label"),
                _rate("accuracy", "accuracy within the group, all classes; null when n = 0", "higher"),
                _rate(
                    "robust_accuracy",
                    "the same under projected gradient descent; null unless evaluation.pgd asks for it",
                    "higher",
                ),
                _rate("selection_rate", "share predicted positive; null when n = 0"),
                _rate("true_positive_rate", "share of positives predicted positive; null without positives"),
                _rate("false_positive_rate", "share of negatives predicted positive; null without negatives"),
            ),
        ),
        Table(
            name="fairness_metrics",
            one_row_per="trial × sensitive feature × positive class, and one with the mean over the classes (positive_class is null)",
            columns=(
                *KEYS,
                _column("feature", _TEXT, "sensitive feature; `a & b` for an intersection"),
                _column("positive_class", _TEXT, "class taken as positive; null for the mean over all classes"),
                _count("num_groups", "groups that have test samples"),
                *(_metric(metric.name) for metric in METRICS.values() if metric.of == "groups"),
            ),
        ),
        Table(
            name="epochs",
            one_row_per="trial × epoch",
            columns=(
                *KEYS,
                _count("epoch", "epoch, from 1"),
                _column("loss", pa.float64(), "mean training loss", "nat"),
                *(_column(name, pa.float64(), meaning, "nat") for name, meaning in TERMS.items()),
                _column("terms", _TEXT, "all terms by name, a JSON object: (terms ->> 'my_term')::DOUBLE"),
                _rate(
                    "train_accuracy", "accuracy on the augmented training samples, as they were trained on", "higher"
                ),
                _rate("validation_accuracy", "accuracy on the validation split; null without one", "higher"),
                _column("lr", pa.float64(), "learning rate of the last step"),
                _column("elapsed_s", pa.float64(), "time of this trial in the epoch; in a pack, its share", "s"),
            ),
        ),
        Table(
            name="predictions",
            one_row_per="trial",
            columns=(
                *KEYS,
                _column("dataset_id", _TEXT, "identity of the data set; `samples` has its labels"),
                _column(
                    "predictions",
                    pa.list_(pa.int32()),
                    "predicted class index of each test sample, in the order of `samples`",
                ),
                _column("confidences", pa.list_(pa.float32()), "probability of the predicted class", "1"),
                _column("true_probabilities", pa.list_(pa.float32()), "probability of the true class", "1"),
                *(_column(name, pa.list_(pa.float32()), meaning, unit) for name, (meaning, unit) in PER_SAMPLE.items()),
            ),
        ),
        Table(
            name="samples",
            one_row_per="data set × test sample",
            columns=(
                _column("sweep", _TEXT, "name of the sweep"),
                _column("dataset", _TEXT, "name of the data set"),
                _column("target", _TEXT, "what is classified"),
                _column("dataset_id", _TEXT, "identity of the data set with its version, target and splits"),
                _count("sample_index", "place of the sample in `predictions`, from 0"),
                _column(
                    "sample_id",
                    _TEXT,
                    "its name in its source: a file, an id, or the number of its row from 0; null for samples of kd_ray 0.1",
                ),
                _count("label", "true class index"),
                _column("label_name", _TEXT, "true class"),
                _column(
                    "sensitive_features",
                    _TEXT,
                    "groups by feature, a JSON object of lists: list_contains((sensitive_features -> 'color')::VARCHAR[], 'red')",
                ),
            ),
        ),
    )
}
"""The tables that are aggregated from records, by name."""

TUNING = Table(
    name="tuning",
    one_row_per="candidate of a search (`kd-ray tune`) × trial that was trained, to its end or to where it was stopped",
    columns=(
        *KEYS,
        _count("candidate", "number of the candidate, from 1"),
        _column("settings", _TEXT, "values that were searched, a JSON object: settings ->> 'training.optimizer.lr'"),
        _column("arm", _TEXT, "scratch, teacher, or the condition of a distilled student"),
        _column("state", _TEXT, "of the candidate: complete, stopped (by the scheduler), failed or open"),
        _count("epochs", "epochs after which the trial was evaluated"),
        _column("split", _TEXT, "what it was evaluated on: validation"),
        _column("metric", _TEXT, "the metric that is searched for"),
        _column("feature", _TEXT, "sensitive feature of a metric of groups; null for others"),
        _column("value", pa.float64(), "the trial's metric; null where it is undefined"),
        _column(
            "candidate_value", pa.float64(), "the candidate's: mean over seeds, then over the conditions of its arm"
        ),
        _column("is_chosen", pa.bool_(), "whether the candidate is the best complete one so far"),
        _column("elapsed_s", pa.float64(), "training time of the trial; in a pack, its share", "s"),
    ),
)
"""The candidates of searches. Made from their trials; these are in no other table."""

QUERIED: dict[str, Table] = {
    **TABLES,
    COMPARISONS.name: COMPARISONS,
    CHANCE_LEVELS.name: CHANCE_LEVELS,
    TUNING.name: TUNING,
}
"""All that people query: the aggregated tables, and what is made from them."""

# Timing of an epoch is the one measured column outside `trials`.
TIMING_NAMES = PROVENANCE_NAMES | {"elapsed_s"}
"""Columns that may differ between two runs of the same sweep on one device type, over all tables."""


@functools.cache
def columns_text() -> str:
    """Name and type of every column of all tables, from which a part shows whether it has other ones."""
    return str({name: [(it.name, str(it.type)) for it in table.columns] for name, table in TABLES.items()})
