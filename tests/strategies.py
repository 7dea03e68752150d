"""Hypothesis strategies shared by tests."""

from typing import Any

from hypothesis import strategies as st

from kd_ray.sweep.spec import TrialSpec
from tests.fakes import make_spec

positive_floats = st.floats(min_value=1e-6, max_value=1e3, allow_nan=False)


@st.composite
def specs(draw: st.DrawFn) -> TrialSpec:
    """Distilled students of many kinds."""
    changes: dict[str, Any] = {
        "dataset.size": draw(st.integers(16, 224)),
        "model": draw(st.sampled_from(["lenet5", "resnet20", "resnet32"])),
        "training.epochs": draw(st.integers(3, 300)),
        "training.batch_size": draw(st.integers(1, 512)),
        "training.optimizer.lr": draw(positive_floats),
        "distillation.temperature": draw(positive_floats),
        "distillation.alpha": draw(st.floats(0, 1)),
        "distillation.t_squared": draw(st.booleans()),
        "teacher.seed": draw(st.none() | st.integers(0, 2**31 - 1)),
        "seed": draw(st.integers(0, 2**31 - 1)),
    }
    return make_spec(**changes)


def any_float() -> st.SearchStrategy[float]:
    """Every finite float64."""
    return st.floats(allow_nan=False, allow_infinity=False)
