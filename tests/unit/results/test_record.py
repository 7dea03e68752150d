"""Records and samples: written once, read back whole or not at all."""

import random
import re
from dataclasses import asdict
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kd_ray.errors import CorruptObjectError, OtherVersionError
from kd_ray.groups import Groups
from kd_ray.results.record import (
    Epoch,
    Record,
    Samples,
    commit_record,
    decode_record,
    decode_table,
    encode_record,
    encode_table,
    read_record,
    read_samples,
    sha256,
    write_samples,
)
from kd_ray.results.store import Store, record_key, samples_key
from kd_ray.sweep.spec import TrialSpec
from tests.fakes import ForgetfulStore, make_provenance, make_record, make_samples, make_spec
from tests.strategies import any_float, specs

READ_ERRORS = (pa.ArrowException, OSError, ValueError, KeyError, TypeError)
"""What `decode_record` says it raises."""


def assert_same(a: Record, b: Record) -> None:
    assert a.spec == b.spec
    assert [asdict(epoch) for epoch in a.epochs] == [asdict(epoch) for epoch in b.epochs]
    assert a.test.scalars.keys() == b.test.scalars.keys()
    np.testing.assert_array_equal(list(a.test.scalars.values()), [b.test.scalars[name] for name in a.test.scalars])
    for name in ("predictions_N", "confidences_N", "true_probabilities_N"):
        x_N, y_N = getattr(a.test, name), getattr(b.test, name)
        assert x_N.dtype == y_N.dtype
        np.testing.assert_array_equal(x_N, y_N)
    assert (a.weights_key, a.weights_sha256, a.num_parameters) == (b.weights_key, b.weights_sha256, b.num_parameters)
    assert a.provenance == b.provenance


def test_record_round_trips() -> None:
    record = make_record()
    assert_same(decode_record(encode_record(record)), record)


def test_record_without_epochs_round_trips() -> None:
    """Given weights are evaluated, not trained."""
    spec = make_spec(
        role="teacher", training=None, distillation=None, teacher=None, seed=None, initial_weights="ab" * 32
    )
    record = make_record(spec, provenance=make_provenance(git_commit="abc+"))
    again = decode_record(encode_record(record))
    assert_same(again, record)
    assert again.epochs == ()


@pytest.mark.slow
@given(
    spec=specs(),
    floats=st.lists(any_float(), min_size=5, max_size=5),
    terms=st.dictionaries(st.sampled_from(["cross_entropy", "distillation"]), any_float()),
    probability=st.floats(0, 1, width=32),
)
def test_record_keeps_floats_to_the_last_bit(
    spec: TrialSpec, floats: list[float], terms: dict[str, float], probability: float
) -> None:
    epoch = Epoch(
        epoch=1,
        loss=floats[0],
        terms=terms,
        train_accuracy=floats[1],
        validation_accuracy=floats[2],
        lr=floats[3],
        elapsed_s=floats[4],
    )
    record = make_record(
        spec,
        epochs=(epoch,),
        scalars={"loss": floats[0], "nan": float("nan")},
        predictions_N=np.array([2**31 - 1, 0], dtype=np.int32),
        confidences_N=np.array([probability, 1], dtype=np.float32),
        true_probabilities_N=np.array([0, probability], dtype=np.float32),
    )
    assert_same(decode_record(encode_record(record)), record)


def test_record_keeps_times_to_the_microsecond_in_utc() -> None:
    local = datetime(2024, 5, 6, 9, 8, 9, 654321, tzinfo=timezone(timedelta(hours=2)))
    again = decode_record(encode_record(make_record(provenance=make_provenance(started_at=local)))).provenance
    assert again.started_at == local == datetime(2024, 5, 6, 7, 8, 9, 654321, tzinfo=UTC)


def test_encoding_is_deterministic() -> None:
    one = make_record(scalars={"a": 1.0, "b": 2.0}, provenance=make_provenance(versions={"x": "1", "y": "2"}))
    other = make_record(scalars={"b": 2.0, "a": 1.0}, provenance=make_provenance(versions={"y": "2", "x": "1"}))
    assert encode_record(one) == encode_record(other)
    assert encode_record(decode_record(encode_record(one))) == encode_record(one)


def test_first_record_of_a_trial_stays(store: Store) -> None:
    first, second = make_record(num_parameters=1), make_record(num_parameters=2)
    assert read_record(store, first.trial_id) is None
    assert commit_record(store, first) is True
    assert commit_record(store, second) is False
    kept = read_record(store, first.trial_id)
    assert kept is not None
    assert_same(kept, first)


def test_truncated_record_is_named(store: Store) -> None:
    record = make_record()
    data = encode_record(record)
    for size in (0, 4, len(data) // 2, len(data) - 1):
        store.put(record_key(record.trial_id), data[:size])
        with pytest.raises(CorruptObjectError, match=f"'{record_key(record.trial_id)}' is not a whole record: "):
            read_record(store, record.trial_id)


@pytest.mark.slow
def test_flipped_bytes_are_found_or_change_nothing() -> None:
    """Page checksums cover the values; a flip elsewhere either breaks the structure or hits unused bytes."""
    record = make_record()
    data = encode_record(record)
    num_found = 0
    for i in range(0, len(data), 61):
        damaged = bytearray(data)
        damaged[i] ^= 0xFF
        try:
            again = decode_record(bytes(damaged))
        except READ_ERRORS:
            num_found += 1
        else:
            assert_same(again, record)
    assert num_found > 50


def test_flipped_byte_in_the_predictions_is_found(store: Store) -> None:
    record = make_record(predictions_N=np.arange(1000, dtype=np.int32))
    data = encode_record(record)
    assert decode_record(data).test.predictions_N[999] == 999
    damaged = bytearray(data)
    damaged[len(data) // 4] ^= 0x01
    store.put(record_key(record.trial_id), bytes(damaged))
    with pytest.raises(CorruptObjectError, match=f"store {re.escape(store.url)}: '{record_key(record.trial_id)}'"):
        read_record(store, record.trial_id)


def test_record_of_another_trial_is_refused(store: Store) -> None:
    record, other = make_record(), make_spec(seed=1).trial_id
    store.put(record_key(other), encode_record(record))
    with pytest.raises(CorruptObjectError, match=f"'{record_key(other)}' holds the record of trial {record.trial_id}$"):
        read_record(store, other)


def test_other_parquet_is_no_record(store: Store) -> None:
    key = record_key("0123456789abcdef")
    store.put(key, encode_table(pa.table({"a": [1]})))
    with pytest.raises(
        CorruptObjectError, match=f"'{key}' is not a whole record: its columns are not those of a record"
    ):
        read_record(store, "0123456789abcdef")
    table = decode_table(encode_record(make_record()))
    store.put(key, encode_table(pa.concat_tables([table, table])))
    with pytest.raises(CorruptObjectError, match="is not a whole record: 2 rows, expected 1"):
        read_record(store, "0123456789abcdef")


def test_record_of_another_version_is_refused_and_not_called_damaged(store: Store) -> None:
    """Guards the version check of `decode_record`, which comes before the columns are looked at: other versions have others."""
    table = decode_table(encode_record(make_record()))
    trial_id = make_record().trial_id
    for version in (1, 5):
        other = table.set_column(0, table.schema.field(0), pa.array([version], type=pa.int32()))
        for whole in (other, other.drop_columns(["provenance"])):
            store.put(record_key(trial_id), encode_table(whole))
            expected = f"'{record_key(trial_id)}' has record_version {version}, and this kd_ray reads 2 to 4$"
            with pytest.raises(OtherVersionError, match=expected):
                read_record(store, trial_id)


@pytest.mark.parametrize(("version", "lacks"), [(2, ["per_class", "per_sample"]), (3, ["per_sample"])])
def test_record_of_an_older_version_is_read_without_what_came_later(version: int, lacks: list[str]) -> None:
    """Guard: trials of older stores must not be trained again."""
    record = make_record(per_class={"train_n": (1.0, 2.0)}, per_sample={"calibrated_confidences": np.ones(2)})
    table = decode_table(encode_record(record)).drop_columns(lacks)
    older = table.set_column(0, table.schema.field(0), pa.array([version], type=pa.int32()))
    again = decode_record(encode_table(older))
    assert again.per_class == ({} if "per_class" in lacks else record.per_class)
    assert again.test.per_sample == {}
    assert again.spec == record.spec
    assert again.epochs == record.epochs


def test_what_an_objective_held_of_each_class_is_kept() -> None:
    held = {"class_alpha": (0.9, 0.45, 1 / 3), "held_out_n": (3.0, 0.0, 2.0)}
    assert decode_record(encode_record(make_record(per_class=held))).per_class == held


def test_record_whose_answer_was_lost_is_committed(store: Store) -> None:
    """Guards `commit_record`: a create that was made again finds the record that it wrote itself."""
    forgetful = ForgetfulStore(store.url)
    assert commit_record(forgetful, make_record(num_parameters=1)) is True
    assert commit_record(forgetful, make_record(num_parameters=2)) is False


def test_sha256_is_the_published_one() -> None:
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


# --- samples ---------------------------------------------------------------------------------------------------------------------------

DATASET = "0123456789abcdef"


def assert_same_samples(a: Samples | None, b: Samples) -> None:
    assert a is not None
    assert (a.dataset, a.target, a.class_names) == (b.dataset, b.target, b.class_names)
    assert a.labels_N.dtype == np.int64
    np.testing.assert_array_equal(a.labels_N, b.labels_N)
    assert list(a.sensitive_features) == list(b.sensitive_features)
    for name, groups in b.sensitive_features.items():
        assert a.sensitive_features[name].names == groups.names
        np.testing.assert_array_equal(a.sensitive_features[name].membership_NG, groups.membership_NG)


MANY_TO_MANY = Groups(
    names=("one", "two", "three & more"),
    membership_NG=np.array([[True, True, False], [False, False, False], [False, True, True]] * 4),
)


@pytest.mark.parametrize(
    "samples",
    [
        make_samples(),
        make_samples(sensitive_features={}),
        make_samples(sensitive_features={"community": MANY_TO_MANY}),
        make_samples(class_names=("a, b", "ü", "c")),
    ],
    ids=["features", "none", "many-to-many", "names"],
)
def test_samples_round_trip(store: Store, samples: Samples) -> None:
    assert read_samples(store, DATASET) is None
    write_samples(store, DATASET, samples)
    assert_same_samples(read_samples(store, DATASET), samples)


def test_same_samples_may_be_written_again(store: Store) -> None:
    write_samples(store, DATASET, make_samples())
    before = store.get(samples_key(DATASET))
    write_samples(store, DATASET, make_samples())
    assert store.get(samples_key(DATASET)) == before


@pytest.mark.parametrize(
    "other",
    [
        make_samples(labels_N=np.zeros(12, dtype=np.int64)),
        make_samples(labels_N=np.zeros(11, dtype=np.int64), sensitive_features={}),
        make_samples(class_names=("circle", "star", "square")),
        make_samples(sensitive_features={}),
        make_samples(sensitive_features=dict(reversed(list(make_samples().sensitive_features.items())))),
        make_samples(sensitive_features={**make_samples().sensitive_features, "texture": MANY_TO_MANY}),
    ],
    ids=["labels", "length", "class names", "features", "order", "groups"],
)
def test_other_samples_under_the_same_id_are_refused(store: Store, other: Samples) -> None:
    write_samples(store, DATASET, make_samples())
    expected = (
        f"'{samples_key(DATASET)}' holds other test samples than this node's data; the data set changed under its name"
    )
    with pytest.raises(CorruptObjectError, match=expected):
        write_samples(store, DATASET, other)
    assert_same_samples(read_samples(store, DATASET), make_samples())


@pytest.mark.parametrize("data", [b"", b"junk", encode_table(pa.table({"label": [1]}))], ids=["empty", "junk", "table"])
def test_damaged_samples_are_named(store: Store, data: bytes) -> None:
    store.put(samples_key(DATASET), data)
    with pytest.raises(CorruptObjectError, match=f"'{samples_key(DATASET)}' does not hold samples: "):
        read_samples(store, DATASET)


@pytest.mark.parametrize("part", ["truncated", "noise", "empty", "table"])
def test_damaged_samples_are_quarantined_and_written_again(store: Store, part: str) -> None:
    """Guards `write_samples`: samples can be had from the data at any time, so damage to them stops nothing."""
    write_samples(store, DATASET, make_samples())
    whole = store.get(samples_key(DATASET))
    assert whole
    damage = {
        "truncated": whole[:-9],
        "noise": random.Random(0).randbytes(len(whole)),
        "empty": b"",
        "table": encode_table(pa.table({"label": [1]})),
    }[part]
    store.put(samples_key(DATASET), damage)
    write_samples(store, DATASET, make_samples())
    assert store.get(samples_key(DATASET)) == whole
    (kept,) = store.entries("damaged")
    assert kept.key.startswith(f"damaged/{samples_key(DATASET)}-")
    assert store.get(kept.key) == damage
