"""JSON that every parser takes."""

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from kd_ray.cli.json_text import json_text
from kd_ray.cli.text import encode


def strict(text: str) -> Any:
    """Parsed as RFC 8259 has it: without NaN and infinities."""

    def refuse(name: str) -> None:
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (float("nan"), None),
        (float("inf"), None),
        (-0.0, 0.0),
        (Decimal("1234567890123456789"), 1234567890123456789),
        (Decimal("0.5"), 0.5),
        (Decimal("12.00"), 12),
        (Decimal("NaN"), None),
        (True, True),
        (b"caf\xc3\xa9", "café"),
        (b"\xff\x00", "ff00"),
        (datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "2026-01-02 03:04:05+00:00"),
        ({"a": [1.5, float("nan")], 3: ("x", None)}, {"a": [1.5, None], "3": ["x", None]}),
    ],
)
def test_numbers_are_numbers_and_the_rest_is_null_or_text(value: Any, expected: Any) -> None:
    found = strict(json_text(value))
    assert found == expected
    assert type(found) is type(expected)


def test_the_answer_of_a_query_is_json_whatever_its_types_are() -> None:
    answer = pa.table(
        {
            "n": pa.array([Decimal(480)], pa.decimal128(38, 0)),
            "half": pa.array([Decimal("0.5")], pa.decimal128(2, 1)),
            "a": [float("nan")],
            "b": [float("-inf")],
            "settings": pa.array([[("lr", "0.1")]], pa.map_(pa.string(), pa.string())),
        }
    )
    assert strict(encode(answer, "json").decode()) == [
        {"n": 480, "half": 0.5, "a": None, "b": None, "settings": {"lr": "0.1"}}
    ]
    (row,) = csv.DictReader(io.StringIO(encode(answer, "csv").decode()))
    assert strict(row["settings"]) == {"lr": "0.1"}
    assert (row["n"], row["half"]) == ("480", "0.5")


def test_query_shows_bytes_as_text_or_hex() -> None:
    answer = pa.table({"x": pa.array([b"abc", b"\xff\x00"])})
    assert encode(answer, "csv").decode() == "x\nabc\nff00\n"
    shown = encode(answer, "table").decode()
    assert "abc" in shown
    assert "ff00" in shown
    assert "b'" not in shown
