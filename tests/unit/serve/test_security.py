"""What strangers try, and what they get."""

import logging
import re
from pathlib import Path
from typing import Any

import pytest

from kd_ray.errors import InvalidInputError
from kd_ray.results.query import Results
from kd_ray.serve.options import ServeOptions
from kd_ray.serve.render import Templates
from kd_ray.serve.security import COOKIE, MAX_WRONG, MAX_WRONG_OF_ALL, WINDOW_S, WrongTokens
from tests.unit.serve.asked import Answer, Asked, answer_to, ask, with_client

TOKEN = "correct-horse-battery-staple"
CLOSED = ServeOptions(token=TOKEN)


@pytest.mark.slow
def test_every_answer_has_the_headers(golden: Results) -> None:
    paths = ("/", "/sweeps/demo", "/sweeps/none", "/nothing", "/static/site.css", "/sweeps/demo/conditions.csv")
    for answer in ask(golden.store, *paths, Asked(path="/", headers={"Host": "evil.example"})):
        policy = answer.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert answer.headers["Cross-Origin-Resource-Policy"] == "same-origin"
        assert "Access-Control-Allow-Origin" not in answer.headers
        assert "aiohttp" not in answer.headers["Server"]


@pytest.mark.slow
def test_no_page_has_a_script_or_a_style_of_its_own(golden: Results) -> None:
    paths = ("", "/conditions", "/differences", "/classes", "/trials/fa67139ca837fa94")
    for answer in ask(golden.store, "/", "/sql", "/compare?sweep=demo", *(f"/sweeps/demo{path}" for path in paths)):
        assert not re.search(r"<script(?! src=)|<style|\sstyle=|\son\w+=|javascript:", answer.text)
        assert not re.search(r"(src|href|action)=\"(https?:)?//", answer.text)


# --- where it listens -----------------------------------------------------------------------------------------------------------------


def test_another_address_needs_a_token() -> None:
    with pytest.raises(InvalidInputError, match=r"--host 0\.0\.0\.0: everybody who reaches this address could read"):
        ServeOptions(host="0.0.0.0")
    with pytest.raises(InvalidInputError, match=r"--host ::: everybody"):
        ServeOptions(host="::")
    assert ServeOptions(host="0.0.0.0", token=TOKEN).token == TOKEN
    assert ServeOptions(host="::1").is_loopback


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"token": "short"}, "it has 5 characters; expected 16 or more"),
        ({"port": 70_000}, "--port 70000"),
        ({"root_path": "kd-ray"}, "--root-path kd-ray: expected a path such as /kd-ray"),
        ({"root_path": "/kd-ray/"}, "without / at its end"),
    ],
)
def test_options_that_cannot_be(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidInputError, match=message):
        ServeOptions(**settings)


# --- Host and Origin ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "host", "is_accepted"),
    [
        (ServeOptions(), "127.0.0.1:8080", True),
        (ServeOptions(), "localhost:8080", True),
        (ServeOptions(), "[::1]:8080", True),
        (ServeOptions(), "LOCALHOST", True),
        (ServeOptions(), "evil.example:8080", False),
        (ServeOptions(), "127.0.0.1.evil.example", False),
        (ServeOptions(), "localhost.evil.example:8080", False),
        (ServeOptions(), "10.0.0.7:8080", False),
        (ServeOptions(), "", False),
        (ServeOptions(allowed_hosts=("sweeps.lab.example",)), "sweeps.lab.example", True),
        (ServeOptions(host="0.0.0.0", token=TOKEN), "10.0.0.7:8080", True),
        (ServeOptions(host="0.0.0.0", token=TOKEN), "evil.example:8080", False),
        (ServeOptions(host="10.0.0.7", token=TOKEN), "10.0.0.7:8080", True),
        (ServeOptions(host="10.0.0.7", token=TOKEN), "10.0.0.8:8080", False),
    ],
)
def test_hosts(options: ServeOptions, host: str, is_accepted: bool) -> None:
    assert options.accepts_host(host) is is_accepted


def test_dns_rebinding_is_refused(golden: Results) -> None:
    (answer,) = ask(golden.store, Asked(path="/sweeps/demo", headers={"Host": "evil.example:8080"}))
    assert answer.status == 421
    assert "demo" not in answer.text


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:1"},
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
    ],
)
@pytest.mark.parametrize("path", ["/sweeps/demo/conditions.csv", "/sweeps/demo/events", "/sql?q=FROM+trials"])
def test_pages_of_other_sites_read_nothing(golden: Results, headers: dict[str, str], path: str) -> None:
    (answer,) = ask(golden.store, Asked(path=path, headers=headers))
    assert answer.status == 403
    assert "Pages of other sites cannot read this one." in answer.words


def test_links_of_other_sites_lead_here(golden: Results) -> None:
    headers = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    (answer,) = ask(golden.store, Asked(path="/sweeps/demo", headers=headers))
    assert answer.status == 200


def test_the_site_can_only_be_read(golden: Results) -> None:
    methods = ("POST", "PUT", "DELETE", "PATCH", "OPTIONS")
    answers = ask(golden.store, *(Asked(path="/sweeps/demo", method=method) for method in methods))
    assert [answer.status for answer in answers] == [405] * 5


# --- the token ------------------------------------------------------------------------------------------------------------------------


def test_without_the_token_nothing_is_told(golden: Results) -> None:
    paths = ("/", "/sweeps/demo", "/sweeps/none", "/sql?q=FROM+trials", "/events", "/sweeps/demo/conditions.csv")
    for answer in ask(golden.store, *paths, options=CLOSED):
        assert answer.status == 401
        assert "demo" not in answer.text.replace("/sweeps/demo", "")
        assert "This site asks for its token" in answer.words


def test_first_visit_leaves_a_cookie_and_takes_the_token_out_of_the_url(golden: Results) -> None:
    async def do(client: Any) -> tuple[Answer, Answer, Answer]:
        first = await answer_to(client, f"/sweeps/demo?metric=accuracy&token={TOKEN}")
        cookie = first.headers["Set-Cookie"].partition(";")[0]
        second = await answer_to(client, Asked(path=first.headers["Location"], headers={"Cookie": cookie}))
        wrong = await answer_to(client, Asked(path="/", headers={"Cookie": f"{COOKIE}=0123"}))
        return first, second, wrong

    first, second, wrong = with_client(golden.store, do, options=CLOSED)
    assert first.status == 303
    assert first.headers["Location"] == "/sweeps/demo?metric=accuracy"
    for flag in ("HttpOnly", "SameSite=Lax", "Path=/"):
        assert flag in first.headers["Set-Cookie"]
    assert TOKEN not in str(first.headers)
    assert second.status == 200
    assert TOKEN not in second.text
    assert wrong.status == 401


def test_token_by_form_and_by_header(golden: Results) -> None:
    form, bearer, wrong = ask(
        golden.store,
        Asked(path="/login", method="POST", data={"token": TOKEN}),
        Asked(path="/", headers={"Authorization": f"Bearer {TOKEN}"}),
        Asked(path="/login", method="POST", data={"token": "wrong"}),
        options=CLOSED,
    )
    assert (form.status, form.headers["Location"]) == (303, "/")
    assert COOKIE in form.headers["Set-Cookie"]
    assert bearer.status == 200
    assert wrong.status == 401
    assert "This is not the token." in wrong.words


def test_cookie_is_secure_behind_https(golden: Results) -> None:
    (answer,) = ask(
        golden.store, Asked(path=f"/?token={TOKEN}", headers={"X-Forwarded-Proto": "https"}), options=CLOSED
    )
    assert "Secure" in answer.headers["Set-Cookie"]


def test_wrong_tokens_at_rate_are_refused(golden: Results) -> None:
    now = 0.0
    wrong = WrongTokens(clock=lambda: now)

    async def do(client: Any) -> tuple[list[int], Answer, int, int]:
        nonlocal now
        cookie = (await answer_to(client, f"/?token={TOKEN}")).headers["Set-Cookie"].partition(";")[0]
        tried = [(await answer_to(client, f"/?token=guess-{i}")).status for i in range(MAX_WRONG)]
        # Not even the right one is looked at now, so that nobody learns whether a guess was right.
        late = await answer_to(client, f"/?token={TOKEN}")
        known = await answer_to(client, Asked(path="/", headers={"Cookie": cookie}))
        now = WINDOW_S + 1
        later = await answer_to(client, f"/?token={TOKEN}")
        return tried, late, known.status, later.status

    tried, late, known, later = with_client(golden.store, do, options=CLOSED, wrong=wrong)
    assert tried == [401] * MAX_WRONG
    assert late.status == 429
    assert 1 <= int(late.headers["Retry-After"]) <= WINDOW_S
    assert known == 200
    assert later == 303


def test_wrong_tokens_from_many_addresses_are_refused() -> None:
    wrong = WrongTokens(clock=lambda: 0.0)
    for i in range(MAX_WRONG_OF_ALL):
        assert wrong.wait_s(f"10.0.0.{i}") == 0
        wrong.add(f"10.0.0.{i}")
    assert wrong.wait_s("10.1.0.1") == WINDOW_S


def test_token_is_not_logged(golden: Results, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        ask(golden.store, f"/?token={TOKEN}", "/?token=another-wrong-guess", options=CLOSED)
    assert "token" not in "".join(it.getMessage() for it in caplog.records if not it.name.startswith("asyncio"))


# --- paths and names ------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    [
        "/static/../site.py",
        "/static/..%2fsite.py",
        "/static/%2e%2e/site.py",
        "/static//etc/passwd",
        "/sweeps/..%2f..%2fetc/conditions",
        "/sweeps/demo'%20OR%20'1'='1",
        "/sweeps/demo/trials/..%2f..%2f..%2f",
        "/sweeps/demo/trials/0123",
        "/sweeps/%00",
        "/%2e%2e/%2e%2e/etc/passwd",
    ],
)
def test_path_traversal_finds_nothing(golden: Results, path: str) -> None:
    from yarl import URL

    async def do(client: Any) -> tuple[int, str]:
        async with client.get(URL(path, encoded=True)) as response:
            return response.status, await response.text()

    status, text = with_client(golden.store, do)
    assert status == 404
    assert "import" not in text
    assert "root:" not in text


@pytest.mark.slow
def test_hostile_names_stay_text(hostile: Results) -> None:
    script = "<script>alert(1)</script>"
    pages = ask(
        hostile.store,
        "/sweeps/demo?metric=class_accuracy",
        "/sweeps/demo/conditions?metric=class_accuracy",
        "/sweeps/demo/conditions?metric=group_accuracy",
        "/sweeps/demo/differences",
        "/sweeps/demo/classes",
        "/sweeps/demo/samples?condition=0&class=%3Cscript%3Ealert(1)%3C/script%3E",
        "/sql?q=SELECT+class_name+FROM+class_metrics",
        "/compare?sweep=demo",
    )
    assert [page.status for page in pages] == [200] * len(pages)
    assert sum("&lt;script&gt;alert(1)" in page.text for page in pages) >= 6
    for page in pages:
        assert script not in page.text
        assert page.text.count("<script") == 1


@pytest.mark.slow
def test_what_a_url_asks_stays_text(golden: Results) -> None:
    attack = "%22%3E%3Cscript%3Ealert(1)%3C/script%3E"
    paths = (
        f"/?words={attack}",
        f"/sql?q={attack}",
        f"/sweeps/demo?metric={attack}&x={attack}",
        f"/compare?sweep={attack}",
    )
    for page in ask(golden.store, *paths, f"/sweeps/{attack}", f"/sweeps/demo/conditions?sort=n&x={attack}"):
        assert "<script>alert" not in page.text


def test_sweep_with_html_in_its_name_is_no_sweep(tmp_path: Path, golden: Results) -> None:
    import shutil

    from kd_ray.results.store import open_store

    shutil.copytree(golden.store.local_root or "", tmp_path / "copy")
    shutil.copytree(tmp_path / "copy/sweeps/demo", tmp_path / "copy/sweeps/<script>alert(1)<")
    page, other = ask(open_store(tmp_path / "copy"), "/", "/sweeps/%3Cscript%3Ealert(1)%3C")
    assert "<script>alert" not in page.text
    assert "demo" in page.words
    assert other.status == 404


# --- behind a proxy -------------------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_links_have_the_root_path_whether_the_proxy_takes_it_away_or_not(golden: Results) -> None:
    options = ServeOptions(root_path="/kd-ray", allowed_hosts=("lab.example",))
    host = {"Host": "lab.example"}
    paths = ("/", "/kd-ray/", "/kd-ray", "/kd-ray/sweeps/demo", "/sweeps/demo", "/kd-ray/static/site.js")
    answers = ask(golden.store, *(Asked(path=path, headers=host) for path in paths), options=options)
    assert [answer.status for answer in answers] == [200] * 6
    for answer in answers[:5]:
        links = re.findall(r'(?:href|src|data-events|action)="(/[^"]*)"', answer.text)
        assert len(links) > 5
        assert all(link.startswith("/kd-ray/") for link in links)


def test_cookie_holds_for_the_root_path(golden: Results) -> None:
    (answer,) = ask(
        golden.store,
        f"/kd-ray/sweeps/demo?token={TOKEN}",
        options=ServeOptions(root_path="/kd-ray", token=TOKEN),
    )
    assert answer.headers["Location"] == "/kd-ray/sweeps/demo"
    assert "Path=/kd-ray" in answer.headers["Set-Cookie"]


def test_links_keep_what_is_chosen() -> None:
    url = Templates("/x").url
    assert url("/a", {"metric": "loss", "sort": "n"}, sort="mean", down=True) == "/x/a?metric=loss&sort=mean&down=1"
    assert url("/a", {"metric": "loss", "down": "1"}, down=False) == "/x/a?metric=loss"
    assert url("/a", q='"><b>&') == "/x/a?q=%22%3E%3Cb%3E%26"
