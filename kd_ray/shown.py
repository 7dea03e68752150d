"""How numbers are written exactly, and text of strangers, made safe to show: in a terminal, and in a spreadsheet.

A store, a data set or a sweep file may hold any text. A terminal obeys escape sequences (some write to the clipboard), and a spreadsheet
computes cells that begin a formula.
"""

import unicodedata

_DIRECTIONS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of the text after them, so that it reads as another one."""
_BEYOND_THE_MIDDLE = 1 + 1e-12
_FORMULA = ("=", "+", "-", "@")


def shown_number(value: float) -> str:
    """A setting such as a temperature, as short as it can be told from all others: `4`, `0.1`, `4.0000001`."""
    text = f"{value:g}"
    return text if float(text) == value else repr(value)


def rounded(value: float, digits: int, *, sign: bool = False) -> str:
    """A result with so many decimals. What is in the middle goes away from 0, in whatever order it was computed.

    Otherwise the same mean would be 75.79 in one place and 75.80 in another: `100 * mean(x)` and `mean(100 * x)` differ in the last bit.
    """
    return f"{value * _BEYOND_THE_MIDDLE:{'+' if sign else ''}.{digits}f}"


def control_character(text: str) -> str | None:
    """The first character that no name may hold, as an escape: control characters, line separators and halves of surrogate pairs."""
    found = next((it for it in text if unicodedata.category(it) in ("Cc", "Cs", "Zl", "Zp")), None)
    return None if found is None else _escape(found)


def cleaned(text: str) -> str:
    """The text with escapes in place of what a terminal would obey; line breaks and tabs stay."""
    if text.isascii() and text.isprintable():
        return text
    return "".join(it if it in "\n\t" or not _is_obeyed(it) else _escape(it) for it in text)


def csv_cell(text: str) -> str:
    """The text for a cell of a CSV file. One that begins a formula gets an apostrophe before it, as spreadsheets ask; a number does not."""
    text = cleaned(text)
    return f"'{text}" if text.lstrip().startswith(_FORMULA) and not _is_number(text) else text


def _is_obeyed(character: str) -> bool:
    return character in _DIRECTIONS or control_character(character) is not None


def _escape(character: str) -> str:
    return ascii(character).strip("'")


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
