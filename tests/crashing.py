"""A launch that dies, by SIGKILL, at a chosen write to its store: before it, in the middle of it, or after it.

Run as a module it is a server: it imports once what a launch needs, forks a child for each line of JSON on its standard input, and answers
how the child ended. `Crasher` is the client.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kd_ray.results.store import Store, open_store
from tests.sweeps import tiny_sweep

MODES = ("before", "middle", "after")


class CrashingStore(Store):
    """A local store whose process dies at one of its writes. Every write goes through `put`, `put_new` or `delete`."""

    def __init__(self, url: str, crash_at: int, mode: str) -> None:
        super().__init__(url)
        self.crash_at = crash_at
        self.mode = mode
        self.writes: list[str] = []

    def put(self, key: str, data: bytes, *, durable: bool = False) -> str:
        self._about_to("put", key, data)
        e_tag = super().put(key, data, durable=durable)
        self._done()
        return e_tag

    def put_new(self, key: str, data: bytes, *, durable: bool = False) -> bool:
        self._about_to("put_new", key, data)
        is_new = super().put_new(key, data, durable=durable)
        self._done()
        return is_new

    def delete(self, key: str) -> None:
        self._about_to("delete", key, None)
        super().delete(key)
        self._done()

    def _about_to(self, verb: str, key: str, data: bytes | None) -> None:
        self.writes.append(f"{verb} {key}")
        if len(self.writes) != self.crash_at or self.mode == "after":
            return
        if self.mode == "middle" and data is not None:
            # The client writes beside the object and renames when it is whole.
            staged = Path(self.url) / f"{key}#1"
            staged.parent.mkdir(parents=True, exist_ok=True)
            staged.write_bytes(data[: len(data) // 2])
        os.kill(os.getpid(), signal.SIGKILL)

    def _done(self) -> None:
        if len(self.writes) == self.crash_at:
            os.kill(os.getpid(), signal.SIGKILL)


class Crasher:
    """Starts launches that die, in a server process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process

    def launch(self, store: Store, data_root: Path, overrides: tuple[str, ...], *, crash_at: int, mode: str) -> str:
        """Launch the tiny sweep; returns `killed`, or the writes of a launch that ended, one per line."""
        order = {
            "store": store.url,
            "root": str(data_root),
            "overrides": overrides,
            "crash_at": crash_at,
            "mode": mode,
        }
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, f"the server ended with {self._process.poll()}"
        return str(json.loads(answer))


@contextmanager
def crasher() -> Iterator[Crasher]:
    """A running server."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.crashing"],
        cwd=Path(__file__).resolve().parents[1],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Crasher(process)
    finally:
        process.kill()
        process.communicate()


def _serve() -> None:
    # Imported before the forks, and not used: threads of a library would not survive them.
    import kd_ray.distill.worker  # noqa: F401
    from kd_ray.cluster import launch  # noqa: F401

    for line in sys.stdin:
        order = json.loads(line)
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(reader)
            _launch(order, writer)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            writes = pipe.read()
        _, status = os.waitpid(child, 0)
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        ended = writes if os.WIFEXITED(status) and os.WEXITSTATUS(status) == 0 else f"unexpected status {status}"
        sys.stdout.write(json.dumps("killed" if killed else ended) + "\n")
        sys.stdout.flush()


def _launch(order: dict[str, Any], writer: int) -> None:
    from kd_ray.cluster.launch import launch

    store = CrashingStore(open_store(order["store"]).url, order["crash_at"], order["mode"])
    report = launch(tiny_sweep(Path(order["root"]), *order["overrides"]), store, runner="local")
    os.write(writer, "\n".join([f"exit {report.exit_code}", *store.writes]).encode())


if __name__ == "__main__":
    _serve()
