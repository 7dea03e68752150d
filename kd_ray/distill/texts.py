"""Texts on the training device: padded to the longest of a batch, and teachers that see each at a length of its own.

A text belongs to the bucket of its length, rounded up to a multiple of `BUCKET`. Students see a batch padded to its longest bucket, and
batches are put together from texts of similar length (`arranged`). A teacher sees the texts of a bucket together, padded to that bucket, so
its logits of a text do not depend on which others stand in the batch: they are computed once.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from kd_ray.data.texts import TextSplit
from kd_ray.models.text import Tokens
from kd_ray.seeding import shuffled, stream

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


def resident_texts(split: TextSplit, device: torch.device) -> ResidentTexts:
    """Copy a split to the training device."""
    return ResidentTexts(
        ids_NL=torch.as_tensor(split.ids_NL, device=device),
        lengths_N=torch.as_tensor(split.lengths_N),
        labels_N=torch.as_tensor(split.labels_N, device=device),
    )


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
