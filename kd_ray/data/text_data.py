"""Labelled texts in memory, as numbers: the counterpart of `image_data.py`, and how texts become numbers, once per node.

<root>/prepared/<data set>-<key>/   ids.npy  lengths.npy  checksums.json
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from kd_ray.data.cache import cached, prepared_folder
from kd_ray.data.labelled import Cut, check_labels, check_samples, take_groups
from kd_ray.errors import DataError
from kd_ray.groups import Groups
from kd_ray.sweep.classification import Tokenizing
from kd_ray.sweep.encoders import find_folder, tokenizer_version

FORM = 1
"""Raised whenever the same texts and tokenizer would give other numbers."""
_FILES = _IDS, _LENGTHS = "ids.npy", "lengths.npy"


@dataclass(frozen=True, kw_only=True, eq=False)
class TextSplit:
    """N labelled texts of at most L tokens. Raises ValueError when shapes or dtypes do not match."""

    ids_NL: npt.NDArray[np.int32]
    """Tokens of each text, then padding."""
    lengths_N: npt.NDArray[np.int32]
    """Tokens of each text, at least 1."""
    labels_N: npt.NDArray[np.int64]
    """Index into the data set's class names."""
    sensitive_features: Mapping[str, Groups] = field(default_factory=dict)
    """Feature name → groups of these N samples."""

    def __post_init__(self) -> None:
        count = len(self.labels_N)
        if self.ids_NL.ndim != 2 or self.ids_NL.dtype != np.int32 or len(self.ids_NL) != count:
            raise ValueError(
                f"tokens are {self.ids_NL.dtype} of shape {self.ids_NL.shape}, expected int32, ({count}, L)"
            )
        if self.lengths_N.shape != (count,) or self.lengths_N.dtype != np.int32:
            raise ValueError(f"lengths have shape {self.lengths_N.shape}, expected ({count},), int32")
        if count and not 1 <= self.lengths_N.min() <= self.lengths_N.max() <= self.ids_NL.shape[1]:
            raise ValueError(f"lengths lie in {self.lengths_N.min()}..{self.lengths_N.max()}, expected 1..L")
        check_samples(self.labels_N, self.sensitive_features)

    @property
    def num_inputs(self) -> int:
        """Tokens of the longest text."""
        return int(self.lengths_N.max())

    def __len__(self) -> int:
        """Number of samples N."""
        return len(self.labels_N)

    def take(self, indices_M: npt.NDArray[np.integer]) -> "TextSplit":
        """The samples at `indices_M`, in that order, copied."""
        return TextSplit(
            ids_NL=self.ids_NL[indices_M],
            lengths_N=self.lengths_N[indices_M],
            labels_N=self.labels_N[indices_M],
            sensitive_features=take_groups(self.sensitive_features, indices_M),
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TextData:
    """One data set of texts, ready for training. Raises ValueError when a label has no class name."""

    modality: ClassVar[Literal["texts"]] = "texts"
    train: TextSplit
    test: TextSplit
    validation: TextSplit | None = None
    """None where the sweep asks for no validation split."""
    class_names: tuple[str, ...]
    test_ids: Sequence[str] | None = None
    """Names of the test samples in their source; None where they are those of image files, or row numbers of the test split."""
    train_ids: Sequence[str] | None = None
    """The same of the training samples, before `cut`."""
    notes: tuple[str, ...] = ()
    """What people should know: samples and groups that were left out."""

    def __post_init__(self) -> None:
        check_labels({"train": self.train, "validation": self.validation, "test": self.test}, self.class_names)

    def cut(self, cut: Cut) -> "TextData":
        """See `ImageData.cut`."""
        train, held_out = cut(self.train)
        return replace(self, train=train, validation=held_out or self.validation)


@dataclass(frozen=True, kw_only=True, eq=False)
class Tokenised:
    """N texts as numbers, mapped from files."""

    ids_NL: npt.NDArray[np.int32]
    lengths_N: npt.NDArray[np.int32]


def tokenised(root: Path, dataset: str, texts: Sequence[str], tokenizing: Tokenizing) -> Tokenised:
    """The texts as numbers of the tokenizer, with its tokens at the ends, cut to the largest length; from the folder of this node, which is
    made if need be.

    Raises:
        DataError: the tokenizer is missing, not of the version that the sweep names, or cannot be used; or transformers is not installed.
    """
    found = tokenizer_version(tokenizing.tokenizer, root)
    if tokenizing.version not in (None, found):
        raise DataError(
            f"{dataset}: the tokenizer of {tokenizing.tokenizer} has version {found}, and the sweep means {tokenizing.version}; "
            "put the same files there, or leave out dataset.tokenizer_version"
        )
    digest = hashlib.sha256(json.dumps(list(texts)).encode()).hexdigest()
    facts = {"form": FORM, "texts": digest, "tokenizer": found, "max_length": tokenizing.max_length}
    folder = prepared_folder(root, dataset, facts)

    def make(partial: Path) -> None:
        made = _tokenise(find_folder(tokenizing.tokenizer, root), tokenizing, texts)
        np.save(partial / _IDS, made.ids_NL)
        np.save(partial / _LENGTHS, made.lengths_N)

    cached(folder, _FILES, facts, make)
    return Tokenised(ids_NL=np.load(folder / _IDS, mmap_mode="r"), lengths_N=np.load(folder / _LENGTHS))


def _tokenise(folder: Path, tokenizing: Tokenizing, texts: Sequence[str]) -> Tokenised:
    name = tokenizing.tokenizer
    try:
        from transformers import AutoTokenizer
    except ImportError as error:
        raise DataError(
            f"{name}: transformers is not installed, and it has the tokenizer; `pip install 'kd_ray[text]'` brings it"
        ) from error
    try:
        tokenizer: Any = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        rows = tokenizer(list(texts), truncation=True, max_length=tokenizing.max_length, padding=False)["input_ids"]
    except Exception as error:  # a folder of the user's may make the library raise anything
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{name}: transformers cannot make a tokenizer of {folder}: {reason}") from error
    lengths_N = np.array([len(row) for row in rows], dtype=np.int32)
    if len(rows) == 0 or lengths_N.min() < 1:
        raise DataError(f"{name}: its tokenizer makes nothing of some texts; expected a token at least")
    padding = tokenizer.pad_token_id or 0
    ids_NL = np.full((len(rows), int(lengths_N.max())), padding, dtype=np.int32)
    for n, row in enumerate(rows):
        ids_NL[n, : len(row)] = row
    return Tokenised(ids_NL=ids_NL, lengths_N=lengths_N)
