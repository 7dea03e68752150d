"""Labelled images in memory: the type of every image data set, random splits, and contact sheets.

The module of each family reads the files; training augments and normalises the images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from kd_ray.data.decoding import decoded
from kd_ray.data.files import ImageFiles
from kd_ray.data.labelled import Cut, S, check_labels, check_samples, take_groups
from kd_ray.groups import Groups
from kd_ray.seeding import shuffled, stream


@dataclass(frozen=True, kw_only=True, eq=False)
class Split:
    """N labelled images. Raises ValueError when shapes or dtypes do not match."""

    images_NHWC: npt.NDArray[np.uint8]
    """RGB, 0..255; N is 0 where the images stay in their `files`."""
    labels_N: npt.NDArray[np.int64]
    """Index into the data set's class names."""
    sensitive_features: Mapping[str, Groups] = field(default_factory=dict)
    """Feature name → groups of these N samples; empty where the data set has none."""
    files: ImageFiles | None = None
    """Where the images come from, if each comes from a file of its own."""

    def __post_init__(self) -> None:
        if self.files is not None and len(self.files) != len(self):
            raise ValueError(f"there are {len(self.files)} files, expected {len(self)}")
        shape = self.images_NHWC.shape
        if len(shape) != 4 or shape[3] != 3:
            raise ValueError(f"images have shape {shape}, expected (N, H, W, 3)")
        if self.images_NHWC.dtype != np.uint8:
            raise ValueError(f"images have dtype {self.images_NHWC.dtype}, expected uint8")
        if self.labels_N.shape != shape[:1] and not self.is_streamed:
            raise ValueError(f"labels have shape {self.labels_N.shape}, expected {shape[:1]}")
        check_samples(self.labels_N, self.sensitive_features)

    @property
    def num_inputs(self) -> int:
        """Side of the images in pixels."""
        return int(self.images_NHWC.shape[1])

    def __len__(self) -> int:
        """Number of samples N."""
        return len(self.labels_N)

    @property
    def is_streamed(self) -> bool:
        """Whether the images stay in their files."""
        return self.files is not None and len(self.images_NHWC) == 0

    def take(self, indices_M: npt.NDArray[np.integer]) -> "Split":
        """The samples at `indices_M`, in that order, copied."""
        return Split(
            images_NHWC=self.images_NHWC if self.is_streamed else np.asarray(self.images_NHWC[indices_M]),
            labels_N=self.labels_N[indices_M],
            sensitive_features=take_groups(self.sensitive_features, indices_M),
            files=self.files.take(indices_M) if self.files is not None else None,
        )

    def image(self, n: int) -> npt.NDArray[np.uint8]:
        """Image n, from memory or from its file: (H, W, 3). Raises DataError when its file cannot be used."""
        if not self.is_streamed:
            return np.asarray(self.images_NHWC[n])
        assert self.files is not None
        return decoded(self.files, n, size=self.images_NHWC.shape[1])


@dataclass(frozen=True, kw_only=True, eq=False)
class ImageData:
    """One image data set, ready for training. Raises ValueError when a label has no class name or a standard deviation is not positive."""

    modality: ClassVar[Literal["images"]] = "images"
    train: Split
    test: Split
    validation: Split | None = None
    """None where the sweep asks for no validation split."""
    class_names: tuple[str, ...]
    mean: tuple[float, float, float]
    """Per channel, for pixels in 0..1: normalised = (pixel / 255 - mean) / std."""
    std: tuple[float, float, float]
    """Per channel, for pixels in 0..1."""
    test_ids: Sequence[str] | None = None
    """Names of the test samples in their source; None where they are those of image files, or row numbers of the test split."""
    train_ids: Sequence[str] | None = None
    """The same of the training samples, before `cut`."""
    notes: tuple[str, ...] = ()
    """What people should know: rows and groups that were left out."""

    def __post_init__(self) -> None:
        splits = {"train": self.train, "validation": self.validation, "test": self.test}
        check_labels(splits, self.class_names)
        if min(self.std) <= 0:
            raise ValueError(f"std is {self.std}, expected positive numbers")

    def cut(self, cut: Cut) -> "ImageData":
        """The same data with a cut training split; the samples drawn for validation, if any, become the validation split."""
        train, held_out = cut(self.train)
        return replace(self, train=train, validation=held_out or self.validation)


def random_parts(
    count: int, *, fraction: float, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Indices of the rest and of a plain random part of round(count × fraction) samples, each in ascending order.

    Raises ValueError unless fraction lies in (0, 1) and both parts get at least one sample.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction is {fraction}, expected a number between 0 and 1, both excluded")
    num_part = round(count * fraction)
    if not 0 < num_part < count:
        raise ValueError(
            f"a fraction of {fraction} splits {count} samples into {count - num_part} and {num_part}: one part is empty"
        )
    order_N = shuffled(count, rng)
    return np.sort(order_N[num_part:]), np.sort(order_N[:num_part])


def split_off_validation(train: S, *, fraction: float, seed: int) -> tuple[S, S]:
    """(remaining training samples, validation samples): plain random, not stratified, always the same for one seed and one N."""
    rest_N, validation_M = random_parts(len(train), fraction=fraction, rng=stream(seed, "validation"))
    return train.take(rest_N), train.take(validation_M)


_MARGIN_PX = 6
_LINE_PX = 12
_TEXT, _PAPER = (20, 20, 20), (255, 255, 255)


def contact_sheet(
    split: Split, class_names: Sequence[str], *, columns: int = 8, rows: int = 10, cell_size_px: int = 72
) -> Image.Image:
    """A labelled grid of images: one row for each of the first `rows` classes, `columns` randomly chosen samples in each.

    Every cell is captioned with the sample's group in each sensitive feature, one line per feature. The same split gives the same sheet.
    """
    font = ImageFont.load_default(size=10)
    shown = list(class_names[:rows])
    label_px = round(max((font.getlength(name) for name in shown), default=0)) + 2 * _MARGIN_PX
    pitch_x = cell_size_px + _MARGIN_PX
    pitch_y = cell_size_px + _MARGIN_PX + _LINE_PX * len(split.sensitive_features)
    captions = [(groups.names, groups.membership_NG) for groups in split.sensitive_features.values()]
    sheet = Image.new("RGB", (label_px + columns * pitch_x, len(shown) * pitch_y + _MARGIN_PX), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for row, class_name in enumerate(shown):
        top = _MARGIN_PX + row * pitch_y
        draw.text((_MARGIN_PX, top + cell_size_px // 2 - _LINE_PX // 2), class_name, fill=_TEXT, font=font)
        members = np.flatnonzero(split.labels_N == row)
        chosen = members[shuffled(len(members), stream(0, "contact sheet", row))[:columns]]
        for column, n in enumerate(chosen):
            left = label_px + column * pitch_x
            sheet.paste(_cell(split.image(n), cell_size_px), (left, top))
            for line, (names, membership_NG) in enumerate(captions):
                text = ", ".join(names[g] for g in np.flatnonzero(membership_NG[n])) or "-"
                while font.getlength(text) > pitch_x - 2:
                    text = text[:-3] + ".."
                draw.text((left, top + cell_size_px + line * _LINE_PX), text, fill=_TEXT, font=font)
    return sheet


def _cell(image_HWC: npt.NDArray[np.uint8], size_px: int) -> Image.Image:
    """The image in a cell: pixels stay square blocks when they grow, and are averaged when they shrink."""
    grows = size_px >= max(image_HWC.shape[:2])
    return Image.fromarray(image_HWC).resize(
        (size_px, size_px), Image.Resampling.NEAREST if grows else Image.Resampling.BOX
    )
