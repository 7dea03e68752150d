"""What can be chosen to be looked at: a metric of the whole trial, of a class, of the groups of a feature, or of one group."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from kd_ray.analysis.conditions import Condition
from kd_ray.analysis.study import FAIRNESS
from kd_ray.metrics.arrays import FloatArray
from kd_ray.metrics.catalogue import METRICS, Metric
from kd_ray.serve.page_data import Read
from kd_ray.shown import rounded

OF_TRIAL = (
    "accuracy",
    "worst_class_accuracy",
    "balanced_accuracy",
    "loss",
    "expected_calibration_error",
    "mean_confidence",
    "individual_fairness",
    "individual_fairness_hard",
    "individual_fairness_calibrated",
)
OF_CLASS = ("class_accuracy", "relative_accuracy")
OF_GROUPS = tuple(name for name in FAIRNESS if name != "label_demographic_parity_difference")
GROUP_ACCURACY = "group_accuracy"
LABELS = "label_demographic_parity_difference"
_OWN = {
    "class_accuracy": "accuracy of a class",
    "relative_accuracy": "accuracy of a class ÷ overall accuracy",
    GROUP_ACCURACY: "accuracy of a group",
}


@dataclass(frozen=True, kw_only=True)
class Chosen:
    """What a URL asks to look at. What a sweep does not have is replaced by the first that it has."""

    metric: str = "accuracy"
    class_name: str = ""
    feature: str = ""
    group: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Quantity:
    """One number of every trial."""

    chosen: Chosen
    title: str
    metric: Metric
    """Gives unit, digits and range."""
    values_T: FloatArray
    """As stored; NaN where undefined."""
    label: float | None = None
    """The same number of the true labels, where there is one."""
    _of_runs: dict[int, FloatArray] = field(default_factory=dict, repr=False)
    """What `over_runs` has given, by the identity of the condition."""

    def over_runs(self, condition: Condition) -> FloatArray:
        """Values of the runs of a condition, (R,), in the unit that is shown."""
        if id(condition) not in self._of_runs:
            self._of_runs[id(condition)] = self.metric.scale * condition.over_runs(self.values_T)
        return self._of_runs[id(condition)]

    @property
    def unit(self) -> str:
        """`%` or nothing."""
        return "%" if self.metric.unit == "rate" else ""

    def shown(self, value: float) -> str:
        """A value in the unit of the metric, without it."""
        return "–" if np.isnan(value) else rounded(value * self.metric.scale, self.metric.digits).replace("-", "−")


def metric_names(read: Read) -> Mapping[str, str]:
    """Every metric that the sweep has, with its name for people."""
    found: Mapping[str, str] = read.remember("metric names", lambda: _metric_names(read))
    return found


def _metric_names(read: Read) -> Mapping[str, str]:
    study = read.study
    names = {name: METRICS[name].short for name in OF_TRIAL if not np.isnan(study.values(name)).all()}
    names |= {name: _OWN[name] for name in OF_CLASS}
    if study.fairness:
        names |= {name: METRICS[name].short for name in OF_GROUPS} | {GROUP_ACCURACY: _OWN[GROUP_ACCURACY]}
    return names


def quantity(read: Read, chosen: Chosen) -> Quantity:
    """The values of what is chosen, or of what comes closest."""
    found: Quantity = read.remember(chosen, lambda: _quantity(read, chosen))
    return found


def _quantity(read: Read, chosen: Chosen) -> Quantity:
    study = read.study
    name = chosen.metric if chosen.metric in metric_names(read) else "accuracy"
    if name in OF_CLASS and study.class_names:
        class_name = chosen.class_name if chosen.class_name in study.class_names else study.class_names[0]
        values_T = study.class_accuracy_TC[:, study.class_names.index(class_name)]
        if name == "relative_accuracy":
            values_T = values_T / np.where(study.values("accuracy") > 0, study.values("accuracy"), np.nan)
        return Quantity(
            chosen=Chosen(metric=name, class_name=class_name),
            title=f"{_OWN[name]}: {class_name}",
            metric=METRICS["relative_accuracy" if name == "relative_accuracy" else "accuracy"],
            values_T=values_T,
        )
    features = [it.feature for it in study.fairness]
    if name in (*OF_GROUPS, GROUP_ACCURACY) and features:
        feature = chosen.feature if chosen.feature in features else features[0]
        if name == GROUP_ACCURACY:
            groups = read.groups.get(feature, {})
            group = chosen.group if chosen.group in groups else next(iter(groups), "")
            found = groups.get(group)
            values_T = found.accuracy_T if found else np.full(len(study.trials), np.nan)
            return Quantity(
                chosen=Chosen(metric=name, feature=feature, group=group),
                title=f"accuracy of {feature} {group}",
                metric=METRICS["accuracy"],
                values_T=values_T,
            )
        fairness = next(it for it in study.fairness if it.feature == feature)
        label_T = fairness.metrics[LABELS]
        has_label = name == "demographic_parity_difference" and not np.isnan(label_T).all()
        return Quantity(
            chosen=Chosen(metric=name, feature=feature),
            title=f"{METRICS[name].short}, {feature}",
            metric=METRICS[name],
            values_T=fairness.metrics[name],
            label=float(np.nanmean(label_T)) if has_label else None,
        )
    return Quantity(
        chosen=Chosen(metric=name), title=METRICS[name].short, metric=METRICS[name], values_T=study.values(name)
    )
