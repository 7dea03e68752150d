"""One S3 server and one Azure server for all contract tests."""

from collections.abc import Iterator

import pytest

from tests.azure import azure_server
from tests.s3 import s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """URL of a running S3 server with one bucket, which the tests share; each keeps to a prefix of its own."""
    with s3_server() as url:
        yield url


@pytest.fixture(scope="session")
def azure() -> Iterator[str]:
    """URL of a running Azure server with one container, shared in the same way."""
    with azure_server() as url:
        yield url
