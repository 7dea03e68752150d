"""Cross-entropy alone, with smoothed labels, and plain distillation."""

from torch import Tensor
from torch.nn import functional

from kd_ray.distill.objectives.loss import Context, Loss, distillation_loss, mixture
from kd_ray.sweep.distillation import KnowledgeDistillation, LabelSmoothing, LongerScratch, ShuffledDistillation


def scratch_loss(
    student_BC: Tensor,
    teacher_BC: Tensor | None,
    labels_B: Tensor,
    settings: LongerScratch | None = None,
    context: Context | None = None,
    *,
    smoothing: float = 0.0,
) -> Loss:
    """Cross-entropy with the hard labels; a share `smoothing` of each label is spread evenly over all classes."""
    del teacher_BC, settings, context
    cross_entropy = functional.cross_entropy(student_BC, labels_B, label_smoothing=smoothing)
    return Loss(total=cross_entropy, terms={"cross_entropy": cross_entropy})


def kd_loss(
    student_BC: Tensor,
    teacher_BC: Tensor,
    labels_B: Tensor,
    settings: KnowledgeDistillation | ShuffledDistillation,
    context: Context | None = None,
    *,
    smoothing: float = 0.0,
) -> Loss:
    """alpha · [T²] · L_distill + (1 − alpha) · cross-entropy at T = 1, its labels smoothed or not.

    alpha weighs the distillation term, as in Mohammadshahi & Ioannou 2025. With T² the gradient of the soft term tends to the difference of
    the centred logits as T grows; without it, it falls like 1 / T². For `kd_shuffled` the logits come from a `ShuffledTeacher`.
    """
    del context
    return kd_with_alpha(
        student_BC,
        teacher_BC,
        labels_B,
        alpha=settings.alpha,
        temperature=settings.temperature,
        t_squared=settings.t_squared,
        smoothing=smoothing,
    )


def kd_with_alpha(
    student_BC: Tensor,
    teacher_BC: Tensor,
    labels_B: Tensor,
    *,
    alpha: float,
    temperature: float,
    t_squared: bool,
    smoothing: float = 0.0,
) -> Loss:
    """Plain distillation with these numbers."""
    soft = distillation_loss(student_BC, teacher_BC, temperature=temperature)
    hard = functional.cross_entropy(student_BC, labels_B, label_smoothing=smoothing)
    total = mixture(hard, soft, alpha=alpha, temperature=temperature, t_squared=t_squared)
    return Loss(total=total, terms={"cross_entropy": hard, "distillation": soft})


def label_smoothing_loss(
    student_BC: Tensor,
    teacher_BC: Tensor | None,
    labels_B: Tensor,
    settings: LabelSmoothing,
    context: Context | None = None,
) -> Loss:
    """(1 − smoothing) · CE + smoothing · mean over classes of −log p: cross-entropy with the smoothed target.

    Szegedy et al. 2016; the form of `torch.nn.functional.cross_entropy(label_smoothing=…)`.
    """
    del teacher_BC, context
    hard = functional.cross_entropy(student_BC, labels_B)
    uniform = -functional.log_softmax(student_BC, dim=1).mean()
    total = (1 - settings.smoothing) * hard + settings.smoothing * uniform
    return Loss(total=total, terms={"cross_entropy": hard, "uniform": uniform})
