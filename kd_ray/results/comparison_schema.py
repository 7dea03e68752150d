"""The tables that `kd-ray compare` writes: `comparisons`, a row for each statement, and the chance levels of trials."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import Annotated, Any, get_args, get_type_hints

import pyarrow as pa

from kd_ray.results.columns import TEXT as _TEXT
from kd_ray.results.columns import Column, Table
from kd_ray.results.columns import column as _column
from kd_ray.results.columns import rate as _rate

Text = str | None
Number = float | None
Count = int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Comparison:
    """One statement about conditions. A condition is everything in a student's key but its seed.

    Each field is a column, with its meaning; the unit `1` marks rates in [0, 1]. Undefined is None.
    """

    sweep: Annotated[str, "name of the sweep"]
    dataset: Annotated[str, "name of the data set"]
    dataset_id: Annotated[str, "identity of the data set with its version, target and splits"]
    target: Annotated[str, "what is classified"]
    model: Annotated[str, "architecture of the students"]
    teacher: Annotated[
        Text, "architecture of their teacher, or logits: and 8 digits of the file of its logits; null without one"
    ] = None
    analysis: Annotated[
        str,
        "claim, condition (its mean alone), class_bias, class_bias_counts, fairness, trend, frontier, matched_accuracy, power",
    ]
    contrast: Annotated[
        Text,
        "baseline_vs_treatment: scratch_vs_distilled, teacher_vs_distilled; trends: temperature_low, temperature_high",
    ] = None
    family: Annotated[Text, "question and contrast over all conditions: the tests over which q and p_holm correct"] = (
        None
    )
    role: Annotated[str, "role of the treatment: teacher, scratch or distilled"]
    objective: Annotated[Text, "training loss of the treatment"] = None
    temperature: Annotated[Number, "T of the treatment; null without one, and for trends"] = None
    alpha: Annotated[Number, "weight of the treatment's distillation term; null without one", "1"] = None
    t_squared: Annotated[bool | None, "whether its distillation term is multiplied by T²; null without one"] = None
    settings: Annotated[Mapping[str, str], "the treatment's values of the other grid axes, a JSON object"] = field(
        default_factory=dict
    )
    condition: Annotated[str, "the treatment in words, such as `T=4 alpha=0.9`"]
    metric: Annotated[str, "what is compared, by its name in the other tables"]
    class_index: Annotated[Count, "index of the class; null when it is not about one"] = None
    class_name: Annotated[Text, "name of the class"] = None
    class_n: Annotated[Count, "test samples of the class: one of them is 1 / class_n"] = None
    sensitive_feature: Annotated[Text, "sensitive feature; null when it is not about one"] = None
    positive_class: Annotated[Text, "`macro`, the one-vs-rest mean; null where there is none"] = None
    n_baseline: Annotated[Count, "runs of the baseline: seeds, each the mean over its teachers"] = None
    n_treatment: Annotated[Count, "runs of the treatment; of a trend, all its runs"] = None
    mean_baseline: Annotated[Number, "mean over runs of what is tested (class bias: normalised)"] = None
    mean_treatment: Annotated[Number, "the same of the treatment"] = None
    sd_baseline: Annotated[Number, "standard deviation over runs, ddof = 1; null below two"] = None
    sd_treatment: Annotated[Number, "the same of the treatment"] = None
    accuracy_baseline: Annotated[Number, "mean accuracy of the class, or overall where it is not about one", "1"] = None
    accuracy_treatment: Annotated[Number, "the same of the treatment", "1"] = None
    effect: Annotated[
        Number,
        "(mean_treatment - mean_baseline) × effect_scale: rates and accuracies in [-1, 1]; trends: the correlation",
    ] = None
    effect_scale: Annotated[
        Number, "1; for class bias by ratio the mean accuracy of the baseline, so that 0.01 is a point of accuracy"
    ] = None
    ci_low: Annotated[
        Number, "lower end of the 1 - level interval over runs, of the effect or (condition) the mean"
    ] = None
    ci_high: Annotated[Number, "its upper end"] = None
    level: Annotated[float, "significance level, and 1 - coverage of the interval", "1"]
    scope: Annotated[
        Text, "what may be said of the teachers: this teacher, these teachers, or teachers (of this kind)"
    ] = None
    ci_total_low: Annotated[Number, "lower end of the 1 - level interval over seeds, teachers and test samples"] = None
    ci_total_high: Annotated[Number, "its upper end"] = None
    standard_error: Annotated[Number, "standard error of the effect that a claim is held to"] = None
    df_claim: Annotated[Number, "its degrees of freedom"] = None
    p_claim: Annotated[
        Number, "p that a claim is held to (docs/statistics.md); null where nothing can be claimed", "1"
    ] = None
    p_family: Annotated[Number, "p of the family (Simes), corrected over the families of the report (Holm)", "1"] = None
    status: Annotated[
        Text,
        "established, hint (p_claim < level, not established), held_back, none, not_tested; claims: established or none",
    ] = None
    held_back: Annotated[
        Text, "why nothing is claimed: small cells, accuracies differ, fewer runs, collapsed; null otherwise"
    ] = None
    hedges_g: Annotated[Number, "standardised effect, corrected for small samples; null where no sd is"] = None
    sampling_sd: Annotated[Number, "standard deviation of the effect (or mean) over resamples of the test samples"] = (
        None
    )
    sampling_bias: Annotated[Number, "mean over these resamples minus the value: a max - min is biased upwards"] = None
    label_difference: Annotated[Number, "demographic parity difference of the true labels, beside the predictions'"] = (
        None
    )
    chance_level: Annotated[
        Number,
        "differences between groups: their mean when groups are dealt anew within classes (condition, treatment)",
    ] = None
    chance_sd: Annotated[Number, "standard deviation of one such deal"] = None
    chance_baseline: Annotated[Number, "chance level of the baseline"] = None
    bias_corrected: Annotated[Number, "condition: the mean minus sampling_bias"] = None
    shrunken: Annotated[
        Number, "condition: the same from rates drawn to their mean by what noise explains (Herlihy et al. 2024)"
    ] = None
    smallest_cell: Annotated[
        Count, "test samples of the smallest group that may decide a difference (equalized odds: within a class)"
    ] = None
    test: Annotated[
        Text, "welch_t, equivalence, ancova_t, spearman, kendall, jonckheere_terpstra; null without one"
    ] = None
    statistic: Annotated[Number, "value of the test statistic"] = None
    df: Annotated[Number, "its degrees of freedom"] = None
    p: Annotated[
        Number, "two-sided p of the test over runs, uncorrected, as published; null where it cannot be tested", "1"
    ] = None
    q: Annotated[Number, "p_claim corrected over the family after Benjamini & Hochberg (1995)", "1"] = None
    p_holm: Annotated[Number, "p_claim corrected over the family after Holm (1979); claims: over all claims", "1"] = (
        None
    )
    n_pairs: Annotated[Count, "seeds that both sides have; null where runs are not paired"] = None
    p_paired: Annotated[Number, "p of the paired t-test over these seeds", "1"] = None
    p_permutation: Annotated[
        Number, "exact p over all exchanges of runs (trends: within seeds, drawn); null where there are too many", "1"
    ] = None
    p_permutation_floor: Annotated[Number, "the smallest value that p_permutation can have with so many runs", "1"] = (
        None
    )
    normalisation: Annotated[Text, "class bias: ratio (class / overall accuracy) or difference (class - overall)"] = (
        None
    )
    overall: Annotated[Text, "class bias: overall accuracy of each run (per_run) or its mean over runs (mean)"] = None
    num_tests: Annotated[Count, "tests in the family; class_bias_counts: classes that were tested"] = None
    num_significant: Annotated[Count, "classes with p < level: #SC or #TC as published"] = None
    num_established: Annotated[Count, "classes of the condition that are established"] = None
    expected_significant: Annotated[
        Number, "classes with p < level that are expected if nothing differed and runs were independent"
    ] = None
    usual_significant: Annotated[
        Count,
        "classes with p < level that a share of 1 - level of the exchanges of runs do not exceed (400 drawn where there are many); null "
        "where so few runs could not exceed it",
    ] = None
    power: Annotated[Number, "probability with which `smallest_detectable` is found", "1"] = None
    smallest_detectable: Annotated[Number, "true difference that so many runs establish with that power"] = None
    smallest_detectable_uncorrected: Annotated[Number, "the same for one test at the level alone"] = None
    claim: Annotated[Text, "the claim in words"] = None
    flags: Annotated[
        tuple[str, ...],
        "n<2, n<3, zero_variance, shared_teacher, mixed_devices, apart, chance_level, collapsed, pareto, undefined",
    ] = ()

    def but(self, **values: Any) -> "Comparison":
        """The same row with other values in some columns."""
        # Half the time of `dataclasses.replace`; a large study has 50,000 rows.
        return Comparison(**{**dict(zip(_NAMES, _values(self), strict=True)), **values})


_NAMES = tuple(column.name for column in fields(Comparison))
_values = attrgetter(*_NAMES)


_TYPES: dict[Any, pa.DataType] = {
    **dict.fromkeys((str, Text), pa.string()),
    **dict.fromkeys((float, Number), pa.float64()),
    Count: pa.int64(),
    bool | None: pa.bool_(),
    Mapping[str, str]: _TEXT,
    tuple[str, ...]: pa.list_(pa.string()),
}
"""The type of a column for the type of its field."""


def _columns() -> Iterator[Column]:
    for name, hint in get_type_hints(Comparison, include_extras=True).items():
        type_, meaning, *unit = get_args(hint)
        yield _rate(name, meaning) if unit else _column(name, _TYPES[type_], meaning)


COMPARISONS = Table(
    name="comparisons",
    one_row_per="statement about conditions, made by `kd-ray compare`; gone as soon as the trials it is about change",
    columns=tuple(_columns()),
)
"""What `kd-ray compare` writes. It is made from the other tables, not aggregated from records."""

CHANCE_LEVELS = Table(
    name="chance_levels",
    one_row_per="trial × sensitive feature × metric; made by `kd-ray compare`, which looks here before it deals groups anew",
    columns=(
        _column("sweep", _TEXT, "name of the sweep"),
        _column("trial_id", _TEXT, "identity of the trial"),
        _column("sensitive_feature", _TEXT, "sensitive feature"),
        _column("groups_digest", _TEXT, "digest of the labels and groups that were dealt"),
        _column("metric", _TEXT, "what is compared, by its name in `fairness_metrics`"),
        _column(
            "chance_level", pa.float64(), "mean of the metric when groups are dealt anew within true classes, 200 deals"
        ),
        _column("chance_sd", pa.float64(), "standard deviation over these deals"),
    ),
)
"""What `kd-ray compare` keeps with each trial."""
