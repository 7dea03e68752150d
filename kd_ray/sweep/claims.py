"""Claims: the questions that a sweep file declares before its trials run.

A claim names a metric, the distilled conditions it speaks of, what they are compared with, and what is expected. It is never part of
a trial's identity. The manifest records when each claim was declared, and `analysis` tests it. `claim_checks.py` says whether a claim
fits its sweep.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, JsonValue, PositiveFloat, model_validator

from kd_ray.bounded import JsonForm
from kd_ray.sweep.axes import AXIS_PATHS, axis_path
from kd_ray.sweep.fields import Config, refuse

ClaimMetric = Literal[
    "accuracy",
    "worst_class_accuracy",
    "class_accuracy",
    "individual_fairness",
    "individual_fairness_hard",
    "disagreement",
    "demographic_parity_difference",
    "equalized_odds_difference",
    "worst_group_accuracy",
]
METRICS: tuple[str, ...] = get_args(ClaimMetric)
"""What a claim can be about."""
GROUP_METRICS = METRICS[-3:]
"""Those of the groups of one sensitive feature."""
RATES = tuple(name for name in METRICS if not name.startswith("individual_fairness"))
"""Those that lie between 0 and 1; 0.01 is one point."""

Direction = Literal["higher", "lower", "different", "equivalent", "not_lower", "not_higher", "rises", "falls"]
TREND_DIRECTIONS = ("rises", "falls")
_NEED_MARGIN = ("equivalent", "not_lower", "not_higher")
_MAY_HAVE_MARGIN = ("higher", "lower", *_NEED_MARGIN)

_WORDS = {"disagreement": "disagreement with the teacher"}
_SHORT = {"distillation.temperature": "T", "distillation.t_squared": "T²"}
_VERBS = {
    "higher": "is higher than",
    "lower": "is lower than",
    "different": "differs from",
    "equivalent": "differs from",
    "not_lower": "is not lower than",
    "not_higher": "is not higher than",
}


class Claim(Config):
    """A question that is decided before training: a metric, the distilled students it is about, a baseline, and what is expected.

    Direction and margin are about the difference of means, distilled minus baseline.
    """

    metric: ClaimMetric
    """What is compared. `disagreement` is that of a student with its teacher; the last three are of the groups of a sensitive feature, as
    one-vs-rest means over the classes (worst-group accuracy: over all classes)."""
    feature: str | None = None
    """Sensitive feature whose groups are compared, or joint groups as in `color & texture`; for the last three metrics."""
    class_name: Annotated[str | None, Field(alias="class", min_length=1)] = None
    """Name of the class; for class_accuracy."""
    against: Literal["scratch", "teacher"] = "scratch"
    """Baseline: the non-distilled student, or the teacher."""
    condition: Annotated[dict[str, JsonValue], Field(min_length=1)] | None = None
    """Which distilled students, by values of axes as in `{temperature: 4}`; where several conditions have them, or without a condition, the
    mean over conditions."""
    trend: Literal["temperature"] | None = None
    """Ask how the metric moves with this axis instead of how far it is from the baseline."""
    from_temperature: Annotated[PositiveFloat | None, Field(alias="from")] = None
    """Lowest temperature of the trend; left out, the lowest there is."""
    up_to: PositiveFloat | None = None
    """Highest temperature of the trend; left out, the highest there is."""
    direction: Direction = "different"
    """What is expected of the distilled students. `different` is two-sided; `equivalent`: closer to the baseline than `margin`;
    `not_lower`, `not_higher`: not beyond the baseline by `margin` or more; `rises`, `falls` are for trends."""
    margin: PositiveFloat | None = None
    """In the metric's own unit: 0.01 is one point of a rate. With higher or lower: by more than so much."""

    @model_validator(mode="after")
    def _fields_fit(self) -> Self:
        for field, value, metrics in (
            ("feature", self.feature, GROUP_METRICS),
            ("class", self.class_name, ("class_accuracy",)),
        ):
            if value is None and self.metric in metrics:
                raise refuse(field, f"is required with metric {self.metric}")
            if value is not None and self.metric not in metrics:
                message = f"has no effect with metric {self.metric}, got {value!r}"
                raise refuse(field, f"{message}; it is for {', '.join(metrics)}")
        if self.metric == "disagreement" and self.against == "teacher":
            raise refuse("against", "disagreement is that with the teacher already; use scratch")
        self._check_trend()
        self._check_margin()
        return self

    def _check_trend(self) -> None:
        if self.trend is None:
            for field, value in (("from", self.from_temperature), ("up_to", self.up_to)):
                if value is not None:
                    raise refuse(field, f"has no effect without trend: temperature, got {value:g}")
            if self.direction in TREND_DIRECTIONS:
                message = f"{self.direction} is for a trend; add trend: temperature"
                raise refuse("direction", f"{message}, or choose one of {', '.join(_others())}")
            return
        if self.condition is not None:
            raise refuse("condition", "cannot stand beside trend; use from and up_to to choose temperatures")
        if self.direction not in TREND_DIRECTIONS:
            valid = ", ".join(TREND_DIRECTIONS)
            raise refuse("direction", f"must be one of {valid} with trend, got {self.direction!r}")
        if self.against == "teacher":
            raise refuse("against", "has no effect with trend, got 'teacher'")
        if self.from_temperature and self.up_to and self.from_temperature >= self.up_to:
            raise refuse("from", f"must be below up_to = {self.up_to:g}, got {self.from_temperature:g}")

    def _check_margin(self) -> None:
        if self.margin is None:
            if self.direction in _NEED_MARGIN:
                raise refuse("margin", f"is required with direction {self.direction}; 0.01 is one point of a rate")
            return
        if self.direction not in _MAY_HAVE_MARGIN:
            message = f"has no effect with direction {self.direction}, got {self.margin:g}"
            raise refuse("margin", f"{message}; it is for {', '.join(_MAY_HAVE_MARGIN)}")
        if self.metric in RATES and self.margin >= 1:
            raise refuse("margin", f"must be below 1 for a rate, where 0.01 is one point, got {self.margin:g}")

    def to_json(self) -> dict[str, Any]:
        """As the sweep file says it, with the defaults of `against` and `direction`; fields that say nothing are left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)

    @property
    def sha256(self) -> str:
        """SHA-256, in hex, of the canonical JSON: sorted keys, no spaces, whole numbers without a fraction."""
        text = json.dumps(_canonical(self.to_json()), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
        return hashlib.sha256(text.encode()).hexdigest()

    def chooses(
        self,
        *,
        temperature: float | None,
        alpha: float | None,
        t_squared: bool | None,
        objective: str,
        settings: Mapping[str, str],
    ) -> bool:
        """Whether it is about distilled students with these values; `settings` holds the other axes as text, as in the table `trials`."""
        if self.trend is not None:
            low, high = self.from_temperature or 0.0, self.up_to or float("inf")
            return temperature is not None and low <= temperature <= high
        named: dict[str, Any] = {
            AXIS_PATHS["temperature"]: temperature,
            AXIS_PATHS["alpha"]: alpha,
            AXIS_PATHS["t_squared"]: t_squared,
            AXIS_PATHS["objective"]: objective,
        }
        return all(
            is_same(named[axis_path(axis)], value)
            if axis_path(axis) in named
            else axis in settings and _is_text_of(settings[axis], value)
            for axis, value in (self.condition or {}).items()
        )

    def text(self) -> str:
        """In plain words: `worst-class accuracy of T=4 is not lower than scratch by more than 1 point`."""
        what = f"{self._metric_text()} of {self._condition_text()}"
        if self.trend is not None:
            bounds = [] if self.from_temperature is None else [f"from T={self.from_temperature:g}"]
            bounds += [] if self.up_to is None else [f"up to T={self.up_to:g}"]
            return " ".join([what, self.direction, "with temperature", *bounds])
        words = f"{what} {_VERBS[self.direction]} {'scratch' if self.against == 'scratch' else 'the teacher'}"
        if self.margin is None:
            return words
        return f"{words} by {'less' if self.direction == 'equivalent' else 'more'} than {self._margin_text()}"

    def _metric_text(self) -> str:
        if self.metric == "class_accuracy":
            return f"accuracy on class {self.class_name}"
        words = _WORDS.get(self.metric, self.metric.replace("_", " "))
        words = words.replace("worst class", "worst-class").replace("worst group", "worst-group")
        return words if self.feature is None else f"{words} ({self.feature})"

    def _condition_text(self) -> str:
        if self.condition is None:
            return "distilled students" if self.trend else "all distilled students"
        return ", ".join(f"{_short(axis)}={_shown(value)}" for axis, value in self.condition.items())

    def _margin_text(self) -> str:
        assert self.margin is not None
        if self.metric not in RATES:
            return f"{self.margin:g}"
        points = f"{self.margin * 100:g}"
        return f"{points} point{'' if points == '1' else 's'}"


def is_same(one: Any, other: Any) -> bool:
    """Whether two values of an axis are the same; 4 is 4.0, and neither is true."""
    return isinstance(one, bool) == isinstance(other, bool) and bool(one == other)


_ANY: JsonForm[Any] = JsonForm(kind=Any)


def _is_text_of(text: str, value: JsonValue) -> bool:
    if isinstance(value, str):
        return text == value
    try:
        return is_same(_ANY.read(text), value)
    except ValueError:
        return False


def _canonical(value: Any) -> Any:
    """The same value with whole floats as integers, so that 4.0 and 4 are one claim."""
    if isinstance(value, dict):
        return {key: _canonical(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_canonical(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _others() -> list[str]:
    return [name for name in get_args(Direction) if name not in TREND_DIRECTIONS]


def _short(axis: str) -> str:
    path = axis_path(axis)
    return _SHORT.get(path, path.rsplit(".", 1)[-1])


def _shown(value: JsonValue) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return f"{value:g}" if isinstance(value, float) else str(value)
