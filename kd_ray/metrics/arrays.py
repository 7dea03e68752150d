"""What the metrics share: array types, the check of label arrays, and a division that knows what is undefined.

Shape suffixes: N samples, C classes, G groups, P pairs of samples, D features.
"""

from typing import Any

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]


def check_classes(num_classes: int, **arrays_N: npt.NDArray[np.integer]) -> tuple[IntArray, ...]:
    """The given arrays of class indices as int64, all of one shape (N,), in the order given.

    Raises ValueError, with the name of the array, for a wrong shape, dtype or length, or for an index outside
    0..num_classes-1.
    """
    if num_classes < 1:
        raise ValueError(f"num_classes is {num_classes}, expected at least 1")
    lengths = {name: check_vector(name, array_N) for name, array_N in arrays_N.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError("lengths differ: " + ", ".join(f"{name} has {length}" for name, length in lengths.items()))
    for name, array_N in arrays_N.items():
        if not np.issubdtype(array_N.dtype, np.integer):
            raise ValueError(f"{name} has dtype {array_N.dtype}, expected integers")
        outside_N = (array_N < 0) | (array_N >= num_classes)
        if outside_N.any():
            n = int(outside_N.argmax())
            raise ValueError(f"{name}[{n}] is {array_N[n]}, expected a class index in 0..{num_classes - 1}")
    return tuple(array_N.astype(np.int64) for array_N in arrays_N.values())


def check_vector(name: str, array_N: npt.NDArray[Any]) -> int:
    """The length of an array that must have one axis; ValueError if it has not."""
    if array_N.ndim != 1:
        raise ValueError(f"{name} has shape {array_N.shape}, expected one axis")
    return int(array_N.shape[0])


def divide(numerator: npt.NDArray[Any], denominator: npt.NDArray[Any]) -> FloatArray:
    """Elementwise numerator / denominator, with broadcasting; NaN where the denominator is 0 or an operand is NaN."""
    # Dividing everything and then taking back takes about half the time of a division that leaves places out.
    with np.errstate(divide="ignore", invalid="ignore"):
        quotient = np.asarray(np.true_divide(numerator, denominator), dtype=np.float64)
    is_undefined = denominator == 0
    if is_undefined.any():
        np.copyto(quotient, np.nan, where=is_undefined)
    return quotient


def divide_scalar(numerator: float, denominator: float) -> float:
    """The same for two numbers: NaN if the denominator is 0."""
    return numerator / denominator if denominator else float("nan")


def nan_min(values: FloatArray) -> float:
    """The smallest value that is not NaN; NaN if there is none."""
    defined = values[~np.isnan(values)]
    return float(defined.min()) if defined.size else float("nan")
