"""An objective of one's own: the example of docs/objectives.md, installed as a distribution would be, and what is refused."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from kd_ray.cluster.launch import launch
from kd_ray.distill.objectives.imported import load_function
from kd_ray.errors import TrialError
from kd_ray.results.query import Results
from kd_ray.results.status import sweep_status
from kd_ray.results.store import Store
from kd_ray.sweep.spec import TrialState
from tests.sweeps import tiny_sweep

PAGE = (Path(__file__).resolve().parents[4] / "docs" / "objectives.md").read_text()
BLOCKS = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
OBJECTIVE = "my_losses.grouped:loss"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with the example of docs/objectives.md, as an installer would leave it."""
    source = re.search(r"```python\n(# my_losses/grouped\.py\n.*?)```", PAGE, flags=re.DOTALL)
    declared = re.search(r"```toml\n(.*?)```", PAGE, flags=re.DOTALL)
    assert source
    assert declared
    assert f'grouped = "{OBJECTIVE}"' in declared.group(1)
    folder = tmp_path / "site"
    package, info = folder / "my_losses", folder / "my_losses-1.2.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text("")
    (package / "grouped.py").write_text(source.group(1))
    (package / "other.py").write_text("raise SystemExit('imported')\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-losses\nVersion: 1.2\n")
    (info / "entry_points.txt").write_text(f"[kd_ray.objectives]\ngrouped = {OBJECTIVE}\n")
    monkeypatch.syspath_prepend(folder)
    load_function.cache_clear()
    yield folder
    load_function.cache_clear()
    for name in [name for name in sys.modules if name.split(".")[0] == "my_losses"]:
        del sys.modules[name]


def sweep_settings(**changes: object) -> tuple[str, ...]:
    """The settings of docs/objectives.md."""
    (shown,) = [block for block in BLOCKS if "my_losses" in block]
    settings = YAML(typ="safe").load(shown)["distillation"] | changes
    text = json.dumps(settings)
    return (
        f"distillation={text}", "dataset.validation_fraction=0.2", "grid.temperature=null", "grid.seed=[0]", "baselines=[]",
        "training.epochs=1", "training.batch_size=100", "training.schedule={name: constant}",
    )  # fmt: skip


@pytest.mark.slow
def test_the_example_of_the_docs_trains_and_its_terms_are_in_epochs(
    installed: Path, store: Store, trifeature_root: Path
) -> None:
    assert launch(tiny_sweep(trifeature_root, *sweep_settings()), store, runner="local").exit_code == 0
    results = Results(store)
    (row,) = results.query(
        "SELECT objective, temperature, loss, distillation, cross_entropy, (terms ->> 'worst_group')::DOUBLE AS worst "
        "FROM epochs WHERE role = 'distilled'"
    ).to_pylist()
    assert row["objective"] == OBJECTIVE
    assert row["temperature"] is None
    assert row["loss"] == pytest.approx(row["distillation"] + row["cross_entropy"] + row["worst"])
    assert row["worst"] > 0.5 * row["cross_entropy"]
    (versions,) = results.query("SELECT versions ->> 'my-losses' AS v FROM trials WHERE role = 'distilled'").to_pylist()
    assert versions == {"v": "1.2"}
    counts = results.query("SELECT sum(held_out_n) AS n FROM class_metrics WHERE role = 'distilled'")
    assert counts.to_pylist() == [{"n": 100}]


def test_what_no_distribution_offers_is_not_imported(installed: Path) -> None:
    message = (
        f"no distribution installed on this worker offers the objective 'my_losses.other:loss'.*offered: {OBJECTIVE}"
    )
    with pytest.raises(TrialError, match=message):
        load_function("my_losses.other:loss", None)
    assert "my_losses.other" not in sys.modules


def test_another_version_is_refused(installed: Path) -> None:
    with pytest.raises(TrialError, match=r"asks for version 1\.3, and this worker has 1\.2 installed"):
        load_function(OBJECTIVE, "1.3")
    assert load_function(OBJECTIVE, "1.2") is load_function(OBJECTIVE, None)


def test_a_function_that_is_not_there_fails_the_trial_with_its_name(installed: Path) -> None:
    (installed / "my_losses-1.2.dist-info" / "entry_points.txt").write_text(
        "[kd_ray.objectives]\nx = my_losses.grouped:nothing\n"
    )
    with pytest.raises(TrialError, match=r"objective my_losses\.grouped:nothing cannot be imported"):
        load_function("my_losses.grouped:nothing", None)


@pytest.mark.slow
def test_other_terms_than_named_fail_the_trial(installed: Path, store: Store, trifeature_root: Path) -> None:
    file = tiny_sweep(trifeature_root, *sweep_settings(terms=["cross_entropy", "other"]))
    assert launch(file, store, runner="local").exit_code == 1
    (failed,) = [view for view in sweep_status(store, "tiny").trials if view.state == TrialState.FAILED]
    returned, named = "['cross_entropy', 'distillation', 'worst_group']", "['cross_entropy', 'other']"
    assert f"returned the terms {returned}, and distillation.terms names {named}" in str(failed.traceback)
