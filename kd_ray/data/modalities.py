"""The union of all types of data sets, and functions that take any of them."""

from kd_ray.data.image_data import ImageData, Split
from kd_ray.data.row_data import RowData, RowSplit
from kd_ray.data.text_data import TextData, TextSplit

Data = ImageData | RowData | TextData
"""A data set, whatever its samples are."""


def number_of_inputs(split: Split | RowSplit | TextSplit) -> int:
    """Side of the images in pixels, numbers in a row, or tokens of the longest text."""
    match split:
        case TextSplit():
            return int(split.lengths_N.max())
        case RowSplit():
            return int(split.values_NF.shape[1])
        case _:
            return int(split.images_NHWC.shape[1])
