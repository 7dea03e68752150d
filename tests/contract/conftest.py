"""One S3 server for all contract tests, and the rule that the long form of the chaos test runs only when it is asked for."""

from collections.abc import Iterator

import pytest

from tests.s3 import s3_server


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """URL of a running S3 server with one bucket, which the tests share; each keeps to a prefix of its own."""
    with s3_server() as url:
        yield url


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without `chaos` in `-m`, whatever else is chosen, tests of that marker are left out."""
    if "chaos" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("chaos")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
