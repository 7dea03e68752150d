"""Which columns the parts of a store's tables have: a small object says so, which an upgrade of the tables writes."""

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

from kd_ray.bounded import JsonForm
from kd_ray.errors import CorruptObjectError
from kd_ray.results.schema import columns_text
from kd_ray.results.store import Store, table_columns_key

ROWS_VERSION = 5
"""Raised when the same record gives other rows."""


@dataclass(frozen=True, kw_only=True)
class _Form:
    """What the object holds."""

    columns: str
    """16 hex digits of the columns of all tables."""
    but: list[str] | None = None
    """Sweeps whose parts have others; None where a kd_ray has written it that did not say."""


_FORM: JsonForm[_Form] = JsonForm(kind=_Form)


def has_this_form(store: Store) -> bool:
    """Whether the tables are those of this kd_ray, but for sweeps that could not be upgraded."""
    return _read(store) is not None


def have_one_form(store: Store, sweep: str | None) -> bool:
    """Whether all parts of a sweep, or of all sweeps, have the columns that this kd_ray writes."""
    found = _read(store)
    if found is None or found.but is None:
        return False
    return sweep not in found.but if sweep is not None else not found.but


def write_form(store: Store, *, but: Sequence[str]) -> None:
    """Note that all parts have the columns that this kd_ray writes, but for those of some sweeps."""
    store.put(table_columns_key(), json.dumps({"columns": columns_digest(), "but": list(but)}).encode())


def _read(store: Store) -> _Form | None:
    """None where it is not that of this kd_ray."""
    try:
        found = _FORM.read(store.get(table_columns_key(), most_bytes=_FORM.most_bytes) or b"")
    except (ValueError, CorruptObjectError):
        return None
    return found if found.columns == columns_digest() else None


@functools.cache
def columns_digest() -> str:
    """16 hex digits of what rows this kd_ray makes of a record, and in which columns."""
    return hashlib.sha256(f"{ROWS_VERSION} {columns_text()}".encode()).hexdigest()[:16]
