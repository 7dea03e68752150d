"""The page in a real browser: no error, no request, everything drawn, tables that work, phone, print.

Needs Chromium, as Debian's package `chromium` installs it, or another one that KD_RAY_CHROMIUM names.
"""

import io
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Dialog, Page, Route, expect, sync_playwright

pytestmark = pytest.mark.slow

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)


@dataclass
class Opened:
    """A page, and what was heard of it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    path = os.environ.get("KD_RAY_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium: install Debian's package `chromium`, or set KD_RAY_CHROMIUM to its path")
    with sync_playwright() as playwright:
        context = playwright.chromium.launch_persistent_context(
            tmp_path_factory.mktemp("profile"), executable_path=path, headless=True, args=FLAGS
        )
        yield context
        context.close()


@pytest.fixture(scope="module", params=["golden_files", pytest.param("hostile_files", marks=pytest.mark.long)])
def opened(request: pytest.FixtureRequest, browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    path: Path = tmp_path_factory.mktemp("page") / "index.html"
    path.write_bytes(request.getfixturevalue(request.param)["index.html"])
    opened = Opened(page=browser.new_page())

    def route(route: Route) -> None:
        opened.requests.append(route.request.url)
        if route.request.url == path.as_uri():
            route.continue_()
        else:
            route.abort()

    def dismiss(dialog: Dialog) -> None:
        opened.errors.append(dialog.message)
        dialog.dismiss()

    opened.page.on("console", lambda message: opened.errors.append(message.text))
    opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.page.on("dialog", dismiss)
    opened.page.route("**/*", route)
    opened.page.set_viewport_size({"width": 1200, "height": 900})
    opened.page.goto(path.as_uri())
    yield opened
    opened.page.close()


def column(page: Page, table: str, number: int) -> list[str]:
    """The shown cells of a column."""
    script = "(rows, i) => rows.filter(row => !row.hidden).map(row => row.cells[i].textContent)"
    return list(page.locator(f"#data-{table} tbody tr").evaluate_all(script, number))


def test_page_opens_without_an_error_or_a_request(opened: Opened) -> None:
    assert opened.errors == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [opened.page.url]


def test_every_figure_is_drawn_and_has_a_text_alternative(opened: Opened) -> None:
    boxes = opened.page.locator("figure svg").evaluate_all(
        "all => all.map(svg => { const box = svg.getBBox(); return [box.width, box.height, svg.getBoundingClientRect().width]; })"
    )
    assert len(boxes) > 5
    assert all(min(box) > 100 for box in boxes)
    labels = opened.page.locator("figure [role=img]").evaluate_all(
        "all => all.map(it => it.getAttribute('aria-label'))"
    )
    assert len(labels) == len(boxes)
    assert all("n\u00a0=\u00a0" in label for label in labels)


def test_table_sorts_by_keyboard(opened: Opened) -> None:
    page = opened.page
    head = page.locator("#data-conditions thead th").nth(3)
    before = column(page, "conditions", 3)
    head.locator("button").focus()
    for order, expected in (
        ("ascending", sorted(before)),
        ("descending", sorted(before, reverse=True)),
        (None, before),
    ):
        page.keyboard.press("Enter")
        assert head.get_attribute("aria-sort") == order
        assert [float(cell.split()[0]) for cell in column(page, "conditions", 3)] == [
            float(cell.split()[0]) for cell in expected
        ]


def test_what_is_undefined_stays_last_when_sorted(opened: Opened) -> None:
    page = opened.page
    titles = page.locator("#data-fairness-tests thead th").all_text_contents()
    if "label DPD" not in titles:
        pytest.skip("this sweep tested nothing")
    number = titles.index("label DPD")
    button = page.locator("#data-fairness-tests thead th").nth(number).locator("button")
    for _ in range(2):
        button.click()
        cells = column(page, "fairness-tests", number)
        first = cells.index("–")
        assert first > 0
        assert set(cells[first:]) == {"–"}
    button.click()


def test_table_filters_by_words(opened: Opened) -> None:
    page = opened.page
    rows = page.locator("#data-group-fairness tbody tr").count()
    field = page.locator("input[data-table=data-group-fairness]")
    field.fill("t=4 COLOR")
    assert set(column(page, "group-fairness", 2)) == {"T=4"}
    assert set(column(page, "group-fairness", 0)) == {"color", "color & texture"}
    assert page.locator("#table-group-fairness output").text_content() == f"2 of {rows} rows"
    field.fill("")
    assert len(column(page, "group-fairness", 2)) == rows


def test_verdict_table_and_figure_are_on_the_first_screen(opened: Opened) -> None:
    page = opened.page
    page.set_viewport_size({"width": 1280, "height": 800})
    page.evaluate("window.scrollTo(0, 0)")
    for name in ("#figure-overview svg", "#data-overview", ".verdict dt >> nth=-1"):
        box = page.locator(name).bounding_box()
        assert box is not None
        assert box["y"] >= 0
        assert box["y"] + box["height"] <= 800, name
    page.set_viewport_size({"width": 1200, "height": 900})


def test_wide_table_shows_that_it_scrolls_and_does_so_by_keyboard(opened: Opened) -> None:
    page = opened.page
    page.set_viewport_size({"width": 390, "height": 844})
    table = page.locator("#table-conditions")
    edge, box = table.locator(".edge"), table.locator(".box")
    expect(table.locator(".scrolls")).to_be_visible()
    expect(edge).to_have_class("edge more-right")
    box.focus()
    page.keyboard.press("ArrowRight")
    expect(edge).to_have_class("edge more-right more-left")
    box.evaluate("it => { it.scrollLeft = it.scrollWidth; }")
    expect(edge).to_have_class("edge more-left")
    box.evaluate("it => { it.scrollLeft = 0; }")
    page.set_viewport_size({"width": 1200, "height": 900})


def test_phone_shows_all_without_sideways_scrolling(opened: Opened) -> None:
    opened.page.set_viewport_size({"width": 390, "height": 844})
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= 390
    wide = opened.page.locator(".box").evaluate_all("all => all.filter(it => it.scrollWidth > it.clientWidth).length")
    assert wide > 0
    opened.page.set_viewport_size({"width": 1200, "height": 900})


@pytest.mark.long
def test_page_prints(opened: Opened) -> None:
    from pypdf import PdfReader

    pdf = PdfReader(io.BytesIO(opened.page.pdf(format="A4")))
    text = " ".join(" ".join(sheet.extract_text() for sheet in pdf.pages).split())
    assert 3 <= len(pdf.pages) < 60
    assert "What the sweep shows" in text
    assert "Table 1. The conditions." in text
