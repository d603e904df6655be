"""Comparison and differences that the checks share."""

from typing import Any

import numpy as np
from jaxtyping import Float


def assert_close(got: Any, expected: Any, tolerance: float, what: str, scale: float = 0.0) -> None:
    """Raise AssertionError unless two arrays agree, relative to the largest number in ``expected`` or ``scale``."""
    got, expected = np.asarray(got), np.asarray(expected)
    if got.shape != expected.shape:
        raise AssertionError(f"{what}: shape {got.shape} where {expected.shape} was expected.")
    error = np.abs(got - expected).max(initial=0.0)
    allowed = tolerance * max(np.abs(expected).max(initial=0.0), scale)
    if not error <= allowed:
        raise AssertionError(
            f"{what}: got\n{got}\nwhere this was expected:\n{expected}\n"
            f"The largest difference is {error:.3g}, and {allowed:.3g} is allowed."
        )


_OFFSETS = np.array([1.0, -1.0, 2.0, -2.0])
_WEIGHTS = np.array([8.0, -8.0, -1.0, 1.0]) / 12.0


def displaced(x: Any, step: float) -> Float[np.ndarray, "m *s"]:
    """The points at which ``from_differences`` wants a function's values: four for each entry of ``x``."""
    x = np.asarray(x)
    unit = np.eye(x.size).reshape(x.size, 1, *x.shape)
    return (x + step * _OFFSETS.reshape(1, 4, *(1,) * x.ndim) * unit).reshape(-1, *x.shape)


def from_differences(values: Any, shape: tuple[int, ...], step: float) -> Float[np.ndarray, "n *s"]:
    """Derivatives with respect to an array of ``shape``, of fourth order in ``step``, of a vector-valued function."""
    values = np.asarray(values)
    columns = np.einsum("kon,o->nk", values.reshape(-1, 4, values.shape[-1]), _WEIGHTS) / step
    return columns.reshape(-1, *shape)
