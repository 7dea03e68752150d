"""Runs the command line as real processes, and ends every process it started, by its id."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, chdir, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path

from kd_ray.cli import main


def command(*arguments: str) -> list[str]:
    """The command line of this checkout, whatever is on the PATH."""
    return [sys.executable, "-m", "kd_ray.cli", *arguments]


def run_cli(*arguments: str, cwd: Path, timeout_s: float = 300) -> subprocess.CompletedProcess[str]:
    """Run to the end."""
    return subprocess.run(command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=timeout_s, check=False)


def run_cli_here(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that neither trains nor starts Ray in this process, which has imported everything already."""
    stdout, stderr = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
    before = sys.argv
    sys.argv = ["kd-ray", *arguments]
    code: object = 0
    try:
        with chdir(cwd), redirect_stdout(stdout), redirect_stderr(stderr):
            main()
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.argv = before
    assert isinstance(code, int)
    shown, told = (stream.buffer.getvalue().decode() for stream in (stdout, stderr))
    return subprocess.CompletedProcess(sys.argv, code, shown, told)


@contextmanager
def started(
    *arguments: str, cwd: Path, output: Path | None = None, inside: Sequence[str] = ()
) -> Iterator[subprocess.Popen[str]]:
    """A running command in a session of its own; whatever is left of the session at the end is killed.

    What it prints goes to a pipe, or to the file `output`, for commands that nobody listens to while they run. `inside` goes before the
    command, to run it in a namespace.
    """
    with ExitStack() as files:
        process = subprocess.Popen(
            [*inside, *command(*arguments)],
            cwd=cwd,
            stdout=files.enter_context(output.open("w")) if output else subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        kill_session(process.pid)
        process.communicate()


def kill_session(session: int) -> None:
    """SIGKILL every process of a session."""
    for pid in session_pids(session):
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            continue


def session_pids(session: int) -> list[int]:
    """Process ids of a session, its leader last."""
    pids = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                pids.append(int(entry.name))
    return sorted(pids, key=lambda pid: pid == session)


def command_line(pid: int) -> str:
    """How a process was started; empty when it has ended. Ray's workers name what they do here."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], *, timeout_s: float = 120) -> None:
    """Return as soon as the condition holds; fail when the process ends first or the time is up."""
    for _ in range(round(timeout_s / 0.05)):
        if condition():
            return
        try:
            process.wait(timeout=0.05)
        except subprocess.TimeoutExpired:
            continue
        output = process.stdout.read() if process.stdout else ""
        raise AssertionError(f"the process ended with {process.returncode} before the condition held:\n{output}")
    raise AssertionError(f"the condition did not hold within {timeout_s} s")


def freeze_when(condition: Callable[[], bool], process: subprocess.Popen[str], *, timeout_s: float = 120) -> None:
    """Stop the process (SIGSTOP) while the condition holds, which a look at a running process cannot tell: it may have moved on since."""
    for _ in range(100):
        wait_until(condition, process, timeout_s=timeout_s)
        os.kill(process.pid, signal.SIGSTOP)
        if condition():
            return
        os.kill(process.pid, signal.SIGCONT)
    raise AssertionError("the condition never held for long enough to stop the process in it")
