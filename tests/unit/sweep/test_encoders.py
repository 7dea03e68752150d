"""Sweeps of texts, as far as `plan` goes: identities that follow what is in a folder, and wrong pairs that are refused."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from kd_ray.errors import SweepError
from kd_ray.results.launch_plan import plan
from kd_ray.sweep.load import parse_sweep
from kd_ray.sweep.plan import PlannedTrial
from kd_ray.sweep.spec import Role, TrialSpec
from tests.datasets import write_bert

SWEEP = """
name: texts
dataset: {name: hatexplain, tokenizer: "hf:tiny-bert", max_length: 16}
teacher: {model: "hf:tiny-bert", seed: [0]}
student: {model: "hf:tiny-bert", init: teacher, layers: [0, 2]}
training: {epochs: 2, batch_size: 8, optimizer: {name: adamw, lr: 1e-3}, schedule: {name: linear}, clip_norm: 1.0}
distillation: {alpha: 0.9, t_squared: true}
grid: {seed: [0], temperature: [1, 4]}
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_bert(tmp_path_factory.mktemp("data"), weights=False)
    (root / "models" / "tiny-bert" / "model.safetensors").write_bytes(b"some weights")
    write_bert(root, "small", weights=False, layers=2)
    (root / "models" / "small" / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nother\n")
    return root


def planned(root: Path, *overrides: str) -> Sequence[PlannedTrial]:
    file = parse_sweep(SWEEP, source="texts.yaml", overrides=[f"placement.data_root={root}", *overrides])
    return plan(file, None).planned


def test_students_that_start_from_the_teacher_wait_for_it(root: Path) -> None:
    trials = planned(root)
    teacher, scratch, *distilled = (trial.spec for trial in trials)
    assert [spec.role for spec in (teacher, scratch)] == [Role.TEACHER, Role.SCRATCH]
    assert teacher.encoder
    assert (teacher.encoder.init, teacher.encoder.layers) == ("pretrained", None)
    for spec in (scratch, *distilled):
        assert spec.encoder
        assert (spec.encoder.init, spec.encoder.layers) == ("teacher", (0, 2))
        assert spec.teacher
        assert spec.teacher.trial_id == teacher.trial_id
    assert scratch.describe() == "scratch hf:tiny-bert layers=[0, 2] seed=0"
    assert all(
        TrialSpec.model_validate_json(spec.model_dump_json()).trial_id == spec.trial_id for spec in (scratch, teacher)
    )


def test_start_and_layers_are_part_of_the_identity(root: Path) -> None:
    ids = [
        planned(root, *changed)[1].trial_id
        for changed in (
            [], ["student.layers=[0, 3]"], ["student.init=pretrained"], ["student.init=random"], ["training.clip_norm=2.0"],
            ["training.optimizer.name=adam"], ["dataset.max_length=15"],
        )
    ]  # fmt: skip
    assert len(set(ids)) == len(ids)


def test_layers_can_be_an_axis(root: Path) -> None:
    trials = planned(root, "student.layers=null", "grid={seed: [0], temperature: [4], student.layers: [[0], [0, 3]]}")
    assert [trial.settings.get("student.layers") for trial in trials if trial.spec.role is Role.DISTILLED] == [
        [0],
        [0, 3],
    ]


def test_identity_follows_the_content_of_the_folder_and_not_its_place(root: Path, tmp_path: Path) -> None:
    write_bert(tmp_path, weights=False)
    (tmp_path / "models" / "tiny-bert" / "model.safetensors").write_bytes(b"some weights")
    assert planned(tmp_path)[0].trial_id == planned(root)[0].trial_id
    (tmp_path / "models" / "tiny-bert" / "model.safetensors").write_bytes(b"other weights")
    assert planned(tmp_path)[0].trial_id != planned(root)[0].trial_id


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["student={model: resnet20}"], "student.model: resnet20 takes images, and hatexplain holds texts; use hf:NAME"),
        (["teacher.model=timm:resnet18"], "teacher.model: timm:resnet18 takes images, and hatexplain holds texts"),
        (
            ["dataset={name: cifar10}", "student={model: lenet5}"],
            "teacher.model: hf:tiny-bert takes texts, and cifar10 holds images",
        ),
        (["training.augmentation=flip"], "training.augmentation: flip is for images; texts have none"),
        (["training.compile=true"], "training.compile: is for inputs of one shape; texts have many lengths"),
        (["training.execution=grouped", "training.optimizer={lr: 0.1}", "training.clip_norm=null"], "cannot be grouped; use loop"),
        (["training.execution=grouped"], "training.clip_norm: is not known to execution: grouped; use loop"),
        (["student.layers=[2, 0]"], "student.layers: must increase, got [2, 0]"),
        (["student.layers=[0, 4]"], "student.layers: hf:tiny-bert has layers 0 to 3, got [0, 4]"),
        (["teacher.layers=[0, 1]"], "student.layers: must be among the teacher's layers; the teacher has [0, 1], got [0, 2]"),
        (["student.model=hf:small"], "student.init: teacher needs a trained teacher of the model hf:small, got hf:tiny-bert"),
        (["teacher.seed=[0, 1]"], "student.init: teacher with several teachers per seed leaves open where a scratch student starts"),
        (["student={model: 'hf:small'}"], "init: {root}/models/small has no model.safetensors to start from"),
        (["student={model: 'hf:small', init: random}"], "model: hf:small has another vocabulary than dataset.tokenizer hf:tiny-bert"),
        (["dataset.max_length=64"], "model: hf:tiny-bert takes at most 32 tokens, and dataset.max_length is 64"),
        (["dataset.tokenizer=hf:../x"], "dataset.tokenizer"),
        (["dataset.tokenizer=hf:none"], "hf:none: there is no folder {root}/models/none"),
        (["training.schedule.warmup_epochs=1", "training.schedule.warmup_fraction=0.1"], "says the same as warmup_epochs"),
        (["dataset.target=both"], "dataset.target: should be 'toxic' or 'label', got 'both'"),
        (["training.optimizer.name=lion"], "training.optimizer.name: must be one of 'sgd', 'adam', 'adamw', got 'lion'"),
        (["sensitive_features=[age]"], "'age' is not a sensitive feature of hatexplain with target 'toxic'; valid: gender, race, religion"),
    ],
)  # fmt: skip
def test_wrong_pairs_are_refused(root: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(SweepError, match=re.escape(message.replace("{root}", str(root)))):
        planned(root, *overrides)


def test_init_and_layers_are_for_texts(root: Path) -> None:
    images = ["dataset={name: cifar10}", "teacher=null", "distillation=null", "grid={seed: [0]}"]
    with pytest.raises(SweepError, match=r"student\.layers: has no effect with lenet5; it is for hf:NAME"):
        planned(root, *images, "student={model: lenet5, layers: [0]}")


def test_a_folder_of_the_hub_cache_is_found(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    snapshot = tmp_path / "models--some--bert" / "snapshots" / ("a" * 40)
    snapshot.mkdir(parents=True)
    (tmp_path / "models--some--bert" / "refs").mkdir()
    (tmp_path / "models--some--bert" / "refs" / "main").write_text("a" * 40)
    for name in ("config.json", "vocab.txt", "tokenizer_config.json", "model.safetensors"):
        (snapshot / name).write_bytes((root / "models" / "tiny-bert" / name).read_bytes())
    cached = planned(root, "dataset.tokenizer=hf:some/bert", "teacher.model=hf:some/bert", "student.model=hf:some/bert")
    here = planned(root)
    assert cached[0].spec.encoder == here[0].spec.encoder
    assert json.loads(cached[0].spec.model_dump_json())["model"] == "hf:some/bert"
