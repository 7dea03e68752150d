"""Which share of small random mistakes in pure modules their unit tests notice: `python -m tests.mutants [COUNT] [SEED]`.

A mutant is one module with one operator or number changed. Each runs on a copy of the tree, in a process forked from one that has imported
the libraries already, against the unit tests of that module alone. Those that survive are printed with file and line.
"""

import ast
import importlib
import os
import random
import signal
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import pytest

from tests.guards import ROOT, copy_tree

TESTS = {
    "kd_ray/metrics/calibration.py": "tests/unit/metrics/test_calibration.py",
    "kd_ray/metrics/disagreement.py": "tests/unit/metrics/test_disagreement.py",
    "kd_ray/metrics/fairness.py": "tests/unit/metrics/test_fairness.py",
    "kd_ray/metrics/individual.py": "tests/unit/metrics/test_individual.py",
    "kd_ray/metrics/per_class.py": "tests/unit/metrics/test_per_class.py",
    "kd_ray/analysis/multiple_testing.py": "tests/unit/analysis/test_multiple_testing.py",
    "kd_ray/analysis/two_groups.py": "tests/unit/analysis/test_two_groups.py",
    "kd_ray/analysis/uncertainty.py": "tests/unit/analysis/test_uncertainty.py",
    "kd_ray/results/aggregate.py": "tests/unit/results/test_aggregate.py",
    "kd_ray/results/ledger.py": "tests/unit/results/test_ledger.py",
}
"""Module → the unit tests that are run against its mutants."""
_LIBRARIES = (
    "numpy",
    "scipy.stats",
    "hypothesis.extra.numpy",
    "pyarrow.parquet",
    "duckdb",
    "pydantic",
    "obstore",
    "ruamel.yaml",
)
_LIMIT_S = 240
"""A mutant that takes longer than this has been noticed: it does not end."""
_SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult, ast.And: ast.Or, ast.Or: ast.And,
    ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Mutant:
    """One module with one mistake."""

    file: str
    line: int
    change: str
    source: str


def mutant_of(file: str, number: int) -> Mutant:
    """One of the mutants of a module."""
    tree = ast.parse((ROOT / file).read_text())
    node, position = _places(tree)[number]
    return Mutant(file=file, line=node.lineno, change=_change(node, position), source=ast.unparse(tree))


def _places(tree: ast.Module) -> list[tuple[ast.expr, int]]:
    """Expressions inside functions that can be changed, and which of their operators."""
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]
    inside = {id(node): node for function in functions for statement in function.body for node in ast.walk(statement)}
    found: list[tuple[ast.expr, int]] = []
    for node in inside.values():
        if isinstance(node, ast.Compare):
            found += [(node, i) for i, operator in enumerate(node.ops) if type(operator) in _SWAPS]
        is_operator = isinstance(node, (ast.BinOp, ast.BoolOp)) and type(node.op) in _SWAPS
        is_number = isinstance(node, ast.Constant) and type(node.value) is int
        if isinstance(node, ast.expr) and (is_operator or is_number):
            found.append((node, 0))
    return found


def _change(node: ast.expr, position: int) -> str:
    """Change an expression in place; returns what was changed."""
    if isinstance(node, ast.Constant):
        assert isinstance(node.value, int)
        node.value += 1
        return f"{node.value - 1} → {node.value}"
    if isinstance(node, ast.Compare):
        right = node.ops[position]
        node.ops[position] = cast(ast.cmpop, _SWAPS[type(right)]())
        return f"{type(right).__name__} → {_SWAPS[type(right)].__name__}"
    assert isinstance(node, (ast.BinOp, ast.BoolOp))
    swapped = _SWAPS[type(node.op)]
    change = f"{type(node.op).__name__} → {swapped.__name__}"
    setattr(node, "op", swapped())  # noqa: B010  # operators of either kind
    return change


def survives(folder: Path, mutant: Mutant) -> bool:
    """Whether all tests of the module pass with the mistake in it."""
    file = folder / mutant.file
    right = file.read_text()
    file.write_text(mutant.source)
    child = os.fork()
    if child == 0:
        os.chdir(folder)
        with Path(os.devnull).open("w") as nothing:
            os.dup2(nothing.fileno(), 1)
            os.dup2(nothing.fileno(), 2)
        signal.alarm(_LIMIT_S)
        code = 3
        try:
            code = pytest.main(["-q", "-x", "--assert=plain", "-p", "no:cacheprovider", TESTS[mutant.file]])
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    file.write_text(right)
    code = os.waitstatus_to_exitcode(status)
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED, -signal.SIGALRM):
        raise RuntimeError(f"the tests of {mutant.file} did not run: exit code {code}")
    return code == pytest.ExitCode.OK


def main(count: int, seed: int) -> int:
    """Print the survivors among some mutants drawn at random, and the share that was noticed."""
    for library in _LIBRARIES:
        importlib.import_module(library)
    sys.dont_write_bytecode = True
    places = [(file, i) for file in TESTS for i in range(len(_places(ast.parse((ROOT / file).read_text()))))]
    drawn = [mutant_of(*place) for place in random.Random(seed).sample(places, min(count, len(places)))]
    survivors = 0
    with TemporaryDirectory() as name:
        folder = Path(name)
        copy_tree(folder)
        sys.path[:] = [str(folder), *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
        for module in [module for module in sys.modules if module.split(".")[0] == "tests"]:
            del sys.modules[module]  # the forked processes import those of the copy
        for number, mutant in enumerate(drawn, start=1):
            if survives(folder, mutant):
                survivors += 1
                print(f"survives: {mutant.file}:{mutant.line}: {mutant.change}", flush=True)
            print(f"{number} of {len(drawn)} run, {number - survivors} noticed", file=sys.stderr, flush=True)
    print(f"{len(drawn) - survivors} of {len(drawn)} noticed, drawn from {len(places)}")
    return 0


if __name__ == "__main__":
    given = [int(argument) for argument in sys.argv[1:]]
    sys.exit(main(*given, *(60, 0)[len(given) :]))
