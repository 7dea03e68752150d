"""Remember what was computed of an object that never changes, such as a frozen model, by which object it is.

The trials of a sweep share their data set, training and loss as objects. Python's own cache would compare such models by their content.
That takes about as long as what is computed of them, and 1 and 1.0 would be the same.
"""

import functools
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import Concatenate, ParamSpec, TypeVar

M = TypeVar("M")
P = ParamSpec("P")
T = TypeVar("T")
K = TypeVar("K")
V = TypeVar("V")

_MOST = 256
"""Results that one function keeps, each with its object."""


def distinct(things: Iterable[T]) -> list[T]:
    """Each object once, in the order in which they come first."""
    return list({id(thing): thing for thing in things}.values())


def drop_oldest(kept: OrderedDict[K, V], most: int) -> None:
    """Leave only the newest `most` results. What is in use now was made not long ago, so it stays."""
    while len(kept) > most:
        kept.popitem(last=False)


def by_object(function: Callable[Concatenate[M, P], T]) -> Callable[Concatenate[M, P], T]:
    """The function with its last results kept, by the first argument as an object; others have to be hashable and given by place."""
    # An object that is kept stays alive, so that no other one gets its id.
    kept: OrderedDict[tuple[object, ...], tuple[M, T]] = OrderedDict()

    @functools.wraps(function)
    def remembered(thing: M, /, *more: P.args, **named: P.kwargs) -> T:
        key = (id(thing), *more)
        found = kept.get(key)
        if found is None:
            found = kept[key] = (thing, function(thing, *more, **named))
            drop_oldest(kept, _MOST)
        return found[1]

    return remembered
