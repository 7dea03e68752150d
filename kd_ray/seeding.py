"""One integer seed per trial, many named and independent random streams.

Every draw is made from a generator that is rebuilt from (seed, names, counters): the data order of epoch 7 never depends on what was drawn
before it. That is why a checkpoint needs no generator states and a trial gives the same bits whatever it is packed with.
"""

import hashlib

import numpy as np
import numpy.typing as npt


def stream_seed(seed: int, *names: str | int) -> int:
    """A 63-bit seed for the stream called `names` of the trial seed `seed`.

    >>> stream_seed(0, "order", 3) != stream_seed(0, "order", 4)
    True
    """
    text = "\x1f".join([str(seed), *map(str, names)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def shuffled(count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """A uniformly random order of `count` things.

    Sorted by raw 64-bit draws rather than `Generator.permutation`, whose results NumPy may change between versions (NEP 19).
    """
    return np.argsort(random.bit_generator.random_raw(count), kind="stable")


def integers(high: int, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """`count` integers from 0 to `high` - 1, from raw draws for the same reason; the bias is below high / 2**64."""
    return (random.bit_generator.random_raw(count) % high).astype(np.int64)


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator (PCG64, the same on every platform) for one named stream."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, *names)))
