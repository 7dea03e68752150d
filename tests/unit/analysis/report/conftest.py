"""Two reports that several tests look at, each made once."""

import pytest

from kd_ray.analysis.report.build import make_report
from kd_ray.results.query import Results
from kd_ray.results.store import open_store
from tests.golden.make import golden_results
from tests.unit.analysis.report.made import hostile_sweep


@pytest.fixture(scope="session")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Results:
    """The golden records in a store."""
    return golden_results(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="session")
def golden_files(golden: Results) -> dict[str, bytes]:
    """Their report."""
    return make_report(golden, "demo")


@pytest.fixture(scope="session")
def hostile_files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The report of a sweep with hostile names, one of whose trials is missing."""
    return make_report(hostile_sweep(open_store(tmp_path_factory.mktemp("hostile")), leave_out=1), "demo")
