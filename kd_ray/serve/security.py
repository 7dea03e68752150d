"""What stands before every page: the host, the origin, the token, and the headers of every answer.

The site only reads, so nothing can be changed through it; what is guarded is reading. A token is compared in constant time. It may stand
in the URL of a first visit, which is answered by a cookie and a redirect to the same URL without it. Requests are not logged.
"""

import hashlib
import hmac
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from urllib.parse import urlencode, urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

from kd_ray.serve.options import ServeOptions

COOKIE = "kd_ray_serve"
LOGIN = "/login"
MAX_WRONG = 10
"""Wrong tokens from one address within `WINDOW_S`; further ones are not looked at."""
MAX_WRONG_OF_ALL = 200
"""The same from all addresses together."""
WINDOW_S = 60.0
_COOKIE_AGE_S = 30 * 24 * 3600
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
"""Of every answer: nothing from elsewhere, no script or style inside a page, no frame around it."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Refusal = Callable[[web.Request, int, str], web.StreamResponse]
"""Makes the page that says why a request is refused."""


class WrongTokens:
    """Counts wrong tokens by address, so that tokens cannot be tried in numbers."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all: deque[tuple[float, str]] = deque()

    def wait_s(self, address: str) -> float:
        """How long this address has to wait; 0 if it may try a token now."""
        self._forget()
        mine = [at for at, it in self._all if it == address]
        if len(mine) >= MAX_WRONG:
            return mine[0] + WINDOW_S - self._clock()
        return self._all[0][0] + WINDOW_S - self._clock() if len(self._all) >= MAX_WRONG_OF_ALL else 0.0

    def add(self, address: str) -> None:
        """One more was wrong."""
        self._all.append((self._clock(), address))

    def _forget(self) -> None:
        while self._all and self._all[0][0] <= self._clock() - WINDOW_S:
            self._all.popleft()


class Guard:
    """Decides which requests are answered."""

    def __init__(self, options: ServeOptions, refusal: Refusal, wrong: WrongTokens | None = None) -> None:
        self._options = options
        self._refusal = refusal
        self._wrong = wrong or WrongTokens()

    @property
    def middleware(self) -> Middleware:
        """What aiohttp calls for every request."""

        @web.middleware
        async def guard(request: web.Request, handler: Handler) -> web.StreamResponse:
            try:
                answer = self._refused(request) or await self._entered(request, handler)
            except web.HTTPException as error:
                if 300 <= error.status < 400:
                    raise
                answer = self._refusal(request, error.status, error.reason)
            if not answer.prepared:
                secure(answer)
            return answer

        return guard

    def _refused(self, request: web.Request) -> web.StreamResponse | None:
        """The refusal of a request that was not meant for this site, or comes from another one."""
        if not self._options.accepts_host(request.headers.get("Host", "")):
            return self._refusal(request, 421, "This site does not have the name that the request asks for.")
        if request.method not in ("GET", "HEAD") and not (request.method == "POST" and self._path(request) == LOGIN):
            return self._refusal(request, 405, "This site can only be read.")
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc.lower() != request.headers["Host"].lower():
            return self._refusal(request, 403, "Pages of other sites cannot read this one.")
        is_foreign = request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
        if is_foreign and request.headers.get("Sec-Fetch-Mode") != "navigate":
            return self._refusal(request, 403, "Pages of other sites cannot read this one.")
        return None

    async def _entered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """The answer to a request, or a refusal where the token is missing or wrong."""
        token, path = self._options.token, self._path(request)
        if token is None or path.startswith("/static/") or _is_same(request.cookies.get(COOKIE, ""), _cookie(token)):
            return await handler(request)
        given, is_first_visit = _bearer(request), False
        if given is None:
            given = request.query.get("token")
            if given is None and request.method == "POST":
                given = str((await request.post()).get("token", ""))
            is_first_visit = given is not None
        if given is None:
            return self._refusal(request, 401, "")
        address = request.remote or ""
        wait_s = self._wrong.wait_s(address)
        if wait_s > 0:
            answer = self._refusal(request, 429, f"Too many wrong tokens. Try again in {wait_s:.0f} s.")
            answer.headers["Retry-After"] = f"{max(1, wait_s):.0f}"
            return answer
        if not _is_same(given, token):
            self._wrong.add(address)
            return self._refusal(request, 401, "This is not the token.")
        return self._welcome(request, token) if is_first_visit else await handler(request)

    def _welcome(self, request: web.Request, token: str) -> web.Response:
        """A cookie instead of the token, and the same page without it in its URL."""
        path = "/" if self._path(request) == LOGIN else self._path(request)
        query = urlencode([(name, value) for name, value in request.query.items() if name != "token"])
        root = self._options.root_path
        where = f"{root}/{path.lstrip('/')}"
        answer = web.Response(status=303, headers={"Location": f"{where}?{query}" if query else where})
        # The value says nothing about the token, and holds until the token is another one.
        is_secure = request.secure or request.headers.get("X-Forwarded-Proto") == "https"
        answer.set_cookie(
            COOKIE,
            _cookie(token),
            path=root or "/",
            httponly=True,
            samesite="Lax",
            max_age=_COOKIE_AGE_S,
            secure=is_secure,
        )
        return answer

    def _path(self, request: web.Request) -> str:
        """The path within the site, whether or not a proxy took its prefix away."""
        root = self._options.root_path
        return (
            (request.path.removeprefix(root) or "/") if root and request.path.startswith(f"{root}/") else request.path
        )


def secure(answer: web.StreamResponse) -> None:
    """Set the headers that every answer has."""
    for name, value in HEADERS.items():
        answer.headers[name] = value
    answer.headers.setdefault("Cache-Control", "no-cache, private")
    answer.headers["Server"] = "kd_ray"


def _cookie(token: str) -> str:
    return hmac.new(token.encode(), b"kd_ray serve", hashlib.sha256).hexdigest()


def _bearer(request: web.Request) -> str | None:
    kind, _, given = request.headers.get("Authorization", "").partition(" ")
    return given.strip() if kind.lower() == "bearer" else None


def _is_same(given: str, expected: str) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogatepass"), expected.encode())
