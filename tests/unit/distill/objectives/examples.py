"""Settings, logits and a background for tests of objectives: four classes, of which two are one group of a sensitive feature."""

from typing import Any

import numpy as np
import torch
from pydantic import TypeAdapter

from kd_ray.distill.objectives import Background, ClassStatistics, Context, Loss, student_loss
from kd_ray.distill.objectives.adversarial import Adversary
from kd_ray.distill.objectives.reliability import class_alpha, class_margin
from kd_ray.distill.objectives.targets import cosine_similarity
from kd_ray.sweep.distillation import AdaAlpha, AdaMargin, AdversarialDistillation, Distillation

STUDENT = torch.tensor(
    [[1.0, 2.0, 0.5, -0.3], [0.0, -1.0, 3.0, 0.7], [0.2, 0.1, -0.4, 1.9], [2.5, 0.3, 0.3, 0.1], [0.1, 1.1, 0.6, 0.2]],
    dtype=torch.float64,
    requires_grad=True,
)
TEACHER = torch.tensor(
    [[2.0, 1.0, 0.0, 0.1], [-1.0, 0.5, 2.0, 1.5], [0.3, 2.0, 1.0, 2.2], [1.9, -0.7, 0.2, 0.4], [0.5, 0.4, 3.0, -1.0]],
    dtype=torch.float64,
)
LABELS = torch.tensor([0, 2, 3, 0, 1])
COUNTS = torch.tensor([5, 50, 20, 20])
WEIGHTS = torch.tensor([[1.0, 0.2], [0.5, -1.0], [-0.3, 0.8], [0.1, 0.9]])
STATISTICS = ClassStatistics(
    n_C=torch.tensor([10.0, 20.0, 5.0, 0.0], dtype=torch.float64),
    accuracy_C=torch.tensor([0.9, 0.6, 0.2, 0.0], dtype=torch.float64),
    margin_C=torch.tensor([0.8, 0.4, -0.6, 0.0], dtype=torch.float64),
)

SOFT = {"temperature": 3.0, "alpha": 0.7, "t_squared": True}
CHOICES: dict[str, dict[str, Any]] = {
    "kd": SOFT,
    "kd_shuffled": SOFT,
    "label_smoothing": {"smoothing": 0.1},
    "scratch_long": {},
    "dkd": SOFT,
    "logit_standardization": SOFT,
    "ltkd": SOFT,
    "kd_pt": SOFT,
    "kd_sim": SOFT,
    "kd_topk": SOFT | {"k": 2},
    "iad": SOFT | {"trust_exponent": 0.5},
    "kd_groups": SOFT | {"feature": "color", "sharpness": 2.0},
    "adversarial": SOFT | {"feature": "color", "criterion": "equalized_odds"},
    "ada_alpha": SOFT,
    "ada_margin": SOFT,
}
"""Every objective of ours with settings that make it differ from `kd`."""


def settings_of(objective: str, **changes: Any) -> Distillation:
    adapter: TypeAdapter[Distillation] = TypeAdapter(Distillation)
    return adapter.validate_python({"objective": objective} | CHOICES[objective] | changes)


def context_of(settings: Distillation, statistics: ClassStatistics = STATISTICS) -> Context:
    background = Background(
        class_counts_C=COUNTS,
        statistics=statistics,
        alpha_C=class_alpha(statistics, settings) if isinstance(settings, AdaAlpha) else None,
        margin_C=class_margin(statistics, settings) if isinstance(settings, AdaMargin) else None,
        similarity_CC=cosine_similarity(WEIGHTS),
        # Three red, two blue, none green.
        sensitive_features={"color": torch.tensor([[True, False, False], [False, True, False]] * 5)},
        group_names={"color": ("red", "blue", "green")},
    )
    adversary = adversary_of(settings) if isinstance(settings, AdversarialDistillation) else None
    return Context(samples_B=torch.arange(5), background=background, adversary=adversary)


def adversary_of(settings: AdversarialDistillation, *, num_classes: int = 4, num_groups: int = 3) -> Adversary:
    """One that has learned something, in float64."""
    adversary = Adversary(settings, num_classes=num_classes, num_groups=num_groups, device=torch.device("cpu")).double()
    random = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in adversary.parameters():
            weight.copy_(torch.randn(weight.shape, generator=random))
    return adversary


def loss_of(
    settings: Distillation, student_BC: torch.Tensor = STUDENT, teacher_BC: torch.Tensor = TEACHER, **context: Any
) -> Loss:
    return student_loss(student_BC, teacher_BC, LABELS, settings, context_of(settings, **context))


def softmax(z: Any) -> np.ndarray:
    e = np.exp(z - np.max(z, axis=-1, keepdims=True))
    return np.asarray(e / e.sum(-1, keepdims=True))
