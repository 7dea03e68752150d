"""How a launch is stopped: Ctrl-C (SIGINT) or SIGTERM once for an orderly end, twice for an immediate one."""

import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

STOPPED_AT_ONCE = "stopped at once; no committed trial is lost; run the same command again to continue"
_GRACE_S = 10.0
"""How long a second signal waits for the orderly end."""


class Interrupts:
    """Whether the user (Ctrl-C) or the machine (SIGTERM) has asked to stop."""

    def __init__(self) -> None:
        self._requested = False

    def requested(self) -> bool:
        """Whether to stop."""
        return self._requested

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Inside, the first SIGINT or SIGTERM sets `requested`; the second raises KeyboardInterrupt.

        Python delivers signals only in the main thread; in any other thread this changes nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            with self._exit_after_second_signal():
                yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._requested:
            raise KeyboardInterrupt
        self._requested = True

    @contextmanager
    def _exit_after_second_signal(self) -> Iterator[None]:
        """Inside, a second signal ends the process also when the main thread hangs in a library, where no Python handler runs.

        Ray hangs like this for a minute when the head of its cluster is gone.
        """
        receiver, sender = socket.socketpair()
        sender.setblocking(False)
        before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
        left = threading.Event()

        def listen() -> None:
            count = 0
            while data := receiver.recv(16):
                count += sum(number in (signal.SIGINT, signal.SIGTERM) for number in data)
                if count > 1 and not left.wait(_GRACE_S):
                    sys.stderr.write(f"{STOPPED_AT_ONCE}\n")
                    sys.stderr.flush()
                    os._exit(130)

        thread = threading.Thread(target=listen, name="kd_ray-signals", daemon=True)
        thread.start()
        try:
            yield
        finally:
            left.set()
            signal.set_wakeup_fd(before)
            sender.close()
            thread.join()
            receiver.close()
