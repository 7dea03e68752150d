"""The long form of the calibration runs only when it is asked for."""

import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without `calibration` in `-m`, whatever else is chosen, tests of that marker are left out."""
    if "calibration" in config.option.markexpr:
        return
    left_out = [item for item in items if item.get_closest_marker("calibration")]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in left_out]
