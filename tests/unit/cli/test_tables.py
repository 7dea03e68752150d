"""Tables fit the terminal, and files get them whole."""

import pytest
from rich.table import Table

from kd_ray.cli.tables import render, table_of
from kd_ray.errors import count_of

LONG = "held by process 12 on a host; waits for its teacher"


def table(*rows: list[str]) -> Table:
    made = table_of(["trial_id", "n", "why"], right=[1])
    for row in rows:
        made.add_row(*row)
    return made


def test_a_table_that_fits_has_one_line_per_row() -> None:
    assert render(table(["ab", "1", "never run"], ["c", "20", LONG]), width=80).splitlines() == [
        "trial_id   n  why",
        "ab         1  never run",
        f"c         20  {LONG}",
    ]


def test_a_file_gets_rows_of_any_length() -> None:
    """Pytest's stdout is no terminal."""
    assert len(render(table(["ab", "1", LONG * 20])).splitlines()) == 2


def test_words_are_wrapped_where_the_terminal_is_too_narrow() -> None:
    lines = render(table(["ab", "1", LONG]), width=40).splitlines()
    assert all(len(line) <= 40 for line in lines)
    assert lines[1].startswith("ab        1  held by process")
    assert " ".join(line[14:].strip() for line in lines[1:]).replace("  ", " ").split()[-1] == "teacher"


def test_a_table_of_too_many_columns_becomes_a_block_per_row() -> None:
    wide = table_of([f"column_{i}" for i in range(30)], right=range(30))
    for start in (0, 100):
        wide.add_row(*(str(start + i) for i in range(30)))
    blocks = render(wide, width=80).split("\n\n")
    assert len(blocks) == 2
    assert blocks[0].splitlines()[0] == "column_0   0"
    assert blocks[1].splitlines()[-1] == "column_29  129"
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 80


@pytest.mark.parametrize(("number", "expected"), [(0, "0 rows"), (1, "1 row"), (2, "2 rows"), (12_000, "12,000 rows")])
def test_one_thing_is_not_many(number: int, expected: str) -> None:
    assert count_of(number, "row") == expected
