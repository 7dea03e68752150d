import copy
import hashlib

import pytest
import torch

from kd_ray.models import MODELS, build_model, count_parameters
from kd_ray.models.libraries import check_model
from kd_ray.sweep.architectures import ARCHITECTURES


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


SIZED = [
    # One network of each family is short, the deep ones are not.
    pytest.param(
        name,
        size,
        marks=[] if size <= 32 and name in ("lenet5", "resnet20", "resnet18", "densenet121") else pytest.mark.long,
    )
    for name in sorted(MODELS)
    # The least size, and one that is neither even nor square-rootable; deep networks are slow, and their sizes differ in the stem only.
    for size in ([16, 32, 64] if ARCHITECTURES[name].can_be_grouped else [ARCHITECTURES[name].min_image_size, 70])
    if size < 70 or not name.endswith("-cifar")
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "image_size"), SIZED)
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


def test_lenet5_has_the_bits_of_pooling_after_the_relu() -> None:
    torch.manual_seed(0)
    pooled_first = build_model("lenet5", num_classes=3, image_size=32)
    conv1, pool, relu, conv2, _, _, *others = copy.deepcopy(pooled_first).children()
    pooled_last = torch.nn.Sequential(conv1, relu, pool, conv2, relu, pool, *others)
    images_BCHW = torch.randn(8, 3, 32, 32)
    images_BCHW[0] = 0  # ties
    logits, expected = pooled_first(images_BCHW), pooled_last(images_BCHW)
    assert torch.equal(logits, expected)
    gradients = torch.autograd.grad(logits.square().sum(), list(pooled_first.parameters()))
    for ours, theirs in zip(
        gradients, torch.autograd.grad(expected.square().sum(), list(pooled_last.parameters())), strict=True
    ):
        assert torch.equal(ours, theirs)


def test_lenet5_refuses_images_that_are_too_small() -> None:
    with pytest.raises(ValueError, match="at least 16 pixels, got 15"):
        build_model("lenet5", num_classes=10, image_size=15)


def test_every_architecture_can_be_built() -> None:
    assert set(MODELS) == set(ARCHITECTURES)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "published"),
    [
        # torchvision's documentation gives the numbers of parameters; the papers round them.
        ("resnet18-imagenet", 11_689_512, 11.7e6),
        ("resnet50-imagenet", 25_557_032, 25.6e6),
        ("densenet121-imagenet", 7_978_856, 8.0e6),
        ("densenet169-imagenet", 14_149_480, 14.15e6),
    ],
)
def test_large_model_has_published_number_of_parameters(name: str, parameters: int, published: float) -> None:
    found = count_parameters(build_model(name, num_classes=1000, image_size=224))
    assert found == parameters
    assert found == pytest.approx(published, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet50", "densenet121", "densenet169"])
def test_large_model_takes_the_weights_and_gives_the_logits_of_torchvision(name: str) -> None:
    torch.manual_seed(0)
    import torchvision

    reference = torchvision.models.get_model(name, weights=None, num_classes=5).eval()
    model = build_model(f"{name}-imagenet", num_classes=5, image_size=64).eval()
    model.load_state_dict(reference.state_dict())
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference(images), rtol=1e-4, atol=1e-4)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "names_and_shapes", "expected"),
    [
        ("resnet18", "5344ce587df70940", [-0.12565, 0.18142, -0.18784, -0.01107, 0.03078, 0.0147]),
        ("resnet18-imagenet", "0fcc4ba1d51d1769", [-0.01417, -0.01299, 0.03448, -0.01353, -0.05321, 0.04894]),
        ("resnet50", "4c6065b933222ffd", [-0.01259, -0.0585, -0.06009, 0.00936, -0.04422, -0.03533]),
        ("densenet121", "66c31374de87850f", [-0.15426, -0.11379, 0.30689, -0.27588, -0.26987, 0.61244]),
        ("densenet121-imagenet", "2d154c0e60f711a3", [-0.24273, 0.05183, -0.08586, -0.22709, -0.05332, 0.00947]),
    ],
)
def test_large_model_has_the_weights_and_logits_of_kd_rays_first_implementation(
    name: str, names_and_shapes: str, expected: list[float]
) -> None:
    """Values from the implementation of version 0.1 that torchvision's replaced: weights in older stores load, and mean the same."""
    torch.manual_seed(3)
    model = build_model(name, num_classes=3, image_size=64)
    described = "".join(f"{key} {tuple(tensor.shape)};" for key, tensor in model.state_dict().items())
    assert hashlib.sha256(described.encode()).hexdigest()[:16] == names_and_shapes
    images = torch.linspace(-1, 1, 2 * 3 * 64 * 64).view(2, 3, 64, 64)
    with torch.no_grad():
        model(images)
        assert model.eval()(images).flatten().tolist() == pytest.approx(expected, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_stem_follows_the_image_unless_the_name_says_it(name: str) -> None:
    def first_stride(name: str, image_size: int) -> int:
        model = build_model(name, num_classes=5, image_size=image_size)
        first = next(module for module in model.modules() if isinstance(module, torch.nn.Conv2d))
        return int(first.stride[0])

    strides = [first_stride(n, s) for n, s in ((name, 64), (name, 65), (f"{name}-cifar", 65), (f"{name}-imagenet", 64))]
    assert strides == [1, 2, 1, 2]


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=pytest.mark.long if name.startswith("densenet") else [])
        for name in sorted(ARCHITECTURES)
        if not name.endswith(("169", "50"))
    ],
)
def test_least_image_size_is_the_least_that_trains_on_a_single_image(name: str) -> None:
    """The last batch of an epoch may hold one sample, of which batch normalisation needs more than one pixel."""
    least = ARCHITECTURES[name].min_image_size
    build_model(name, num_classes=5, image_size=least).train()(torch.randn(1, 3, least, least))
    if "net" in name and ARCHITECTURES[name].can_be_grouped:
        return
    with pytest.raises(ValueError, match=f"{name} needs images of at least {least} pixels, got {least - 1}"):
        build_model(name, num_classes=5, image_size=least - 1)
    with pytest.raises((ValueError, RuntimeError)):
        build_model(name, num_classes=5, image_size=least).train()(torch.randn(1, 3, least - 1, least - 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "image_size"),
    [("timm:resnet18", 32), ("timm:vit_tiny_patch16_224", 48), ("torchvision:shufflenet_v2_x0_5", 64)],
)
def test_library_models_are_built_for_the_classes_and_images(name: str, image_size: int) -> None:
    check_model(name, num_classes=7, image_size=image_size, trains=True)
    model = build_model(name, num_classes=7, image_size=image_size).eval()
    assert model(torch.zeros(2, 3, image_size, image_size)).shape == (2, 7)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "published"),
    [
        # Dosovitskiy et al. 2021, table 1: 86 M; torchvision's documentation: 86,567,656.
        ("timm:vit_base_patch16_224", 86_567_656),
        # Wu et al., "TinyViT" (2022), table 1: 5.4, 11 and 21 M.
        ("timm:tiny_vit_5m_224", 5.4e6),
        ("timm:tiny_vit_11m_224", 11e6),
        ("timm:tiny_vit_21m_224", 21e6),
    ],
)
def test_transformer_of_timm_has_published_number_of_parameters(name: str, published: float) -> None:
    with torch.device("meta"):
        model = build_model(name, num_classes=1000, image_size=224)
    assert count_parameters(model) == pytest.approx(published, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "image_size"), [("timm:vit_base_patch16_224", 32), ("timm:tiny_vit_5m_224", 64)])
def test_transformer_of_timm_takes_a_step(name: str, image_size: int) -> None:
    model = build_model(name, num_classes=3, image_size=image_size)
    logits_BC = model(torch.randn(2, 3, image_size, image_size))
    assert logits_BC.shape == (2, 3)
    logits_BC.square().sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "image_size", "message"),
    [
        ("timm:nope", 32, r"timm:nope: timm cannot build it for 32 pixels: Unknown model \(nope\)"),
        ("torchvision:nope", 32, r"torchvision cannot build it .*it has no classifier of this name; it has alexnet, "),
        ("torchvision:fcn_resnet50", 32, "it has no classifier of this name"),
        ("torchvision:alexnet", 16, "torchvision:alexnet cannot take images of 16 pixels: "),
        ("torchvision:mobilenet_v3_small", 32, "has dropout or stochastic depth, which does not follow a trial's seed"),
    ],
)
def test_library_models_that_are_of_no_use_are_refused(name: str, image_size: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check_model(name, num_classes=7, image_size=image_size, trains=True)


def test_library_models_with_dropout_can_teach() -> None:
    check_model("torchvision:mobilenet_v3_small", num_classes=7, image_size=32, trains=False)
