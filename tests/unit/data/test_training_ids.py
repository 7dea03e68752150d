"""Names of training samples: in the order of the training split, whatever was cut from it."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kd_ray.data.families import fingerprint, load_dataset, training_ids
from kd_ray.data.image_data import ImageData
from kd_ray.data.modalities import Data
from kd_ray.sweep.datasets import Dataset
from kd_ray.sweep.load import parse_dataset
from tests.datasets import write_adult, write_cifar10, write_people

CUT = ("long_tail={imbalance_factor: 4}", "validation_fraction=0.25", "split_seed=3")
PEOPLE = ("path=people/people.csv", "size=16", "classes=['no', 'yes']", "features=[race]", "split=split")


def parsed(root: Path, name: str, *settings: str) -> Dataset:
    version = fingerprint(parse_dataset(name, settings), root)
    return parse_dataset(name, (*settings, f"version='{version}'"))


def images_of(data: Data) -> npt.NDArray[np.uint8]:
    assert isinstance(data, ImageData)
    return np.asarray(data.train.images_NHWC)


def test_a_row_number_is_that_of_the_split_before_it_was_cut(tmp_path: Path) -> None:
    write_cifar10(tmp_path, num_train=80)
    whole, cut = (parsed(tmp_path, "cifar10", *settings) for settings in ((), CUT))
    ids = training_ids(cut, tmp_path)
    assert len(ids) < 60
    every = images_of(load_dataset(whole, tmp_path))
    assert np.array_equal(every[[int(name) for name in ids]], images_of(load_dataset(cut, tmp_path)))
    assert training_ids(whole, tmp_path) == [str(n) for n in range(80)]


@pytest.mark.parametrize("settings", [(), ("validation_fraction=0.25",), ("id=file", "validation_fraction=0.25")])
def test_images_are_named_by_their_files(settings: tuple[str, ...], tmp_path: Path) -> None:
    dataset = parsed(write_people(tmp_path), "manifest", *PEOPLE, *settings)
    data: Any = load_dataset(dataset, tmp_path)
    assert training_ids(dataset, tmp_path) == [name.removeprefix("people/") for name in data.train.files.names()]
    assert len(data.train) == (24 if settings else 32)


def test_rows_that_are_left_out_keep_the_numbers_of_the_others(tmp_path: Path) -> None:
    dataset = parsed(write_adult(tmp_path), "adult", "missing=leave_out")
    # The work class of every fourth person is unknown.
    assert training_ids(dataset, tmp_path) == [str(n) for n in range(120) if n % 4 != 3]
