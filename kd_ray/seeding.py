"""Named, independent random streams from the one integer seed of a trial.

Each generator is made anew from the seed, names and counters, such as (0, "order", 7) for the data order of epoch 7. No draw depends on
earlier draws, so a checkpoint needs no generator states, and a trial gives the same bits in any pack.
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
    """The numbers 0 to `count` - 1 in a uniformly random order.

    Sorted by raw 64-bit draws rather than `Generator.permutation`, whose results NumPy may change between versions (NEP 19).
    """
    return order_of(random.bit_generator.random_raw(count))


def order_of(raw: npt.NDArray[np.uint64]) -> npt.NDArray[np.int64]:
    """The same from raw draws, for each row of an array."""
    return np.argsort(raw, axis=-1, kind="stable")


def integers(high: int, count: int, random: np.random.Generator) -> npt.NDArray[np.int64]:
    """`count` integers from 0 to `high` - 1, from raw draws as in `shuffled`; the bias is below high / 2**64."""
    return (random.bit_generator.random_raw(count) % high).astype(np.int64)


def stream(seed: int, *names: str | int) -> np.random.Generator:
    """A NumPy generator (PCG64, the same on every platform) for one named stream."""
    return np.random.Generator(np.random.PCG64(stream_seed(seed, *names)))
