"""Initial weights, also for a network with another number of classes; and pretrained weights, fetched by their library."""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from shutil import copyfile
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from kd_ray.sweep.architectures import library_of

_COUNTER = "num_batches_tracked"
"""Old files lack it, and no computation reads it."""


def load_initial(model: nn.Module, weights: Mapping[str, Tensor]) -> int | None:
    """Load weights; a head (one layer) with another number of classes is left as it was drawn, and that number is returned.

    Raises:
        ValueError: anything else differs: a name, or another shape.
    """
    own = model.state_dict()
    missing = [name for name in own if name not in weights and not name.endswith(_COUNTER)]
    unexpected = [name for name in weights if name not in own]
    if missing or unexpected:
        raise ValueError(
            f"{len(missing)} entries are missing ({_some(missing)}) and {len(unexpected)} are of no use ({_some(unexpected)})"
        )
    other = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    layers = {name.rpartition(".")[0] for name in other}
    if len(layers) > 1 or any(own[name].shape[1:] != weights[name].shape[1:] for name in other):
        shapes = [f"{name} {tuple(weights[name].shape)} for {tuple(own[name].shape)}" for name in other]
        raise ValueError(f"{len(other)} entries have other shapes: {_some(shapes)}")
    model.load_state_dict({name: weights[name] for name in weights if name not in other}, strict=False)
    return int(weights[other[0]].shape[0]) if other else None


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (" …" if len(names) > 3 else "") if names else "none"


def fetch_pretrained(name: str, *, image_size: int, path: Path) -> None:
    """Let the library of `timm:NAME` or `torchvision:NAME` fetch its pretrained weights, and keep them in a safetensors file.

    Raises:
        ValueError: the library has none or cannot fetch them, and the message names the file to provide; or they cannot be written.
    """
    found = library_of(name)
    assert found is not None
    library, inner = found
    source = "the library's weights"
    try:
        source = _source(library, inner)
        weights = _timm(inner, image_size) if library == "timm" else _torchvision(inner)
    except Exception as error:  # a library may raise anything about a network it cannot reach
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"{library} cannot fetch the weights of {inner} ({reason}); put their state dict there yourself: {path}, from {source}"
        ) from error
    partial = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({key: tensor.contiguous() for key, tensor in weights.items()}, partial)
        partial.rename(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise ValueError(f"the weights of {inner} cannot be kept in {path}: {error}") from error


def fetch_from_hub(repository: str, *, path: Path) -> None:
    """Copy the `model.safetensors` of a repository of the Hugging Face Hub: from the cache of its client, else fetched by it.

    Raises:
        ValueError: it cannot be fetched or kept; the message names the file to provide.
    """
    partial = path.with_name(f".{path.name}")
    try:
        from huggingface_hub import hf_hub_download

        cached = hf_hub_download(repository, "model.safetensors")
        path.parent.mkdir(parents=True, exist_ok=True)
        copyfile(cached, partial)
        partial.rename(path)
    except Exception as error:  # the client may raise anything about a server it cannot reach
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"hub:{repository}: its model.safetensors cannot be fetched ({reason}); put the file there yourself: {path}"
        ) from error


def _source(library: str, name: str) -> str:
    """Where the weights lie, for people."""
    if library == "torchvision":
        from torchvision import models

        return str(models.get_model_weights(name).DEFAULT.url)
    import timm

    known = timm.get_pretrained_cfg(name)
    if known is None or not (known.hf_hub_id or known.url):
        raise ValueError("it has no pretrained weights")
    return f"https://huggingface.co/{known.hf_hub_id}" if known.hf_hub_id else str(known.url)


def _timm(name: str, image_size: int) -> dict[str, Tensor]:
    import timm

    fixed = getattr(timm.get_pretrained_cfg(name), "fixed_input_size", False)
    settings: dict[str, Any] = {"img_size": image_size} if fixed else {}
    model: nn.Module = timm.create_model(name, pretrained=True, **settings)
    return dict(model.state_dict())


def _torchvision(name: str) -> dict[str, Tensor]:
    from torchvision import models

    return dict(models.get_model_weights(name).DEFAULT.get_state_dict(progress=False, check_hash=True))
