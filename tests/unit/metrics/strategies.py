"""Random classification results with groups, for the property tests of the metrics."""

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from kd_ray.groups import Groups
from kd_ray.metrics.arrays import IntArray


@dataclass(frozen=True, kw_only=True, eq=False)
class Case:
    labels_N: IntArray
    predictions_N: IntArray
    groups: Groups
    num_classes: int


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """1..40 samples, 1..5 classes, 1..4 groups with many-to-many membership; classes and groups may be empty."""
    num_samples = draw(st.integers(1, 40))
    num_classes = draw(st.integers(1, 5))
    num_groups = draw(st.integers(1, 4))
    classes = hnp.arrays(np.int64, num_samples, elements=st.integers(0, num_classes - 1))
    return Case(
        labels_N=draw(classes),
        predictions_N=draw(classes),
        groups=Groups(
            names=tuple("abcd"[:num_groups]),
            membership_NG=draw(hnp.arrays(np.bool_, (num_samples, num_groups))),
        ),
        num_classes=num_classes,
    )


def permutations(size: int) -> st.SearchStrategy[IntArray]:
    return st.permutations(range(size)).map(lambda order: np.array(order, dtype=np.int64))
