"""A data root that is full: whatever library finds that out, it is one error that no trial is to blame for."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from kd_ray.data.cache import cached
from kd_ray.data.families import load_dataset
from kd_ray.errors import CacheError, DataError, StoreError
from kd_ray.models.initial_weights import fetch_pretrained
from kd_ray.results.store import open_store
from kd_ray.sweep.load import parse_dataset
from tests.limits import largest_file

LARGE = np.zeros(200_000, dtype=np.uint8)


def with_table(folder: Path) -> None:
    pq.write_table(pa.table({"a": LARGE}), folder / "a", compression="none", use_dictionary=False)


WRITERS: dict[str, Callable[[Path], object]] = {
    "bytes": lambda folder: (folder / "a").write_bytes(LARGE.tobytes()),
    "numpy": lambda folder: np.save(folder / "a.npy", LARGE),
    "safetensors": lambda folder: save_file({"a": torch.from_numpy(LARGE)}, folder / "a"),
    "pyarrow": with_table,
    "a store": lambda folder: open_store(folder).put("a", LARGE.tobytes()),
}


@pytest.mark.parametrize("make", WRITERS.values(), ids=WRITERS)
def test_folder_that_cannot_be_made_is_one_error(tmp_path: Path, make: Callable[[Path], object]) -> None:
    def write(folder: Path) -> None:
        make(folder)

    with (
        largest_file(100_000),
        pytest.raises(CacheError, match=r"prepared cannot be made: .*; make room, or") as caught,
    ):
        cached(tmp_path / "prepared", ("a",), {}, write)
    assert "\n" not in str(caught.value)
    assert [path.name for path in tmp_path.iterdir() if path.is_dir()] == []
    # A pack that meets a StoreError blames no trial.
    assert isinstance(caught.value, StoreError)


def test_other_errors_of_what_makes_a_folder_stay(tmp_path: Path) -> None:
    def refuse(folder: Path) -> None:
        raise DataError("an image is damaged")

    with pytest.raises(DataError, match="an image is damaged"):
        cached(tmp_path / "prepared", ("a",), {}, refuse)


def test_data_set_on_a_full_disk_is_one_error(tmp_path: Path) -> None:
    dataset = parse_dataset("trifeature", ["size=16", "images_per_combination=1"])
    with largest_file(10_000), pytest.raises(CacheError, match=r"trifeature.* cannot be made: .*File too large"):
        load_dataset(dataset, tmp_path)


@pytest.mark.slow
def test_pretrained_weights_on_a_full_disk_are_one_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torchvision import models

    # torchvision takes what lies in its cache under the name of the file that it would fetch.
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    fetched = tmp_path / "torch" / "hub" / "checkpoints" / Path(models.ResNet18_Weights.DEFAULT.url).name
    fetched.parent.mkdir(parents=True)
    torch.save(nn.Linear(300, 300).state_dict(), fetched)
    path = tmp_path / "pretrained" / "a.safetensors"
    with (
        largest_file(100_000),
        pytest.raises(ValueError, match=r"the weights of resnet18 cannot be kept in .*File too large"),
    ):
        fetch_pretrained("torchvision:resnet18", image_size=32, path=path)
    assert list(path.parent.iterdir()) == []
