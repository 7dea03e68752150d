"""Names of networks, and their properties that are known without building one."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError

from kd_ray.sweep.classification import Modality


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Properties of a network that a sweep file is checked against."""

    min_image_size: int
    """Least side of the images in pixels; with fewer, layers run out of pixels, or batch normalisation of values to average."""
    can_be_grouped: bool = False
    """Whether it can be trained with `training.execution: grouped`."""


_RESNET_CIFAR = Architecture(min_image_size=5, can_be_grouped=True)
ARCHITECTURES: dict[str, Architecture] = {
    "lenet5": Architecture(min_image_size=16, can_be_grouped=True),
    "resnet20": _RESNET_CIFAR,
    "resnet32": _RESNET_CIFAR,
    "resnet44": _RESNET_CIFAR,
    "resnet56": _RESNET_CIFAR,
}
"""Networks of our own; `kd_ray.models` builds them."""

SMALL_IMAGE = 64
"""Networks with two stems take the one for small images up to this side."""
for _name, _small, _large in (
    ("resnet18", 9, 33),
    ("resnet50", 9, 33),
    ("densenet121", 16, 61),
    ("densenet169", 16, 61),
):
    ARCHITECTURES[_name] = ARCHITECTURES[f"{_name}-cifar"] = Architecture(min_image_size=_small)
    ARCHITECTURES[f"{_name}-imagenet"] = Architecture(min_image_size=_large)

_MLP_NAME = re.compile(r"mlp((?:-[1-9][0-9]{0,4}){1,8})")
_LIBRARY_NAME = re.compile(r"(timm|torchvision):[A-Za-z0-9][A-Za-z0-9_.-]*")
_OWN_NAME = re.compile(r"((?:[A-Za-z_]\w*\.)+[A-Za-z_]\w*:[A-Za-z_]\w*)(?:@([A-Za-z0-9][A-Za-z0-9_.+!-]*))?")
_TEXT_NAME = re.compile(r"hf:[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?")
TextModelName = Annotated[str, Field(pattern=f"^{_TEXT_NAME.pattern}$")]
"""`hf:NAME`: a folder of the transformers library, see `sweep/encoders.py`."""


def mlp_widths(name: str) -> tuple[int, ...] | None:
    """(64, 32) of `mlp-64-32`; None for a network that is no multilayer perceptron.

    The widths stand in the name, because teacher and student differ in the widths alone, and tables and figures identify networks by name.
    """
    found = _MLP_NAME.fullmatch(name)
    return tuple(int(width) for width in found[1].split("-")[1:]) if found else None


def library_of(name: str) -> tuple[str, str] | None:
    """("timm", "vit_tiny_patch16_224") of `timm:vit_tiny_patch16_224`; None for a network of our own."""
    library, separator, inner = name.partition(":")
    return (library, inner) if separator and own_network(name) is None else None


def own_network(name: str) -> tuple[str, str | None] | None:
    """("my_models.wide:build", "1.2") of `my_models.wide:build@1.2`; None for a network that is not the user's own.

    The version stands in the name, because it is part of the identity, and tables and figures identify networks by name.
    """
    found = _OWN_NAME.fullmatch(name)
    return (found[1], found[2]) if found else None


def is_text_model(name: str) -> bool:
    """Whether a network takes texts."""
    return name.startswith("hf:")


def modality_of(name: str) -> Modality:
    """The kind of samples that a network takes; one of the user's own may take rows, too."""
    if is_text_model(name):
        return "texts"
    return "images" if mlp_widths(name) is None else "rows"


def _check_name(name: str) -> str:
    if (
        name not in ARCHITECTURES
        and not _LIBRARY_NAME.fullmatch(name)
        and not _TEXT_NAME.fullmatch(name)
        and mlp_widths(name) is None
        and own_network(name) is None
    ):
        raise PydanticCustomError(
            "model_name",
            "Input should be {known}, mlp-WIDTHS (as in mlp-64-32), a network of yours (as in my_models.wide:build), "
            "timm:NAME, torchvision:NAME or hf:NAME",
            {"known": ", ".join(ARCHITECTURES)},
        )
    return name


_PATTERNS = [{"pattern": f"^{name.pattern}$"} for name in (_MLP_NAME, _LIBRARY_NAME, _TEXT_NAME, _OWN_NAME)]
_JSON_SCHEMA: dict[str, Any] = {"anyOf": [{"enum": list(ARCHITECTURES)}, *_PATTERNS]}
ModelName = Annotated[str, AfterValidator(_check_name), WithJsonSchema({"type": "string", **_JSON_SCHEMA})]
"""A network of our own, `mlp-WIDTHS` for rows of numbers, or `timm:NAME`, `torchvision:NAME`, `hf:NAME`: what that library builds; or
`package.module:function`, with `@VERSION` behind it or not: what an installed distribution offers as an entry point of `kd_ray.models`."""
