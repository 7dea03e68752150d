"""Multilayer perceptrons for rows of numbers."""

from torch import nn

from kd_ray.sweep.architectures import mlp_widths


def mlp(name: str, num_classes: int, num_columns: int) -> nn.Module:
    """`mlp-64-32`: hidden layers of 64 and 32 units with ReLU between linear layers, without dropout or normalisation.

    A layer from a to b has a · b + b parameters. Raises ValueError for another name.
    """
    widths = mlp_widths(name)
    if widths is None:
        raise ValueError(f"{name} is no multilayer perceptron; expected mlp-WIDTHS, as in mlp-64-32")
    layers: list[nn.Module] = []
    inputs = num_columns
    for width in widths:
        layers += [nn.Linear(inputs, width), nn.ReLU()]
        inputs = width
    return nn.Sequential(*layers, nn.Linear(inputs, num_classes))
