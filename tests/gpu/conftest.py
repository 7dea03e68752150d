"""Every test of this folder needs a GPU, and is skipped where there is none."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from kd_ray.distill.device import make_deterministic
from tests.gpu.device import REHEARSAL

_HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of this folder."""
    for item in items:
        if _HERE in item.path.parents:
            item.add_marker(pytest.mark.gpu)
            if not (REHEARSAL or torch.cuda.is_available()):
                item.add_marker(pytest.mark.skip(reason="there is no CUDA device"))


@pytest.fixture(autouse=True)
def _deterministic() -> Iterator[None]:
    make_deterministic(1)
    yield
    torch.use_deterministic_algorithms(False)
