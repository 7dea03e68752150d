"""One S3 server for all contract tests."""

from collections.abc import Iterator

import pytest

from tests.s3 import s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """URL of a running S3 server with one bucket, which the tests share; each keeps to a prefix of its own."""
    with s3_server() as url:
        yield url
