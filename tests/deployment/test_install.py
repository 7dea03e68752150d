"""`make install` without a GPU: PyTorch without CUDA where its index answers, else one line, and PyTorch from the default index."""

import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import create_server

import pytest
import torch_without_cuda

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the default index has PyTorch without CUDA")


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def index(tmp_path: Path) -> Iterator[str]:
    """A simple index on loopback with a small `torch` and `torchvision`."""
    root = tmp_path / "index"
    for name in ("torch", "torchvision"):
        info = f"{name}-99.0+cpu.dist-info"
        (root / name).mkdir(parents=True)
        with zipfile.ZipFile(root / name / f"{name}-99.0+cpu-py3-none-any.whl", "w") as wheel:
            wheel.writestr(f"{name}/__init__.py", "")
            wheel.writestr(
                f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 99.0+cpu\nRequires-Dist: numpy\n"
            )
            wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
            wheel.writestr(f"{info}/RECORD", "")
    with ThreadingHTTPServer(("127.0.0.1", 0), lambda *args: _Quiet(*args, directory=str(root))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def install(index: str, folder: Path, *, path: Path) -> subprocess.CompletedProcess[str]:
    """What `make install` runs, into a folder of its own and with the default settings of pip."""
    given = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    given |= {"PIP_TARGET": str(folder), "PIP_CONFIG_FILE": os.devnull, "PATH": str(path)}
    # A busy machine may take longer to answer itself than an index elsewhere does.
    program = "import sys; sys.path.insert(0, 'make'); import torch_without_cuda as it; it.PATIENCE_S = 60; it.main(sys.argv[1])"
    command = [sys.executable, "-c", program, index]
    return subprocess.run(command, check=False, cwd=ROOT, env=given, capture_output=True, text=True)


@pytest.mark.slow
def test_wheels_without_cuda_come_from_an_index_that_answers(index: str, tmp_path: Path) -> None:
    done = install(index, tmp_path / "site", path=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"no NVIDIA GPU here: PyTorch without CUDA from {index}\n")
    installed = {path.name for path in (tmp_path / "site").glob("*.dist-info")}
    # No dependencies: those come from the default index, with those of kd_ray.
    assert installed == {"torch-99.0+cpu.dist-info", "torchvision-99.0+cpu.dist-info"}


def test_a_closed_port_is_one_line_and_installs_nothing(tmp_path: Path) -> None:
    with create_server(("127.0.0.1", 0)) as closed:
        index = f"http://127.0.0.1:{closed.getsockname()[1]}"
    done = install(index, tmp_path / "site", path=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f"{index} cannot be used (connection refused): PyTorch comes from the default index, with CUDA, 5 GB\n"
    )
    assert not (tmp_path / "site").exists()


def test_an_index_without_pytorch_is_named(index: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_without_cuda, "PATIENCE_S", 60)
    assert torch_without_cuda.why_not(f"{index}/nothing").startswith(
        f"{index}/nothing cannot be used (file not found): "
    )


def test_an_index_that_does_not_answer_costs_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_without_cuda, "PATIENCE_S", 0.2)
    with create_server(("127.0.0.1", 0)) as silent:
        why = torch_without_cuda.why_not(f"http://127.0.0.1:{silent.getsockname()[1]}")
    assert "(no answer in 0.2 s)" in why or "(timed out)" in why


def test_a_gpu_gets_pytorch_with_cuda(index: str, tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H100'\n")
    tool.chmod(0o755)
    done = install(index, tmp_path / "site", path=tmp_path)
    assert done.stdout == "there is an NVIDIA GPU: PyTorch with CUDA, 5 GB\n"
    assert not (tmp_path / "site").exists()


def test_make_demo_asks_the_index_first_and_ends_with_report_and_site(tmp_path: Path) -> None:
    command = [
        "make",
        "--no-print-directory",
        "--dry-run",
        "demo",
        f"VENV={tmp_path}",
        "TORCH_INDEX=https://index.example/cpu",
    ]
    lines = subprocess.run(command, check=True, cwd=ROOT, capture_output=True, text=True).stdout.splitlines()
    (first,) = [
        number for number, line in enumerate(lines) if "torch_without_cuda.py https://index.example/cpu" in line
    ]
    (second,) = [number for number, line in enumerate(lines) if "pip install --quiet --editable ." in line]
    assert first < second
    assert lines[-3].endswith("kd-ray report trifeature-quick")
    assert "/bin/kd-ray serve and open http://127.0.0.1:8080/" in lines[-2]
