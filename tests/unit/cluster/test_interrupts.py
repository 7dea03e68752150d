"""How a launch is interrupted."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import ray

from kd_ray.cluster.interrupts import Interrupts
from kd_ray.cluster.ray_tune.ray_runner import RayRunner
from kd_ray.sweep.placement import Placement

pytestmark = pytest.mark.slow

HANGING = """
import ctypes, os, threading
from kd_ray.cluster import interrupts

interrupts._GRACE_S = 0.2
libc, mutex = ctypes.CDLL(None), ctypes.create_string_buffer(64)

def say_when_main_hangs():
    while hex(ctypes.addressof(mutex)) not in open(f"/proc/self/task/{os.getpid()}/syscall").read().split():
        pass
    print("ready", flush=True)

with interrupts.Interrupts().watch():
    threading.Thread(target=say_when_main_hangs, daemon=True).start()
    libc.pthread_mutex_lock(mutex)
    libc.pthread_mutex_lock(mutex)  # for ever, and no signal ends it
"""


def test_first_signal_asks_and_the_second_raises() -> None:
    interrupts = Interrupts()
    before = signal.getsignal(signal.SIGTERM)
    try:
        with interrupts.watch():
            assert not interrupts.requested()
            os.kill(os.getpid(), signal.SIGTERM)
            assert interrupts.requested()
            os.kill(os.getpid(), signal.SIGINT)
            raise AssertionError("the second signal was ignored")
    except KeyboardInterrupt:
        assert interrupts.requested()
    assert signal.getsignal(signal.SIGTERM) is before


def test_second_signal_ends_a_process_that_hangs_in_a_library() -> None:
    """Guard: the thread behind `set_wakeup_fd`; Python runs no handler while its main thread waits in C."""
    root = Path(__file__).resolve().parents[3]
    process = subprocess.Popen(
        [sys.executable, "-c", HANGING], cwd=root, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        _, error = process.communicate(timeout=30)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == 130
    assert error == "stopped at once; no committed trial is lost; run the same command again to continue\n"


def test_a_signal_while_ray_connects_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Guard: `RayRunner.__enter__`; Ray's handler of SIGTERM ended the process with status 15, and a job of Slurm was not queued again."""

    def told(**_: object) -> None:
        sys.exit(signal.SIGTERM)

    monkeypatch.setattr(ray, "init", told)
    with pytest.raises(KeyboardInterrupt):
        RayRunner(placement=Placement()).__enter__()
