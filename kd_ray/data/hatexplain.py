"""HateXplain (Mathew et al., "HateXplain: a benchmark dataset for explainable hate speech detection", AAAI 2021): posts, each labelled by
three annotators, who also say which communities it targets.

    hatexplain/Data/   dataset.json  post_id_divisions.json          as in the authors' repository
    hatexplain/        train_partial.jsonl.gz                        a substitute, see `_partial`

A label needs two of three votes. A post is its published tokens joined by spaces. The texts offend; nothing here prints one.
"""

import gzip
import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kd_ray.data import originals
from kd_ray.data.family import Family, Loading
from kd_ray.data.text_data import TextData, TextSplit, Tokenised, tokenised
from kd_ray.errors import DataError
from kd_ray.groups import Groups
from kd_ray.sweep.datasets import HatexplainDataset

FOLDER = "hatexplain"
DATASET, DIVISIONS, PARTIAL = "Data/dataset.json", "Data/post_id_divisions.json", "train_partial.jsonl.gz"
NUM_POSTS = 20_148
"""Of the published dataset.json."""
DIVISIONS_SHA256 = "c2fb0d89862e7897b11ea3e9380753f15a793482b4b70ad0532dfb1212212835"
BLOB = "741bc082"
"""Beginning of the id that git gives the published dataset.json: all that is known of its checksum."""
LABELS = ("normal", "offensive", "hatespeech")
FEATURES = {
    "gender": ("Men", "Women"),
    "race": ("African", "Arab", "Asian", "Caucasian", "Hispanic"),
    "religion": ("Buddhism", "Christian", "Hindu", "Islam", "Jewish"),
}
"""Feature → communities, by their names in the files. Gender and race are those of Mohammadshahi & Ioannou as far as could be read,
religion is our choice; communities in none of them, such as Refugee or Homosexual, count in no group."""
SEVERAL, NOT_TARGETED = "several", "not targeted"

_SPLITS = {"train": "train", "validation": "val", "test": "test"}


@dataclass(frozen=True, kw_only=True)
class Post:
    """A post with the majority label and the communities of its annotators."""

    text: str
    label: str
    """That of at least two annotators."""
    communities: frozenset[str]
    """Communities that it targets."""


def fingerprint(dataset: HatexplainDataset, root: Path) -> str:
    """16 hex digits that stand for the files. Raises DataError when one is missing."""
    return originals.fingerprint_of(_contents(dataset, root))


def load(dataset: HatexplainDataset, loading: Loading) -> TextData:
    """The posts in their published splits and order, as numbers.

    Raises:
        DataError: files are missing, damaged, not of the version that the sweep names, or lack posts of a split; or there is no tokenizer.
    """
    root = loading.root
    contents = _contents(dataset, root)
    found = originals.fingerprint_of(contents)
    if dataset.version != found:
        detail = _difference(contents) if dataset.version == "original" else "the fingerprint differs"
        if detail is not None:
            raise originals.other_version("hatexplain", root / FOLDER, dataset.version, detail, found)
    names = ["train", *(["validation"] if dataset.validation == "official" else []), "test"]
    posts = {name: _posts(dataset, root, contents, name) for name in names}
    texts = [post.text for name in names for post in posts[name]]
    numbers = tokenised(root, "hatexplain", texts, dataset.tokenizing)
    splits, start = {}, 0
    for name in names:
        splits[name] = _split(dataset, posts[name], numbers, start)
        start += len(posts[name])
    divisions = _parsed(contents[DIVISIONS], root / FOLDER / DIVISIONS)
    classes = ("normal", "toxic") if dataset.target == "toxic" else LABELS
    notes = []
    if dataset.train_file == "train_partial":
        notes.append(
            f"training posts come from {PARTIAL}, a substitute; their communities are not by {dataset.min_annotators} of 3"
        )
    return TextData(
        train=splits["train"],
        validation=splits.get("validation"),
        test=splits["test"],
        class_names=classes,
        notes=tuple(notes),
        test_ids=[str(it) for it in divisions[_SPLITS["test"]]],
        # The substitute file has its own order of the training posts.
        train_ids=[str(it) for it in divisions[_SPLITS["train"]]] if dataset.train_file != "train_partial" else None,
    )


def _names(dataset: HatexplainDataset) -> tuple[str, ...]:
    return (DATASET, DIVISIONS, *([PARTIAL] if dataset.train_file == "train_partial" else []))


def _contents(dataset: HatexplainDataset, root: Path) -> dict[str, bytes]:
    return originals.read_files(
        "hatexplain", root / FOLDER, _names(dataset), how="put the folder Data of HateXplain's repository there"
    )


def _difference(contents: Mapping[str, bytes]) -> str | None:
    """In what the files are not the published ones."""
    data = contents[DATASET]
    blob = hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()
    wrong = [] if blob.startswith(BLOB) else [DATASET]
    wrong += [] if hashlib.sha256(contents[DIVISIONS]).hexdigest() == DIVISIONS_SHA256 else [DIVISIONS]
    wrong += [PARTIAL] if PARTIAL in contents else []
    return f"not the published files: {', '.join(wrong)}" if wrong else None


def _posts(dataset: HatexplainDataset, root: Path, contents: Mapping[str, bytes], split: str) -> list[Post]:
    path = root / FOLDER / DATASET
    if split == "train" and dataset.train_file == "train_partial":
        return _partial(contents[PARTIAL], root / FOLDER / PARTIAL)
    everything, divisions = (_parsed(contents[name], root / FOLDER / name) for name in (DATASET, DIVISIONS))
    ids = divisions.get(_SPLITS[split])
    if not isinstance(ids, list):
        raise DataError(f"hatexplain: {root / FOLDER / DIVISIONS} lists no {_SPLITS[split]} posts")
    if missing := [post_id for post_id in ids if post_id not in everything]:
        advice = f"; `dataset.train_file: train_partial` reads them from {PARTIAL}" if split == "train" else ""
        raise DataError(
            f"hatexplain: {path} lacks {len(missing):,} of the {len(ids):,} {split} posts that {DIVISIONS} lists{advice}"
        )
    return [_post(everything[post_id], dataset.min_annotators, f"{path}: {post_id}") for post_id in ids]


def _post(entry: Any, least: int, where: str) -> Post:
    try:
        annotators = entry["annotators"]
        label = majority([each["label"] for each in annotators])
        votes = Counter(community for each in annotators for community in set(each["target"]))
        text = " ".join(entry["post_tokens"])
    except (KeyError, TypeError) as error:
        raise DataError(f"hatexplain: {where}: expected post_tokens, and annotators with label and target") from error
    if label is None or label not in LABELS:
        raise DataError(f"hatexplain: {where}: no label of two annotators among {', '.join(LABELS)}")
    return Post(text=text, label=label, communities=frozenset(name for name, count in votes.items() if count >= least))


def _partial(content: bytes, path: Path) -> list[Post]:
    """Training posts of the substitute file: the published ids, tokens and votes, put together from copies.

    The file does not say which annotator named which community: of posts that all annotators label alike there are the first annotator's,
    of others the union over the three. So groups of training posts are approximate; the groups of the other splits are exact.
    """
    posts = []
    try:
        rows = [json.loads(line) for line in gzip.decompress(content).decode().splitlines()]
        for row in rows:
            if row["split"] != "train":
                continue
            label = majority(row["labels"])
            if label not in LABELS or label != row["majority"]:
                raise DataError(f"hatexplain: {path}: {row['post_id']}: no label of two annotators")
            communities = row.get("target_union") or row.get("target_first") or ()
            posts.append(Post(text=" ".join(row["post_tokens"]), label=label, communities=frozenset(communities)))
    except (OSError, EOFError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"hatexplain: {path} cannot be read: {type(error).__name__}") from error
    return posts


def majority(labels: Sequence[str]) -> str | None:
    """The label of at least two of three annotators; None when all differ."""
    return next((label for label, count in Counter(labels).items() if count >= 2), None)


def groups_of(posts: Sequence[Post], feature: str, *, several: str, none: str) -> Groups:
    """Which groups of a feature each post targets, under the two policies of the sweep file."""
    communities = FEATURES[feature]
    member_NG = np.array([[name in post.communities for name in communities] for post in posts], dtype=np.bool_)
    member_NG = member_NG.reshape(len(posts), len(communities))
    count_N = member_NG.sum(axis=1)
    names = list(communities)
    extra = []
    if several != "each":
        member_NG[count_N > 1] = False
        if several == "own_group":
            names.append(SEVERAL)
            extra.append(count_N > 1)
    if none == "own_group":
        names.append(NOT_TARGETED)
        extra.append(count_N == 0)
    return Groups(names=tuple(names), membership_NG=np.column_stack([member_NG, *extra]).astype(np.bool_))


def _split(dataset: HatexplainDataset, posts: Sequence[Post], numbers: Tokenised, start: int) -> TextSplit:
    chosen = slice(start, start + len(posts))
    index = {"normal": 0, "offensive": 1, "hatespeech": 1 if dataset.target == "toxic" else 2}
    return TextSplit(
        ids_NL=np.array(numbers.ids_NL[chosen]),
        lengths_N=numbers.lengths_N[chosen],
        labels_N=np.array([index[post.label] for post in posts], dtype=np.int64),
        sensitive_features={
            feature: groups_of(posts, feature, several=dataset.several_groups, none=dataset.no_group)
            for feature in FEATURES
        },
    )


def _parsed(content: bytes, path: Path) -> dict[str, Any]:
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"hatexplain: {path} is not JSON: {error}") from error
    if not isinstance(parsed, dict):
        raise DataError(f"hatexplain: {path} holds {type(parsed).__name__}, expected an object")
    return parsed


def _advice(_: HatexplainDataset, root: Path) -> str:
    names = "\n".join(f"  {root / FOLDER}/{name}" for name in (DATASET, DIVISIONS))
    return (
        "HateXplain (MIT licence) holds offensive texts, and nobody publishes checksums of it, so it is not fetched. From the "
        f"folder Data of the repository hate-alert/HateXplain, put these:\n{names}"
    )


FAMILY = Family[HatexplainDataset](
    load=load,
    fingerprint=lambda dataset, loading: fingerprint(dataset, loading.root),
    advice=_advice,
)
