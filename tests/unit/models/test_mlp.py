"""Perceptrons: their names, shapes, parameters and gradients."""

import pytest
import torch
from torch import nn

from kd_ray.models import count_parameters
from kd_ray.models.mlp import mlp
from kd_ray.sweep.architectures import mlp_widths


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # By hand, for 10 numbers and 3 classes: a · b + b for each layer.
        ("mlp-4", 10 * 4 + 4 + 4 * 3 + 3),
        ("mlp-64-32", 10 * 64 + 64 + 64 * 32 + 32 + 32 * 3 + 3),
    ],
)
def test_layers_are_those_of_the_name(name: str, parameters: int) -> None:
    model = mlp(name, 3, 10)
    assert count_parameters(model) == parameters
    logits_BC = model(torch.randn(5, 10))
    assert logits_BC.shape == (5, 3)
    logits_BC.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())
    # Two linear layers without ReLU between them would be one.
    kinds = [type(layer) for layer in model.modules()][1:]
    assert kinds[::2] == [nn.Linear] * (len(kinds) // 2 + 1)
    assert kinds[1::2] == [nn.ReLU] * (len(kinds) // 2)


@pytest.mark.parametrize(
    "name", ["mlp", "mlp-", "mlp-0", "mlp-64-", "mlp-064", "mlp-6x", "mlp-1-2-3-4-5-6-7-8-9", "resnet20"]
)
def test_other_names_are_no_perceptrons(name: str) -> None:
    assert mlp_widths(name) is None
    with pytest.raises(ValueError, match=f"{name} is no multilayer perceptron; expected mlp-WIDTHS"):
        mlp(name, 2, 3)
