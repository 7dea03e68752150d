import pytest
import torch

from kd_ray.models import MODELS, build_model, count_parameters


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        # He et al. 2016, table 6: 0.27, 0.46, 0.66 and 0.85 M, with parameter-free shortcuts.
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
        # 456 + 2,416 + 48,120 + 10,164 + 850.
        ("lenet5", 62_006),
    ],
)
def test_model_has_published_number_of_parameters(name: str, parameters: int) -> None:
    assert count_parameters(build_model(name, num_classes=10, image_size=32)) == parameters


@pytest.mark.parametrize("name", sorted(MODELS))
@pytest.mark.parametrize("image_size", [16, 32, 64])
def test_model_gives_logits_and_gradients_for_every_parameter(name: str, image_size: int) -> None:
    model = build_model(name, num_classes=7, image_size=image_size)
    logits_BC = model(torch.randn(3, 3, image_size, image_size))
    assert logits_BC.shape == (3, 7)
    logits_BC.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_option_a_shortcut_subsamples_and_pads_channels_with_zeros() -> None:
    block = build_model("resnet20", num_classes=10, image_size=32).get_submodule("layer2.0")
    for parameter in block.parameters():
        torch.nn.init.zeros_(parameter)
    x = torch.rand(2, 16, 8, 8)
    out = block.eval()(x)
    assert torch.equal(out[:, 8:24], x[:, :, ::2, ::2])
    assert not out[:, :8].any()
    assert not out[:, 24:].any()


def test_same_generator_state_gives_same_weights() -> None:
    def weights() -> list[torch.Tensor]:
        torch.manual_seed(5)
        return list(build_model("lenet5", num_classes=3, image_size=32).parameters())

    assert all(torch.equal(a, b) for a, b in zip(weights(), weights(), strict=True))


def test_lenet5_refuses_images_that_are_too_small() -> None:
    with pytest.raises(ValueError, match="at least 16 pixels, got 15"):
        build_model("lenet5", num_classes=10, image_size=15)
