"""From a request to a page: what the URL asks for, what is read, which template shows it."""

import asyncio
import contextlib
import math
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from aiohttp import web

from kd_ray.errors import InvalidInputError, KdRayError, QueryError
from kd_ray.serve.kept import FRESH_S, Shared
from kd_ray.serve.page_data import Read, Reading
from kd_ray.serve.pages import sweeps_page
from kd_ray.serve.render import Templates, event
from kd_ray.serve.security import secure
from kd_ray.serve.snapshot import SweepNow
from kd_ray.serve.sql_process import SqlProcess

if TYPE_CHECKING:
    from kd_ray.serve.quantities import Chosen

STOPPING = web.AppKey("stopping", asyncio.Event)
"""Set when the server ends, so that streams of events end as well."""
MAX_STREAMS = 200
"""Streams of events at a time."""
MOST_PAGES = 100
"""Pages that are held for the next reader; one has at most some hundred kB."""
PING_S = 15.0
"""A stream with nothing to say says so this often, so that a proxy keeps it."""

Change = tuple[Mapping[str, Any], Mapping[str, str]]
"""Cells of a heat map by trial_id, and parts of a page by name, as they are now."""


class Site:
    """The handlers."""

    def __init__(self, *, reading: Reading, templates: Templates, sql: SqlProcess) -> None:
        self.reading = reading
        self.sql = sql
        self._templates = templates
        self._num_streams = 0
        self._pages: Shared[str] = Shared(most=MOST_PAGES)
        self._changes: Shared[Change] = Shared(most=MOST_PAGES)

    async def warm(self) -> None:
        """Have ready what the first reader would wait for."""
        await asyncio.to_thread(self._templates.compile)
        with contextlib.suppress(KdRayError):
            await self.reading.snapshot()
        await asyncio.to_thread(_import_pages)
        with contextlib.suppress(KdRayError):
            sweeps = (await self.reading.snapshot()).sweeps.values()
            changed = [(it.changed_at, it.name) for it in sweeps if it.changed_at]
            if changed:
                await self.reading.read(max(changed)[1])
        await asyncio.to_thread(self._templates.compile, self._templates.names())
        await self.sql.start()

    # --- pages ------------------------------------------------------------------------------------------------------------------------

    async def sweeps(self, request: web.Request) -> web.StreamResponse:
        """The sweeps of the store."""
        return self._page("sweeps", request, title="Sweeps", tab="", sweep="", **await self._sweeps_values(request))

    async def live(self, request: web.Request) -> web.StreamResponse:
        """One sweep while it runs."""
        name = request.match_info["sweep"]
        now, read = await self.reading.sweep(name), await self.reading.read_if_any(name)

        def view() -> Mapping[str, Any]:
            return {"title": name, "tab": "live", "sweep": name, **_live_values(now, read, request.query)}

        # It says how long ago something was.
        return await self._shared("live", request, (now, read), view, lasts_s=FRESH_S)

    async def conditions(self, request: web.Request) -> web.StreamResponse:
        """Every metric against any axis."""
        from kd_ray.serve.pages import conditions_page

        name, query = request.match_info["sweep"], request.query
        read = await self.reading.read(name)
        axis, sort, is_down = query.get("axis", ""), query.get("sort", ""), "down" in query

        def view() -> Mapping[str, Any]:
            values = conditions_page.view(read, _chosen(query), axis=axis, sort=sort, is_down=is_down)
            return {"title": f"{name}: conditions", "tab": "conditions", "sweep": name, **values}

        return await self._shared("conditions", request, (read,), view)

    async def conditions_csv(self, request: web.Request) -> web.StreamResponse:
        """The same numbers, by run."""
        from kd_ray.serve.pages import conditions_page

        read = await self.reading.read(request.match_info["sweep"])
        text = await asyncio.to_thread(conditions_page.to_csv, read, _chosen(request.query))
        return _csv(text, f"{read.study.sweep}-conditions")

    async def differences(self, request: web.Request) -> web.StreamResponse:
        """Which differences are real."""
        from kd_ray.serve.pages import differences_page

        name, query = request.match_info["sweep"], request.query
        read = await self.reading.read(name)
        found = await self.reading.findings(read)
        if found is None:
            return self._page("wait", request, title=f"{name}: differences", tab="differences", sweep=name)

        def view() -> Mapping[str, Any]:
            values = differences_page.view(
                read,
                found,
                analysis=query.get("analysis", ""),
                against=query.get("against", ""),
                correction=query.get("correction", "report"),
                only=query.get("only", ""),
                sort=query.get("sort", ""),
                is_down="down" in query,
            )
            return {"title": f"{name}: differences", "tab": "differences", **values}

        return await self._shared("differences", request, (read, found), view)

    async def differences_csv(self, request: web.Request) -> web.StreamResponse:
        """All tests."""
        from kd_ray.serve.pages import differences_page

        read, query = await self.reading.read(request.match_info["sweep"]), request.query
        found = await self.reading.findings(read)
        if found is None:
            raise InvalidInputError("The comparison is being made; ask again in a minute.")
        correction = query.get("correction", "report")

        def text() -> str:
            return differences_page.to_csv(
                found,
                analysis=query.get("analysis", ""),
                against=query.get("against", ""),
                correction=correction if correction in differences_page.CORRECTIONS else "report",
            )

        return _csv(await asyncio.to_thread(text), f"{read.study.sweep}-differences")

    async def classes(self, request: web.Request) -> web.StreamResponse:
        """Classes and groups."""
        from kd_ray.serve.pages import classes_page

        name, query = request.match_info["sweep"], request.query
        read = await self.reading.read(name)
        options = {
            "contrast": query.get("against", ""),
            "feature": query.get("feature", ""),
            "sort": query.get("sort", ""),
            "settings": query.get("settings", ""),
        }
        found = await self.reading.findings(read)

        def view() -> Mapping[str, Any]:
            values = classes_page.view(read, found, **options)
            return {"title": f"{name}: classes and groups", "tab": "classes", "sweep": name, **values}

        return await self._shared("classes", request, (read, found), view)

    async def samples(self, request: web.Request) -> web.StreamResponse:
        """The samples behind a class or a group."""
        from kd_ray.serve.pages import classes_page

        name, query = request.match_info["sweep"], request.query
        read = await self.reading.read(name)

        def view() -> Mapping[str, Any]:
            values = classes_page.samples(
                read,
                condition=_number(query, "condition"),
                class_name=query.get("class", ""),
                feature=query.get("feature", ""),
                group=query.get("group", ""),
            )
            return {"title": f"{name}: samples", "tab": "classes", "sweep": name, **values}

        return await self._shared("samples", request, (read,), view)

    async def trial(self, request: web.Request) -> web.StreamResponse:
        """One trial."""
        from kd_ray.serve.pages import trial_page

        name, trial_id = request.match_info["sweep"], request.match_info["trial_id"]
        now, read = await self.reading.sweep(name), await self.reading.read_if_any(name)

        def view() -> Mapping[str, Any]:
            values = trial_page.view(now, read, trial_id)
            return {"title": f"{name}: trial {trial_id}", "tab": "trial", "sweep": name, **values}

        return await self._shared("trial", request, (now, read), view)

    async def compare(self, request: web.Request) -> web.StreamResponse:
        """Sweeps side by side."""
        from kd_ray.serve.pages import compare_page

        snapshot, query = await self.reading.snapshot(), request.query
        names = list(dict.fromkeys(query.getall("sweep", [])))[: compare_page.MAX_SWEEPS]
        reads: list[Read] = []
        problems: list[str] = []
        for name in names:
            try:
                reads.append(await self.reading.read(name))
            except InvalidInputError as error:
                problems.append(str(error))

        def view() -> Mapping[str, Any]:
            return {
                "title": "Compare sweeps",
                "tab": "compare",
                "sweep": "",
                "names": [name for name, now in snapshot.sweeps.items() if now.counts["complete"]],
                "shown": [read.study.sweep for read in reads],
                "problems": problems,
                "max_sweeps": compare_page.MAX_SWEEPS,
                **compare_page.view(reads, _chosen(query), axis=query.get("axis", "")),
            }

        return await self._shared("compare", request, (snapshot, *reads), view)

    async def sql_page(self, request: web.Request) -> web.StreamResponse:
        """SQL over the tables."""
        from kd_ray.serve.pages import sql_page

        sql = request.query.get("q", "").strip()
        found, error, began = None, "", time.monotonic()
        if sql:
            try:
                found = await self.sql.answer(sql, max_rows=sql_page.MAX_ROWS)
            except QueryError as refused:
                error = str(refused)
        elapsed_s = time.monotonic() - began
        values = await asyncio.to_thread(
            sql_page.view, sql, found, error, elapsed_s=elapsed_s, time_limit_s=self.sql.time_limit_s
        )
        return self._page("sql", request, title="SQL", tab="sql", sweep="", status=400 if error else 200, **values)

    async def sql_csv(self, request: web.Request) -> web.StreamResponse:
        """The same answer, as a file."""
        from kd_ray.serve.pages import sql_page

        found = await self.sql.answer(request.query.get("q", ""), max_rows=sql_page.MAX_CSV_ROWS)
        return _csv(await asyncio.to_thread(sql_page.to_csv, found), "query")

    # --- streams ----------------------------------------------------------------------------------------------------------------------

    async def sweeps_events(self, request: web.Request) -> web.StreamResponse:
        """The list of sweeps, whenever it changes."""

        async def now() -> Change:
            values = {**await self._sweeps_values(request), "query": dict(request.query)}
            return {}, {"sweeps": self._templates.part("parts", "sweeps", values)}

        return await self._stream(request, now)

    async def live_events(self, request: web.Request) -> web.StreamResponse:
        """Cells and parts of a running sweep, whenever they change."""

        async def change() -> Change:
            name = request.match_info["sweep"]
            now, read = await self.reading.sweep(name), await self.reading.read_if_any(name)

            def make() -> Change:
                values = {**_live_values(now, read, request.query), "query": dict(request.query)}
                cells = {it.trial_id: (it.css, it.sign, it.words) for it in values["cells"].values()}
                names = ("summary", "packs", "failures", "costs", "legend")
                return cells, {name: self._templates.part("live_parts", name, values) for name in names}

            return await self._changes.get(request.path_qs, (now, read), make)

        return await self._stream(request, change)

    async def _stream(self, request: web.Request, now: Callable[[], Awaitable[Change]]) -> web.StreamResponse:
        """Send what has changed since the last time, until the reader goes."""
        if self._num_streams >= MAX_STREAMS:
            raise web.HTTPServiceUnavailable(reason="Too many pages are open.")
        stopping = request.app[STOPPING]
        answer = web.StreamResponse(headers={"Content-Type": "text/event-stream", "X-Accel-Buffering": "no"})
        secure(answer)
        answer.headers["Cache-Control"] = "no-store"
        await answer.prepare(request)
        self._num_streams += 1
        cells: Mapping[str, Any] = {}
        parts: Mapping[str, str] = {}
        sent_at = time.monotonic()
        try:
            with contextlib.suppress(ConnectionError):
                while not stopping.is_set():
                    with contextlib.suppress(KdRayError):
                        new_cells, new_parts = await now()
                        changed = {
                            "cells": {key: it for key, it in new_cells.items() if cells.get(key) != it},
                            "parts": {key: it for key, it in new_parts.items() if parts.get(key) != it},
                        }
                        cells, parts = new_cells, new_parts
                        if changed["cells"] or changed["parts"]:
                            await answer.write(event("change", changed))
                            sent_at = time.monotonic()
                    if time.monotonic() - sent_at > PING_S:
                        await answer.write(b": nothing new\n\n")
                        sent_at = time.monotonic()
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(stopping.wait(), FRESH_S / 2)
        finally:
            self._num_streams -= 1
        return answer

    # --- values -----------------------------------------------------------------------------------------------------------------------

    async def _sweeps_values(self, request: web.Request) -> Mapping[str, Any]:
        query = request.query
        return sweeps_page.view(
            await self.reading.snapshot(),
            words=query.get("words", ""),
            state=query.get("state", ""),
            sort=query.get("sort", ""),
            is_down="down" in query,
        )

    async def _shared(
        self,
        template: str,
        request: web.Request,
        of: tuple[object, ...],
        view: Callable[[], Mapping[str, Any]],
        *,
        lasts_s: float = math.inf,
    ) -> web.Response:
        """A page that depends on its URL and on these objects only, made once for all readers."""
        text = await self._pages.get(
            request.path_qs, of, lambda: self._text(template, request, **view()), lasts_s=lasts_s
        )
        return web.Response(text=text, content_type="text/html")

    def _page(self, template: str, request: web.Request, *, status: int = 200, **values: Any) -> web.Response:
        return web.Response(status=status, text=self._text(template, request, **values), content_type="text/html")

    def _text(self, template: str, request: web.Request, **values: Any) -> str:
        values = {"store": self.reading.store.url, "query": dict(request.query), **values}
        return self._templates.render(template, **values)


def _live_values(now: SweepNow, read: Read | None, query: Mapping[str, str]) -> Mapping[str, Any]:
    from kd_ray.serve.pages import live_page

    chosen = _chosen({"metric": live_page.STATE, **query})
    return live_page.view(now, read, chosen, first_row=_number(query, "from"))


def _import_pages() -> None:
    """The pages import scipy and matplotlib, which takes seconds."""
    from kd_ray.serve.pages import (  # noqa: F401
        classes_page,
        compare_page,
        conditions_page,
        differences_page,
        live_page,
        sql_page,
        trial_page,
    )


def _chosen(query: Mapping[str, str]) -> "Chosen":
    from kd_ray.serve.quantities import Chosen

    return Chosen(
        metric=query.get("metric", "accuracy"),
        class_name=query.get("class", ""),
        feature=query.get("feature", ""),
        group=query.get("group", ""),
    )


def _number(query: Mapping[str, str], name: str) -> int:
    """A number that a URL gives; 0 for anything else."""
    text = query.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0


def _csv(text: str, name: str) -> web.Response:
    return web.Response(
        text=text,
        content_type="text/csv",
        headers={"Content-Disposition": f'attachment; filename="{name}.csv"'},
    )
