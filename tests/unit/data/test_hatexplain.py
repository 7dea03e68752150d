"""HateXplain: votes, communities and policies by hand and against the raw files; what is refused. No test prints a post."""

import json
import re
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_ray.data import hatexplain
from kd_ray.data.families import fingerprint, load_dataset
from kd_ray.data.hatexplain import FEATURES, Post, groups_of, majority
from kd_ray.data.text_data import TextData
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import HatexplainDataset
from tests.datasets import write_bert, write_hatexplain

pytest.importorskip("transformers", reason="the extra `text` is not installed")


def dataset(**changed: Any) -> HatexplainDataset:
    return HatexplainDataset.model_validate(
        {"name": "hatexplain", "tokenizer": "hf:tiny-bert", "max_length": 16, **changed}
    )


def loaded(root: Path, **changed: Any) -> TextData:
    named = dataset(**changed)
    data = load_dataset(named.model_copy(update={"version": fingerprint(named, root)}), root)
    assert isinstance(data, TextData)
    return data


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(write_hatexplain(tmp_path_factory.mktemp("data")), weights=False)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (["normal", "normal", "normal"], "normal"),
        (["hatespeech", "offensive", "offensive"], "offensive"),
        (["hatespeech", "normal", "offensive"], None),
    ],
)
def test_majority_needs_two_of_three(labels: list[str], expected: str | None) -> None:
    assert majority(labels) == expected


@pytest.mark.slow
def test_three_classes_and_toxic_agree(root: Path) -> None:
    three, two = loaded(root, target="label"), loaded(root)
    assert three.class_names == ("normal", "offensive", "hatespeech")
    assert two.class_names == ("normal", "toxic")
    assert three.test.labels_N[:6].tolist() == [0, 2, 1, 0, 2, 1]
    assert ((three.test.labels_N > 0) == two.test.labels_N).all()


@pytest.mark.slow
def test_tokens_are_the_words_between_two_marks(root: Path) -> None:
    test = loaded(root).test
    # [CLS] good x x x [SEP]: "good" is the sixth line of the vocabulary.
    assert test.lengths_N[0] == 6
    assert test.ids_NL[0, [0, 1, 5]].tolist() == [2, 5, 3]
    assert (test.ids_NL[0, 6:] == 0).all()
    assert test.lengths_N.max() == test.ids_NL.shape[1] == 16, "longer posts are cut"


def posts(*communities: set[str]) -> list[Post]:
    return [Post(text="x", label="normal", communities=frozenset(each)) for each in communities]


def test_policies_for_several_and_for_no_group() -> None:
    some = posts({"Men"}, {"Men", "Women"}, {"Jewish"}, set())
    each = groups_of(some, "gender", several="each", none="leave_out")
    assert each.to_lists() == [["Men"], ["Men", "Women"], [], []]
    out = groups_of(some, "gender", several="leave_out", none="leave_out")
    assert out.to_lists() == [["Men"], [], [], []]
    own = groups_of(some, "gender", several="own_group", none="own_group")
    assert own.names == ("Men", "Women", "several", "not targeted")
    assert own.to_lists() == [["Men"], ["several"], ["not targeted"], ["not targeted"]]


@pytest.mark.slow
@given(st.lists(st.sets(st.sampled_from([name for names in FEATURES.values() for name in names])), min_size=1))
def test_own_groups_put_every_post_in_exactly_one(communities: list[set[str]]) -> None:
    for feature in FEATURES:
        groups = groups_of(posts(*communities), feature, several="own_group", none="own_group")
        assert (groups.membership_NG.sum(axis=1) == 1).all()


@pytest.mark.parametrize("least", [1, 2, 3])
def test_a_community_counts_at_so_many_annotators(root: Path, least: int) -> None:
    raw = json.loads((root / "hatexplain" / "Data" / "dataset.json").read_text())
    ids = json.loads((root / "hatexplain" / "Data" / "post_id_divisions.json").read_text())["test"]
    groups = loaded(root, min_annotators=least).test.sensitive_features["gender"].to_lists()
    for post_id, found in zip(ids, groups, strict=True):
        votes = [set(annotator["target"]) for annotator in raw[post_id]["annotators"]]
        assert found == [name for name in ("Men", "Women") if sum(name in vote for vote in votes) >= least]


def test_substitute_file_has_the_same_labels_and_says_so(root: Path) -> None:
    original, substitute = loaded(root), loaded(root, train_file="train_partial")
    assert substitute.train.labels_N.tolist() == original.train.labels_N.tolist()
    assert np.array_equal(substitute.train.ids_NL, original.train.ids_NL)
    assert original.notes == ()
    assert len(substitute.notes) == 1
    assert "substitute" in substitute.notes[0]


def test_official_validation_posts(root: Path) -> None:
    assert loaded(root).validation is None
    validation = loaded(root, validation="official").validation
    assert validation is not None
    assert len(validation) == 40


def test_long_tail_cuts_the_training_posts(root: Path) -> None:
    tail = {"imbalance_factor": 4.0}
    assert np.bincount(loaded(root, target="label", long_tail=tail).train.labels_N).tolist() == [20, 10, 5]


def test_other_files_are_refused_with_their_fingerprint(root: Path) -> None:
    with pytest.raises(
        DataError, match=r"not the published files: Data/dataset.json, Data/post_id_divisions.json"
    ) as caught:
        load_dataset(dataset(), root)
    assert f"dataset.version: '{fingerprint(dataset(), root)}'" in str(caught.value)


def test_missing_training_posts_are_refused_with_what_helps(tmp_path: Path) -> None:
    root = write_bert(write_hatexplain(tmp_path, train_is_there=False), weights=False)
    with pytest.raises(
        DataError, match=r"lacks 60 of the 60 train posts .*`dataset.train_file: train_partial` reads them"
    ):
        loaded(root)
    assert len(loaded(root, train_file="train_partial").train) == 60


def test_missing_files_and_tokenizers_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"2 of 2 files are missing; .*Data/dataset\.json"):
        loaded(tmp_path)
    write_hatexplain(tmp_path)
    with pytest.raises(DataError, match=r"hf:tiny-bert: there is no folder .*models/tiny-bert"):
        loaded(tmp_path)
    write_bert(tmp_path, weights=False)
    with pytest.raises(
        DataError, match=r"the tokenizer of hf:tiny-bert has version [0-9a-f]{16}, and the sweep means 0{16}"
    ):
        loaded(tmp_path, tokenizer_version="0" * 16)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"annotators": []}, "no label of two annotators"),
        ({"post_tokens": None}, "expected post_tokens, and annotators with label and target"),
        (
            {"annotators": [{"label": "odd", "target": []}] * 3},
            "no label of two annotators among normal, offensive, hatespeech",
        ),
    ],
)
def test_a_damaged_post_is_named_and_not_shown(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    root = write_bert(write_hatexplain(tmp_path), weights=False)
    path = root / "hatexplain" / "Data" / "dataset.json"
    raw = json.loads(path.read_text())
    raw["2_0_gab"] |= change
    path.write_text(json.dumps(raw))
    with pytest.raises(DataError, match=re.escape(f"{path}: 2_0_gab: {message}")) as caught:
        loaded(root)
    assert "good" not in str(caught.value)


@pytest.mark.slow
def test_real_labels_and_groups_equal_an_independent_reading(shared_data: Path, tmp_path: Path) -> None:
    """The complete test split of the real set, counted from its JSON."""
    root = write_bert(tmp_path, weights=False)
    (root / "hatexplain").symlink_to(shared_data / "hatexplain")
    test = loaded(root, target="label", train_file="train_partial").test
    folder = shared_data / "hatexplain" / "Data"
    raw = json.loads((folder / "dataset.json").read_text())
    ids = json.loads((folder / "post_id_divisions.json").read_text())["test"]
    assert len(test) == len(ids) == 1_924
    expected = []
    for post_id in ids:
        votes = Counter(annotator["label"] for annotator in raw[post_id]["annotators"])
        expected.append(hatexplain.LABELS.index(max(votes, key=lambda label: votes[label])))
    assert test.labels_N.tolist() == expected
    assert np.bincount(expected).tolist() == [782, 548, 594]
    for feature, names in FEATURES.items():
        groups = test.sensitive_features[feature]
        assert groups.names == names
        for g, name in enumerate(names):
            member = [
                sum(name in annotator["target"] for annotator in raw[post_id]["annotators"]) >= 2 for post_id in ids
            ]
            assert groups.membership_NG[:, g].tolist() == member
    assert test.sensitive_features["gender"].membership_NG.sum(axis=0).tolist() == [6, 147]
    assert test.sensitive_features["race"].membership_NG.sum(axis=0).tolist() == [315, 67, 36, 52, 35]
