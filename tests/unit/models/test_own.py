"""Networks of the user's own: the example of the docs, installed as a distribution would be, and what is refused."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from kd_ray.cluster.launch import launch
from kd_ray.errors import SweepError
from kd_ray.models import build_model
from kd_ray.models.libraries import check_model
from kd_ray.models.mlp import mlp
from kd_ray.models.own import GROUP, model_versions
from kd_ray.results.query import Results
from kd_ray.results.store import Store
from kd_ray.sweep.architectures import library_of, own_network
from kd_ray.sweep.plan import expand
from tests.fakes import make_sweep
from tests.sweeps import tiny_sweep

DOCS = (Path(__file__).resolve().parents[3] / "docs" / "own-models.md").read_text()
NAME = "my_models.wide:build"
OTHERS = """
import torch
from torch import nn
def rows(num_classes, num_inputs):
    return nn.Linear(num_inputs, num_classes)
def number(num_classes, num_inputs):
    return 3
def fails(num_classes, num_inputs):
    raise RuntimeError("no such depth")
def few(num_classes, num_inputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(3 * num_inputs**2, 2))
def drops(num_classes, num_inputs):
    return nn.Sequential(nn.Flatten(), nn.Dropout(), nn.Linear(3 * num_inputs**2, num_classes))
"""


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with the example and others, as an installer would leave it."""
    source = re.search(r"```python\n(# my_models/wide\.py\n.*?)```", DOCS, flags=re.DOTALL)
    declared = re.search(r"```toml\n(.*?)```", DOCS, flags=re.DOTALL)
    assert source
    assert declared
    assert declared.group(1) == f'[project.entry-points."{GROUP}"]\nwide = "{NAME}"\n'
    package, info = tmp_path / "site" / "my_models", tmp_path / "site" / "my_models-1.2.dist-info"
    package.mkdir(parents=True)
    info.mkdir()
    (package / "__init__.py").write_text("")
    (package / "wide.py").write_text(source.group(1))
    (package / "others.py").write_text(OTHERS)
    (package / "secret.py").write_text("raise SystemExit('imported')\n")
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my-models\nVersion: 1.2\n")
    names = ["rows", "number", "fails", "few", "drops"]
    lines = [f"wide = {NAME}", *(f"{name} = my_models.others:{name}" for name in names)]
    (info / "entry_points.txt").write_text("\n".join([f"[{GROUP}]", *lines]) + "\n")
    monkeypatch.syspath_prepend(tmp_path / "site")
    yield tmp_path
    for name in [name for name in sys.modules if name.split(".")[0] == "my_models"]:
        del sys.modules[name]


@pytest.mark.slow
def test_the_example_of_the_docs_teaches(installed: Path, store: Store, trifeature_root: Path) -> None:
    shown = re.search(r"```yaml\n(.*?)```", DOCS, flags=re.DOTALL)
    assert shown
    (teacher, student) = (YAML(typ="safe").load(shown.group(1))[name] for name in ("teacher", "student"))
    overrides = (
        f"teacher={{model: '{teacher['model']}', seed: [0]}}", f"student.model={student['model']}", "grid.seed=[0]",
        "grid.temperature=[4]", "baselines=[]", "training.epochs=1", "training.schedule={name: constant}",
    )  # fmt: skip
    assert launch(tiny_sweep(trifeature_root, *overrides), store, runner="local").exit_code == 0
    rows = Results(store).query("SELECT role, model, teacher, num_parameters, versions FROM trials ORDER BY role")
    distilled, taught = rows.to_pylist()
    assert (taught["model"], distilled["teacher"], distilled["model"]) == (f"{NAME}@1.2", f"{NAME}@1.2", "lenet5")
    convolutions = (3 * 9 * 16 + 16) + (16 * 9 * 32 + 32)
    assert (taught["num_parameters"] - convolutions) % 33 == 0
    assert '"my-models":"1.2"' in taught["versions"].replace(" ", "")
    assert "my-models" not in distilled["versions"]


def test_weights_follow_the_generator_and_both_kinds_of_samples_are_taken(installed: Path) -> None:
    torch.manual_seed(5)
    model = build_model(NAME, num_classes=7, image_size=16)
    torch.manual_seed(5)
    again = build_model(f"{NAME}@1.2", num_classes=7, image_size=16)
    assert torch.equal(model.state_dict()["0.weight"], again.state_dict()["0.weight"])
    assert mlp("my_models.others:rows", 3, 5)(torch.zeros(2, 5)).shape == (2, 3)
    assert model_versions(NAME) == {"my-models": "1.2"}
    assert model_versions("lenet5") == model_versions("timm:resnet18") == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my_models.secret:build", rf"no distribution installed here offers 'my_models.secret:build' as .*offered: .*{NAME}"),
        (f"{NAME}@1.3", r"build@1\.3: version 1\.2 is installed here"),
        ("my_models.others:number", "returned int, expected a torch.nn.Module"),
        ("my_models.others:fails", "cannot be built for 7 classes and 16 inputs: no such depth"),
        ("my_models.others:few", r"gives shape \(2, 2\) for two images, expected logits of shape \(2, 7\)"),
        ("my_models.others:drops", "has dropout or stochastic depth"),
    ],
)  # fmt: skip
def test_networks_that_cannot_be_used_are_named(name: str, message: str, installed: Path) -> None:
    with pytest.raises(ValueError, match=message):
        check_model(name, num_classes=7, image_size=16, trains=True)
    assert "my_models.secret" not in sys.modules


def test_a_launch_refuses_them_before_anything_is_written(installed: Path, store: Store, trifeature_root: Path) -> None:
    with pytest.raises(SweepError, match=r"my_models\.others:few gives shape"):
        launch(tiny_sweep(trifeature_root, "student.model='my_models.others:few'"), store, runner="local")
    assert not list(store.entries(""))


def test_a_plan_imports_nothing() -> None:
    file = make_sweep(overrides=["teacher.model='lab.nets:build@0.1'"])
    assert {it.spec.model for it in expand(file, lambda _: "")} == {"lab.nets:build@0.1", "lenet5"}
    others = expand(make_sweep(overrides=["teacher.model='lab.nets:build@0.2'"]), lambda _: "")
    assert not {it.trial_id for it in others if it.spec.role == "distilled"} & {
        it.trial_id for it in expand(file, lambda _: "")
    }
    with pytest.raises(SweepError, match=r"lab\.nets:build cannot be grouped; use loop"):
        make_sweep(overrides=["student.model='lab.nets:build'", "training.execution=grouped"])
    with pytest.raises(SweepError, match=r"no library publishes weights of lab\.nets:build"):
        make_sweep(overrides=["student={model: 'lab.nets:build', init: pretrained}"])


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("a.b:c", ("a.b:c", None)),
        ("a.b.c:d@1.0+cu1", ("a.b.c:d", "1.0+cu1")),
        ("timm:resnet18", None),
        ("hub:resnet18", None),
        ("a.b:c@", None),
        ("a.b:c.d", None),
    ],
)
def test_names(name: str, found: tuple[str, str | None] | None) -> None:
    assert own_network(name) == found
    assert found is None or library_of(name) is None
