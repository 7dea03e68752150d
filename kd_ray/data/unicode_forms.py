"""Names that look the same and have different characters: a Mac writes é as e and an accent, other systems as one letter."""

import unicodedata
from collections.abc import Iterable


def alike(names: Iterable[str], others: Iterable[str]) -> tuple[str, str] | None:
    """The first of `names` that looks like one of `others` and is another text, and that one."""
    forms: dict[str, list[str]] = {}
    for other in others:
        forms.setdefault(unicodedata.normalize("NFC", other), []).append(other)
    for name in names:
        for other in forms.get(unicodedata.normalize("NFC", name), ()):
            if other != name:
                return name, other
    return None


def in_words(one: str, other: str) -> str:
    """`'é' ('e\\u0301') and 'é' ('\\xe9') look the same and have different characters`."""
    return f"{one!r} ({one!a}) and {other!r} ({other!a}) look the same and have different characters"
