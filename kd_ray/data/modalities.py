"""The union of all types of data sets."""

from kd_ray.data.image_data import ImageData
from kd_ray.data.row_data import RowData
from kd_ray.data.text_data import TextData

Data = ImageData | RowData | TextData
"""A data set, whatever its samples are."""
