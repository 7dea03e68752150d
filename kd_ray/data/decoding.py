"""From the bytes of an image file to RGB pixels, whatever its size and mode."""

import io

import numpy as np
import numpy.typing as npt
from PIL import Image

from kd_ray.data.files import ImageFiles
from kd_ray.errors import DataError

MAX_PIXELS = 64_000_000
"""Images with more pixels are refused before they are decoded: a small file can ask for any amount of memory."""

# Others, such as EPS, start programs or are no photographs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}


def decode(content: bytes, *, size: int, crop: int | None = None) -> npt.NDArray[np.uint8]:
    """The central square of an encoded image, at most `crop` pixels wide, resized to size × size × 3 (bilinear, antialiased).

    Greyscale becomes three equal channels; transparency is dropped. Raises ValueError for more than `MAX_PIXELS` and for pixels that are
    not 8 bits deep, and what Pillow raises.
    """
    rgb = _rgb(content)
    square = central_square(rgb, min(*rgb.size, crop or rgb.width))
    return np.asarray(square if square.width == size else square.resize((size, size), Image.Resampling.BILINEAR))


def decoded(files: ImageFiles, n: int, *, size: int) -> npt.NDArray[np.uint8]:
    """File n as `decode` makes it. Raises DataError when it cannot be used."""
    content = files.read(n)
    try:
        return decode(content, size=size, crop=files.crop)
    except Exception as error:  # a damaged image may raise anything
        raise unusable(files, n, error) from error


def picture(files: ImageFiles, n: int) -> Image.Image:
    """File n in RGB and at its own size; of a set with a crop, its central square. Raises DataError when it cannot be used."""
    content = files.read(n)
    try:
        rgb = _rgb(content)
    except Exception as error:  # as above
        raise unusable(files, n, error) from error
    return rgb if files.crop is None else central_square(rgb, min(*rgb.size, files.crop))


def unusable(files: ImageFiles, n: int, error: Exception) -> DataError:
    """Says which image cannot be used, and why."""
    return DataError(f"image {files.folder / files.name(n)} cannot be used: {error}")


def central_square(image: Image.Image, side: int) -> Image.Image:
    """The middle of an image."""
    # Rounded as torchvision's CenterCrop does.
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))


def _rgb(content: bytes) -> Image.Image:
    with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width} × {height} pixels are more than {MAX_PIXELS:,}")
        if image.mode not in _MODES:
            raise ValueError(f"mode {image.mode} is not 8 bits deep; valid: {', '.join(sorted(_MODES))}")
        # A palette with transparency is turned into channels first, as Pillow wants it.
        return image.convert("RGBA").convert("RGB") if image.has_transparency_data else image.convert("RGB")
