"""Classifiers of texts: sizes as published, weights where they belong, cuts of layers, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from kd_ray.errors import DataError
from kd_ray.models import count_parameters
from kd_ray.models.text_classifier import Tokens, from_teacher, text_classifier
from kd_ray.sweep.encoders import read_encoder
from kd_ray.sweep.spec import Encoder
from tests.datasets import write_bert

pytest.importorskip("transformers", reason="the extra `text` is not installed")


def build(root: Path, name: str = "hf:tiny-bert", *, init: Any = "pretrained", layers: Any = None) -> torch.nn.Module:
    torch.manual_seed(3)
    encoder = Encoder(version=read_encoder(name, root).version, init=init, layers=layers)
    return text_classifier(name, encoder, 3, root).eval()


TOKENS = Tokens(
    torch.randint(5, 17, (4, 9), generator=torch.Generator().manual_seed(0)), torch.ones(4, 9, dtype=torch.long)
)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "layers", "expected"), [("bert", 12, 109.5e6), ("distilbert", 6, 67.0e6)])
def test_published_number_of_parameters(tmp_path: Path, kind: str, layers: int, expected: float) -> None:
    write_bert(tmp_path, kind=kind, layers=layers, weights=False)
    path = tmp_path / "models" / "tiny-bert" / "config.json"
    config = json.loads(path.read_text())
    key = "num_hidden_layers" if kind == "bert" else "n_layers"
    # Nothing but the sizes that every such network has; the library's defaults are those of the base models.
    path.write_text(json.dumps({"model_type": kind, key: config[key]}))
    with torch.device("meta"):
        model = build(tmp_path, init="random")
    assert count_parameters(model) == pytest.approx(expected, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["bert", "distilbert"])
def test_pretrained_body_and_random_head(tmp_path: Path, kind: str) -> None:
    write_bert(tmp_path, kind=kind)
    model = build(tmp_path)
    weights = load_file(tmp_path / "models" / "tiny-bert" / "model.safetensors")
    found = model.state_dict()
    assert all(torch.equal(found[f"network.{kind}.{name}"], value) for name, value in weights.items())
    assert len(found) > len(weights)
    assert model(TOKENS).shape == (4, 3)
    loss = torch.nn.functional.cross_entropy(model(TOKENS), torch.tensor([0, 1, 2, 0]))
    loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in model.parameters() if parameter.requires_grad)


@pytest.mark.parametrize(
    ("kind", "inner"), [("bert", "bert.encoder.layer"), ("distilbert", "distilbert.transformer.layer")]
)
def test_a_cut_has_the_named_layers(tmp_path: Path, kind: str, inner: str) -> None:
    write_bert(tmp_path, kind=kind)
    whole, cut = build(tmp_path).state_dict(), build(tmp_path, layers=(1, 3)).state_dict()
    layers = {name: value for name, value in cut.items() if inner in name}
    assert {name.split(f"{inner}.")[1][0] for name in layers} == {"0", "1"}
    for name, value in layers.items():
        source = (
            name.replace(f"{inner}.0", f"{inner}.1")
            if f"{inner}.0" in name
            else name.replace(f"{inner}.1", f"{inner}.3")
        )
        assert torch.equal(value, whole[source])


@pytest.mark.slow
def test_from_teacher_takes_layers_head_and_all(tmp_path: Path) -> None:
    write_bert(tmp_path)
    teacher = build(tmp_path, layers=(0, 1, 3))
    student = build(tmp_path, init="random", layers=(0, 3))
    student.load_state_dict(from_teacher(teacher.state_dict(), (0, 3), (0, 1, 3)))
    mine, theirs = student.state_dict(), teacher.state_dict()
    assert torch.equal(mine["network.classifier.weight"], theirs["network.classifier.weight"])
    name = "network.bert.encoder.layer.{}.attention.self.query.weight"
    assert torch.equal(mine[name.format(0)], theirs[name.format(0)])
    assert torch.equal(mine[name.format(1)], theirs[name.format(2)])
    same = build(tmp_path, init="random", layers=(0, 1, 3))
    same.load_state_dict(from_teacher(teacher.state_dict(), None, (0, 1, 3)))
    assert torch.equal(same(TOKENS), teacher(TOKENS))


def test_padding_does_not_count(tmp_path: Path) -> None:
    model = build(write_bert(tmp_path))
    longer = Tokens(
        torch.nn.functional.pad(TOKENS.ids_BL, (0, 7), value=9), torch.nn.functional.pad(TOKENS.mask_BL, (0, 7))
    )
    assert torch.allclose(model(TOKENS), model(longer), atol=1e-6)


def test_weights_of_the_library_load_by_their_own_names(tmp_path: Path) -> None:
    model = build(write_bert(tmp_path))
    theirs = {name.removeprefix("network."): value + 1 for name, value in model.state_dict().items()}
    model.load_state_dict(theirs)
    assert torch.equal(model.state_dict()["network.classifier.bias"], theirs["classifier.bias"])


def test_a_changed_folder_or_missing_weights_are_refused(tmp_path: Path) -> None:
    write_bert(tmp_path)
    path = tmp_path / "models" / "tiny-bert" / "model.safetensors"
    with pytest.raises(DataError, match=r"has version [0-9a-f]{16}, and the trial was planned with 0{16}"):
        text_classifier("hf:tiny-bert", Encoder(version="0" * 16, init="random"), 2, tmp_path)
    weights = load_file(path)
    save_file({name: value for name, value in weights.items() if "layer.2" not in name}, path)
    with pytest.raises(
        DataError, match=r"lacks 16 of the weights that its config.json asks for, such as encoder.layer.2"
    ):
        build(tmp_path)
    path.write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"model.safetensors does not fit its config.json"):
        build(tmp_path)


def test_an_unknown_architecture_is_refused(tmp_path: Path) -> None:
    write_bert(tmp_path, weights=False)
    path = tmp_path / "models" / "tiny-bert" / "config.json"
    path.write_text(json.dumps({"model_type": "nothing", "num_hidden_layers": 2}))
    with pytest.raises(ValueError, match="hf:tiny-bert: transformers cannot build it as a classifier of texts"):
        build(tmp_path, init="random")
