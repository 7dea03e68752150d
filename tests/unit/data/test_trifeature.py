import hashlib
import json
import logging
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from kd_ray.data import trifeature
from kd_ray.data.family import Loading
from kd_ray.data.image_data import ImageData
from kd_ray.data.trifeature_drawing import COLOR_TENTHS
from kd_ray.errors import DataError
from kd_ray.seeding import stream
from kd_ray.sweep.datasets import TrifeatureDataset

GREY = 128
KEY = "v1-size8-per1-seed0"
# A change of these values needs another GENERATOR_VERSION: results of the old images must not be mixed with results of the new ones.
GOLDEN_SMALL_SHA256 = "29b84dc9d7151057bef7122be8d18e716a1245f03bd567486adf9c16ebb4f83d"
GOLDEN_LARGE_SHA256 = "ca0f0b7cb69f31ef00bce5b5f5a604c7a1f3b06982d009f809e4dcf9b6e34c70"
GOLDEN_TEST_SPLIT = "c994a483393b670b"


@pytest.fixture(scope="module")
def small() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]:
    return trifeature.generate(size=32, images_per_combination=1, seed=0)


@pytest.fixture(scope="module")
def cached_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Holds a drawn set; tests that spoil it copy it first."""
    root = tmp_path_factory.mktemp("trifeature")
    _load(root)
    return root


def _load(root: Path, **changes: Any) -> ImageData:
    settings: dict[str, Any] = {
        "size": 8, "images_per_combination": 1, "generator_seed": 0, "split_seed": 0, "test_fraction": 0.5, "target": "shape",
    }  # fmt: skip
    settings |= changes
    options = {name: settings.pop(name) for name in ("processes", "on_progress") if name in settings}
    # Copied, because sweep files take no images as small as these.
    dataset = TrifeatureDataset(name="trifeature").model_copy(update=settings)
    return trifeature.load(dataset, Loading(root=root, **options))


def _render(shape: str, texture: str, color: str, *, seed: int = 0, size: int = 224) -> npt.NDArray[np.int64]:
    return trifeature.render(shape, texture, color, size=size, rng=stream(seed, "test")).astype(np.int64)


def test_names_come_in_tens() -> None:
    assert list(trifeature.FEATURES) == ["shape", "texture", "color"]
    assert [len(set(names)) for names in trifeature.FEATURES.values()] == [10, 10, 10]
    assert trifeature.NUM_COMBINATIONS == 1000


@pytest.mark.slow
def test_generate_gives_every_combination_once(small: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]) -> None:
    images_NHWC, codes_NF = small
    assert images_NHWC.shape == (1000, 32, 32, 3)
    assert images_NHWC.dtype == np.uint8
    assert codes_NF.dtype == np.int16
    assert codes_NF.tolist() == [[n // 100, n // 10 % 10, n % 10] for n in range(1000)]


@pytest.mark.slow
def test_generate_golden(small: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]) -> None:
    assert hashlib.sha256(small[0].tobytes()).hexdigest() == GOLDEN_SMALL_SHA256


def test_render_golden_at_full_size() -> None:
    total = hashlib.sha256()
    for n, (shape, texture, color) in enumerate(zip(*trifeature.FEATURES.values(), strict=True)):
        total.update(trifeature.render(shape, texture, color, size=224, rng=stream(n)).tobytes())
    assert total.hexdigest() == GOLDEN_LARGE_SHA256


@pytest.mark.long
def test_generate_is_independent_of_processes_and_of_how_many_follow() -> None:
    progress: list[tuple[int, int]] = []
    alone, codes_NF = trifeature.generate(size=8, images_per_combination=2, seed=3)
    spawned, _ = trifeature.generate(
        size=8,
        images_per_combination=1,
        seed=3,
        processes=2,
        on_progress=lambda done, total: progress.append((done, total)),
    )
    assert np.array_equal(alone[::2], spawned)
    assert np.array_equal(codes_NF[::2], codes_NF[1::2])
    assert progress[-1] == (1000, 1000)
    assert progress == sorted(progress)


@pytest.mark.long
def test_generate_changes_with_seed_and_index(small: tuple[npt.NDArray[np.uint8], npt.NDArray[np.int16]]) -> None:
    other, _ = trifeature.generate(size=8, images_per_combination=2, seed=1)
    assert (other[::2] != other[1::2]).any(axis=(1, 2, 3)).mean() > 0.99
    first, _ = trifeature.generate(size=8, images_per_combination=1, seed=0)
    assert (other[::2] != first).any(axis=(1, 2, 3)).mean() > 0.99


@pytest.mark.parametrize("size", [112, 32, 8, 1])
@pytest.mark.parametrize("texture", ["noise", "dots"])
def test_smaller_sizes_are_block_means(size: int, texture: str) -> None:
    full = _render("star", texture, "ocean")
    k = 224 // size
    means = full.reshape(size, k, size, k, 3).mean(axis=(1, 3))
    assert abs(_render("star", texture, "ocean", size=size) - means).max() <= 1.0


@pytest.mark.parametrize("size", [30, 100, 223])
def test_sizes_that_do_not_divide_are_area_means(size: int) -> None:
    full = _render("tee", "grid", "orange")
    edges = np.arange(size + 1) * 224 / size
    overlap = np.clip(
        np.minimum(edges[1:, None], np.arange(1, 225)) - np.maximum(edges[:-1, None], np.arange(224)), 0, None
    )
    weights = overlap * size / 224
    assert weights.sum(axis=1) == pytest.approx(np.ones(size))
    expected = np.stack([weights @ full[..., channel] @ weights.T for channel in range(3)], axis=-1)
    assert abs(_render("tee", "grid", "orange", size=size) - expected).max() <= 1.0


@pytest.mark.parametrize("color", trifeature.COLORS)
def test_solid_pixels_have_the_color_on_grey(color: str) -> None:
    image_HWC = _render("square", "solid", color)
    pixels, counts = np.unique(image_HWC.reshape(-1, 3), axis=0, return_counts=True)
    frequent = {tuple(pixel) for pixel in pixels[np.argsort(counts)[-2:]].tolist()}
    assert frequent == {(GREY,) * 3, tuple(int(25.5 * tenths + 0.5) for tenths in COLOR_TENTHS[color])}


# Share of the 128 × 128 box that each shape covers, from its geometry.
AREAS = {
    "triangle": 1 / 2,
    "square": 1,
    "plus": 5 / 9,
    "circle": np.pi / 4,
    "tee": 5 / 9,
    "rhombus": 1 / 2,
    "pentagon": 0.4 / 2 + 0.6 - 0.6**2 / 3.1,
    "fivesquare": 5 / 9,
    "trapezoid": 1 - 1 / 3.1,
}


@pytest.mark.parametrize("shape", AREAS)
def test_shapes_lie_wholly_inside_the_canvas(shape: str) -> None:
    """A turned shape that were cut would lose area. White on grey covers in proportion to its brightness."""
    for seed in range(20):
        covered = (_render(shape, "solid", "white", seed=seed) - GREY)[..., 0] / (255 - GREY)
        assert covered.sum() / 128**2 == pytest.approx(AREAS[shape], abs=0.02)


def test_shapes_and_places_vary() -> None:
    corners = set()
    for seed in range(30):
        rows, columns, _ = np.nonzero(_render("circle", "solid", "white", seed=seed) != GREY)
        corners.add((int(rows.min()), int(columns.min())))
    assert len(corners) > 25
    assert max(row for row, _ in corners) > 60


# Share of pixels that are on; hexgrid, zigzags and pluses as counted on a sheet.
DENSITIES = {
    "solid": 1, "stripes": 0.3, "grid": 0.51, "dots": 0.52, "noise": 0.5, "triangles": 0.5, "zigzags": 0.3,
    "rain": 1 - 0.95**7, "pluses": 0.33,
}  # fmt: skip


@pytest.mark.parametrize("texture", DENSITIES)
def test_textures_cover_their_share(texture: str) -> None:
    shares = []
    for seed in range(12):
        solid = _render("circle", "solid", "red", seed=seed)[..., 0]
        textured = _render("circle", texture, "red", seed=seed)[..., 0]
        shares.append((textured - GREY).sum() / (solid - GREY).sum())
    assert np.mean(shares) == pytest.approx(DENSITIES[texture], abs=0.03)


def test_render_refuses_unknown_names_and_sizes() -> None:
    with pytest.raises(ValueError, match=r"size is 225, expected 1\.\.224"):
        _render("square", "solid", "red", size=225)
    for wrong in (("cube", "solid", "red"), ("square", "fur", "red"), ("square", "solid", "mauve")):
        with pytest.raises(KeyError):
            _render(*wrong)


@pytest.mark.slow
@pytest.mark.parametrize("target", list(trifeature.FEATURES))
def test_load_labels_the_target_and_groups_the_others(cached_root: Path, target: str) -> None:
    data = _load(cached_root, target=target)
    others = [name for name in trifeature.FEATURES if name != target]
    assert data.class_names == trifeature.FEATURES[target]
    assert (len(data.train), len(data.test), data.validation) == (500, 500, None)
    assert data.train.images_NHWC.shape == (500, 8, 8, 3)
    assert not isinstance(data.train.images_NHWC, np.memmap)
    for split in (data.train, data.test):
        assert list(split.sensitive_features) == others
        assert all((groups.membership_NG.sum(axis=1) == 1).all() for groups in split.sensitive_features.values())
    assert (data.mean, data.std) == ((0.5, 0.5, 0.5), (0.25, 0.25, 0.25))


@pytest.mark.slow
def test_load_gives_each_image_its_own_names(cached_root: Path) -> None:
    """Label and groups of every sample, put together again, name the combination whose images it is one of."""
    drawn, codes_NF = trifeature.generate(size=8, images_per_combination=1, seed=0)
    by_code = {(*code.tolist(), image.tobytes()) for code, image in zip(codes_NF, drawn, strict=True)}
    data = _load(cached_root)
    found = set()
    for split in (data.train, data.test):
        texture_N, color_N = (
            split.sensitive_features[name].membership_NG.argmax(axis=1) for name in ("texture", "color")
        )
        columns = zip(split.labels_N.tolist(), texture_N.tolist(), color_N.tolist(), split.images_NHWC, strict=True)
        found |= {(s, t, c, image.tobytes()) for s, t, c, image in columns}
    assert found == by_code


@pytest.mark.slow
def test_load_split_is_fixed_by_its_seed(cached_root: Path) -> None:
    data = _load(cached_root, test_fraction=0.3)
    assert hashlib.sha256(data.test.labels_N.astype("<i8").tobytes()).hexdigest()[:16] == GOLDEN_TEST_SPLIT
    assert (len(data.train), len(data.test)) == (700, 300)
    assert np.array_equal(data.test.images_NHWC, _load(cached_root, test_fraction=0.3).test.images_NHWC)
    assert not np.array_equal(data.test.labels_N, _load(cached_root, test_fraction=0.3, split_seed=1).test.labels_N)


@pytest.mark.slow
def test_plain_random_split_leaves_label_gaps_between_groups(cached_root: Path) -> None:
    """Even a perfect model has a demographic parity difference on this split: about 3.8 % for 5,000 images, more for fewer."""
    test = _load(cached_root).test
    is_class_NC = test.labels_N[:, None] == np.arange(10)
    for groups in test.sensitive_features.values():
        rates_GC = (groups.membership_NG.T.astype(float) @ is_class_NC) / groups.membership_NG.sum(axis=0)[:, None]
        assert 0.06 < (rates_GC.max(axis=0) - rates_GC.min(axis=0)).mean() < 0.18


@pytest.mark.slow
def test_load_uses_the_cache(cached_root: Path) -> None:
    images = cached_root / "trifeature" / KEY / "images.npy"
    before = images.stat().st_mtime_ns
    calls: list[tuple[int, int]] = []
    _load(cached_root, target="color", split_seed=9, on_progress=lambda done, total: calls.append((done, total)))
    assert (images.stat().st_mtime_ns, calls) == (before, [])
    assert sorted(path.name for path in (cached_root / "trifeature").iterdir() if path.is_dir()) == [KEY]
    written = json.loads((images.parent / "checksums.json").read_text())
    assert written["generator_version"] == 1
    assert written["parameters"] == {"size": 8, "images_per_combination": 1, "seed": 0}
    assert written["sha256"]["images.npy"] == hashlib.sha256(images.read_bytes()).hexdigest()


@pytest.mark.slow
def test_many_loaders_at_once_draw_once(tmp_path: Path) -> None:
    totals: list[int] = []

    def count(done: int, total: int) -> None:
        if done == total:
            totals.append(total)

    with ThreadPoolExecutor(3) as pool:
        loaded = list(pool.map(lambda target: _load(tmp_path, target=target, on_progress=count), trifeature.FEATURES))
    assert totals == [1000]
    assert all(np.array_equal(data.test.images_NHWC, loaded[0].test.images_NHWC) for data in loaded)


@pytest.mark.slow
def test_a_script_without_a_main_guard_is_told_so(tmp_path: Path) -> None:
    """Guard: it would wait for ever, because the processes it starts run it again and wait for its lock."""
    script = tmp_path / "script.py"
    script.write_text(
        "from pathlib import Path\nfrom kd_ray.data.families import load_dataset\n"
        "from kd_ray.sweep.datasets import TrifeatureDataset\n"
        "dataset = TrifeatureDataset(name='trifeature', size=16, images_per_combination=1)\n"
        f"load_dataset(dataset, Path({str(tmp_path)!r}), processes=2)\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert 'needs `if __name__ == "__main__":`' in done.stderr.splitlines()[-1]


@pytest.mark.slow
@pytest.mark.parametrize("damage", ["flipped byte", "truncated", "missing codes", "no checksums", "bad json"])
def test_damaged_cache_is_moved_away_and_drawn_again(
    cached_root: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, damage: str
) -> None:
    root = tmp_path / "data"
    shutil.copytree(cached_root, root)
    folder = root / "trifeature" / KEY
    images = folder / "images.npy"
    good = images.read_bytes()
    match damage:
        case "flipped byte":
            images.write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
        case "truncated":
            images.write_bytes(good[:5000])
        case "missing codes":
            (folder / "codes.npy").unlink()
        case "no checksums":
            (folder / "checksums.json").unlink()
        case _:
            (folder / "checksums.json").write_text("{")
    with caplog.at_level(logging.WARNING, logger="kd_ray.data"):
        _load(root)
    assert images.read_bytes() == good
    assert (root / "trifeature" / f"{KEY}.damaged").is_dir()
    assert [record.name for record in caplog.records] == ["kd_ray.data"]
    assert "is damaged" in caplog.text


@pytest.mark.long
def test_second_damage_keeps_the_first(cached_root: Path, tmp_path: Path) -> None:
    root = tmp_path / "data"
    shutil.copytree(cached_root, root)
    for _ in range(2):
        (root / "trifeature" / KEY / "codes.npy").write_bytes(b"")
        _load(root)
    names = {path.name for path in (root / "trifeature").iterdir() if path.is_dir()}
    assert names == {KEY, f"{KEY}.damaged", f"{KEY}.damaged-2"}


@pytest.mark.slow
def test_interrupted_drawing_leaves_nothing(tmp_path: Path) -> None:
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    dead = tmp_path / "trifeature" / f".{KEY}.0badcafe"  # what a killed process leaves
    dead.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        _load(tmp_path, on_progress=stop)
    assert [path for path in (tmp_path / "trifeature").iterdir() if path.is_dir()] == []
    assert len(_load(tmp_path).train) == 500


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "colour"}, "target is 'colour', expected one of shape, texture, color"),
        ({"size": 0}, r"size is 0, expected 1\.\.224"),
        ({"images_per_combination": 0}, "images_per_combination is 0, expected at least 1"),
        ({"test_fraction": 1.0}, "test_fraction: fraction is 1.0"),
        ({"test_fraction": 1e-6}, "one part is empty"),
        ({"processes": 0, "generator_seed": 1}, "processes is 0"),
    ],
)
def test_load_refuses_bad_parameters(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        _load(tmp_path, **changes)
