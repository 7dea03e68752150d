"""The columns of the table `comparisons`: what `kd-ray compare` says about conditions."""

import pyarrow as pa

from kd_ray.results.columns import TEXT as _TEXT
from kd_ray.results.columns import Table
from kd_ray.results.columns import column as _column
from kd_ray.results.columns import rate as _rate

COMPARISONS = Table(
    name="comparisons",
    one_row_per="statement about conditions, made by `kd-ray compare`; gone as soon as the trials it is about change",
    columns=(
        _column("sweep", _TEXT, "name of the sweep"),
        _column("dataset", _TEXT, "name of the data set"),
        _column("dataset_id", _TEXT, "identity of the data set with its version, target and splits"),
        _column("target", _TEXT, "what is classified"),
        _column("model", _TEXT, "architecture of the students"),
        _column("teacher", _TEXT, "architecture of their teacher; null without one"),
        _column(
            "analysis",
            _TEXT,
            "claim, condition (its mean alone), class_bias, class_bias_counts, fairness, trend, frontier, matched_accuracy, power",
        ),
        _column(
            "contrast",
            _TEXT,
            "baseline_vs_treatment: scratch_vs_distilled, teacher_vs_distilled; trends: temperature_low, temperature_high",
        ),
        _column(
            "family", _TEXT, "question and contrast over all conditions: the tests over which q and p_holm correct"
        ),
        _column("role", _TEXT, "role of the treatment: teacher, scratch or distilled"),
        _column("objective", _TEXT, "training loss of the treatment"),
        _column("temperature", pa.float64(), "T of the treatment; null without one, and for trends"),
        _column("alpha", pa.float64(), "weight of the treatment's distillation term; null without one", "1"),
        _column("t_squared", pa.bool_(), "whether its distillation term is multiplied by T²; null without one"),
        _column("settings", _TEXT, "the treatment's values of the other grid axes, a JSON object"),
        _column("condition", _TEXT, "the treatment in words, such as `T=4 alpha=0.9`"),
        _column("metric", _TEXT, "what is compared, by its name in the other tables"),
        _column("class_index", pa.int64(), "index of the class; null when it is not about one"),
        _column("class_name", _TEXT, "name of the class"),
        _column("class_n", pa.int64(), "test samples of the class: one of them is 1 / class_n"),
        _column("sensitive_feature", _TEXT, "sensitive feature; null when it is not about one"),
        _column("positive_class", _TEXT, "`macro`, the one-vs-rest mean; null where there is none"),
        _column("n_baseline", pa.int64(), "runs of the baseline: seeds, each the mean over its teachers"),
        _column("n_treatment", pa.int64(), "runs of the treatment; of a trend, all its runs"),
        _column("mean_baseline", pa.float64(), "mean over runs of what is tested (class bias: normalised)"),
        _column("mean_treatment", pa.float64(), "the same of the treatment"),
        _column("sd_baseline", pa.float64(), "standard deviation over runs, ddof = 1; null below two"),
        _column("sd_treatment", pa.float64(), "the same of the treatment"),
        _column(
            "accuracy_baseline", pa.float64(), "mean accuracy of the class, or overall where it is not about one", "1"
        ),
        _column("accuracy_treatment", pa.float64(), "the same of the treatment", "1"),
        _column(
            "effect",
            pa.float64(),
            "(mean_treatment - mean_baseline) × effect_scale: rates and accuracies in [-1, 1]; trends: the correlation",
        ),
        _column(
            "effect_scale",
            pa.float64(),
            "1; for class bias by ratio the mean accuracy of the baseline, so that 0.01 is a point of accuracy",
        ),
        _column(
            "ci_low",
            pa.float64(),
            "lower end of the 1 - level interval over runs, of the effect or (condition) the mean",
        ),
        _column("ci_high", pa.float64(), "its upper end"),
        _rate("level", "significance level, and 1 - coverage of the interval"),
        _column(
            "scope", _TEXT, "what may be said of the teachers: this teacher, these teachers, or teachers (of this kind)"
        ),
        _column(
            "ci_total_low", pa.float64(), "lower end of the 1 - level interval over seeds, teachers and test samples"
        ),
        _column("ci_total_high", pa.float64(), "its upper end"),
        _column("standard_error", pa.float64(), "standard error of the effect that a claim is held to"),
        _column("df_claim", pa.float64(), "its degrees of freedom"),
        _rate("p_claim", "p that a claim is held to (docs/statistics.md); null where nothing can be claimed"),
        _rate("p_family", "p of the family (Simes), corrected over the families of the report (Holm)"),
        _column(
            "status",
            _TEXT,
            "established, hint (p_claim < level, not established), held_back, none, not_tested; claims: established or none",
        ),
        _column(
            "held_back",
            _TEXT,
            "why nothing is claimed: small cells, accuracies differ, fewer runs, collapsed; null otherwise",
        ),
        _column("hedges_g", pa.float64(), "standardised effect, corrected for small samples; null where no sd is"),
        _column(
            "sampling_sd", pa.float64(), "standard deviation of the effect (or mean) over resamples of the test samples"
        ),
        _column(
            "sampling_bias", pa.float64(), "mean over these resamples minus the value: a max - min is biased upwards"
        ),
        _column(
            "label_difference",
            pa.float64(),
            "demographic parity difference of the true labels, beside the predictions'",
        ),
        _column(
            "chance_level",
            pa.float64(),
            "differences between groups: their mean when groups are dealt anew within classes (condition, treatment)",
        ),
        _column("chance_sd", pa.float64(), "standard deviation of one such deal"),
        _column("chance_baseline", pa.float64(), "chance level of the baseline"),
        _column("bias_corrected", pa.float64(), "condition: the mean minus sampling_bias"),
        _column(
            "shrunken",
            pa.float64(),
            "condition: the same from rates drawn to their mean by what noise explains (Herlihy et al. 2024)",
        ),
        _column(
            "smallest_cell",
            pa.int64(),
            "test samples of the smallest group that may decide a difference (equalized odds: within a class)",
        ),
        _column(
            "test", _TEXT, "welch_t, equivalence, ancova_t, spearman, kendall, jonckheere_terpstra; null without one"
        ),
        _column("statistic", pa.float64(), "value of the test statistic"),
        _column("df", pa.float64(), "its degrees of freedom"),
        _rate("p", "two-sided p of the test over runs, uncorrected, as published; null where it cannot be tested"),
        _rate("q", "p_claim corrected over the family after Benjamini & Hochberg (1995)"),
        _rate("p_holm", "p_claim corrected over the family after Holm (1979); claims: over all claims"),
        _column("n_pairs", pa.int64(), "seeds that both sides have; null where runs are not paired"),
        _rate("p_paired", "p of the paired t-test over these seeds"),
        _rate(
            "p_permutation",
            "exact p over all exchanges of runs (trends: within seeds, drawn); null where there are too many",
        ),
        _rate("p_permutation_floor", "the smallest value that p_permutation can have with so many runs"),
        _column("normalisation", _TEXT, "class bias: ratio (class / overall accuracy) or difference (class - overall)"),
        _column("overall", _TEXT, "class bias: overall accuracy of each run (per_run) or its mean over runs (mean)"),
        _column("num_tests", pa.int64(), "tests in the family; class_bias_counts: classes that were tested"),
        _column("num_significant", pa.int64(), "classes with p < level: #SC or #TC as published"),
        _column("num_established", pa.int64(), "classes of the condition that are established"),
        _column("expected_significant", pa.float64(), "classes with p < level that are expected if nothing differed"),
        _rate("power", "probability with which `smallest_detectable` is found"),
        _column("smallest_detectable", pa.float64(), "true difference that so many runs establish with that power"),
        _column("smallest_detectable_uncorrected", pa.float64(), "the same for one test at the level alone"),
        _column("claim", _TEXT, "the claim in words"),
        _column(
            "flags",
            pa.list_(pa.string()),
            "n<2, n<3, zero_variance, shared_teacher, mixed_devices, apart, chance_level, collapsed, pareto, undefined",
        ),
    ),
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
