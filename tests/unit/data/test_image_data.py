import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_ray.data.image_data import ImageData, Split, contact_sheet, random_parts, split_off_validation
from kd_ray.groups import Groups
from kd_ray.seeding import stream


def _split(count: int, *, num_classes: int = 3) -> Split:
    """Image n is uniformly n."""
    images_NHWC = np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None], (count, 4, 4, 3)).copy()
    labels_N = np.arange(count) % num_classes
    return Split(
        images_NHWC=images_NHWC,
        labels_N=labels_N,
        sensitive_features={"parity": Groups.from_codes(np.arange(count) % 2, ["even", "odd"])},
    )


def _images(count: int) -> npt.NDArray[np.uint8]:
    return np.zeros((count, 2, 2, 3), dtype=np.uint8)


def test_take_keeps_images_labels_and_groups_together() -> None:
    taken = _split(10).take(np.array([7, 2]))
    assert len(taken) == 2
    assert taken.images_NHWC[:, 0, 0, 0].tolist() == [7, 2]
    assert taken.labels_N.tolist() == [1, 2]
    assert taken.sensitive_features["parity"].to_lists() == [["odd"], ["even"]]


def test_take_copies() -> None:
    split = _split(4)
    split.take(np.arange(4)).images_NHWC[:] = 99
    assert split.images_NHWC[3, 0, 0, 0] == 3


def test_split_refuses_other_shapes_and_dtypes() -> None:
    labels_N = np.zeros(2, dtype=np.int64)
    with pytest.raises(ValueError, match=r"images have shape \(2, 2, 3\)"):
        Split(images_NHWC=_images(2)[0], labels_N=labels_N)
    with pytest.raises(ValueError, match="dtype float32, expected uint8"):
        Split(images_NHWC=_images(2).astype(np.float32), labels_N=labels_N)
    with pytest.raises(ValueError, match=r"labels have shape \(2,\), expected \(3,\)"):
        Split(images_NHWC=_images(3), labels_N=labels_N)
    with pytest.raises(ValueError, match="dtype int32, expected int64"):
        Split(images_NHWC=_images(2), labels_N=labels_N.astype(np.int32))
    with pytest.raises(ValueError, match="sensitive feature 'hue' has 1 samples, expected 2"):
        Split(
            images_NHWC=_images(2),
            labels_N=labels_N,
            sensitive_features={"hue": Groups.from_codes(np.array([0]), ["a"])},
        )


def test_image_data_refuses_labels_without_a_name() -> None:
    split = _split(6)
    with pytest.raises(ValueError, match=r"train labels lie in 0\.\.2, expected 0\.\.1"):
        ImageData(train=split, test=split, class_names=("a", "b"), mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    with pytest.raises(ValueError, match="expected positive numbers"):
        ImageData(train=split, test=split, class_names=("a", "b", "c"), mean=(0.5, 0.5, 0.5), std=(0.5, 0.0, 0.5))


@pytest.mark.slow
@given(count=st.integers(2, 200), fraction=st.floats(0.01, 0.99), seed=st.integers(0, 2**31))
def test_random_parts_divide_all_samples(count: int, fraction: float, seed: int) -> None:
    if not 0 < round(count * fraction) < count:
        with pytest.raises(ValueError, match="one part is empty"):
            random_parts(count, fraction=fraction, rng=stream(seed))
        return
    rest, part = random_parts(count, fraction=fraction, rng=stream(seed))
    assert len(part) == round(count * fraction)
    assert sorted([*rest, *part]) == list(range(count))
    assert rest.tolist() == sorted(rest)


GOLDEN_VALIDATION = [2, 6, 7]


def test_split_off_validation_golden() -> None:
    rest, validation = split_off_validation(_split(10), fraction=0.3, seed=5)
    assert validation.images_NHWC[:, 0, 0, 0].tolist() == GOLDEN_VALIDATION
    assert sorted([*rest.images_NHWC[:, 0, 0, 0], *GOLDEN_VALIDATION]) == list(range(10))


def test_split_off_validation_changes_with_the_seed() -> None:
    chosen = {
        tuple(split_off_validation(_split(50), fraction=0.5, seed=s)[1].images_NHWC[:, 0, 0, 0]) for s in range(5)
    }
    assert len(chosen) == 5


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan")])
def test_split_off_validation_refuses_a_fraction_outside(fraction: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        split_off_validation(_split(10), fraction=fraction, seed=0)


def test_contact_sheet_shows_each_class_in_its_row() -> None:
    split = _split(60)
    sheet = np.asarray(contact_sheet(split, ["a", "b", "c"], columns=4, rows=2, cell_size_px=40))
    pitch_x, pitch_y = 40 + 6, 40 + 6 + 12
    assert sheet.shape[0] == 2 * pitch_y + 6
    left = sheet.shape[1] - 4 * pitch_x
    for row in range(2):
        middles = [int(sheet[6 + row * pitch_y + 20, left + column * pitch_x + 20, 0]) for column in range(4)]
        assert [n % 3 for n in middles] == [row] * 4
        assert len(set(middles)) == 4


def test_contact_sheet_is_deterministic_and_bears_an_empty_class_and_many_groups() -> None:
    split = Split(
        images_NHWC=_images(3),
        labels_N=np.array([0, 0, 2]),
        sensitive_features={
            "target": Groups.from_lists(
                [["Women", "African, a very long name"], [], ["Women"]], ["Women", "African, a very long name"]
            )
        },
    )
    first, second = (contact_sheet(split, ["a", "b", "c"], cell_size_px=40) for _ in range(2))
    assert first.tobytes() == second.tobytes()
    assert first.mode == "RGB"
