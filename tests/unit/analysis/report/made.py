"""Studies and comparisons written by hand, and one sweep with names that nobody should have."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

from kd_ray.analysis.comparisons import Comparison
from kd_ray.analysis.report.evidence import ClassBias, Evidence, Key
from kd_ray.analysis.report.study import Condition, Fairness, Study
from kd_ray.groups import Groups
from kd_ray.results.aggregate import aggregate
from kd_ray.results.query import Results
from kd_ray.results.record import commit_record, write_samples
from kd_ray.results.store import Store
from tests.fakes import (
    COLORS_N,
    TEXTURES_N,
    make_record,
    make_samples,
    make_sweep,
    plan_trials,
    random_predictions,
    write_sweep,
)

HOSTILE = ("<script>alert(1)</script>", "$\\frac$ & 50% _x^", "a\"b'c --> ]]> 東京\u202e")
"""Class names that are HTML, mathematics, LaTeX, the end of a comment, and letters that no font of ours has."""
SCRATCH, TEACHER = "scratch_vs_distilled", "teacher_vs_distilled"


def hostile_sweep(store: Store, *overrides: str, leave_out: int = 0) -> Results:
    """The sweep `demo` with hostile names; the last `leave_out` of its trials are not complete."""
    file = make_sweep(overrides=overrides)
    groups = {
        "color": Groups.from_codes(COLORS_N, [HOSTILE[0], "blue", "green"]),
        "texture": Groups.from_codes(TEXTURES_N, ["dots", HOSTILE[1]]),
    }
    trials = plan_trials(file)
    for trial in trials[: len(trials) - leave_out]:
        write_samples(store, trial.spec.dataset_id, make_samples(class_names=HOSTILE, sensitive_features=groups))
        commit_record(store, make_record(trial.spec, predictions_N=random_predictions(trial.spec)))
    write_sweep(store, file)
    aggregate(store, "demo")
    return Results(store)


def make_condition(role: str, trials: Sequence[int], temperature: float | None = None, **axes: Any) -> Condition:
    """A condition in which every trial is a run."""
    return Condition(
        role=role,
        axes={
            "model": "lenet5",
            "teacher": "resnet20",
            "objective": "kd",
            "alpha": 0.5,
            "t_squared": True,
            "dataset_id": "d",
        }
        | axes,
        settings=(),
        temperature=temperature,
        label=role if temperature is None else f"T={temperature:g}",
        trials=np.array(trials),
        runs=tuple(np.array([i]) for i in trials),
    )


def make_study(
    *,
    seeds: int = 5,
    temperatures: Sequence[float] = (1, 4),
    class_names: Sequence[str] = ("cat", "dog"),
    accuracies: Mapping[str, Sequence[float]] | None = None,
    missing: int = 0,
) -> Study:
    """A teacher, a scratch and some distilled conditions with `seeds` runs each; `accuracies` by label of the condition."""
    labels = [("teacher", None), ("scratch", None), *(("distilled", t) for t in temperatures)]
    conditions = tuple(make_condition(role, range(i * seeds, (i + 1) * seeds), t) for i, (role, t) in enumerate(labels))
    size = len(labels) * seeds
    accuracy_R = np.concatenate([np.resize((accuracies or {}).get(c.label, (0.5,)), seeds) for c in conditions])
    trials = [
        {"trial_id": f"{i:016x}", "accuracy": accuracy, "individual_fairness": 1.0, "individual_fairness_hard": 0.5}
        for i, accuracy in enumerate(accuracy_R)
    ]
    metrics = {
        "equalized_odds_difference": accuracy_R / 10,
        "demographic_parity_difference": accuracy_R / 20,
        "label_demographic_parity_difference": np.full(size, 0.03),
        "worst_group_accuracy": accuracy_R,
    }
    return Study(
        sweep="made",
        dataset="trifeature",
        target="shape",
        trials=trials,
        states={"complete": size, "pending": missing},
        conditions=conditions,
        class_names=tuple(class_names),
        class_n_C=np.full(len(class_names), 50),
        class_accuracy_RC=np.tile(accuracy_R[:, None], (1, len(class_names))),
        fairness=(Fairness(feature="color", metrics=metrics, num_groups=3),),
        epochs={},
        predictions=lambda places: {},
    )


def make_row(**values: Any) -> dict[str, Any]:
    """A row of `comparisons` as the store gives it; what is not given is null."""
    empty: dict[str, Any] = {field.name: None for field in fields(Comparison)}
    known = {
        "settings": {},
        "flags": [],
        "level": 0.05,
        "condition": "T=4",
        "contrast": SCRATCH,
        "n_baseline": 5,
        "n_treatment": 5,
    }
    return empty | known | values


def make_bias(p: Sequence[float], q: Sequence[float], holm: Sequence[float], effect: Sequence[float]) -> ClassBias:
    """Tests of all classes; intervals reach two points to each side."""
    effect_C = np.array(effect)
    return ClassBias(
        effect_C=effect_C,
        ci_low_C=effect_C - 0.02,
        ci_high_C=effect_C + 0.02,
        p_C=np.array(p),
        q_C=np.array(q),
        p_holm_C=np.array(holm),
        level=0.05,
    )


def make_evidence(
    rows: Sequence[dict[str, Any]] = (), class_bias: Mapping[tuple[str, Key], ClassBias] | None = None
) -> Evidence:
    """Comparisons written by hand."""
    return Evidence(class_bias=class_bias or {}, rows=list(rows))
