"""From the bytes of an image file to RGB pixels, whatever its size and mode, upright as its orientation tag says."""

import hashlib
import io

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from kd_ray.data.files import ImageFiles
from kd_ray.errors import DataError

MAX_PIXELS = 64_000_000
"""Images with more pixels are refused before they are decoded: a small file can ask for any amount of memory."""

# Others, such as EPS, start programs or are no photographs.
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
_MODES = {"1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"}
_DEEP = {
    "F": "32-bit floating-point",
    "I": "32-bit",
    "I;16": "16-bit",
    "I;16B": "16-bit",
    "I;16L": "16-bit",
    "I;16N": "16-bit",
}
_ORIENTATION = 0x0112
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""By the orientation tag of EXIF: what turns the stored pixels upright."""
_NO_IMAGES = {
    b"version https://git-lfs": "it is a pointer of Git LFS; `git lfs pull` fetches the image",
    b"<!doctype html": "it is an HTML page, as servers send instead of an image",
    b"<html": "it is an HTML page, as servers send instead of an image",
    b"\x00\x05\x16\x07": "it is a file of macOS beside an image (AppleDouble)",
}
"""How files begin, in small letters, that stand in the place of an image."""


def decode(content: bytes, *, size: int, crop: int | None = None) -> npt.NDArray[np.uint8]:
    """The central square of an encoded image, at most `crop` pixels wide, resized to size × size × 3 (bilinear, antialiased).

    The image is turned upright first; greyscale becomes three equal channels; transparency is dropped. Raises ValueError for what is no
    image, for more than `MAX_PIXELS` and for pixels that are not 8 bits deep, and what Pillow raises.
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


def content_digest(content: bytes) -> str:
    """SHA-256 of an image file; another one where an orientation tag turns the image, which older versions of kd_ray ignored."""
    digest = hashlib.sha256(content)
    try:
        with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
            turns = _turn(image) is not None
    except Exception:  # noqa: BLE001 (a damaged image may raise anything; `decode` says what is wrong with it)
        turns = False
    if turns:
        digest.update(b"\nturned upright")
    return digest.hexdigest()


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How the image is turned upright, by its orientation tag; None where it is. Pillow itself turns TIFF when it reads the pixels."""
    try:
        return None if image.format == "TIFF" else _TURNS.get(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 (a damaged tag may raise anything, and the pixels can be good)
        return None


def _rgb(content: bytes) -> Image.Image:
    if not content:
        raise ValueError("it is empty")
    try:
        image = Image.open(io.BytesIO(content), formats=_FORMATS)
    except UnidentifiedImageError as error:
        start = content[:64].lstrip().lower()
        what = next((what for begin, what in _NO_IMAGES.items() if start.startswith(begin)), None)
        raise ValueError(what or f"it is no image in one of the formats {', '.join(_FORMATS)}") from error
    with image:
        width, height = image.size
        if width * height > MAX_PIXELS:
            raise ValueError(f"{width} × {height} pixels are more than {MAX_PIXELS:,}")
        if image.mode not in _MODES:
            raise ValueError(
                f"its pixels are {_DEEP.get(image.mode, image.mode)}, expected 8 bits per channel; save it with 8 bits"
            )
        turn = _turn(image)
        upright = image if turn is None else image.transpose(turn)
        # A palette with transparency is turned into channels first, as Pillow wants it.
        return upright.convert("RGBA").convert("RGB") if upright.has_transparency_data else upright.convert("RGB")
