"""Networks of the user's own: a factory in an installed distribution, named `package.module:function` or `package.module:function@VERSION`.

The factory is called as `function(num_classes, num_inputs)`, with the side of the images in pixels, or the numbers in a row, and returns an
`nn.Module` whose output is logits (batch × classes). It draws its weights from torch's current generator, as layers of torch do.
"""

from torch import nn

from kd_ray import offered
from kd_ray.sweep.architectures import own_network

GROUP = "kd_ray.models"


def own_model(name: str, num_classes: int, num_inputs: int) -> nn.Module:
    """The network that the factory of this name builds.

    Raises:
        ValueError: no installed distribution offers it, its distribution has another version, or it cannot build such a network.
    """
    found = own_network(name)
    assert found is not None
    path, version = found
    try:
        entry = offered.find(GROUP, path)
    except LookupError as error:
        raise ValueError(f"no distribution installed here offers {error.args[0]}") from error
    installed = entry.dist.version if entry.dist is not None else None
    if version is not None and version != installed:
        raise ValueError(f"{name}: version {installed} is installed here")
    try:
        model = entry.load()(num_classes, num_inputs)
    except Exception as error:  # the user's code may raise anything
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{name} cannot be built for {num_classes} classes and {num_inputs} inputs: {reason}"
        ) from error
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} returned {type(model).__name__}, expected a torch.nn.Module")  # noqa: TRY004
    return model


def model_versions(name: str) -> dict[str, str]:
    """Name and version of the distribution that offers a network of the user's own; empty for the others."""
    found = own_network(name)
    return {} if found is None else offered.distribution_of(offered.find(GROUP, found[0]))
