"""Counts by hand, on the synthetic faces and people."""

from pathlib import Path

import pytest

from kd_ray.data.describe import describe, examine
from kd_ray.data.family import Loading
from kd_ray.errors import DataError
from kd_ray.sweep.datasets import CelebaDataset, Cifar10Dataset, SvhnDataset, TrifeatureDataset
from tests.datasets import write_celeba, write_people, write_svhn
from tests.unit.data.test_listed import make


@pytest.mark.slow
def test_examine_names_the_version_and_why_a_launch_would_refuse(tmp_path: Path) -> None:
    root = write_svhn(tmp_path)
    examined = examine(SvhnDataset(name="svhn"), Loading(root=root))
    assert examined.fingerprint is not None
    assert examined.refusal is not None
    assert f"dataset.version: {examined.fingerprint!r}" in examined.refusal
    named = examine(SvhnDataset(name="svhn", version=examined.fingerprint), Loading(root=root))
    assert (named.fingerprint, named.refusal) == (examined.fingerprint, None)
    assert len(named.data.train) == len(examined.data.train) == 40
    with pytest.raises(DataError, match=r"validation_fraction: a fraction of 0\.001"):
        examine(SvhnDataset(name="svhn", validation_fraction=0.001), Loading(root=root))
    with pytest.raises(DataError, match="7 of 7 files are missing"):
        examine(Cifar10Dataset(name="cifar10"), Loading(root=root))
    drawn = examine(TrifeatureDataset(name="trifeature", size=16, images_per_combination=1), Loading(root=tmp_path))
    assert (drawn.fingerprint, drawn.refusal) == (None, None)


def test_describe_counts_people(tmp_path: Path) -> None:
    data = examine(make(), Loading(root=write_people(tmp_path))).data
    found = describe(data, ["race", "age"], [["race", "age"]])
    assert found.splits == {"train": 32, "test": 16}
    assert found.image_size == 16
    # Row n is tested when n % 3 == 2, and its label is n // 2 % 2.
    labels = [n // 2 % 2 for n in range(48) if n % 3 == 2]
    assert found.classes["yes"] == {"train": 24 - sum(labels), "test": sum(labels)}
    race, age, both = found.features
    races = [("a", "b", "a;b", "")[n % 4].split(";") for n in range(48) if n % 3 == 2]
    in_a = [label for label, groups in zip(labels, races, strict=True) if "a" in groups]
    in_b = [label for label, groups in zip(labels, races, strict=True) if "b" in groups]
    assert [group.n["test"] for group in race.groups] == [len(in_a), len(in_b)]
    assert race.groups[0].test_by_class == {"no": len(in_a) - sum(in_a), "yes": sum(in_a)}
    gap = abs(sum(in_a) / len(in_a) - sum(in_b) / len(in_b))
    assert race.label_demographic_parity_difference == pytest.approx(gap)
    assert race.num_without_group == sum(groups == [""] for groups in races)
    assert age.num_without_group == 0
    assert (both.feature, len(both.groups)) == ("race & age", 6)
    assert both.groups[0].group == "a & <30"


def test_describe_shows_what_balance_does(tmp_path: Path) -> None:
    dataset = CelebaDataset(name="celeba", size=16, balance="train", validation="official")
    data = examine(dataset, Loading(root=write_celeba(tmp_path))).data
    found = describe(data, ["Male"])
    assert found.splits == {"train": 10, "validation": 10, "test": 20}
    assert found.classes["Smiling"] == {"train": 5, "validation": 5, "test": 5}
    assert [group.group for group in found.features[0].groups] == ["not Male", "Male"]
