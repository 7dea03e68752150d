"""LeNet-5 (LeCun et al. 1998) as distillation papers use it: three input channels, ReLU, max pooling."""

from torch import nn


def lenet5(num_classes: int, image_size: int) -> nn.Module:
    """Convolutions of 6 and 16 filters of 5×5, each halved by pooling, then 120, 84 and `num_classes` units.

    62,006 parameters for 32-pixel images and 10 classes; the first linear layer grows with the image.

    Raises:
        ValueError: the image is too small for the two convolutions.
    """
    side = ((image_size - 4) // 2 - 4) // 2
    if side < 1:
        raise ValueError(f"lenet5 needs images of at least 16 pixels, got {image_size}")
    return nn.Sequential(
        # Pooling before the ReLU, which then has a quarter of the work: the same values and gradients, as ReLU never falls.
        nn.Conv2d(3, 6, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Conv2d(6, 16, 5),
        nn.MaxPool2d(2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(16 * side * side, 120),
        nn.ReLU(),
        nn.Linear(120, 84),
        nn.ReLU(),
        nn.Linear(84, num_classes),
    )
