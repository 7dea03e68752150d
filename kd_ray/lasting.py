"""For code that makes very many objects that stay."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def without_garbage_search() -> Iterator[None]:
    """Python does not search for unreachable objects meanwhile.

    It would look at all objects again and again while 100,000 trials are made, none of which is garbage: a third of the time that a large
    sweep takes to plan. Use it as a decorator, too.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
