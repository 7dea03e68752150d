"""Install PyTorch without CUDA where there is no NVIDIA GPU: `make install` runs it before it installs kd_ray.

The wheels of PyPI for Linux bring CUDA, which takes 5 GB and minutes. The index of PyTorch has wheels without it. Where that index cannot
be reached, nothing is installed here, and PyTorch comes from the default index with everything else.
"""

import shutil
import subprocess
import sys
import threading
import urllib.request

PATIENCE_S = 4
"""Until an index has to answer. Looking up a name has no time limit of its own."""


def why_not(index: str) -> str:
    """Why PyTorch has to come from the default index; empty if this one has it."""
    if sys.platform != "linux":
        return "the default index has PyTorch without CUDA for this system"
    if shutil.which("nvidia-smi") and subprocess.run(["nvidia-smi", "-L"], capture_output=True, check=False).stdout:
        return "there is an NVIDIA GPU: PyTorch with CUDA, 5 GB"
    answers: list[str] = []
    asking = threading.Thread(target=lambda: answers.append(_ask(index)), daemon=True)
    asking.start()
    asking.join(PATIENCE_S)
    missing = answers[0] if answers else f"no answer in {PATIENCE_S} s"
    return missing and f"{index} cannot be used ({missing}): PyTorch comes from the default index, with CUDA, 5 GB"


def _ask(index: str) -> str:
    """What is wrong with an index; empty if it lists PyTorch."""
    try:
        with urllib.request.urlopen(f"{index.rstrip('/')}/torch/", timeout=PATIENCE_S):  # noqa: S310 (the Makefile gives it)
            return ""
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        return str(getattr(reason, "strerror", None) or reason).lower()


def main(index: str) -> None:
    """Say what is done, and do it. Dependencies come later, with those of kd_ray."""
    reason = why_not(index)
    if reason:
        print(reason, flush=True)
        return
    print(f"no NVIDIA GPU here: PyTorch without CUDA from {index}", flush=True)
    command = [sys.executable, "-m", "pip", "install", "--no-deps", "--index-url", index, "torch", "torchvision"]
    if subprocess.run(command, check=False).returncode:
        print(f"{index} failed: PyTorch comes from the default index, with CUDA, 5 GB", flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
