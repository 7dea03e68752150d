"""What MkDocs does besides turning `docs/*.md` into pages: pages from other folders, and reference pages from the code.

README, changes, sweeps, benchmarks and `docker/` stay where a reader of the repository looks for them. Links between files are
written for the repository; here they become links between pages, so that `mkdocs build --strict` checks them all.
"""

import os
import posixpath
import re
from pathlib import Path

import reference
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {
    "README.md": "index.md",
    "CHANGELOG.md": "changes.md",
    "sweeps/README.md": "sweeps.md",
    "tests/benchmarks/README.md": "benchmarks.md",
    **{f"docker/{path.name}": f"docker/{path.name}" for path in sorted((ROOT / "docker").glob("*.md"))},
}
"""Files of the repository outside `docs/`, and the pages that they become."""
_HERE = {page: file for file, page in ELSEWHERE.items()}
_LINK = re.compile(r"\]\(([^)\s:#]+)(#[^)\s]*)?\)")
_MARK = re.compile(r"^<!-- generated: (\w+) -->$", re.MULTILINE)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages from other folders."""
    for file, page in ELSEWHERE.items():
        files.append(File.generated(config, page, content=(ROOT / file).read_text()))
    return files


def on_page_markdown(markdown: str, page: Page, **_: object) -> str:
    """Fill a reference page, and turn links between files into links between pages."""
    uri = page.file.src_uri
    markdown = _MARK.sub(lambda found: getattr(reference, found[1])(), markdown)
    return "".join(
        part if is_code else _LINK.sub(lambda found: f"]({_to_page(found[1], uri)}{found[2] or ''})", part)
        for part, is_code in _parts(markdown)
    )


def _parts(markdown: str) -> list[tuple[str, bool]]:
    """The text in pieces, each with whether it is a block of code."""
    pieces = re.split(r"(^ *```.*?^ *```$)", markdown, flags=re.DOTALL | re.MULTILINE)
    return [(piece, number % 2 == 1) for number, piece in enumerate(pieces)]


def _to_page(link: str, uri: str) -> str:
    """The page of a file that a page links to. A file that is no page stays as it is, and MkDocs refuses it if it is not there."""
    file = posixpath.normpath(posixpath.join(posixpath.dirname(_HERE.get(uri, f"docs/{uri}")), link))
    target = ELSEWHERE.get(file, file.removeprefix("docs/"))
    return os.path.relpath(target, posixpath.dirname(uri) or ".")
