"""The site in a real browser: no console error, no request to elsewhere, in both widths; and a heat map that fills while a sweep runs.

Needs Chromium, as Debian's package `chromium` installs it, or another one that KD_RAY_CHROMIUM names.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, Request, expect, sync_playwright

from kd_ray.results.query import Results
from tests.processes import started
from tests.sweeps import write_tiny_sweep
from tests.unit.analysis.report.test_page_in_browser import FLAGS, NAMES
from tests.unit.serve.test_pages import TRIAL

# `test_pages.py` and `test_security.py` ask the same pages without a browser, with every `make test`.
pytestmark = pytest.mark.long

PAGES = {
    "sweeps": "/",
    "live": "/sweeps/demo",
    "live by accuracy": "/sweeps/demo?metric=accuracy",
    "conditions": "/sweeps/demo/conditions?metric=demographic_parity_difference&feature=color",
    "differences": "/sweeps/demo/differences",
    "classes": "/sweeps/demo/classes",
    "samples": "/sweeps/demo/samples?condition=5&class=class+1",
    "trial": f"/sweeps/demo/trials/{TRIAL}",
    "compare": "/compare?sweep=demo",
    "sql": "/sql?q=FROM+trials",
}
WIDTHS = {"wide, light": (1280, "light"), "phone, dark": (390, "dark")}


@dataclass
class Opened:
    """A page, and what was heard of it."""

    page: Page
    errors: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@contextmanager
def serving(store: Path) -> Iterator[str]:
    """The URL of a server of its own process, without the slash at its end."""
    with started("serve", "--store", str(store), "--port", "0", cwd=store) as process:
        yield url_of(process)


def url_of(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    match = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert match, line
    return match[0]


@pytest.fixture(scope="module")
def playing() -> Iterator[Any]:
    path = os.environ.get("KD_RAY_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip("no Chromium: install Debian's package `chromium`, or set KD_RAY_CHROMIUM to its path")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, headless=True, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def site(golden: Results) -> Iterator[str]:
    assert golden.store.local_root is not None
    with serving(golden.store.local_root) as url:
        yield url


def open_page(browser: Any, *, width: int = 1280, scheme: str = "light", scripts: bool = True) -> Opened:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, java_script_enabled=scripts
    )
    context.set_default_timeout(60_000)
    opened = Opened(page=context.new_page())

    def note(request: Request) -> None:
        opened.requests.append(request.url)

    opened.page.on("console", lambda message: opened.errors.append(message.text))
    opened.page.on("pageerror", lambda error: opened.errors.append(str(error)))
    opened.page.on("request", note)
    return opened


@pytest.mark.parametrize("width", WIDTHS)
def test_every_page_opens_without_an_error_or_a_foreign_request(playing: Any, site: str, width: str) -> None:
    size, scheme = WIDTHS[width]
    opened = open_page(playing, width=size, scheme=scheme)
    for name, path in PAGES.items():
        opened.page.goto(site + path)
        while "are being prepared" in opened.page.content():
            opened.page.wait_for_event("load")
        expect(opened.page.locator("main")).to_be_visible()
        assert opened.errors == [], name
        assert all(url.startswith(f"{site}/") for url in opened.requests), name
        # Nothing is wider than the screen; what is, scrolls in its own box.
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= size, name
    opened.page.context.close()


def test_charts_tell_by_pointer_and_by_keyboard(playing: Any, site: str) -> None:
    opened = open_page(playing)
    page = opened.page
    page.goto(f"{site}/sweeps/demo/conditions")
    tip = page.locator("#tip")
    point = page.locator(".point").last
    point.hover()
    expect(tip).to_have_text("T=20: mean 65.83 %, sd 3.63, 95 % interval 56.81 to 74.86, n = 3")
    page.mouse.move(0, 0)
    expect(tip).to_be_hidden()
    point.focus()
    expect(tip).to_be_visible()
    page.keyboard.press("Escape")
    expect(tip).to_be_hidden()
    assert page.locator(".dot").count() == 12
    page.context.close()


def test_what_is_chosen_stands_in_the_url(playing: Any, site: str) -> None:
    opened = open_page(playing)
    page = opened.page
    page.goto(f"{site}/sweeps/demo/conditions")
    page.locator("select[name=metric]").select_option("class_accuracy")
    page.wait_for_url("**/conditions?metric=class_accuracy*")
    page.locator("select[name=class]").select_option("class 2")
    page.wait_for_url("**class=class+2*")
    page.get_by_role("link", name="mean").click()
    page.wait_for_url("**sort=mean*")
    assert page.locator("th[aria-sort=ascending]").inner_text().startswith("mean")
    assert page.locator("select[name=class]").input_value() == "class 2"
    assert opened.errors == []
    page.context.close()


def test_pages_can_be_read_and_used_without_scripts(playing: Any, site: str) -> None:
    opened = open_page(playing, scripts=False)
    page = opened.page
    page.goto(f"{site}/sweeps/demo/conditions")
    assert page.locator("svg .point").count() == 4
    page.locator("select[name=metric]").select_option("loss")
    page.get_by_role("button", name="Show").click()
    page.wait_for_url("**metric=loss*")
    page.goto(f"{site}/sql")
    page.get_by_role("button", name="Run").click()
    expect(page.get_by_role("region", name="Answer")).to_contain_text("distilled")
    page.context.close()


def test_heat_map_fills_while_a_sweep_runs_in_another_process(
    playing: Any, trifeature_root: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    store.mkdir()
    sweep = write_tiny_sweep(tmp_path, trifeature_root, "grid.seed=[0,1,2,3]", "training.epochs=6")
    with serving(store) as url:
        opened = open_page(playing)
        page = opened.page
        page.goto(url)
        expect(page.locator("main")).to_contain_text("This store has no sweep yet")
        with started(
            "launch", str(sweep), "--store", str(store), "--runner", "local", cwd=tmp_path, output=tmp_path / "log"
        ):
            # The list of sweeps gets its first line by itself.
            expect(page.get_by_role("link", name="tiny")).to_be_visible(timeout=240_000)
            page.get_by_role("link", name="tiny").click()
            complete = page.locator(".cell.s-complete:not(i)")
            assert page.locator("a.cell").count() == 13
            at_first = complete.count()
            assert at_first < 13
            page.evaluate("window.isTheSame = true")
            expect(page.locator("#part-packs")).to_contain_text("on ", timeout=240_000)
            expect(complete).to_have_count(13, timeout=400_000)
        expect(page.locator("#part-summary")).to_contain_text("13 of 13")
        assert page.evaluate("window.isTheSame") is True
        assert opened.errors == []
        page.context.close()
