"""Images from files: decoded once, the same for every number of threads, and nothing that a file asks for is done blindly."""

import hashlib
import io
import os
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kd_ray.data.decoding import MAX_PIXELS, content_digest, decode
from kd_ray.data.family import Loading
from kd_ray.data.prepared import files_below, prepare
from kd_ray.errors import DataError
from tests.datasets import encoded, pixels


def _files(folder: Path, count: int = 70) -> list[str]:
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{n}.png" for n in range(count)]
    for n, name in enumerate(names):
        (folder / name).write_bytes(encoded(20, 24, seed=n, suffix="png"))
    return names


def _png(array: np.ndarray, mode: str | None = None) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(array, mode).save(buffer, format="png")
    return buffer.getvalue()


def test_decode_keeps_pixels_that_need_no_change() -> None:
    image_HWC = pixels(16, 16, 3)
    assert np.array_equal(decode(_png(image_HWC), size=16), image_HWC)
    wide = pixels(20, 30, 3)
    # The central square: 5 columns off each side, then 2 rows and columns off each side of it.
    assert np.array_equal(decode(_png(wide), size=20), wide[:, 5:25])
    assert np.array_equal(decode(_png(wide), size=16, crop=16), wide[2:18, 7:23])


def test_decode_resizes_as_torchvision_does() -> None:
    from torchvision.transforms import v2

    content = encoded(178, 218, seed=3, suffix="png")
    expected = v2.Compose([v2.CenterCrop(178), v2.Resize(64)])(Image.open(io.BytesIO(content)))
    assert np.array_equal(decode(content, size=64), np.asarray(expected))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
def test_decode_takes_every_8_bit_mode(mode: str) -> None:
    suffix = {"CMYK": "tiff"}.get(mode, "png")
    content = encoded(40, 40, mode=mode, suffix=suffix)
    image_HWC = decode(content, size=40)
    assert np.array_equal(image_HWC, np.asarray(Image.open(io.BytesIO(content)).convert("RGB")))
    if mode in ("1", "L", "LA"):
        assert (image_HWC == image_HWC[:, :, :1]).all()


def test_decode_drops_the_transparency_of_a_palette() -> None:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels(8, 8, 3)).convert("P")
    image.save(buffer, format="png", transparency=bytes(range(256)))
    assert np.array_equal(decode(buffer.getvalue(), size=8), np.asarray(image.convert("RGB")))


def test_decode_refuses_a_bomb_before_it_goes_off() -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    side = int(MAX_PIXELS**0.5) + 1
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    bomb = b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    with pytest.raises(ValueError, match=rf"{side} × {side} pixels are more than 64,000,000"):
        decode(bomb, size=16)


def test_decode_refuses_deep_pixels_and_other_formats() -> None:
    with pytest.raises(ValueError, match="its pixels are 16-bit, expected 8 bits per channel"):
        decode(_png(np.zeros((4, 4), dtype=np.uint16)), size=4)
    postscript = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
    with pytest.raises(ValueError, match="it is no image in one of the formats"):
        decode(postscript, size=4)


def test_prepare_is_the_same_with_any_number_of_threads(tmp_path: Path) -> None:
    names = _files(tmp_path / "files")
    seen: list[tuple[int, int]] = []
    several = prepare(
        "some",
        files_below(tmp_path / "files", names, {}),
        Loading(root=tmp_path / "a", processes=3, on_progress=lambda *done: seen.append(done)),
        size=16,
    )
    one = prepare("some", files_below(tmp_path / "files", names, {}), Loading(root=tmp_path / "b"), size=16)
    assert np.array_equal(several.images_NHWC, one.images_NHWC)
    assert several.fingerprint == one.fingerprint
    assert seen[-1] == (70, 70)
    expected = [decode((tmp_path / "files" / name).read_bytes(), size=16) for name in names]
    assert np.array_equal(one.images_NHWC, np.stack(expected))


def test_prepare_decodes_once_and_again_when_a_file_changes(tmp_path: Path) -> None:
    names = _files(tmp_path / "files", 5)

    def decoded() -> int:
        done: list[int] = []
        sources = files_below(tmp_path / "files", names, {})
        prepare("some", sources, Loading(root=tmp_path, on_progress=lambda n, _: done.append(n)), size=16)
        return len(done)

    assert [decoded() > 0, decoded() > 0] == [True, False]
    os.utime(tmp_path / "files" / "3.png", ns=(1, 1))
    assert decoded() > 0


def test_prepare_in_many_threads_at_once_decodes_once(tmp_path: Path) -> None:
    names = _files(tmp_path / "files")
    done: list[int] = []

    def one(_: int) -> str:
        sources = files_below(tmp_path / "files", names, {})
        return prepare(
            "some", sources, Loading(root=tmp_path, on_progress=lambda n, _: done.append(n)), size=16
        ).fingerprint

    with ThreadPoolExecutor(4) as pool:
        prints = set(pool.map(one, range(4)))
    assert len(prints) == 1
    assert done == [1, 65, 70]


def test_damaged_images_are_moved_away_and_decoded_again(tmp_path: Path) -> None:
    sources = files_below(tmp_path / "files", _files(tmp_path / "files", 5), {})
    before = np.array(prepare("some", sources, Loading(root=tmp_path), size=16).images_NHWC)
    (images,) = tmp_path.glob("prepared/some-*/images.npy")
    content = bytearray(images.read_bytes())
    content[-1] ^= 1
    images.write_bytes(content)
    assert np.array_equal(prepare("some", sources, Loading(root=tmp_path), size=16).images_NHWC, before)
    assert [path.name for path in images.parent.parent.glob("*.damaged")] == [f"{images.parent.name}.damaged"]


def test_fingerprint_follows_contents_names_and_lists_but_not_times_and_places(tmp_path: Path) -> None:
    names = _files(tmp_path / "files", 5)

    def found(folder: Path, names: list[str], lists: dict[str, str]) -> str:
        return prepare("some", files_below(folder, names, lists), Loading(root=tmp_path), size=16).fingerprint

    before = found(tmp_path / "files", names, {})
    (tmp_path / "files").rename(tmp_path / "moved")
    os.utime(tmp_path / "moved" / "0.png", ns=(1, 1))
    assert found(tmp_path / "moved", names, {}) == before
    others = {found(tmp_path / "moved", names[:4], {}), found(tmp_path / "moved", names, {"list": "ab"})}
    (tmp_path / "moved" / "0.png").write_bytes(encoded(20, 24, seed=99, suffix="png"))
    others.add(found(tmp_path / "moved", names, {}))
    assert len(others | {before}) == 4


def test_prepare_names_a_damaged_image_and_leaves_nothing(tmp_path: Path) -> None:
    names = _files(tmp_path / "files")
    whole = (tmp_path / "files" / "66.png").read_bytes()
    (tmp_path / "files" / "66.png").write_bytes(whole[: len(whole) // 2])
    for processes in (1, 2):
        with pytest.raises(DataError, match=r"some: image 66\.png cannot be used: .*(truncated|broken|Truncated)"):
            prepare(
                "some",
                files_below(tmp_path / "files", names, {}),
                Loading(root=tmp_path, processes=processes),
                size=16,
            )
    assert [path.suffix for path in (tmp_path / "prepared").iterdir()] == [".lock"]


def test_missing_files_are_counted_and_some_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"7 of 9 image files are missing: a, b, c, d, e and 2 more"):
        files_below(tmp_path, [*"abcdefg", *_files(tmp_path, 2)], {})


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "it is empty"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n",
            "it is a pointer of Git LFS; `git lfs pull` fetches",
        ),
        (b"\n<!DOCTYPE html><html>403</html>", "it is an HTML page"),
        (b"<html>403</html>", "it is an HTML page"),
        (b"\0\5\x16\7\0\2\0\0Mac OS X", "it is a file of macOS beside an image"),
        (_png(np.zeros((4, 4), dtype=np.uint16)), "its pixels are 16-bit, expected 8 bits per channel"),
    ],
)
def test_what_stands_in_the_place_of_an_image_is_said(tmp_path: Path, content: bytes, why: str) -> None:
    names = _files(tmp_path / "files", 4)
    (tmp_path / "files" / "2.png").write_bytes(content)
    sources = files_below(tmp_path / "files", names, {})
    with pytest.raises(DataError, match=f"some: image 2.png cannot be used: {why}"):
        prepare("some", sources, Loading(root=tmp_path), size=16)
    (tmp_path / "files" / "1.png").write_bytes(content)
    sources = files_below(tmp_path / "files", names, {})
    with pytest.raises(DataError, match=rf"some: 2 of 4 images cannot be used: 1.png \({why}.*2.png \({why}"):
        prepare("some", sources, Loading(root=tmp_path), size=16)
    for resident_bytes in (None, 0):
        loading = Loading(root=tmp_path, resident_bytes=resident_bytes)
        assert list(prepare("some", sources, loading, size=16, skips_unusable=True).unusable) == [1, 2]
    with pytest.raises(DataError, match="2 of 4 images"):
        prepare("some", sources, Loading(root=tmp_path), size=16)


@pytest.mark.slow
@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_turned_upright(tmp_path: Path, orientation: int) -> None:
    from PIL import ImageOps

    stored = Image.fromarray(pixels(16, 16, 3))
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = {}
    for suffix in ("png", "webp", "tiff"):
        buffer = io.BytesIO()
        stored.save(buffer, format=suffix, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
        content[suffix] = buffer.getvalue()
        expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(buffer.getvalue()))).convert("RGB"))
        assert np.array_equal(decode(content[suffix], size=16), expected), suffix
    assert np.array_equal(decode(content["png"], size=16), np.asarray(stored)) == (orientation == 1)
    # The fingerprint of an image that is turned is another one than before there was turning; that of others is not.
    plain = hashlib.sha256(content["png"]).hexdigest()
    assert (content_digest(content["png"]) == plain) == (orientation == 1)
    (tmp_path / "a.png").write_bytes(content["png"])
    found = [
        prepare(
            "some", files_below(tmp_path, ["a.png"], {}), Loading(root=tmp_path, resident_bytes=limit), size=16
        ).fingerprint
        for limit in (None, 0)
    ]
    assert found[0] == found[1]


def test_other_images_of_the_same_size_and_time_are_decoded_again(tmp_path: Path) -> None:
    """As reproducible archives, container layers and `cp -p` leave them."""
    (tmp_path / "files").mkdir()

    def prepared(color: tuple[int, int, int], resident_bytes: int | None) -> tuple[str, int]:
        path = tmp_path / "files" / "0.bmp"
        Image.new("RGB", (16, 16), color).save(path)
        os.utime(path, (1_600_000_000, 1_600_000_000))
        loading = Loading(root=tmp_path, resident_bytes=resident_bytes)
        found = prepare("some", files_below(tmp_path / "files", ["0.bmp"], {}), loading, size=16)
        return found.fingerprint, int(found.images_NHWC.sum())

    red, green = prepared((255, 0, 0), None), prepared((0, 254, 0), None)
    assert (red[1], green[1]) == (255 * 256, 254 * 256)
    assert red[0] != green[0]
    assert prepared((255, 0, 0), 0)[0] == red[0]
    assert prepared((0, 254, 0), 0)[0] == green[0]
