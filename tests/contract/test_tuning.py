"""A search as real processes: killed in the middle, shared by two launches, on both runners."""

import json
from pathlib import Path
from typing import Any

import pytest

from kd_ray.results.inventory import take_inventory
from kd_ray.results.store import open_store
from tests.processes import run_cli, started, wait_until
from tests.unit.tuning.test_splits import tiny

SETTINGS = (
    "tune.space={training.optimizer.lr: {log_uniform: [0.001, 0.1]}}",
    "tune.searcher=random",
    "tune.arm=scratch",
    "tune.budget.candidates=4",
)


def told(text: str) -> Any:
    """What two searches have in common: everything but times and places."""
    found = json.loads(text)
    del found["store"], found["written"], found["warnings"], found["tuned"]["train_hours"]
    return found


@pytest.mark.long
@pytest.mark.ray
def test_a_killed_search_goes_on_with_the_same_candidates_in_two_launches(
    tmp_path: Path, trifeature_root: Path
) -> None:
    file = tmp_path / "tiny.yaml"
    file.write_text(tiny(trifeature_root, *SETTINGS).to_yaml())
    store = open_store(tmp_path / "store")
    arguments = ("tune", str(file), "--store", store.url)

    def one_is_stopped() -> bool:
        trials = take_inventory(store, "trials").trials.values()
        return sum(bool(trial.stops) for trial in trials) >= 1

    with started(*arguments, cwd=tmp_path, output=tmp_path / "first") as first:
        # Each candidate has a worker of its own, and a worker imports torch.
        wait_until(one_is_stopped, first, timeout_s=300)
    # `started` kills every process of the session with SIGKILL.
    with started(*arguments, "--json", cwd=tmp_path, output=tmp_path / "second") as second:
        third = run_cli(*arguments, "--json", "--runner", "local", cwd=tmp_path)
        assert second.wait(timeout=600) == 0, (tmp_path / "second").read_text()
    assert third.returncode == 0, third.stderr
    whole = run_cli("tune", str(file), "--store", str(tmp_path / "whole"), "--runner", "local", "--json", cwd=tmp_path)
    assert whole.returncode == 0, whole.stderr
    assert told(third.stdout) == told(whole.stdout)
