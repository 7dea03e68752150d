"""The training losses of distilled students, as settings: one small class for each objective, selected by `objective`.

What they mean as formulas of logits stands in `kd_ray/distill/objectives/`, a module for each family. In the formulas below KL_T is
KL(p(teacher; T) ‖ p(student; T)) with p(z; T) = softmax(z / T), CE the cross-entropy with the hard labels at T = 1, and

    kd = alpha · [T²] · KL_T + (1 − alpha) · CE.

alpha weighs the distillation term, as in Mohammadshahi & Ioannou 2025; where a source weighs the two terms independently, its ratio is
alpha : 1 − alpha here. A name has one meaning in all classes, so that a sweep can give it once for several objectives.
"""

from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Discriminator, Field, JsonValue, PositiveFloat, PositiveInt, Tag, model_validator

from kd_ray.sweep.fields import Added, Attack, UnitInterval, refuse
from kd_ray.sweep.objective_settings import (
    MIXED,
    FeatureSettings,
    LogitPrecision,
    NonNegativeFloat,
    ObjectiveSettings,
    SoftSettings,
    TargetDataset,
    TeacherShuffle,
)


class KnowledgeDistillation(SoftSettings):
    """The loss of Hinton et al. 2015: alpha · L_distill + (1 − alpha) · cross-entropy."""

    IS_BY_SAMPLE = True
    ALLOWS_LABEL_SMOOTHING = True
    objective: Literal["kd"] = "kd"


class ShuffledDistillation(SoftSettings):
    """Control: `kd` with the teacher's logits of another training sample, chosen by a permutation that the trial's seed fixes.

    What remains of the teacher is how its answers are distributed; what it says about a sample is gone. Ours.
    """

    ALLOWS_LABEL_SMOOTHING = True
    objective: Literal["kd_shuffled"]
    within_class: bool = False
    """Permute among the samples of a class only: what the teacher says of a class stays, what it says of a sample goes."""

    @property
    def teacher_shuffle(self) -> TeacherShuffle:
        """As the settings ask."""
        return "within_class" if self.within_class else "all"


class LabelSmoothing(ObjectiveSettings):
    """Control without a teacher: cross-entropy with (1 − smoothing) · onehot + smoothing / K (Szegedy et al. 2016)."""

    TERMS = ("cross_entropy", "uniform")
    NEEDS_TEACHER = False
    objective: Literal["label_smoothing"]
    smoothing: Annotated[float, Field(gt=0, lt=1)]
    """Mass of the target that is spread evenly over all K classes, the true one included."""


class LongerScratch(ObjectiveSettings):
    """Control without a teacher: the scratch student, trained for `factor` times the epochs; warm-up and milestones move with them. Ours.

    A gain from a teacher should be larger than the gain from training longer without one.
    """

    TERMS = ("cross_entropy",)
    NEEDS_TEACHER = False
    objective: Literal["scratch_long"]
    factor: Annotated[int, Field(ge=2)] = 2
    """Epochs, as a multiple of `training.epochs`."""

    @property
    def epoch_factor(self) -> int:
        """As the settings ask."""
        return self.factor


class DecoupledDistillation(SoftSettings):
    """DKD (Zhao et al., CVPR 2022): alpha · [T²] · (target_weight · TCKD + beta · NCKD) + (1 − alpha) · CE.

    TCKD is the KL of (true class, all others), NCKD that among the others; KL_T = TCKD + (1 − p_teacher(y; T)) · NCKD. The released code
    has T² and the cross-entropy at weight 1, and a linear warm-up of the distillation term, which is not offered here.
    """

    TERMS = ("cross_entropy", "target_class", "non_target_class")
    IS_BY_SAMPLE = True
    objective: Literal["dkd"]
    target_weight: NonNegativeFloat = 1.0
    """Weight of TCKD; the paper calls it alpha."""
    beta: NonNegativeFloat | Literal["coupled"] = 8.0
    """Weight of NCKD; `coupled` is 1 − p_teacher(y; T) of each sample, which with target_weight 1 gives `kd`."""


class StandardizedDistillation(SoftSettings):
    """Logit standardisation (Sun et al., CVPR 2024): `kd` on logits minus their mean, divided by their standard deviation + 1e-7.

    Both are taken over the classes of a sample, the deviation with K − 1, as in the released code. The cross-entropy sees plain logits.
    """

    IS_BY_SAMPLE = True
    objective: Literal["logit_standardization"]


class LongTailedDistillation(SoftSettings):
    """LTKD (arXiv 2506.18496): alpha · [T²] · (between_weight · between + Σ_G w_G · KL_G) + (1 − alpha) · CE.

    G runs over head, medium and tail classes by their counts in the training split (33, 34 and 33 %). `between` is the KL of the groups'
    masses, KL_G that within a group. Formulas from notes on the paper, not its text; its weights are unknown to us, the defaults are ours.
    """

    TERMS = ("cross_entropy", "between_groups", "within_groups")
    objective: Literal["ltkd"]
    rebalance: bool = True
    """Rescale the teacher's group masses in `between` so that their sums over the batch are equal, then renormalise each sample."""
    between_weight: NonNegativeFloat = 1.0
    """Weight of the KL between groups."""
    within_weight: NonNegativeFloat | Literal["teacher_mass"] = 1.0
    """w_G: one constant, or the teacher's mass of the group, which with `rebalance: false` and between_weight 1 gives `kd`."""

    def check_dataset(self, dataset: TargetDataset) -> None:
        """Refuse fewer classes than groups of classes."""
        if dataset.num_classes < 3:
            raise refuse("distillation.objective", f"ltkd needs at least 3 classes, got {dataset.num_classes}")


class TrueProbabilityDistillation(SoftSettings):
    """KD-pt style (after Tang et al. 2020): `kd` from a teacher of which only the probability of the true class is kept.

    The others share the rest evenly. Isolates the rescaling of gradients by difficulty. Recalled, not read in the paper.
    """

    IS_STYLE = True
    IS_BY_SAMPLE = True
    objective: Literal["kd_pt"]


class SimilarityDistillation(SoftSettings):
    """KD-sim style (after Tang et al. 2020): `kd` with softmax(cos(w_y, w_j)^power / similarity_temperature) over j as the target.

    w are the rows of the teacher's last linear layer. Isolates relations between classes. Recalled, not read in the paper; defaults ours.
    """

    IS_STYLE = True
    IS_BY_SAMPLE = True
    objective: Literal["kd_sim"]
    power: PositiveInt = 1
    """Power of the cosine similarity."""
    similarity_temperature: PositiveFloat = 0.3
    """Temperature of the softmax over similarities; smaller is closer to the hard labels."""

    @property
    def needs_network(self) -> bool:
        """Its last layer."""
        return True


class TopKDistillation(SoftSettings):
    """KD-topk style (after Tang et al. 2020): `kd` from the teacher's k largest probabilities, the rest spread evenly over the others.

    Recalled, not read in the paper.
    """

    IS_STYLE = True
    IS_BY_SAMPLE = True
    objective: Literal["kd_topk"]
    k: PositiveInt
    """Classes kept, fewer than there are."""

    def check_dataset(self, dataset: TargetDataset) -> None:
        """Refuse a k that leaves no class out."""
        if self.k >= dataset.num_classes:
            raise refuse("distillation.k", f"must be below the {dataset.num_classes} classes, got {self.k}")


class TrustedDistillation(SoftSettings):
    """IAD (Zhu et al., ICLR 2022), on natural inputs or against an attack: `kd` with trust a = p_teacher(y; T = 1)^trust_exponent.

    Natural: alpha · a in place of alpha, in the style of IAD. The paper gives the rest of the trust to the student's own prediction, which
    says nothing without an attack; here it goes to the hard labels. trust_exponent 0 gives `kd`.

    With `attack`, x' is what projected gradient descent makes of x against the student: alpha · [T²] · (a · KL(p_teacher(x) ‖ p(x')) +
    (1 − a) · KL(p(x) ‖ p(x'))) + (1 − alpha) · CE(x), a from the teacher's answer to x'. The released code has alpha = 1 and T = 1, leaves
    the teacher's term without its a, and begins with 60 epochs without the student's own term; that warm-up is not offered here.
    """

    IS_STYLE = True
    IS_BY_SAMPLE = True
    objective: Literal["iad"]
    trust_exponent: NonNegativeFloat = 0.1
    """Exponent, β in the paper; 0.1 as in its code."""
    attack: Annotated[Attack | None, Added(None)] = None
    """Train on attacked images; the teacher then runs for every batch besides its table."""

    @property
    def term_names(self) -> tuple[str, ...]:
        """With an attack, the divergence from the student's own answer too."""
        return (*self.TERMS, "self_distillation") if self.attack else self.TERMS

    @property
    def takes_steps_of_its_own(self) -> bool:
        """With an attack."""
        return self.attack is not None

    @property
    def trains_under_attack(self) -> Attack | None:
        """As the settings ask."""
        return self.attack

    def check_dataset(self, dataset: TargetDataset) -> None:
        """Refuse an attack on anything but images."""
        if self.attack and dataset.modality != "images":
            raise refuse("distillation.attack", f"is for images, and {dataset.name} holds {dataset.modality}")


class GroupDistillation(FeatureSettings):
    """Fairness-aware: `kd` whose mean over the batch is a weighted mean over the groups of a sensitive feature. Ours.

    Σ_g w_g · L_g with L_g the mean of `kd` over the batch's members of group g, and w = softmax over the batch's groups of
    sharpness · L_g, through which no gradient flows. In the style of group DRO (Sagawa et al. 2020), but without memory between steps.
    """

    IS_STYLE = True
    TERMS = (*MIXED, "worst_group")
    objective: Literal["kd_groups"]
    feature: Annotated[str, Field(min_length=1)]
    """Sensitive feature of the data set whose groups count; a sample of several groups counts in each, one of none in none."""
    sharpness: NonNegativeFloat = 0.0
    """0 weighs all groups alike, whatever their size; the larger, the nearer to the worst group alone."""


class AdversarialDistillation(FeatureSettings):
    """Adversarial debiasing (Zhang, Lemoine & Mitchell 2018) during distillation: `kd`, against an adversary that guesses the groups.

    The adversary sees the student's answers and descends on its own loss L_A. With g and h the gradients of `kd` and of L_A by all the
    student's weights, as one vector each, the student follows g − proj_h g − debiasing · h; weight decay comes after that, as for any.
    s = softmax((1 + |c|) · z) with c learned, which for two classes is the paper's sigmoid((1 + |c|) · σ⁻¹(ŷ)); of two classes s is the
    second one's. For each group of the feature, a logistic regression on s, and for equalized odds on s by true class too, says whether a
    sample belongs to it; L_A is the mean cross-entropy over groups and samples. A sample of several groups belongs to each; one of none
    says nothing and is left out. Several classes and several groups are our generalisation; the paper has two of both.
    """

    TERMS = (*MIXED, "adversary")
    objective: Literal["adversarial"]
    feature: Annotated[str, Field(min_length=1)]
    """Sensitive feature of the data set that the student's answers should say nothing about."""
    criterion: Literal["demographic_parity", "equalized_odds"] = "demographic_parity"
    """What the adversary sees: the student's answer, or the answer and the true class."""
    debiasing: NonNegativeFloat = 1.0
    """Weight of the step against the adversary; the paper calls it alpha, which here weighs the distillation term."""
    debiasing_schedule: Literal["constant", "sqrt"] = "constant"
    """`sqrt` multiplies it by √t at step t (from 1). The paper's schedule as we recall it; there the learning rate is 1 / t."""
    adversary_lr: PositiveFloat = 0.01
    """Learning rate of the adversary, by Adam. Ours."""

    @property
    def takes_steps_of_its_own(self) -> bool:
        """It goes back through a step twice."""
        return True


class _Reliable(SoftSettings):
    IS_STYLE = True
    IS_BY_SAMPLE = True
    statistic: Literal["margin", "accuracy"] = "margin"
    """What reliability on a class is: the mean of p(y) − max of the other p at T = 1, or the accuracy; of the teacher on the validation
    split's samples of the class."""
    shrinkage: NonNegativeFloat = 10.0
    """Samples' worth of the mean over all classes that is mixed into each class, so that few held-out samples cannot say much."""

    @property
    def needs_held_out(self) -> bool:
        """True: on its own training data a teacher is reliable on every class."""
        return True


class AdaAlpha(_Reliable):
    """In the style of AdaAlpha (Lukasik et al., TMLR 2022): `kd` with an alpha for each class that falls where the teacher is unreliable.

    The paper's exact map could not be confirmed. Ours, from the reliability s_y after shrinkage: `relative`, alpha · max(0, s_y) / max s;
    `absolute`, alpha · max(0, s_y); then clipped to [min_alpha, max_alpha].
    """

    objective: Literal["ada_alpha"]
    alpha_map: Literal["relative", "absolute"] = "relative"
    """`relative`: the most reliable class has alpha, so a constant reliability gives `kd`; `absolute`: reliability times alpha."""
    min_alpha: UnitInterval = 0.0
    """Least weight of the distillation term in any class."""
    max_alpha: UnitInterval = 1.0
    """Largest weight of the distillation term in any class."""

    @model_validator(mode="after")
    def _bounds_are_in_order(self) -> Self:
        if self.min_alpha > self.max_alpha:
            raise refuse("min_alpha", f"must not be above max_alpha = {self.max_alpha}, got {self.min_alpha}")
        return self


class AdaMargin(_Reliable):
    """In the style of AdaMargin (Lukasik et al., TMLR 2022): `kd` whose cross-entropy asks for a margin where the teacher is unreliable.

    The paper's exact map could not be confirmed. Ours: log(1 + Σ_{j ≠ y} exp(m_y + z_j − z_y)) in place of the cross-entropy, with
    m_y = min(max_margin, margin_scale · (1 − max(0, s_y) / max s)): none for the most reliable class, so a constant reliability gives `kd`.
    """

    TERMS = ("cross_entropy", "margin_cross_entropy", "distillation")
    objective: Literal["ada_margin"]
    margin_scale: NonNegativeFloat = 1.0
    """Margin, in logits, of a class on which the teacher is not reliable at all."""
    max_margin: NonNegativeFloat = 5.0
    """Largest margin of any class, in logits."""


IMPORT_PATH = r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*$"


class ImportedObjective(ObjectiveSettings):
    """A function of yours, by its import path: the sum of the terms it returns.

    Sweep files and stores cannot make anything run that was not installed for this: the workers look the path up among the entry points
    `kd_ray.objectives` of the distributions installed there, and import nothing else.
    """

    objective: Annotated[str, Field(pattern=IMPORT_PATH)]
    """`package.module:function`."""
    terms: Annotated[tuple[str, ...], Field(min_length=1)]
    """Names of the terms that the function returns."""
    parameters: Annotated[dict[str, JsonValue], Field(default_factory=dict)]
    """What the function gets as `parameters`; part of the trial's identity."""
    version: str | None = None
    """Version of the distribution that offers it; workers with another one refuse. Part of the identity, so raise it with the code."""
    class_statistics: bool = False
    """Hand it the teacher's accuracy and margin on the validation split, class by class."""
    teacher_logits: LogitPrecision = "fp32"
    """As in `kd`."""

    @property
    def term_names(self) -> tuple[str, ...]:
        """As the sweep names them."""
        return self.terms

    @property
    def needs_held_out(self) -> bool:
        """As the sweep asks."""
        return self.class_statistics

    @property
    def import_path(self) -> str:
        """The name of the objective."""
        return self.objective

    @model_validator(mode="after")
    def _terms_differ(self) -> Self:
        if len(set(self.terms)) != len(self.terms):
            raise refuse("terms", f"repeats a value: {list(self.terms)}")
        return self


def objective_kind(value: Any) -> str:
    """The tag of the union: the name of the objective, `kd` where none is given, `imported` for an import path."""
    name = value.get("objective", "kd") if isinstance(value, dict) else getattr(value, "objective", "kd")
    return "imported" if ":" in str(name) else str(name)


Distillation = Annotated[
    Annotated[KnowledgeDistillation, Tag("kd")]
    | Annotated[ShuffledDistillation, Tag("kd_shuffled")]
    | Annotated[LabelSmoothing, Tag("label_smoothing")]
    | Annotated[LongerScratch, Tag("scratch_long")]
    | Annotated[DecoupledDistillation, Tag("dkd")]
    | Annotated[StandardizedDistillation, Tag("logit_standardization")]
    | Annotated[LongTailedDistillation, Tag("ltkd")]
    | Annotated[TrueProbabilityDistillation, Tag("kd_pt")]
    | Annotated[SimilarityDistillation, Tag("kd_sim")]
    | Annotated[TopKDistillation, Tag("kd_topk")]
    | Annotated[TrustedDistillation, Tag("iad")]
    | Annotated[GroupDistillation, Tag("kd_groups")]
    | Annotated[AdversarialDistillation, Tag("adversarial")]
    | Annotated[AdaAlpha, Tag("ada_alpha")]
    | Annotated[AdaMargin, Tag("ada_margin")]
    | Annotated[ImportedObjective, Tag("imported")],
    Discriminator(objective_kind),
]
"""The training loss of a distilled student, selected by `objective`."""


def shown_objective(name: str) -> str:
    """The name of an objective as people are shown it: `ada_alpha-style`."""
    model = OBJECTIVES.get(name)
    return f"{name}-style" if model is not None and model.IS_STYLE else name


OBJECTIVES: dict[str, type[ObjectiveSettings]] = {
    get_args(member)[1].tag: get_args(member)[0] for member in get_args(get_args(Distillation)[0])
}
"""Settings of each objective by its name; `imported` stands for every import path."""
