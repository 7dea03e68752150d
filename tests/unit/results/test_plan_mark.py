"""Which code a mark speaks of."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import kd_ray

ASK = """
import sys
from pathlib import Path
from kd_ray.results import plan_mark

path = Path(plan_mark.__file__).parents[1] / "sweep" / "plan.py"
if sys.argv[1] == "while it runs":
    path.write_text(path.read_text() + "# changed")
print(plan_mark.this_code())
"""


def code_of(root: Path, when: str = "before") -> str:
    done = subprocess.run(
        [sys.executable, "-c", ASK, when],
        cwd=root,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


@pytest.mark.slow
def test_code_is_known_by_its_modules_and_not_while_they_are_replaced(tmp_path: Path) -> None:
    shutil.copytree(Path(kd_ray.__file__).parent, tmp_path / "kd_ray", ignore=shutil.ignore_patterns("__pycache__"))
    first = code_of(tmp_path)
    assert len(first) == 64
    assert code_of(tmp_path) == first
    assert code_of(tmp_path, "while it runs") == "None"
    changed = code_of(tmp_path)
    assert changed not in (first, "None")
