"""Small inputs that would become large: sizes are checked before anything is made of them."""

import io
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kd_ray.errors import CorruptObjectError, SweepError
from kd_ray.results.parquet import MOST_VALUES, decode_table
from kd_ray.results.record import encode_record, read_record
from kd_ray.results.record_schema import RECORD
from kd_ray.results.store import Store, record_key
from kd_ray.sweep.load import parse_sweep
from tests.fakes import SWEEP_YAML, make_record, make_sweep


def with_predictions(count: int) -> bytes:
    """A record that predicts class 0 so many times."""
    table = decode_table(encode_record(make_record()))
    place = RECORD.get_field_index("predictions")
    zeros = pa.ListArray.from_arrays(pa.array([0, count], pa.int32()), pa.array(np.zeros(count, np.int32)))
    buffer = io.BytesIO()
    pq.write_table(table.set_column(place, RECORD.field(place), zeros), buffer, compression="zstd")
    return buffer.getvalue()


@pytest.mark.slow
def test_record_that_would_take_gigabytes_is_refused_by_its_footer(store: Store) -> None:
    trial_id = make_record().trial_id
    data = with_predictions(MOST_VALUES + 1)
    assert len(data) < 100_000
    store.put(record_key(trial_id), data)
    began = time.process_time()
    with pytest.raises(CorruptObjectError, match=r"it holds 50,000,\d+ values; at most 50,000,000 are read"):
        read_record(store, trial_id)
    assert time.process_time() - began < 1


@pytest.mark.slow
def test_text_that_would_take_gigabytes_is_refused_by_its_footer() -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": ["x" * 200_000_000]}), buffer, compression="zstd", use_dictionary=False)
    with pytest.raises(ValueError, match=r"its 1 values take 200,\d+,\d+ bytes"):
        decode_table(buffer.getvalue())


def aliases(levels: int, of: int = 10) -> str:
    lines = ["a0: &a0 [" + ",".join("x" * of) + "]"]
    lines += [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * of)}]" for i in range(1, levels)]
    return "\n".join(lines) + "\n"


BOMBS = {
    "aliases": (aliases(10), r"s.yaml: not valid YAML: line 6: more than 200,000 values, with what aliases stand for"),
    "alias of itself": ("a: &a [*a]\n", r"line 1: the alias \*a stands for itself, or for nothing"),
    "levels": (f"a: {'[' * 100_000}{']' * 100_000}\n", "line 1: more than 64 levels of lists and mappings"),
    "length": (f"# {'x' * 2**20}\n", "at most 1,048,576 are read"),
    "merges": (
        "x0: &x0 {a: 1}\n"
        + "".join(f"x{i}: &x{i} {{<<: [{','.join([f'*x{i - 1}'] * 10)}], b{i}: 1}}\n" for i in range(1, 12)),
        "more than 200,000 values",
    ),
    "digits": (f"a: {'9' * 5000}\n", "not valid YAML"),
}


@pytest.mark.slow
@pytest.mark.parametrize(("text", "message"), BOMBS.values(), ids=BOMBS)
def test_yaml_that_would_become_large_is_refused_at_once(text: str, message: str) -> None:
    began = time.process_time()
    with pytest.raises(SweepError, match=message):
        parse_sweep(text + SWEEP_YAML, source="s.yaml")
    assert time.process_time() - began < 2


def test_override_that_would_become_large_is_refused_at_once() -> None:
    parts = ["&a0 [0,0,0,0,0,0,0,0,0,0]", *(f"&a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9))]
    with pytest.raises(SweepError, match="the value is not valid YAML: line 1: more than 200,000 values"):
        make_sweep(overrides=[f"grid.seed=[{','.join(parts)}]"])


def test_few_aliases_are_fine() -> None:
    text = SWEEP_YAML.replace("seed: [0, 1]", "seed: &s [0, 1]").replace(
        "teacher: {model", "teacher: {seed: [3], model"
    )
    assert parse_sweep(text, source="s").axes["seed"] == (0, 1)


@pytest.mark.slow
def test_grid_is_counted_before_it_is_expanded() -> None:
    overrides = [f"grid.seed={list(range(1000))}", f"grid.temperature={[1 + i / 100 for i in range(1000)]}"]
    message = (
        r"--set grid\.|demo\.yaml:\d+: grid: 1,000 × 1,000 values make 1,000,000 cells, and at most 50,000 are expanded; "
        r"--max-cells, or KD_RAY_MAX_CELLS, gives another limit"
    )
    began = time.process_time()
    with pytest.raises(SweepError, match=message):
        make_sweep(overrides=overrides)
    assert time.process_time() - began < 5


def test_limit_of_cells_is_a_setting() -> None:
    with pytest.raises(SweepError, match="2 × 2 values make 4 cells, and at most 3 are expanded"):
        parse_sweep(SWEEP_YAML, source="s", most_cells=3)
    assert parse_sweep(SWEEP_YAML, source="s", most_cells=4)
    with pytest.raises(SweepError, match="2 × 2 × 3 values, one of them teacher's seeds, make 12 cells"):
        parse_sweep(SWEEP_YAML, source="s", overrides=["teacher.seed=[0,1,2]"], most_cells=8)


@pytest.mark.parametrize("text", ['name: "a\\x1fb"\n', 'name: {"a\\x07": 1}\n', 'name: "a\\nb"\n'])
def test_control_character_in_a_sweep_file_is_refused_with_its_line(text: str) -> None:
    with pytest.raises(
        SweepError, match=r"s\.yaml: not valid YAML: line 1: 'a\\x.*' holds the control character|line 1: 'a\\nb'"
    ):
        parse_sweep(text, source="s.yaml")
