"""Numbers and lists as they stand in sentences."""

from collections.abc import Iterable, Sequence
from typing import Any

from kd_ray.analysis.report.table import p_value


def points(value: float, *, sign: bool = True) -> str:
    """An effect on a rate, as points of percent; small ones with more digits."""
    digits = 1 if abs(100 * value) >= 10 else 2
    return f"{100 * value:{'+' if sign else ''}.{digits}f}".replace("-", "−")


def span(values: Sequence[Any], digits: int = 0) -> str:
    """The smallest and the largest of some numbers."""
    low, high = f"{min(values):.{digits}f}", f"{max(values):.{digits}f}"
    return low if low == high else f"{low} to {high}"


def plural(count: int, noun: str) -> str:
    """A count and its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(words: Sequence[str], limit: int = 4, between: str = ", ") -> str:
    """Words as a list in a sentence, cut after `limit`."""
    if len(words) > limit:
        return f"{between.join(words[:limit])} and {len(words) - limit} more"
    return " and ".join(filter(None, [between.join(words[:-1]), *words[-1:]]))


def equals(p: float) -> str:
    """A p or q value with its relation."""
    text = p_value(p)
    return text if text.startswith("<") else f"= {text}"


def signed(value: float) -> str:
    """A correlation."""
    return f"{value:+.2f}".replace("-", "−")


def distinct(words: Iterable[str | None]) -> list[str]:
    """Each word once, in order."""
    return list(dict.fromkeys(filter(None, words)))
