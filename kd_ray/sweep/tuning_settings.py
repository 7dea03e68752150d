"""The `tune` section of a sweep file, what `kd-ray tune` searches; and the `tuned` section, what a search has found."""

from typing import Annotated, Any, Literal, Self

from pydantic import Discriminator, Field, JsonValue, PositiveFloat, PositiveInt, Tag, model_validator

from kd_ray.sweep.fields import Config, Fraction, Seed, refuse

SUFFIX = ".tune"
"""The candidates of a sweep stand in the store under the sweep's name and this."""

Range = tuple[float, float]


def is_tuning(sweep: str) -> bool:
    """Whether a name of the store is that of a search rather than of a sweep."""
    return sweep.endswith(SUFFIX)


def _check_range(field: str, low: float, high: float) -> None:
    if low >= high:
        raise refuse(field, f"must be [low, high] with low below high, got [{low:g}, {high:g}]")


class LogUniform(Config):
    """Numbers whose logarithm is uniform."""

    log_uniform: tuple[PositiveFloat, PositiveFloat]
    """The least and the largest."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_range("log_uniform", *self.log_uniform)
        return self


class Uniform(Config):
    """Uniform numbers."""

    uniform: Range
    """The least and the largest."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_range("uniform", *self.uniform)
        return self


class Integers(Config):
    """Uniform whole numbers."""

    integers: tuple[int, int]
    """The least and the largest, both included."""

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        _check_range("integers", *self.integers)
        return self


Choice = Annotated[tuple[JsonValue, ...], Field(min_length=1)]


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return next((kind for kind in ("uniform", "integers") if kind in value), "log_uniform")
    kinds: dict[type, str] = {LogUniform: "log_uniform", Uniform: "uniform", Integers: "integers"}
    return kinds.get(type(value), "choice")


Dimension = Annotated[
    Annotated[LogUniform, Tag("log_uniform")]
    | Annotated[Uniform, Tag("uniform")]
    | Annotated[Integers, Tag("integers")]
    | Annotated[Choice, Tag("choice")],
    Discriminator(_kind),
]
"""The values that one setting may take: a list of values, or a range."""


class Asha(Config):
    """Ray Tune's asynchronous successive halving (Li et al. 2020): stop candidates early that are behind the ones before them."""

    name: Literal["asha"] = "asha"
    grace_epochs: PositiveInt
    """Epochs that every candidate trains; decisions fall there and after each `reduction_factor` times as many."""
    reduction_factor: Annotated[int, Field(ge=2)] = 3
    """At each decision about one candidate in so many continues; the others are stopped."""


class Budget(Config):
    """When the search ends. A larger budget later continues the search."""

    candidates: PositiveInt
    """Most candidates."""
    train_hours: PositiveFloat | None = None
    """No new round of candidates begins after so many hours of training, summed over all trials of the search; left out, no limit."""


Arm = Literal["scratch", "teacher", "distilled", "all"]


class Tuning(Config):
    """A search for settings, before the grid is run."""

    space: Annotated[dict[str, Dimension], Field(min_length=1)]
    """Dotted paths of settings, as axes of a grid have, each with a list of values or a range: `{log_uniform: [1e-4, 1e-1]}`, `{uniform:
    [0, 1]}`, `{integers: [10, 50]}`. A path may lie within the value of one before it."""
    arm: Arm
    """Whose metric is optimised: `teacher`, `scratch`, `distilled` (mean over the temperatures and other conditions), or `all`: the mean of
    scratch and distilled students, half each, so that neither is favoured."""
    metric: str = "accuracy"
    """On the validation split: accuracy, balanced_accuracy, worst_class_accuracy, loss, or one of groups, as equalized_odds_difference."""
    feature: str | None = None
    """Sensitive feature of a metric of groups."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)] = (0,)
    """Seeds of each candidate, averaged."""
    grid: dict[str, Annotated[tuple[JsonValue, ...], Field(min_length=1)]] = Field(default_factory=dict)
    """Values of the grid's axes with which candidates are trained, as in `temperature: [1, 4]`; those of the grid where left out."""
    validation_fraction: Fraction | None = None
    """Share of the training split set aside while tuning, where the data set has no validation split; the grid then trains on all of it."""
    budget: Budget
    """When the search ends."""
    searcher: Literal["random", "grid", "optuna"] = "random"
    """Ray Tune's searcher; `optuna` needs kd_ray[optuna]."""
    scheduler: Asha | None = None
    """Ray Tune's scheduler that stops candidates early; left out, all train to their end."""
    at_once: PositiveInt = 4
    """Candidates of `optuna` that are chosen together, before their results are known."""
    seed: Seed = 0
    """Seed of the searcher."""

    @model_validator(mode="after")
    def _settings_fit(self) -> Self:
        if self.searcher == "grid":
            for path, dimension in self.space.items():
                if not isinstance(dimension, tuple):
                    raise refuse(f"space.{path}", "searcher grid needs a list of values here")
        if self.arm == "teacher" and self.grid:
            raise refuse("grid", "has no effect with arm: teacher")
        return self


class Tuned(Config):
    """How the settings of this sweep were found; `kd-ray tune` writes it, and reports repeat it. Not part of a trial's identity."""

    split: Literal["validation"] = "validation"
    """The split that candidates were compared on."""
    arm: Arm
    """The arm that they were compared by."""
    metric: str
    """The metric that they were compared by."""
    searcher: str
    """The searcher, and the scheduler."""
    candidates: PositiveInt
    """Candidates that were tried."""
    stopped: Annotated[int, Field(ge=0)] = 0
    """Those of them that were stopped early."""
    seeds: Annotated[tuple[Seed, ...], Field(min_length=1)]
    """Seeds of each candidate."""
    train_hours: Annotated[float, Field(ge=0)]
    """Hours of training of the whole search."""
    value: float
    """The chosen candidate's metric."""
    settings: dict[str, JsonValue]
    """What was chosen."""
    regret: dict[str, float] = Field(default_factory=dict)
    """By arm: how much worse the chosen candidate is than the candidate that is best for this arm alone."""
