"""Names of classes and groups that hold separators: a list of names is stored as a list, and joint groups keep their names apart."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from kd_ray.errors import CorruptObjectError
from kd_ray.groups import Groups
from kd_ray.results.record import (
    decode_table,
    encode_table,
    read_samples,
    write_samples,
)
from kd_ray.results.samples import _samples_digest
from kd_ray.results.store import Store, samples_key
from kd_ray.shown import control_character
from tests.fakes import make_samples

DATASET = "0123456789abcdef"


def test_names_with_the_former_separator_stay_whole(store: Store) -> None:
    names = ("a\x1fb", "c", '","')
    feature = Groups.from_codes(np.arange(12) % 2, ["x\x1fy", "z"])
    samples = make_samples(class_names=names, sensitive_features={"color": feature})
    write_samples(store, DATASET, samples)
    found = read_samples(store, DATASET)
    assert found is not None
    assert found.class_names == names
    assert found.sensitive_features["color"].names == ("x\x1fy", "z")
    assert np.array_equal(found.sensitive_features["color"].membership_NG, feature.membership_NG)
    write_samples(store, DATASET, replace(samples))


def former(names: dict[str, list[str]], **changes: str) -> bytes:
    """Samples as kd_ray wrote them before lists were JSON."""
    samples = make_samples()
    table = pa.table(
        {"label": samples.labels_N, "color": pa.array([["red"]] * 12, type=pa.list_(pa.string()))},
    )
    meta = {"dataset_id": DATASET, "dataset": "trifeature", "target": "shape"}
    meta |= {field: "\x1f".join(values) for field, values in names.items()} | changes
    return encode_table(table.replace_schema_metadata(meta | {"sha256": _samples_digest(table, meta)}))


def test_samples_of_older_stores_are_read(store: Store) -> None:
    store.put(samples_key(DATASET), former({"class_names": ["a", "b", "c"], "groups:color": ["red", "blue"]}))
    found = read_samples(store, DATASET)
    assert found is not None
    assert found.class_names == ("a", "b", "c")
    assert found.sensitive_features["color"].names == ("red", "blue")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"names_version": "3"}, "another version"),
        ({"names_version": "2"}, "does not hold samples"),
        ({"class_names": "only"}, "its labels are not those of 1 classes"),
    ],
)
def test_samples_that_do_not_fit_are_refused(store: Store, changes: dict[str, str], message: str) -> None:
    store.put(samples_key(DATASET), former({"class_names": ["a", "b", "c"], "groups:color": ["red"]}, **changes))
    with pytest.raises(CorruptObjectError, match=message):
        read_samples(store, DATASET)


def test_null_labels_are_refused(store: Store) -> None:
    write_samples(store, DATASET, make_samples())
    table = decode_table(store.get(samples_key(DATASET)) or b"")
    labels = pa.array([None, *table["label"].to_pylist()[1:]], type=pa.int64())
    store.put(samples_key(DATASET), encode_table(table.set_column(0, "label", labels)))
    with pytest.raises(CorruptObjectError, match="its labels are not those of 3 classes"):
        read_samples(store, DATASET)


@pytest.mark.parametrize(
    ("name", "character"),
    [
        ("plain", None),
        ("ähm & ünd 中", None),
        ("a\x1fb", r"\x1f"),
        ("a\n", r"\n"),
        ("\x9b31m", r"\x9b"),
        ("\ud800", r"\ud800"),
    ],
)
def test_control_characters_are_found(name: str, character: str | None) -> None:
    assert control_character(name) == character
