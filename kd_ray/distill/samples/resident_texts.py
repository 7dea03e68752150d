"""Texts on the training device: padded to the longest of a batch, and teachers that see each at a length of its own.

A text belongs to the bucket of its length, rounded up to a multiple of `BUCKET`. Students see a batch padded to its longest bucket, and
batches are put together from texts of similar length (`arranged`). A teacher sees the texts of a bucket together, padded to that bucket, so
its logits of a text do not depend on which others stand in the batch: they are computed once.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from kd_ray.data.text_data import TextData, TextSplit
from kd_ray.distill.image_loader import Loader
from kd_ray.distill.samples.kind import Draw, places_of_filled, steady_logits
from kd_ray.distill.samples.text_distances import text_features
from kd_ray.metrics.individual import Pairs, choose_pairs
from kd_ray.models.text_classifier import Tokens
from kd_ray.seeding import shuffled, stream
from kd_ray.sweep.training import Augmentation

BUCKET = 8
"""Tokens."""
WINDOW = 32
"""Batches whose texts are sorted by length together; more would make batches more alike from epoch to epoch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class ResidentTexts:
    """A split on the training device."""

    ids_NL: Tensor
    """int32."""
    lengths_N: Tensor
    """int32; on the CPU."""
    labels_N: Tensor
    """int64."""

    is_streamed = False
    pixels = None

    def __len__(self) -> int:
        """Number of samples."""
        return self.labels_N.shape[0]

    def to(self, device: torch.device) -> "ResidentTexts":
        """A copy on another device."""
        return ResidentTexts(ids_NL=self.ids_NL.to(device), lengths_N=self.lengths_N, labels_N=self.labels_N.to(device))

    def buckets(self, samples_M: Tensor) -> Tensor:
        """Bucket of each of these samples, in tokens, none longer than the longest text; on the CPU."""
        buckets_M = (self.lengths_N[samples_M.cpu()] + BUCKET - 1) // BUCKET * BUCKET
        return buckets_M.clamp(max=self.ids_NL.shape[1])

    def tokens(self, samples_B: Tensor) -> Tokens:
        """These samples, padded to the longest bucket among them."""
        longest = int(self.buckets(samples_B).max())
        device = self.ids_NL.device
        ids_BL = self.ids_NL[samples_B.to(device), :longest].long()
        lengths_B = self.lengths_N[samples_B.cpu()].to(device)
        mask_BL = (torch.arange(longest, device=device) < lengths_B[:, None]).long()
        return Tokens(ids_BL, mask_BL)

    def inputs(self, samples_B: Tensor, views_B: Tensor, augmentation: Augmentation) -> Tokens:
        """See `Resident`: texts have no views."""
        del views_B, augmentation
        return self.tokens(samples_B)

    def inputs_ahead(self, draw: Draw, parts: Sequence[slice]) -> None:
        """See `Resident`: nothing to prepare."""

    def epoch_order(self, order_N: Tensor, *, batch_size: int, seed: int, epoch: int) -> Tensor:
        """See `Resident`: texts of similar length stand together."""
        return arranged(self, order_N, batch_size=batch_size, seed=seed, epoch=epoch)

    def teacher_order(self, samples_M: Tensor) -> Tensor:
        """See `Resident`: by bucket, so that neighbours have one length."""
        return torch.argsort(self.buckets(samples_M), stable=True)

    def plain_batches(self, batch_size: int) -> Iterator[tuple[Tokens, Tensor]]:
        """See `Resident`."""
        for first in range(0, len(self), batch_size):
            samples_B = torch.arange(first, min(first + batch_size, len(self)))
            yield self.tokens(samples_B), self.labels_N[first : first + batch_size]

    def pairs(self) -> Pairs:
        """See `Resident`: the distance is between weighted counts of tokens (`text_distances.py`)."""
        return choose_pairs(text_features(self.ids_NL.cpu().numpy(), self.lengths_N.numpy()))

    def network(self, name: str, num_classes: int) -> nn.Module:
        """See `Resident`.

        Raises:
            ValueError: always. A network of texts is built from its folder (`models/text_classifier.py`).
        """
        raise ValueError(f"{name} with {num_classes} classes cannot be built without the folder of a hf: model")


def arranged(split: ResidentTexts, order_N: Tensor, *, batch_size: int, seed: int, epoch: int) -> Tensor:
    """The samples of an epoch's random order, so that those of a batch are of similar length.

    Windows of the order are sorted by bucket and cut into batches, and the batches, but for a last smaller one, are put in a random order,
    drawn from the stream "batches" of (seed, epoch).
    """
    windows = []
    for first in range(0, len(order_N), WINDOW * batch_size):
        window_M = order_N[first : first + WINDOW * batch_size]
        windows.append(window_M[torch.argsort(split.buckets(window_M), stable=True)])
    sorted_N = torch.cat(windows)
    num_full = len(sorted_N) // batch_size
    full_KB = sorted_N[: num_full * batch_size].view(num_full, batch_size)
    full_KB = full_KB[torch.from_numpy(shuffled(num_full, stream(seed, "batches", epoch)))]
    return torch.cat([full_KB.flatten(), sorted_N[num_full * batch_size :]])


def by_bucket(tokens: Tokens) -> Iterator[tuple[Tensor, Tokens]]:
    """The rows of each bucket, and the tokens of these padded to it, shortest first."""
    buckets_B = (tokens.mask_BL.sum(1) + BUCKET - 1) // BUCKET * BUCKET
    for bucket in sorted(set(buckets_B.tolist())):
        rows_M = (buckets_B == bucket).nonzero()[:, 0]
        yield rows_M, Tokens(tokens.ids_BL[rows_M, :bucket], tokens.mask_BL[rows_M, :bucket])


@steady_logits.register
def _(inputs: Tokens, model: nn.Module) -> Tensor:
    """Texts are seen bucket by bucket, because sums over padding round differently; a small bucket is filled up."""
    rows, logits = [], []
    for rows_M, tokens in by_bucket(inputs):
        filled = places_of_filled(len(rows_M), tokens.ids_BL.device)
        logits_BC: Tensor = model(Tokens(tokens.ids_BL[filled], tokens.mask_BL[filled]))
        rows.append(rows_M)
        logits.append(logits_BC[: len(rows_M)])
    return torch.cat(logits)[torch.argsort(torch.cat(rows))]


class TextKind:
    """See `SampleKind`."""

    def resident(self, data: TextData, split: TextSplit, device: torch.device, loader: Loader) -> ResidentTexts:
        """See `SampleKind`."""
        del data, loader
        return ResidentTexts(
            ids_NL=torch.as_tensor(split.ids_NL, device=device),
            lengths_N=torch.as_tensor(split.lengths_N),
            labels_N=torch.as_tensor(split.labels_N, device=device),
        )

    def tensors(self, splits: Mapping[str, ResidentTexts], root: Path) -> dict[str, Tensor]:
        """See `SampleKind`."""
        del root
        found: dict[str, Tensor] = {}
        for name, split in splits.items():
            found |= {
                f"{name}.ids": split.ids_NL,
                f"{name}.lengths": split.lengths_N,
                f"{name}.labels": split.labels_N,
            }
        return found

    def mapped(self, tensors: Mapping[str, Tensor], name: str, root: Path, loader: Loader) -> ResidentTexts:
        """See `SampleKind`."""
        del root, loader
        return ResidentTexts(
            ids_NL=tensors[f"{name}.ids"], lengths_N=tensors[f"{name}.lengths"], labels_N=tensors[f"{name}.labels"]
        )

    def random(self, labels_N: Tensor, size: int, generator: torch.Generator) -> ResidentTexts:
        """See `SampleKind`: one token, repeated; the time of a step does not depend on which tokens a text has."""
        del generator
        return ResidentTexts(
            ids_NL=torch.zeros(len(labels_N), size, dtype=torch.int32),
            lengths_N=torch.full((len(labels_N),), size, dtype=torch.int32),
            labels_N=labels_N,
        )
