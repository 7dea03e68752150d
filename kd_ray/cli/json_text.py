"""What every verb writes as JSON: numbers as numbers, and null where JSON has no number."""

import json
import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any


def json_text(value: Any, *, indent: int | None = 1) -> str:
    """JSON that every parser takes. NaN and infinities become null, decimals numbers, bytes text or else hex, times text."""
    return json.dumps(_plain(value), indent=indent, allow_nan=False, ensure_ascii=True)


def text_of_bytes(value: bytes) -> str:
    """The text that they are in UTF-8, or else two hexadecimal digits for each."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.hex()


def _plain(value: Any) -> Any:
    found = value
    if isinstance(value, float):
        found = value if math.isfinite(value) else None
    elif isinstance(value, Decimal):
        found = None if not value.is_finite() else int(value) if value == value.to_integral_value() else float(value)
    elif isinstance(value, Mapping):
        found = {str(key): _plain(each) for key, each in value.items()}
    elif isinstance(value, list | tuple):
        found = [_plain(each) for each in value]
    elif isinstance(value, bytes):
        found = text_of_bytes(value)
    elif not isinstance(value, bool | int | str | None):
        found = str(value)
    return found
