"""A student's whole training state as bytes, and back: safetensors, never pickle.

A checkpoint holds all that the next step depends on: weights, buffers, optimiser, position, history and the sums of the unfinished epoch.
No generator state is among it, because every random stream is rebuilt from (seed, epoch); see `seeding.py`.
`results/checkpoints.py` stores checkpoints.
"""

import io
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from pydantic import NonNegativeInt
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from kd_ray.bounded import MEGABYTE, JsonForm
from kd_ray.results.record import Epoch

_META = "kd_ray"


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingState:
    """All that the next optimiser step of a student depends on, and all that its record needs of the past."""

    step: int
    """Optimiser steps taken."""
    model: Mapping[str, Tensor]
    """Weights and buffers by name."""
    optimizer: Mapping[str, Any]
    """`state_dict()` of the optimiser."""
    sums: Tensor
    """Float64 sums of the unfinished epoch."""
    history: tuple[Epoch, ...]
    elapsed_s: float
    restarts: int
    average: Mapping[str, Tensor] = field(default_factory=dict)
    """The average of weights and buffers, where the settings ask for one."""
    adversary: Mapping[str, Tensor] = field(default_factory=dict)
    """`Adversary.tensors()` where the student has one."""


@dataclass(frozen=True, kw_only=True)
class _Meta:
    """What a checkpoint holds besides tensors."""

    step: NonNegativeInt
    optimizer_plain: dict[int, dict[str, Any]]
    param_groups: list[dict[str, Any]]
    history: tuple[Epoch, ...]
    elapsed_s: float
    restarts: NonNegativeInt


_HEADER: JsonForm[dict[str, Any]] = JsonForm(kind=dict[str, Any], most_bytes=256 * MEGABYTE)
_META_FORM: JsonForm[_Meta] = JsonForm(kind=_Meta, most_bytes=256 * MEGABYTE)


def encode(state: TrainingState) -> bytes:
    """The state as safetensors bytes."""
    tensors = {f"model.{name}": tensor for name, tensor in state.model.items()} | {"sums": state.sums}
    tensors |= {f"average.{name}": tensor for name, tensor in state.average.items()}
    tensors |= {f"adversary.{name}": tensor for name, tensor in state.adversary.items()}
    plain: dict[str, dict[str, Any]] = {}
    for index, slots in state.optimizer["state"].items():
        for name, value in slots.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{name}"] = value
            else:
                plain.setdefault(str(index), {})[name] = value
    meta = {
        "step": state.step,
        "optimizer_plain": plain,
        "param_groups": state.optimizer["param_groups"],
        "history": [asdict(epoch) for epoch in state.history],
        "elapsed_s": state.elapsed_s,
        "restarts": state.restarts,
    }
    dense = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return save_tensors(dense, metadata={_META: json.dumps(meta)})


def decode(data: bytes) -> TrainingState:
    """Read a state; raises ValueError, KeyError or TypeError when it is not a whole one."""
    try:
        tensors = load_tensors(data)
    except SafetensorError as error:
        raise ValueError(str(error)) from error
    header = _HEADER.read(data[8 : 8 + int.from_bytes(data[:8], "little")])
    meta = _META_FORM.read(header["__metadata__"][_META])
    optimizer = {index: dict(slots) for index, slots in meta.optimizer_plain.items()}
    for key, tensor in tensors.items():
        if key.startswith("optimizer."):
            _, index, name = key.split(".", 2)
            optimizer.setdefault(int(index), {})[name] = tensor
    return TrainingState(
        step=meta.step,
        model=_below("model.", tensors),
        optimizer={"state": optimizer, "param_groups": meta.param_groups},
        sums=tensors["sums"],
        history=meta.history,
        elapsed_s=meta.elapsed_s,
        restarts=meta.restarts,
        average=_below("average.", tensors),
        adversary=_below("adversary.", tensors),
    )


def _below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): tensor for key, tensor in tensors.items() if key.startswith(prefix)}


def to_weights(model: Mapping[str, Tensor]) -> bytes:
    """Weights and buffers as safetensors bytes."""
    return save_tensors({name: tensor.detach().cpu().contiguous() for name, tensor in model.items()})


def from_weights(data: bytes, *, source: str) -> dict[str, Tensor]:
    """Weights of a `.safetensors` file or of a PyTorch checkpoint, read without executing anything in it.

    A PyTorch checkpoint may hold the weights under `state_dict`, and their names may start with `module.`.

    Raises:
        ValueError: the bytes are neither; the message names `source`.
    """
    # What is not safetensors may be the other format, or neither.
    with suppress(SafetensorError):
        return dict(load_tensors(data))
    try:
        content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except Exception as error:
        raise ValueError(f"{source}: neither safetensors nor a PyTorch checkpoint of plain tensors: {error}") from error
    content = content.get("state_dict", content) if isinstance(content, Mapping) else content
    if not isinstance(content, Mapping) or not all(isinstance(value, Tensor) for value in content.values()):
        raise ValueError(f"{source}: holds no mapping of names to tensors")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}
