"""An Azure Blob Storage API on loopback: Azurite, Microsoft's emulator, to be driven by the real client over HTTP."""

import base64
import hashlib
import hmac
import os
import shutil
import socket
import subprocess
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate

import pytest

from tests.processes import wait_until

CONTAINER = "sweeps"
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Account and key that Azurite documents; they open nothing else."""
_VERSION = "2021-12-02"


def azurite_command() -> str:
    """The program, from KD_RAY_AZURITE or the PATH; a test that needs it is skipped elsewhere."""
    for name in (os.environ.get("KD_RAY_AZURITE", ""), "azurite-blob"):
        if name and (found := shutil.which(name)):
            return found
    pytest.skip("no azurite-blob: `npm install --global azurite`, or set KD_RAY_AZURITE to the program")


def settings_for(endpoint: str) -> dict[str, str]:
    """Environment that names the server at `endpoint` and holds credentials."""
    return {
        "AZURE_STORAGE_ACCOUNT_NAME": _ACCOUNT,
        "AZURE_STORAGE_ACCOUNT_KEY": _KEY,
        "AZURE_ENDPOINT": f"{endpoint}/{_ACCOUNT}",
        "AZURE_ALLOW_HTTP": "true",
    }


@contextmanager
def azure_server() -> Iterator[str]:
    """A running Azurite with one empty container; yields its URL. It keeps everything in memory."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}"
    options = f"--blobHost 127.0.0.1 --blobPort {port} --inMemoryPersistence --skipApiVersionCheck --disableTelemetry"
    server = subprocess.Popen(
        [azurite_command(), *options.split()],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        wait_until(lambda: _listens(port), server)
        with urllib.request.urlopen(_new_container(url), timeout=30):
            yield url
    finally:
        server.kill()
        server.wait()


def _new_container(url: str) -> urllib.request.Request:
    """The request that makes the container, signed with the shared key; the client of the store makes none."""
    date = formatdate(usegmt=True)
    headers = f"x-ms-date:{date}\nx-ms-version:{_VERSION}"
    # In the emulator's addresses the account stands in the path, so the resource names it twice.
    resource = f"/{_ACCOUNT}/{_ACCOUNT}/{CONTAINER}\nrestype:container"
    to_sign = "PUT" + "\n" * 12 + f"{headers}\n{resource}"
    digest = hmac.new(base64.b64decode(_KEY), to_sign.encode(), hashlib.sha256).digest()
    return urllib.request.Request(
        f"{url}/{_ACCOUNT}/{CONTAINER}?restype=container",
        method="PUT",
        headers={
            "x-ms-date": date,
            "x-ms-version": _VERSION,
            "Authorization": f"SharedKey {_ACCOUNT}:{base64.b64encode(digest).decode()}",
        },
    )


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError:
        return False
    return True
