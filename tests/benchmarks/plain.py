"""The loop that our speed is measured against: one student after another, as a careful torch user writes it without us.

A `DataLoader` over single samples with torchvision's transforms, the teacher's forward pass in every step, `item()` in every step. Its
settings are the fastest that such a user would find (`fastest_settings`): channels-last or not, and how many workers of the loader.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from kd_ray.data.image_data import ImageData, Split
from kd_ray.distill.student import learning_rate
from kd_ray.sweep.distillation import KnowledgeDistillation
from kd_ray.sweep.training import AdamW, Augmentation, Optimizer, Sgd, Training
from tests.benchmarks.laps import Clock, Contestant, take_turns

_PROBE_ROUNDS = 3


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a user would turn."""

    channels_last: bool
    """Memory layout of networks and images."""
    num_workers: int
    """Processes of the loader; they may use other cores than the one that trains."""
    bf16: bool = False
    """Forward passes under `torch.autocast`."""
    waits: bool = True
    """For the loss of every step, as most scripts do; else the sums stay on the device until the epoch ends."""

    def describe(self) -> str:
        """For the output."""
        arithmetic = ", bf16" if self.bf16 else ""
        return (
            f"{'channels-last' if self.channels_last else 'contiguous'}, {self.num_workers} loader workers{arithmetic}"
        )


@dataclass(frozen=True, kw_only=True)
class EpochLine:
    """What the loop logs of an epoch."""

    loss: float
    accuracy: float


class ImageDataset(Dataset[tuple[Tensor, int]]):
    """Images as uint8 tensors (3, H, W), transformed one by one: cheaper than starting from PIL."""

    def __init__(self, split: Split, transform: Callable[[Tensor], Tensor]) -> None:
        self._images_NCHW = torch.from_numpy(split.images_NHWC).permute(0, 3, 1, 2).contiguous()
        self._labels = split.labels_N.tolist()
        self._transform = transform

    def __len__(self) -> int:
        return len(self._labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._images_NCHW[index]), self._labels[index]


def loader(
    data: ImageData,
    split: Split,
    augmentation: Augmentation,
    *,
    batch_size: int,
    num_workers: int,
    shuffle: bool = True,
    pin_memory: bool = False,
) -> DataLoader[tuple[Tensor, int]]:
    """Batches of a split."""
    steps: list[nn.Module] = []
    if augmentation == "crop_flip":
        steps.append(v2.RandomCrop(split.images_NHWC.shape[1], padding=4))
    if augmentation in ("crop_flip", "flip"):
        steps.append(v2.RandomHorizontalFlip())
    steps += [v2.ToDtype(torch.float32, scale=True), v2.Normalize(data.mean, data.std)]
    dataset = ImageDataset(split, v2.Compose(steps))
    return DataLoader(
        dataset,
        batch_size=batch_size,
        shuffle=shuffle,
        num_workers=num_workers,
        persistent_workers=num_workers > 0,
        pin_memory=pin_memory,
    )


def train(
    student: nn.Module,
    teacher: nn.Module | None,
    batches: DataLoader[tuple[Tensor, int]],
    training: Training,
    distillation: KnowledgeDistillation | None,
    settings: Settings,
) -> Iterator[EpochLine]:
    """Train to the last epoch, one at a time, on the device where the student stands."""
    device = next(student.parameters()).device
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    student.to(memory_format=layout).train()
    if teacher is not None:
        teacher.to(memory_format=layout).eval()
    optimizer = _optimizer(student, training.optimizer)
    factor = functools.partial(_factor, training, len(batches))
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    for _ in range(training.epochs):
        total, correct = torch.zeros(2, dtype=torch.float64, device=device)
        count = 0
        for images, labels in batches:
            images_BCHW = images.to(device, non_blocking=True, memory_format=layout)
            labels_B = labels.to(device, non_blocking=True)
            with torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
                logits_BC = student(images_BCHW)
            logits_BC = logits_BC.float()
            loss = functional.cross_entropy(logits_BC, labels_B)
            if teacher is not None and distillation is not None:
                with torch.no_grad(), torch.autocast(device.type, torch.bfloat16, enabled=settings.bf16):
                    teacher_BC = teacher(images_BCHW)
                loss = _kd(logits_BC, teacher_BC.float(), loss, distillation)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            scheduler.step()
            right = (logits_BC.argmax(1) == labels_B).sum()
            total += (loss.item() if settings.waits else loss.detach()) * len(labels_B)
            correct += right.item() if settings.waits else right
            count += len(labels_B)
        yield EpochLine(loss=float(total) / count, accuracy=float(correct) / count)


def _optimizer(student: nn.Module, chosen: Optimizer) -> torch.optim.Optimizer:
    if isinstance(chosen, Sgd):
        return torch.optim.SGD(
            student.parameters(),
            lr=chosen.lr,
            momentum=chosen.momentum,
            weight_decay=chosen.weight_decay,
            nesterov=chosen.nesterov,
        )
    kind = torch.optim.AdamW if isinstance(chosen, AdamW) else torch.optim.Adam
    return kind(
        student.parameters(), lr=chosen.lr, betas=chosen.betas, eps=chosen.eps, weight_decay=chosen.weight_decay
    )


@torch.no_grad()
def accuracy_on(model: nn.Module, batches: DataLoader[tuple[Tensor, int]], settings: Settings) -> float:
    """Share of a split that the network classifies correctly."""
    layout = torch.channels_last if settings.channels_last else torch.contiguous_format
    model.eval()
    correct, count = 0.0, 0
    for images, labels_B in batches:
        correct += (model(images.to(memory_format=layout)).argmax(1) == labels_B).sum().item()
        count += len(labels_B)
    return correct / count


def fastest_settings(
    epochs_with: Callable[[Settings], Iterator[EpochLine]], *, most_workers: int, clock: Clock
) -> Settings:
    """Try the layouts, then the numbers of workers, an epoch at a time in turn; the first epoch of each does not count."""
    layout = _fastest([Settings(channels_last=layout, num_workers=0) for layout in (True, False)], epochs_with, clock)
    choices = [Settings(channels_last=layout.channels_last, num_workers=count) for count in range(most_workers + 1)]
    return _fastest(choices, epochs_with, clock)


def _fastest(
    choices: Sequence[Settings], epochs_with: Callable[[Settings], Iterator[EpochLine]], clock: Clock
) -> Settings:
    running = {choice: Contestant(laps=epochs_with(choice), deterministic=False) for choice in choices}
    seconds = take_turns(running, rounds=_PROBE_ROUNDS, clock=clock) if len(choices) > 1 else {choices[0]: [0.0]}
    return min(choices, key=lambda choice: median(seconds[choice]))


def _factor(training: Training, steps: int, step: int) -> float:
    return learning_rate(training, step, steps) / training.optimizer.lr


def _kd(student_BC: Tensor, teacher_BC: Tensor, hard: Tensor, settings: KnowledgeDistillation) -> Tensor:
    temperature = settings.temperature
    soft = functional.kl_div(
        functional.log_softmax(student_BC / temperature, dim=1),
        functional.softmax(teacher_BC / temperature, dim=1),
        reduction="batchmean",
    )
    scale = temperature**2 if settings.t_squared else 1.0
    return settings.alpha * scale * soft + (1 - settings.alpha) * hard
