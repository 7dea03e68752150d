"""What the benchmarks of speed are asked, and the lines of their table."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import torch

from kd_ray.data.image_data import ImageData
from tests.benchmarks.laps import Clock, ratio
from tests.benchmarks.ours import Race, synthetic_images


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asks for."""

    rounds: int
    steps: int
    """Steps of an epoch of the benchmarks with one ResNet; the others take proportionally many."""
    epochs: int
    """Of the students of a sweep."""
    data_root: Path | None
    teacher: Path | None
    clock: Clock

    def images(self, steps: int) -> ImageData:
        """Images for so many steps: the first of CIFAR-10, or random ones."""
        count = 64 * max(1, steps)
        if self.data_root is None:
            return synthetic_images(count)
        from kd_ray.data.cifar10 import fingerprint, load
        from kd_ray.data.family import Loading
        from kd_ray.sweep.datasets import Cifar10Dataset

        dataset = Cifar10Dataset(name="cifar10", version=fingerprint(self.data_root))
        data = load(dataset, Loading(root=self.data_root))
        first = data.train.take(torch.arange(count).numpy())
        return ImageData(train=first, test=data.test, class_names=data.class_names, mean=data.mean, std=data.std)


@dataclass(frozen=True, kw_only=True)
class Row:
    """One line of the table."""

    work: str
    against: str = "–"
    ours: str = "–"
    theirs: str = "–"
    found: str = "–"
    target: str = "–"
    met: bool | None = None

    def __str__(self) -> str:
        met = {None: "–", True: "yes", False: "**no**"}[self.met]
        cells = [self.work, self.against, self.ours, self.theirs, self.found, self.target, met]
        return "| " + " | ".join(cells) + " |"


def compared(work: str, against: str, race: Race, ours: list[float], theirs: list[float], at_least: float) -> Row:
    """A ratio of training speeds; the other one trains one student, and takes its time for each of ours."""
    students = len(race.temperatures)
    found = ratio(theirs, ours, factor=students)
    return Row(
        work=work,
        against=against,
        ours=f"{students * race.num_images / median(ours):,.0f}",
        theirs=f"{race.num_images / median(theirs):,.0f}",
        found=f"{found} ×",
        target=f"≥ {at_least:g} ×",
        met=found.median >= at_least,
    )


def timed(work: str, seconds: Sequence[float], at_most: float) -> Row:
    found = f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f}) s"
    return Row(work=work, found=found, target=f"≤ {at_most:g} s", met=median(seconds) <= at_most)
