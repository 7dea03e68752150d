"""The settings under `dataset` in a sweep file: one model for each family of data sets.

Each tells the number of classes, the size of the images and the sensitive features without reading a file, so that a sweep is checked
before any data are read. `docs/contributing.md` says how to add a family.
"""

from typing import Annotated

from pydantic import Field

from kd_ray.sweep.classification import names_of
from kd_ray.sweep.image_datasets import (
    CELEBA_ATTRIBUTES,
    CelebaDataset,
    Cifar10Dataset,
    Cifar100Dataset,
    ImageDataset,
    ImagenetDataset,
    SvhnDataset,
    TinyImagenetDataset,
    TrifeatureDataset,
)
from kd_ray.sweep.own_datasets import Bins, FactoryDataset, ListedDataset
from kd_ray.sweep.public_datasets import AdultDataset, HatexplainDataset, PublicDataset

__all__ = [
    "CELEBA_ATTRIBUTES",
    "DATASET_NAMES",
    "AdultDataset",
    "Bins",
    "CelebaDataset",
    "Cifar10Dataset",
    "Cifar100Dataset",
    "Dataset",
    "FactoryDataset",
    "HatexplainDataset",
    "ImagenetDataset",
    "ListedDataset",
    "SvhnDataset",
    "TinyImagenetDataset",
    "TrifeatureDataset",
    "input_size",
    "table_name",
]

_AnyDataset = ImageDataset | PublicDataset | ListedDataset | FactoryDataset
Dataset = Annotated[_AnyDataset, Field(discriminator="name")]
"""One of the data sets, selected by `name`."""
DATASET_NAMES = names_of(_AnyDataset)
"""The names, in that order."""


def input_size(dataset: Dataset) -> int:
    """Side of the images in pixels, or most tokens of a text; 0 for rows, whose width only the data tell."""
    return dataset.input_size


def table_name(dataset: Dataset) -> str:
    """The name of the data set in the tables: the title of a list, the path of a function, else `name`."""
    return dataset.table_name
