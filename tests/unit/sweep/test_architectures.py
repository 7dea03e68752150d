"""What is said of a network before it is built."""

import pytest

from kd_ray.errors import SweepError
from kd_ray.sweep.architectures import ARCHITECTURES, library_of
from tests.fakes import make_sweep

CIFAR = "dataset={name: cifar10}"
PLAIN = ("sensitive_features=null", "intersections=null")
OWN = "teacher.training={epochs: 2, batch_size: 8, optimizer: {lr: 0.1}, schedule: {name: constant}}"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ("student.model=densenet121-imagenet", CIFAR, *PLAIN),
            "student.model: densenet121-imagenet needs images of at least 61 pixels, and those of the data set have 32",
        ),
        (
            ("teacher.model=resnet50-imagenet",),
            "teacher.model: resnet50-imagenet needs images of at least 33 pixels, and those of the data set have 16",
        ),
        (
            ("teacher={model: resnet50-imagenet, weights: some.pt}",),
            "teacher.model: resnet50-imagenet needs images of at least 33 pixels",
        ),
        (
            ("student.model=resnet18", "training.execution=grouped", OWN),
            "training.execution: resnet18 cannot be grouped; use loop, or one of lenet5, resnet20, resnet32, resnet44, resnet56",
        ),
        (("training.precision=tf32",), "training.precision: tf32 is arithmetic of GPUs; set placement.gpus_per_pack"),
        (
            (OWN, "teacher.training.precision=tf32", "placement={gpus_per_pack: 1, teacher: {gpus_per_pack: 0}}"),
            "teacher.training.precision: tf32 is arithmetic of GPUs",
        ),
        (
            ("teacher.model=timm:vit_tiny_patch16_224", "training.execution=grouped"),
            "training.execution: timm:vit_tiny_patch16_224 cannot be grouped",
        ),
        (("student.model='timm:'", CIFAR, *PLAIN), "student.model: should be lenet5, "),
        (("student.model=timm:../x",), "timm:NAME, torchvision:NAME or hf:NAME, got 'timm:../x'"),
        (("student.model=hub:resnet18",), "student.model: should be lenet5, "),
    ],
)
def test_pairs_that_cannot_be_are_refused_with_the_field(overrides: tuple[str, ...], message: str) -> None:
    with pytest.raises(SweepError) as caught:
        make_sweep(overrides=overrides)
    assert message in str(caught.value)


@pytest.mark.parametrize("name", [*ARCHITECTURES, "timm:vit_tiny_patch16_224.augreg_in21k", "torchvision:resnet18"])
def test_names_are_taken_as_they_are(name: str) -> None:
    file = make_sweep(overrides=(f"student.model='{name}'", "dataset.size=64"))
    assert file.sweep.student.model == name


def test_grouped_students_do_not_ask_the_same_of_a_teacher_that_trains_otherwise() -> None:
    overrides = ("teacher.model=resnet18", "training.execution=grouped", OWN)
    assert make_sweep(overrides=overrides).sweep.training.execution == "grouped"


def test_library_of() -> None:
    assert library_of("timm:vit_tiny_patch16_224") == ("timm", "vit_tiny_patch16_224")
    assert library_of("resnet18-cifar") is None
