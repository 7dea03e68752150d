"""Multilayer perceptrons for rows of numbers."""

from torch import nn

from kd_ray.models.own import own_model
from kd_ray.sweep.architectures import mlp_widths, own_network


def mlp(name: str, num_classes: int, num_columns: int) -> nn.Module:
    """`mlp-64-32`: hidden layers of 64 and 32 units with ReLU between linear layers, without dropout or normalisation.

    For `package.module:function` it is what this factory of the user's builds.
    A layer from a to b has a · b + b parameters. Raises ValueError for another name.
    """
    if own_network(name) is not None:
        return own_model(name, num_classes, num_columns)
    widths = mlp_widths(name)
    if widths is None:
        raise ValueError(f"{name} is no multilayer perceptron; expected mlp-WIDTHS, as in mlp-64-32")
    layers: list[nn.Module] = []
    inputs = num_columns
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, num_classes))
