"""A real S3 API on loopback: moto's server, to be driven by the real client over HTTP."""

import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from tests.processes import wait_until

BUCKET = "sweeps"


def settings_for(endpoint: str) -> dict[str, str]:
    """Environment that names the server at `endpoint` and holds credentials, as a cluster's would."""
    return {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ALLOW_HTTP": "true",
        "AWS_ACCESS_KEY_ID": "the-key-of-the-test",
        "AWS_SECRET_ACCESS_KEY": "the-secret-of-the-test",
        "AWS_REGION": "us-east-1",
    }


@contextmanager
def s3_server(address: str = "127.0.0.1") -> Iterator[str]:
    """A running S3 server with one empty bucket; yields its URL."""
    with socket.socket() as free:
        free.bind((address, 0))
        port = free.getsockname()[1]
    url = f"http://{address}:{port}"
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", address, "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        wait_until(lambda: _answers(url), server)
        bucket = urllib.request.Request(f"{url}/{BUCKET}", method="PUT")
        with urllib.request.urlopen(bucket, timeout=30):
            yield url
    finally:
        server.kill()
        server.wait()


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except OSError:
        return False
