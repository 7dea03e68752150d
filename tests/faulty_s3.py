"""An HTTP proxy that stands between the real client and an S3 server, and misbehaves on command.

It speaks HTTP over a real socket, so that what is tested is how the client and the store take it, timeouts and broken connections included.
"""

import http.client
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from enum import Enum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

WRITES = ("PUT", "POST", "DELETE")
_ONE_HOP = ("connection", "keep-alive", "transfer-encoding")


class Fault(Enum):
    """How a request may go wrong."""

    ERROR = "500 before the request is performed"
    SLOW_DOWN = "503 before the request is performed, as a store answers that throttles"
    NOT_IMPLEMENTED = "501, as a server answers that does not know the request"
    DENIED = "403 before the request is performed, as a store answers that may only be read"
    HANG = "no answer before the client gives up, and nothing is performed"
    CUT = "performed, but the connection breaks in the middle of the answer"
    LOST = "performed, but the connection breaks before the answer"
    UNCONDITIONAL = "performed although its condition does not hold, as by a server that ignores `If-None-Match`"


_REFUSALS = {
    Fault.ERROR: (500, "InternalError", "We encountered an internal error. Please try again."),
    Fault.SLOW_DOWN: (503, "SlowDown", "Please reduce your request rate."),
    Fault.NOT_IMPLEMENTED: (501, "NotImplemented", "A header or a request that is not implemented."),
    Fault.DENIED: (403, "AccessDenied", "Access Denied"),
}

Faults = Callable[[str, str, int], Fault | None]
"""What happens to a request: its method, its path with the query, and how many came before it."""


def no_faults(method: str, path: str, n: int) -> None:
    """Every request goes through."""


def first(fault: Fault, times: int = 1, *, methods: Sequence[str] = ()) -> Faults:
    """The first `times` requests (of these methods, when any are named) go wrong, later ones do not."""
    left = [fault] * times

    def faults(method: str, path: str, n: int) -> Fault | None:
        return left.pop() if left and (not methods or method in methods) else None

    return faults


def always(fault: Fault, *, methods: Sequence[str] = ()) -> Faults:
    """Every request (of these methods, when any are named) goes wrong."""
    return lambda method, path, n: fault if not methods or method in methods else None


def at_random(seed: int, share: float, among: Sequence[Fault]) -> Faults:
    """A share of all requests goes wrong, one way or another; the n-th request has the same fate whenever the seed is the same."""

    def faults(method: str, path: str, n: int) -> Fault | None:
        dice = random.Random(f"{seed} {n}")
        return dice.choice(among) if dice.random() < share else None

    return faults


class FaultyS3(ThreadingHTTPServer):
    """The proxy. `faults` may be changed at any time; the count that it is given starts anew then."""

    daemon_threads = False

    def __init__(self, behind: str) -> None:
        """`behind` is the URL of the server that does the work."""
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind = urlsplit(behind).netloc
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests: Counter[str] = Counter()
        """Requests by method, whatever became of them, since `faults` was set."""
        self.harmed: Counter[Fault] = Counter()
        """Requests by what went wrong with them, since `faults` was set."""
        self.connections: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._faults: Faults = no_faults

    @property
    def faults(self) -> Faults:
        """What happens to requests."""
        return self._faults

    @faults.setter
    def faults(self, faults: Faults) -> None:
        with self._lock:
            self._faults = faults
            self.requests.clear()
            self.harmed.clear()

    def fate(self, method: str, path: str) -> Fault | None:
        """Count a request, and decide what happens to it."""
        with self._lock:
            fault = self._faults(method, path, self.requests.total())
            self.requests[method] += 1
            if fault is not None:
                self.harmed[fault] += 1
            return fault

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients and the end of the test break connections; that is no news."""

    def hang_up(self) -> None:
        """End every connection, so that no thread waits for a client."""
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextmanager
def faulty_s3(behind: str, kind: type[FaultyS3] = FaultyS3) -> Iterator[FaultyS3]:
    """A running proxy before the server at the URL `behind`; it is gone, with all its threads, at the end."""
    server = kind(behind)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.hang_up()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: FaultyS3

    def setup(self) -> None:
        super().setup()
        self.server.connections.add(self.connection)

    def finish(self) -> None:
        self.server.connections.discard(self.connection)
        super().finish()

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.fate(self.command, self.path)
        if fault in _REFUSALS:
            self._refuse(*_REFUSALS[fault])
        elif fault is Fault.HANG:
            self._hang()
        else:
            self._perform(body, fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _answer

    def _refuse(self, status: int, code: str, message: str) -> None:
        text = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>{code}</Code><Message>{message}</Message></Error>'
        head = f"HTTP/1.1 {status} {code}\r\nContent-Type: application/xml\r\nContent-Length: {len(text)}\r\n\r\n"
        self.wfile.write((head + ("" if self.command == "HEAD" else text)).encode())

    def _hang(self) -> None:
        # Nothing more comes on this connection until the client closes it, or the test does.
        self.close_connection = True
        self.rfile.read(1)

    def _perform(self, body: bytes, fault: Fault | None) -> None:
        behind = http.client.HTTPConnection(self.server.behind, timeout=60)
        try:
            # All headers as they came, Host among them: the signature covers it.
            behind.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            left_out = (*_ONE_HOP, "if-none-match") if fault is Fault.UNCONDITIONAL else _ONE_HOP
            for name, value in self.headers.items():
                if name.lower() not in left_out:
                    behind.putheader(name, value)
            behind.endheaders(body)
            response = behind.getresponse()
            content = response.read()
        finally:
            behind.close()
        lines = [f"HTTP/1.1 {response.status} {response.reason}"]
        lines += [f"{name}: {value}" for name, value in response.getheaders() if name.lower() not in _ONE_HOP]
        if "Content-Length" not in response.headers and response.status != 204:
            lines.append(f"Content-Length: {len(content)}")
        head = "\r\n".join([*lines, "", ""]).encode()
        if fault in (None, Fault.UNCONDITIONAL):
            self.wfile.write(head + content)
            return
        self.close_connection = True
        if fault is Fault.CUT:
            # In the middle of the body where there is one.
            self.wfile.write(head + content[: len(content) // 2] if content else head[: len(head) // 2])
