"""The list of guards fits the tree as it is; `python -m tests.guards` breaks the product with them."""

import ast
from pathlib import Path

import pytest

from tests.guards import GUARDS, ROOT, Guard, broken
from tests.mutants import TESTS


@pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: str(guard.name))
def test_a_guard_breaks_one_place_of_a_file_that_stays_python(guard: Guard) -> None:
    content = broken(guard, (ROOT / guard.file).read_text())
    ast.parse(content)
    assert guard.tests
    assert all((ROOT / test.split("::")[0]).is_file() for test in guard.tests)


def test_a_guard_whose_text_has_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"fencing is ignored: kd_ray/distill/leases\.py holds .* 0 times, not once"):
        broken(next(guard for guard in GUARDS if guard.name == "fencing is ignored"), "")


@pytest.mark.parametrize("module", TESTS)
def test_a_module_that_mutants_are_made_of_and_its_tests_are_there(module: str) -> None:
    assert (ROOT / module).is_file()
    assert (ROOT / TESTS[module]).is_file()
