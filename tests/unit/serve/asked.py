"""Asks the site of a store, and looks at its answers."""

import asyncio
import html
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from aiohttp import ClientResponse
from aiohttp.test_utils import TestClient, TestServer

from kd_ray.results.store import Store
from kd_ray.serve.app import make_app
from kd_ray.serve.options import ServeOptions
from kd_ray.serve.security import WrongTokens
from kd_ray.serve.sql_process import SqlProcess

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A request."""

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    method: str = "GET"
    data: Mapping[str, str] | None = None


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def words(self) -> str:
        """What a reader sees: without tags, in one line."""
        return " ".join(html.unescape(re.sub(r"<[^>]*>", " ", self.text)).split())


def with_client(
    store: Store,
    do: Callable[[Any], Awaitable[T]],
    *,
    options: ServeOptions | None = None,
    wrong: WrongTokens | None = None,
    sql: SqlProcess | None = None,
) -> T:
    """Run something against the site of a store. No cookie is kept, and no redirect followed."""

    async def run() -> T:
        # On a busy machine the first query may take longer than a reader would wait.
        patient = sql or SqlProcess(store.url, time_limit_s=300.0)
        app = make_app(store, options or ServeOptions(), wrong=wrong, sql=patient)
        async with TestClient(TestServer(app)) as client:
            return await do(client)

    return asyncio.run(run())


async def answer_to(client: Any, asked: Asked | str) -> Answer:
    """One answer, whole; a page that says that it is being prepared is asked for again."""
    it = Asked(path=asked) if isinstance(asked, str) else asked
    while True:
        client.session.cookie_jar.clear()
        response: ClientResponse
        async with client.request(
            it.method, it.path, headers=it.headers, data=it.data, allow_redirects=False
        ) as response:
            answer = Answer(status=response.status, text=await response.text(), headers=dict(response.headers))
        if "are being prepared" not in answer.text and "being made" not in answer.text:
            return answer


def ask(store: Store, *asked: Asked | str, **settings: Any) -> list[Answer]:
    """The answers to some requests, in order."""

    async def do(client: Any) -> list[Answer]:
        return [await answer_to(client, it) for it in asked]

    return with_client(store, do, **settings)
