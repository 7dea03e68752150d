"""Classifiers of texts that the transformers library builds, from a folder: `hf:NAME` (`sweep/encoders.py`).

The architecture is that of config.json. The weights are those of model.safetensors with a new head, or random. Nothing is downloaded, and
no code in a folder is executed. A network may keep only some of its layers.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from kd_ray.errors import DataError
from kd_ray.sweep.encoders import WEIGHTS, read_encoder
from kd_ray.sweep.spec import Encoder

_LAYER = re.compile(r"^(.*\blayers?\.)(\d+)(\..*)$")
"""Names of weights in a layer, as BERT and similar networks (`encoder.layer.0.`) and DistilBERT (`transformer.layer.0.`) have them."""
_NUM_LAYERS = ("num_hidden_layers", "n_layers", "num_layers")


class Tokens(NamedTuple):
    """Texts as numbers, padded to one length."""

    ids_BL: Tensor
    """int64."""
    mask_BL: Tensor
    """int64: 1 where there is a token, 0 where there is padding."""


class TextClassifier(nn.Module):
    """A sequence classifier of the library, as a network from `Tokens` to logits."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, tokens: Tokens) -> Tensor:
        """Shapes: (B, L) → logits (B, classes)."""
        return cast(Tensor, self.network(input_ids=tokens.ids_BL, attention_mask=tokens.mask_BL).logits)

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Load weights; the names may also be those of the library's own files, which lack the prefix of the inner network."""
        if not any(name.startswith("network.") for name in state_dict):
            state_dict = {f"network.{name}": value for name, value in state_dict.items()}
        return super().load_state_dict(state_dict, strict, assign)


def text_classifier(name: str, encoder: Encoder, num_classes: int, root: Path) -> nn.Module:
    """`hf:NAME` with a head for `num_classes` classes; random weights come from torch's current generator.

    With `init: teacher` all weights are random here: `from_teacher` gives those to load.

    Raises:
        DataError: its folder is missing, damaged, or not of the version that the trial names.
        ValueError: the library is not installed, or cannot build it.
    """
    found = read_encoder(name, root)
    if found.version != encoder.version:
        raise DataError(
            f"{name}: {found.path} has version {found.version}, and the trial was planned with {encoder.version}"
        )
    layers = encoder.layers or tuple(range(found.num_layers))
    network = _build(name, found.config, len(layers), num_classes)
    if encoder.init == "pretrained":
        _load_body(network, found.path / WEIGHTS, layers)
    return TextClassifier(network)


def from_teacher(
    weights: Mapping[str, Tensor], kept: Sequence[int] | None, teacher_layers: Sequence[int] | None
) -> dict[str, Tensor]:
    """The weights of a teacher that has `teacher_layers` (None: all) as those of a network with the layers `kept` of them.

    Layers are counted in the whole network, from 0; everything else, the head included, stays as it is.
    """
    if kept is None:
        return dict(weights)
    place = {layer: n for n, layer in enumerate(teacher_layers)} if teacher_layers else None
    return _cut(weights, [place[layer] if place else layer for layer in kept])


def _build(name: str, config: Mapping[str, Any], num_layers: int, num_classes: int) -> nn.Module:
    try:
        from transformers import AutoConfig, AutoModelForSequenceClassification
    except ImportError as error:
        raise ValueError(f"{name}: transformers is not installed; `pip install 'kd_ray[text]'` brings it") from error
    key = next(key for key in _NUM_LAYERS if key in config)
    settings = {
        key: value for key, value in config.items() if key not in ("architectures", "auto_map", "id2label", "label2id")
    }
    try:
        made = AutoConfig.for_model(**{**settings, key: num_layers, "num_labels": num_classes})
        # The plain form of attention: the fused ones have no deterministic gradient on a GPU.
        network: nn.Module = cast(Any, AutoModelForSequenceClassification).from_config(
            made, attn_implementation="eager"
        )
    except Exception as error:  # a constructor may raise anything about a configuration
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ValueError(f"{name}: transformers cannot build it as a classifier of texts: {reason}") from error
    return network.float()


def _load_body(network: nn.Module, path: Path, layers: Sequence[int]) -> None:
    """Load the weights of a file except those of its head, which is for another task.

    Raises:
        DataError: the file is damaged, or lacks weights other than those of the pooler.
    """
    prefix = str(cast(Any, network).base_model_prefix)
    body = network.get_submodule(prefix)
    try:
        weights = {key.removeprefix(f"{prefix}."): value.float() for key, value in load_file(path).items()}
        # Old files call the two parts of a normalisation gamma and beta.
        weights = {
            key.replace("LayerNorm.gamma", "LayerNorm.weight").replace("LayerNorm.beta", "LayerNorm.bias"): value
            for key, value in weights.items()
        }
        missing = body.load_state_dict(_cut(weights, layers), strict=False).missing_keys
    except (OSError, SafetensorError, RuntimeError) as error:
        raise DataError(f"{path} does not fit its config.json: {str(error).splitlines()[0]}") from error
    if lost := [key for key in missing if not key.startswith("pooler.")]:
        raise DataError(f"{path} lacks {len(lost)} of the weights that its config.json asks for, such as {lost[0]}")


def _cut(weights: Mapping[str, Tensor], kept: Sequence[int]) -> dict[str, Tensor]:
    place = {layer: n for n, layer in enumerate(kept)}
    found = {}
    for key, value in weights.items():
        match = _LAYER.match(key)
        if match is None:
            found[key] = value
        elif int(match[2]) in place:
            found[f"{match[1]}{place[int(match[2])]}{match[3]}"] = value
    return found
