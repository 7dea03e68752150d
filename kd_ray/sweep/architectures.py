"""Names of networks, and what can be said of them without building one."""

import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, WithJsonSchema
from pydantic_core import PydanticCustomError


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """What a sweep file is checked against."""

    min_image_size: int
    """Least side of the images in pixels; with fewer, layers run out of pixels, or batch normalisation of values to average."""
    can_be_grouped: bool = False
    """Whether `training.execution: grouped` knows its layers."""


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

_LIBRARY_NAME = re.compile(r"(timm|torchvision):[A-Za-z0-9][A-Za-z0-9_.-]*")
_TEXT_NAME = r"hf:[A-Za-z0-9][A-Za-z0-9_.-]*(/[A-Za-z0-9][A-Za-z0-9_.-]*)?"
TextModelName = Annotated[str, Field(pattern=f"^{_TEXT_NAME}$")]
"""`hf:NAME`: a folder of the transformers library, see `sweep/encoders.py`."""


def library_of(name: str) -> tuple[str, str] | None:
    """("timm", "vit_tiny_patch16_224") of `timm:vit_tiny_patch16_224`; None for a network of our own."""
    library, separator, inner = name.partition(":")
    return (library, inner) if separator else None


def is_text_model(name: str) -> bool:
    """Whether a network takes texts; all others take images."""
    return name.startswith("hf:")


def _check_name(name: str) -> str:
    if name not in ARCHITECTURES and not _LIBRARY_NAME.fullmatch(name) and not re.fullmatch(_TEXT_NAME, name):
        raise PydanticCustomError(
            "model_name",
            "Input should be {known}, timm:NAME, torchvision:NAME or hf:NAME",
            {"known": ", ".join(ARCHITECTURES)},
        )
    return name


_JSON_SCHEMA: dict[str, Any] = {
    "anyOf": [{"enum": list(ARCHITECTURES)}, {"pattern": f"^{_LIBRARY_NAME.pattern}$"}, {"pattern": f"^{_TEXT_NAME}$"}]
}
ModelName = Annotated[str, AfterValidator(_check_name), WithJsonSchema({"type": "string", **_JSON_SCHEMA})]
"""A network of our own, or `timm:NAME`, `torchvision:NAME`, `hf:NAME`: what that library builds under this name."""
