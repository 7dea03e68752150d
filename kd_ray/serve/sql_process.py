"""Runs SQL in another process, which is killed if a query does not end: `python -m kd_ray.serve.sql_process STORE` is that process.

It says that it is ready (`R`). Then it reads one JSON object with `sql`, `max_rows` and `time_limit_s` in each line. For each it writes 9
bytes, the kind and the length of what follows: Arrow (`A`, or `C` if there are more rows) or a message (`E`). One process is ready before
it is needed, so that a query does not wait for Python to start.
"""

import asyncio
import json
import resource
import struct
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass

import pyarrow as pa

from kd_ray.bounded import JsonForm
from kd_ray.errors import KdRayError, QueryError
from kd_ray.serve.sql import Answer, answer, too_long

TIME_LIMIT_S = 10.0
"""How long a query may take."""
GRACE_S = 1.0
"""How much longer the process lives if the query does not obey the interrupt."""
PATIENCE_S = 30.0
"""How long a query may wait for those before it."""
_START_S = 120.0
"""How long the process may take to start."""
_ADDRESS_SPACE = 6 * 2**30
"""Bytes of the process, threads and libraries included."""
_HEAD = struct.Struct(">cQ")


@dataclass(frozen=True, kw_only=True)
class Request:
    """One line that the process reads."""

    sql: str
    max_rows: int
    time_limit_s: float


_REQUEST: JsonForm[Request] = JsonForm(kind=Request)


class SqlProcess:
    """The process, and the queue before it."""

    def __init__(self, store_url: str, *, time_limit_s: float = TIME_LIMIT_S) -> None:
        self._store_url = store_url
        self.time_limit_s = time_limit_s
        self._lock = asyncio.Lock()
        self._process: asyncio.subprocess.Process | None = None

    async def start(self) -> None:
        """Have a process ready."""
        async with self._lock:
            await self._ready()

    async def stop(self) -> None:
        """End it."""
        process, self._process = self._process, None
        if process is not None:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()

    async def answer(self, sql: str, *, max_rows: int) -> Answer:
        """The first rows of a query. Queries run one after another.

        Raises:
            QueryError: it is refused, it takes too long, or too many are waiting.
        """
        try:
            await asyncio.wait_for(self._lock.acquire(), PATIENCE_S)
        except TimeoutError:
            raise QueryError("SQL: other queries are running; try again") from None
        try:
            return await self._ask(sql, max_rows)
        finally:
            self._lock.release()

    async def _ask(self, sql: str, max_rows: int) -> Answer:
        process = await self._ready()
        assert process.stdin is not None
        assert process.stdout is not None
        request = Request(sql=sql, max_rows=max_rows, time_limit_s=self.time_limit_s)
        process.stdin.write(json.dumps(asdict(request)).encode() + b"\n")
        is_over = False
        try:
            async with asyncio.timeout(self.time_limit_s + GRACE_S):
                await process.stdin.drain()
                kind, size = _HEAD.unpack(await process.stdout.readexactly(_HEAD.size))
                data = await process.stdout.readexactly(size)
            is_over = True
        except TimeoutError:
            raise QueryError(too_long(self.time_limit_s)) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise QueryError("SQL: the query took more memory than it may, so it was stopped") from None
        finally:
            # Also when the reader has gone: nobody would take the answer out of the pipe.
            if not is_over:
                await asyncio.shield(self.stop())
        if kind == b"E":
            raise QueryError(data.decode())
        return Answer(table=pa.ipc.open_stream(data).read_all(), is_cut=kind == b"C")

    async def _ready(self) -> asyncio.subprocess.Process:
        """The process, when it waits for a query: its start does not count as time of the query."""
        if self._process is not None and self._process.returncode is None:
            return self._process
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "kd_ray.serve.sql_process", self._store_url),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=2**20,
        )
        assert self._process.stdout is not None
        is_ready = False
        try:
            async with asyncio.timeout(_START_S):
                await self._process.stdout.readexactly(_HEAD.size)
            is_ready = True
        except (TimeoutError, asyncio.IncompleteReadError):
            raise QueryError("SQL: the process that runs queries cannot be started") from None
        finally:
            if not is_ready:
                await asyncio.shield(self.stop())
        return self._process


def main(store_url: str) -> None:
    """Answer queries until there are no more."""
    from kd_ray.results.store import open_store

    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    store = open_store(store_url)
    _say(b"R", b"")
    for line in sys.stdin:
        try:
            found = answer(store, **asdict(_REQUEST.read(line)))
            sink = pa.BufferOutputStream()
            with pa.ipc.new_stream(sink, found.table.schema) as stream:
                stream.write_table(found.table)
            kind, data = b"C" if found.is_cut else b"A", sink.getvalue().to_pybytes()
        except (KdRayError, MemoryError, ValueError) as error:
            kind, data = b"E", (str(error) or "SQL: out of memory").encode(errors="replace")
        _say(kind, data)


def _say(kind: bytes, data: bytes) -> None:
    sys.stdout.buffer.write(_HEAD.pack(kind, len(data)) + data)
    sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(sys.argv[1])
