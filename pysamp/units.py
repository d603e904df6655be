"""Plain numbers from quantities with units.

pysamp works in the engine's own units. Where a number with a unit is asked for, an ``openmm.unit`` quantity is accepted
too and converted to OpenMM's units (nm, ps, amu, kJ/mol, rad).
"""

import sys
from typing import Any

import numpy as np
from jaxtyping import Float

from .errors import InvalidInputError

__all__ = ["as_array", "as_float", "as_positive", "strip_unit"]


def strip_unit(value: Any) -> Any:
    """The number in ``value``, in OpenMM's unit system if it is an ``openmm.unit`` quantity, else ``value`` itself.

    Lists and tuples are searched for quantities, so ``[1 * nanometer, 2 * nanometer]`` works as well.
    """
    if type(value).__module__.startswith("openmm.unit"):
        return value.value_in_unit_system(sys.modules["openmm.unit"].md_unit_system)
    if isinstance(value, list | tuple):
        return type(value)(strip_unit(item) for item in value)
    return value


def as_array(value: Any) -> Float[np.ndarray, "..."]:
    """``value`` as a float64 NumPy array, units stripped.

    Raises:
        InvalidInputError: if it is not made of real numbers.
    """
    try:
        return np.asarray(strip_unit(value), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInputError(f"Expected a number or an array of numbers, got {value!r}.") from error


def as_float(value: Any) -> Float[np.ndarray, ""]:
    """``value`` as one float64 number (a NumPy array of shape ``()``), units stripped.

    Raises:
        InvalidInputError: if it is not a single real number.
    """
    array = as_array(value)
    if array.shape != ():
        raise InvalidInputError(f"Expected one number, got an array of shape {array.shape}.")
    return array


def as_positive(value: Any, name: str) -> Float[np.ndarray, ""]:
    """``value`` as one positive, finite number.

    Raises:
        InvalidInputError: if it is something else.
    """
    number = as_float(value)
    if not (np.isfinite(number) and number > 0):
        raise InvalidInputError(f"{name} must be positive, got {value!r}.")
    return number
