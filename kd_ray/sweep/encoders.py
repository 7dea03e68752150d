"""Networks of the transformers library, `hf:NAME`, as folders: finds them, fingerprints their contents, and checks them without building a
network.

    <data_root>/models/NAME/   config.json  model.safetensors  tokenizer.json (or vocab.txt), tokenizer_config.json

Where there is no such folder, NAME is looked up in the local cache of the Hugging Face hub; nothing is ever fetched here.
"""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from kd_ray.errors import DataError
from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.spec import Encoder

FOLDER = "models"
CONFIG, WEIGHTS = "config.json", "model.safetensors"
TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "merges.txt",
    "vocab.json",
    "special_tokens_map.json",
    "tokenizer_config.json",
)
"""Files that a tokenizer may consist of."""
_VOCABULARIES = TOKENIZER_FILES[:4]
TOKENIZER_OF = "tokenizer of "
"""Prefix of a network's name that stands for its tokenizer, where versions are kept by name."""
_NUM_LAYERS = ("num_hidden_layers", "n_layers", "num_layers")


_RESERVES_POSITIONS = ("roberta", "xlm-roberta", "camembert")
"""Types of networks that reserve their first two positions."""


@dataclass(frozen=True, kw_only=True)
class EncoderFolder:
    """The folder of a network."""

    name: str
    """`hf:NAME`."""
    path: Path
    config: Mapping[str, Any]
    """The contents of config.json."""

    @property
    def num_layers(self) -> int:
        """Layers of the whole network."""
        return int(next(self.config[key] for key in _NUM_LAYERS if key in self.config))

    @property
    def has_weights(self) -> bool:
        """Whether it comes with weights."""
        return (self.path / WEIGHTS).is_file()

    @property
    def version(self) -> str:
        """16 hex digits of a SHA-256 over configuration and weights."""
        return _digest(self.path, (CONFIG, WEIGHTS))


def find_folder(name: str, root: Path) -> Path:
    """The folder of `hf:NAME`. Raises DataError when there is none."""
    inner = name.removeprefix("hf:")
    folder = root / FOLDER / inner
    if folder.is_dir():
        return folder
    cached = _in_hub_cache(inner)
    if cached is not None:
        return cached
    raise DataError(
        f"{name}: there is no folder {folder}, and the local cache of the Hugging Face hub has no such model; put the model's "
        f"{CONFIG}, {WEIGHTS} and tokenizer files there (`hf download {inner} --local-dir {folder}` fetches one of the hub)"
    )


def read_encoder(name: str, root: Path) -> EncoderFolder:
    """A network's folder and configuration. Raises DataError when there is none, or it cannot be used."""
    path = find_folder(name, root)
    try:
        config = json.loads((path / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{name}: {path / CONFIG} cannot be read: {error}") from error
    if not isinstance(config, dict) or "model_type" not in config or not any(key in config for key in _NUM_LAYERS):
        raise DataError(f"{name}: {path / CONFIG} has no `model_type`, or none of {', '.join(_NUM_LAYERS)}")
    return EncoderFolder(name=name, path=path, config=config)


def tokenizer_version(name: str, root: Path) -> str:
    """16 hex digits of a SHA-256 over the tokenizer's files. Raises DataError when there are none."""
    path = find_folder(name, root)
    if not any((path / vocabulary).is_file() for vocabulary in _VOCABULARIES):
        raise DataError(f"{name}: {path} has no tokenizer; expected one of {', '.join(_VOCABULARIES)}")
    return _digest(path, TOKENIZER_FILES)


def check_encoder(model: str, encoder: Encoder, dataset: Dataset, root: Path) -> None:
    """Raises DataError, which begins with the field at fault, for layers that there are not, weights that are missing, texts that are too
    long, and a vocabulary other than the data set's."""
    tokenizing = dataset.tokenizing
    assert tokenizing is not None  # checked with the sweep: this network takes texts
    tokenizer = tokenizing.tokenizer
    found = read_encoder(model, root)
    if encoder.layers and encoder.layers[-1] >= found.num_layers:
        raise DataError(f"layers: {model} has layers 0 to {found.num_layers - 1}, got {list(encoder.layers)}")
    if encoder.init == "pretrained" and not found.has_weights:
        raise DataError(f"init: {found.path} has no {WEIGHTS} to start from; put it there, or use init: random")
    positions = found.config.get("max_position_embeddings")
    if positions is not None:
        most = int(positions) - (2 if found.config["model_type"] in _RESERVES_POSITIONS else 0)
        if tokenizing.max_length > most:
            raise DataError(
                f"model: {model} takes at most {most} tokens, and dataset.max_length is {tokenizing.max_length}"
            )
    theirs = _vocabulary(find_folder(tokenizer, root))
    if model != tokenizer and (ours := _vocabulary(found.path)) and theirs and ours != theirs:
        raise DataError(
            f"model: {model} has another vocabulary than dataset.tokenizer {tokenizer}; teacher and student read the same numbers"
        )
    if theirs and len(theirs) > int(found.config.get("vocab_size", len(theirs))):
        raise DataError(
            f"model: {model} knows {found.config['vocab_size']:,} tokens, and dataset.tokenizer {tokenizer} has {len(theirs):,}"
        )


def _vocabulary(folder: Path) -> dict[str, int] | None:
    """Token → number; None for a tokenizer in another form."""
    try:
        if (folder / "tokenizer.json").is_file():
            vocabulary = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))["model"]["vocab"]
            return vocabulary if isinstance(vocabulary, dict) else None
        if (folder / "vocab.txt").is_file():
            lines = (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
            return {token: n for n, token in enumerate(lines)}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"model: the tokenizer in {folder} cannot be read: {error}") from error
    return None


def _digest(folder: Path, names: tuple[str, ...]) -> str:
    total = hashlib.sha256()
    for name in names:
        if (folder / name).is_file():
            facts = (folder / name).stat()
            total.update(
                f"{name} {_sha256(folder / name, facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino)}\n".encode()
            )
    return total.hexdigest()[:16]


@lru_cache(maxsize=64)
def _sha256(path: Path, *_facts: int) -> str:
    """Weights take seconds to read, and are asked for by every trial. `_facts` change when the file does."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _in_hub_cache(inner: str) -> Path | None:
    try:
        from huggingface_hub import try_to_load_from_cache
    except ImportError:
        return None
    found = try_to_load_from_cache(inner, CONFIG)
    return Path(found).parent if isinstance(found, str) else None
