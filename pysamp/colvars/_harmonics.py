"""Real spherical harmonics as polynomials of the components of a unit vector: no angles, no poles."""

import functools
import math
from typing import Any

import jax.numpy as jnp
import numpy as np

from ..errors import InvalidInputError

MOST = 12  # beyond, the polynomials lose more digits than float32 has to spare


def as_degree(value: Any) -> int:
    """``value`` as the degree l of spherical harmonics.

    Raises:
        InvalidInputError: unless it is a whole number from 1 to 12.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 1 <= value <= MOST:
        raise InvalidInputError(f"l must be a whole number from 1 to {MOST}, such as 4 or 6; got {value!r}.")
    return int(value)


def harmonics(degree: int, u: Any, factor: Any) -> tuple[Any, ...]:
    r"""A factor times the 2 l + 1 real harmonics, normalised so that the sum of their squares on the unit sphere is 1.

    They are $\sqrt{4\pi/(2l+1)}$ times the usual real ones, in the order m = 0, 1 (cosine), 1 (sine), 2, ..., and products
    of two sets of them, summed over m, are those of the complex ones.

    Args:
        degree: l.
        u: the three components of unit vectors.
        factor: what to multiply with, of the same shape.
    """
    x, y, z = u
    cosine, sine = factor, jnp.zeros_like(factor)
    result = []
    for m, coefficients in enumerate(_polynomials(degree)):
        if m:
            cosine, sine = x * cosine - y * sine, x * sine + y * cosine  # (x + i y)^m
        p = _even_polynomial(coefficients, z * z) * (z if (degree - m) % 2 else 1.0)
        result += [p * cosine, p * sine] if m else [p * cosine]
    return tuple(result)


@functools.cache
def _polynomials(degree: int) -> tuple[tuple[float, ...], ...]:
    """Coefficients of $d^m P_l / dz^m$ for each m, normalised; every other power, from the lowest on."""
    legendre = np.polynomial.legendre.Legendre.basis(degree).convert(kind=np.polynomial.Polynomial)
    result = []
    for m in range(degree + 1):
        norm = math.sqrt((2 if m else 1) * math.factorial(degree - m) / math.factorial(degree + m))
        polynomial = legendre.deriv(m) if m else legendre
        result.append(tuple(norm * float(c) for c in polynomial.coef[(degree - m) % 2 :: 2]))
    return tuple(result)


def _even_polynomial(coefficients: tuple[float, ...], square: Any) -> Any:
    *rest, total = coefficients
    for c in reversed(rest):
        total = total * square + c
    return total
