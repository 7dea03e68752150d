"""The words of the report that the golden records must give: `python -m tests.golden.make_report` makes `report.txt` anew.

It holds every text of the page in its order: title, verdict, captions, heads and cells of tables, not the drawings. Only a change that is
meant to move words or numbers is a reason to make it anew.
"""

import tempfile
from html.parser import HTMLParser
from pathlib import Path

from kd_ray.analysis.report.build import make_report
from tests.golden.make import FOLDER, golden_results

TEXT = FOLDER / "report.txt"
_BLOCKS = frozenset(("title", "h1", "h2", "h3", "p", "li", "figcaption", "pre", "tr", "dt", "dd"))
_SKIPPED = frozenset(("style", "script", "svg"))


class _Words(HTMLParser):
    """Collects a line for each block, cells of a row separated by bars."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []
        self._line: list[str] = []
        self._skipping = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._skipping += tag in _SKIPPED
        if tag in _BLOCKS:
            self.end_line()
        elif tag in ("td", "th") and self._line:
            self._line.append("|")

    def handle_endtag(self, tag: str) -> None:
        self._skipping -= tag in _SKIPPED
        if tag in _BLOCKS:
            self.end_line()

    def handle_data(self, data: str) -> None:
        if not self._skipping:
            self._line += data.split()

    def end_line(self) -> None:
        if self._line:
            self.lines.append(" ".join(self._line))
        self._line = []


def words(html: str) -> str:
    """The text of a page, block by block."""
    parser = _Words()
    parser.feed(html)
    parser.end_line()
    return "\n".join(parser.lines) + "\n"


def main() -> None:
    """Make what is committed."""
    with tempfile.TemporaryDirectory() as folder:
        page = make_report(golden_results(Path(folder)), "demo")["index.html"]
    TEXT.write_text(words(page.decode()), encoding="utf-8")


if __name__ == "__main__":
    main()
