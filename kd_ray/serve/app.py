"""The server: its routes, its answers, and how it starts and ends.

aiohttp, because `ray[default]` brings it in any case. One process and one event loop; what takes long runs in threads, and SQL in a process
of its own. Requests are not logged: a URL may hold a token at the first visit.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from typing import Any

from aiohttp import web

from kd_ray.errors import InvalidInputError, KdRayError
from kd_ray.results.store import Store
from kd_ray.serve.options import ServeOptions
from kd_ray.serve.page_data import NoSuchSweepError, Reading
from kd_ray.serve.render import STATIC, Templates, static_file
from kd_ray.serve.security import Guard, WrongTokens, secure
from kd_ray.serve.site import STOPPING, Site
from kd_ray.serve.sql_process import SqlProcess

SWEEP = "{sweep:[a-z0-9][a-z0-9._-]{0,99}}"
TRIAL = "{trial_id:[0-9a-f]{16}}"
_YEAR_S = 365 * 24 * 3600


def make_app(
    store: Store,
    options: ServeOptions,
    *,
    wrong: WrongTokens | None = None,
    sql: SqlProcess | None = None,
    is_warmed: bool = False,
) -> web.Application:
    """The site of a store. Unless it is warmed, nothing is read or imported before somebody asks."""
    templates = Templates(options.root_path)
    reading = Reading(store)
    site = Site(reading=reading, templates=templates, sql=sql or SqlProcess(store.url))
    guard = Guard(options, partial(_refuse, templates), wrong)
    app = web.Application(middlewares=[guard.middleware], handler_args={"access_log": None})
    app[STOPPING] = asyncio.Event()
    routes: Mapping[str, Callable[[web.Request], Awaitable[web.StreamResponse]]] = {
        "/": site.sweeps,
        "/events": site.sweeps_events,
        f"/sweeps/{SWEEP}": site.live,
        f"/sweeps/{SWEEP}/events": site.live_events,
        f"/sweeps/{SWEEP}/conditions": site.conditions,
        f"/sweeps/{SWEEP}/conditions.csv": site.conditions_csv,
        f"/sweeps/{SWEEP}/differences": site.differences,
        f"/sweeps/{SWEEP}/differences.csv": site.differences_csv,
        f"/sweeps/{SWEEP}/classes": site.classes,
        f"/sweeps/{SWEEP}/samples": site.samples,
        f"/sweeps/{SWEEP}/trials/{TRIAL}": site.trial,
        "/compare": site.compare,
        "/sql": site.sql_page,
        "/sql.csv": site.sql_csv,
        "/static/{name}": _static,
    }
    for root in dict.fromkeys(("", options.root_path)):
        for path, handler in routes.items():
            app.router.add_get(root + path, _answered(handler, templates))
        app.router.add_post(f"{root}/login", _logged_in(options))
    if options.root_path:
        app.router.add_get(options.root_path, _answered(site.sweeps, templates))
    app.on_shutdown.append(_stop)
    app.cleanup_ctx.append(partial(_run, site, is_warmed))
    return app


async def serve(store: Store, options: ServeOptions, *, ready: Callable[[str], None]) -> None:
    """Serve a store until the task is cancelled; `ready` is told the URL.

    Raises:
        InvalidInputError: the address cannot be listened on.
    """
    runner = web.AppRunner(make_app(store, options, is_warmed=True), access_log=None, shutdown_timeout=2.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, options.host, options.port)
        try:
            await site.start()
        except OSError as error:
            raise InvalidInputError(
                f"cannot listen on {options.host}:{options.port}: {error.strerror}; --port chooses another port, 0 any free one"
            ) from error
        host, port = runner.addresses[0][:2]
        ready(f"http://{f'[{host}]' if ':' in host else host}:{port}{options.root_path}/")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()


async def _run(site: Site, is_warmed: bool, _app: web.Application) -> AsyncIterator[None]:
    """While the server runs; at first, what pages need is read and imported before somebody waits for it."""
    task = asyncio.create_task(site.warm() if is_warmed else asyncio.sleep(0))
    yield
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, KdRayError):
        await task
    await site.sql.stop()


async def _stop(app: web.Application) -> None:
    app[STOPPING].set()


def _answered(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]], templates: Templates
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """A handler whose errors become pages."""

    async def answered(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except NoSuchSweepError as error:
            return _refuse(templates, request, 404, str(error))
        except InvalidInputError as error:
            return _refuse(templates, request, 409, str(error))
        except KdRayError as error:
            return _refuse(templates, request, 503, str(error))

    return answered


def _refuse(templates: Templates, _request: web.Request, status: int, why: str) -> web.Response:
    """The page that says why there is no other one."""
    text = templates.render("refused", status=status, why=why, asks_token=status == 401)
    answer = web.Response(status=status, text=text, content_type="text/html")
    secure(answer)
    return answer


def _logged_in(options: ServeOptions) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """Where the form of the token goes; the guard has looked at the token before."""

    async def logged_in(_request: web.Request) -> web.StreamResponse:
        raise web.HTTPSeeOther(f"{options.root_path}/")

    return logged_in


async def _static(request: web.Request) -> web.StreamResponse:
    name = request.match_info["name"]
    if name not in STATIC:
        raise web.HTTPNotFound
    headers: dict[str, Any] = {"Cache-Control": f"public, max-age={_YEAR_S}, immutable"}
    return web.Response(body=static_file(name), content_type=STATIC[name], charset="utf-8", headers=headers)
