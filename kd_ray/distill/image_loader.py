"""Threads that read and decode images ahead of the training loop. The number of images in memory is bounded.

Threads rather than processes: Pillow decodes, resizes and enhances without holding Python's lock; a thread starts at once, needs little
memory, and ends with its worker. The caller says which images a block holds, so results do not depend on the number of threads.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

_CHUNK = 8
"""Images that a thread makes in one task."""
_BLOCKS_AHEAD = 2
"""Smallest number of blocks that are being made while the caller uses one."""

ImageOf = Callable[[int], npt.NDArray[np.uint8]]
"""Makes image i of a block: (side, side, 3)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class BlockRequest:
    """Images that the caller takes as one tensor."""

    count: int
    side: int
    image: ImageOf


@dataclass(frozen=True, kw_only=True, eq=False)
class Loader:
    """A pool of threads, started at the first request."""

    threads: int = 1
    _pool: list[ThreadPoolExecutor] = field(default_factory=list)

    def blocks(self, requests: Iterable[BlockRequest]) -> Iterator[Tensor]:
        """The images of each request, uint8 (B, side, side, 3) on the CPU, in the order of the requests; a few are made ahead.

        Raises:
            DataError: an image cannot be used (or whatever else `image` raises).
        """
        running: deque[tuple[npt.NDArray[np.uint8], list[Future[None]]]] = deque()
        waiting = iter(requests)
        try:
            while True:
                # Small blocks: enough of them that no thread is idle.
                while len(running) <= _BLOCKS_AHEAD or sum(len(parts) for _, parts in running) < 2 * self.threads:
                    request = next(waiting, None)
                    if request is None:
                        break
                    running.append(self._start(request))
                if not running:
                    return
                images_BHWC, parts = running.popleft()
                for part in parts:
                    part.result()
                yield torch.from_numpy(images_BHWC)
        finally:
            for _, parts in running:
                for part in parts:
                    part.cancel()

    def block(self, request: BlockRequest) -> Tensor:
        """One request."""
        return next(self.blocks([request]))

    def _start(self, request: BlockRequest) -> tuple[npt.NDArray[np.uint8], list[Future[None]]]:
        images_BHWC = np.empty((request.count, request.side, request.side, 3), dtype=np.uint8)

        def fill(first: int) -> None:
            for i in range(first, min(first + _CHUNK, request.count)):
                images_BHWC[i] = request.image(i)

        if not self._pool:
            self._pool.append(ThreadPoolExecutor(max_workers=self.threads, thread_name_prefix="kd_ray-load"))
        return images_BHWC, [self._pool[0].submit(fill, first) for first in range(0, request.count, _CHUNK)]
