r"""Switching functions: 1 where two points touch, 0 where they are far apart, smooth between.

All are functions of the reduced distance $y = \max(r - d_0, 0) / r_0$, that is 1 up to $d_0$ and about a half at $d_0 +
r_0$. With a ``cutoff`` $r_c$ they are zero from there on; ``stretch`` then makes them end continuously,

$$s(r) \to \frac{s(r) - s(r_c)}{s(0) - s(r_c)}.$$

Without it they are cut off with a jump, for which the force has no counterpart: use that to reproduce others' numbers only.
A CV whose switching function has an end sums over near neighbours, one without has to visit all pairs.
"""

import abc
import math
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..units import as_float

__all__ = [
    "AbstractSwitch",
    "CosineSwitch",
    "CubicSwitch",
    "ExponentialSwitch",
    "FermiSwitch",
    "GaussianSwitch",
    "RationalSwitch",
    "SmapSwitch",
    "TanhSwitch",
]


def _number(value: Any) -> float:
    return float(as_float(value))


def _optional_number(value: Any) -> float | None:
    return None if value is None else _number(value)


def _exponent(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InvalidInputError(f"The exponents of a switching function are positive whole numbers, got {value!r}.")
    return int(value)


def _optional_exponent(value: Any) -> int | None:
    return None if value is None else _exponent(value)


class AbstractSwitch(eqx.Module):
    """Base class of switching functions; a subclass gives ``profile``, and ``end`` if it reaches zero by itself.

    They are frozen, can be compared and hashed, and are functions of arrays of any shape like any other.

    Args:
        r0: width of the descent [length].
        d0: distance up to which the function is 1 [length].
        cutoff: distance from which on it is zero [length]; None for no cutoff.
        stretch: whether to shift and stretch the function so that it reaches zero at the cutoff.

    Raises:
        InvalidInputError: unless ``r0`` is positive, ``d0`` not negative and ``cutoff`` greater than ``d0``.
    """

    r0: float = eqx.field(converter=_number, static=True)
    d0: float = eqx.field(converter=_number, static=True, default=0.0, kw_only=True)
    cutoff: float | None = eqx.field(converter=_optional_number, static=True, default=None, kw_only=True)
    stretch: bool = eqx.field(static=True, default=True, kw_only=True)

    def __check_init__(self):
        name = type(self).__name__
        if not 0 < self.r0 < math.inf:
            raise InvalidInputError(f"{name} needs a positive, finite r0, got {self.r0}.")
        if not 0 <= self.d0 < math.inf:
            raise InvalidInputError(f"{name} needs a d0 of zero or more, got {self.d0}.")
        if self.cutoff is not None and not self.d0 < self.cutoff < math.inf:
            raise InvalidInputError(
                f"{name} needs a finite cutoff greater than d0={self.d0}, got {self.cutoff}; for none give cutoff=None."
            )

    @abc.abstractmethod
    def profile(self, y: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """The function of the reduced distance, without the cutoff."""

    @property
    def end(self) -> float | None:
        """Distance from which on the function is zero, or None [length]."""
        return self.cutoff

    def __call__(self, r: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """The function at distances ``r`` [length]."""
        excess = jnp.where(r <= self.d0, 0.0, r - self.d0) if self.d0 else r  # the slope of a maximum has divisions
        s = self.profile(excess / self.r0)
        if self.cutoff is None:
            return s
        if self.stretch:
            first, last = (self.profile(jnp.asarray(y, r.dtype)) for y in (0.0, (self.cutoff - self.d0) / self.r0))
            s = (s - last) / (first - last)
        return jnp.where(r < self.cutoff, s, 0.0)


class RationalSwitch(AbstractSwitch):
    r"""Rational switching function, the usual one for coordination numbers.

    $$s = \frac{1 - y^n}{1 - y^m} = \frac{1 + y^g + \dots + y^{n - g}}{1 + y^g + \dots + y^{m - g}}, \qquad g = \gcd(n, m)$$

    The second form is the one computed: nothing is special at $y = 1$, where it is $n / m$. Its tail $y^{n - m}$ is long, so
    give it a cutoff. PLUMED's ``COORDINATION R_0= D_0= NN= MM=`` without ``SWITCH`` stretches it to
    $r_c = d_0 + r_0\, 10^{5 / (m - n)}$.

    Args:
        r0: distance beyond ``d0`` at which the function is n/m, a half if m = 2n [length].
        n: exponent of the numerator.
        m: exponent of the denominator, greater than n; None for 2n.
        d0: distance up to which the function is 1 [length].
        cutoff: distance from which on it is zero [length]; None for no cutoff.
        stretch: whether to shift and stretch the function so that it reaches zero at the cutoff.

    Raises:
        InvalidInputError: for lengths or exponents that make no switching function.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp.colvars import RationalSwitch
        >>> print(RationalSwitch(0.3)(jnp.array([0.0, 0.3])))
        [1.  0.5]

    References:
        Iannuzzi, Laio & Parrinello, Phys. Rev. Lett. 90, 238302 (2003), doi 10.1103/PhysRevLett.90.238302.
    """

    n: int = eqx.field(converter=_exponent, static=True, default=6, kw_only=True)
    m: int | None = eqx.field(converter=_optional_exponent, static=True, default=None, kw_only=True)

    def __check_init__(self):
        if not self.n < self._m:
            raise InvalidInputError(f"RationalSwitch needs n < m to end at zero, got n={self.n}, m={self.m}.")

    def profile(self, y: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """The quotient of the two sums."""
        step = math.gcd(self.n, self._m)
        w = _bounded(y, self._m) ** step
        return _geometric_sum(w, self.n // step) / _geometric_sum(w, self._m // step)

    @property
    def _m(self) -> int:
        return 2 * self.n if self.m is None else self.m


class ExponentialSwitch(AbstractSwitch):
    """Exponential switching function, $s = e^{-y}$. Its slope jumps at ``d0``.

    Args:
        r0: decay length [length].
        d0: distance up to which the function is 1 [length].
        cutoff: distance from which on it is zero [length]; None for no cutoff.
        stretch: whether to shift and stretch the function so that it reaches zero at the cutoff.

    Raises:
        InvalidInputError: for lengths that make no switching function.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp.colvars import ExponentialSwitch
        >>> print(f"{ExponentialSwitch(0.2, d0=0.1)(jnp.asarray(0.3)):.4f}")
        0.3679
    """

    def profile(self, y: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """The exponential."""
        return jnp.exp(-y)


class GaussianSwitch(AbstractSwitch):
    """Gaussian switching function, $s = e^{-y^2/2}$, with a short tail.

    Args:
        r0: standard deviation [length].
        d0: distance up to which the function is 1 [length].
        cutoff: distance from which on it is zero [length]; None for no cutoff.
        stretch: whether to shift and stretch the function so that it reaches zero at the cutoff.

    Raises:
        InvalidInputError: for lengths that make no switching function.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp.colvars import GaussianSwitch
        >>> print(f"{GaussianSwitch(0.2)(jnp.asarray(0.2)):.4f}")
        0.6065
    """

    def profile(self, y: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """The Gaussian."""
        return jnp.exp(-0.5 * y * y)


class TanhSwitch(AbstractSwitch):
    r"""Hyperbolic switching function, $s = 1 - \tanh y$: steep from ``d0`` on.

    Args:
        r0: length of the descent [length].
        d0: distance up to which the function is 1 [length].
        cutoff: distance from which on it is zero [length]; None for no cutoff.
        stretch: whether to shift and stretch the function so that it reaches zero at the cutoff.

    Raises:
        InvalidInputError: for lengths that make no switching function.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp.colvars import TanhSwitch
        >>> print(f"{TanhSwitch(0.2)(jnp.asarray(0.2)):.4f}")
        0.2384
    """

    def profile(self, y: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """One minus the hyperbolic tangent, in a form that keeps its digits."""
        return 2.0 * jax.nn.sigmoid(-2.0 * y)


class SmapSwitch(AbstractSwitch):
    r"""The switching function of the sketch map.

    $$s = \left[1 + (2^{a/b} - 1)\, y^a\right]^{-b/a},$$

    a half at $d_0 + r_0$; a sets how flat it starts, b how fast it decays ($y^{-b}$).

    Args:
        r0: distance beyond ``d0`` at which the function is a half [length].
        a: exponent at short distance.
        b: exponent at long distance.
        d0: distance up to which the function is 1 [length].
        cutoff: distance from which on it is zero [length]; None for no cutoff.
        stretch: whether to shift and stretch the function so that it reaches zero at the cutoff.

    Raises:
        InvalidInputError: for lengths or exponents that make no switching function.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp.colvars import SmapSwitch
        >>> print(f"{SmapSwitch(0.4, a=3, b=2)(jnp.asarray(0.4)):.4f}")
        0.5000

    References:
        Ceriotti, Tribello & Parrinello, Proc. Natl. Acad. Sci. 108, 13023 (2011), doi 10.1073/pnas.1108486108.
    """

    a: int = eqx.field(converter=_exponent, static=True, kw_only=True)
    b: int = eqx.field(converter=_exponent, static=True, kw_only=True)

    def profile(self, y: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """The power of the power."""
        factor = 2.0 ** (self.a / self.b) - 1.0
        return (1.0 + factor * _bounded(y, self.a) ** self.a) ** (-self.b / self.a)


class CosineSwitch(AbstractSwitch):
    r"""Half a wave, $s = (1 + \cos \pi y) / 2$ up to $y = 1$ and zero beyond: it ends at $d_0 + r_0$ by itself.

    Args:
        r0: length of the descent from 1 to 0 [length].
        d0: distance up to which the function is 1 [length].
        cutoff: distance from which on it is zero [length]; None for no other than its own.
        stretch: whether to shift and stretch the function so that it reaches zero at the cutoff.

    Raises:
        InvalidInputError: for lengths that make no switching function.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp.colvars import CosineSwitch
        >>> switch = CosineSwitch(0.4, d0=0.2)
        >>> print(f"{switch(jnp.asarray(0.4)):.2f} {switch(jnp.asarray(0.7)):.2f} {switch.end:.2f}")
        0.50 0.00 0.60
    """

    @property
    def end(self) -> float:
        """The end of the wave, or the cutoff before it."""
        return _sooner(self.d0 + self.r0, self.cutoff)

    def profile(self, y: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """The wave."""
        return jnp.where(y < 1.0, 0.5 * (1.0 + jnp.cos(jnp.pi * y)), 0.0)


class CubicSwitch(AbstractSwitch):
    r"""The cubic polynomial $s = (1 - y)^2 (1 + 2 y)$ up to $y = 1$ and zero beyond; cheap, and flat at both ends.

    It ends at $d_0 + r_0$ by itself. PLUMED's ``CUBIC D_0= D_MAX=`` is ``CubicSwitch(d_max - d0, d0=d0)``.

    Args:
        r0: length of the descent from 1 to 0 [length].
        d0: distance up to which the function is 1 [length].
        cutoff: distance from which on it is zero [length]; None for no other than its own.
        stretch: whether to shift and stretch the function so that it reaches zero at the cutoff.

    Raises:
        InvalidInputError: for lengths that make no switching function.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp.colvars import CubicSwitch
        >>> print(CubicSwitch(0.5, d0=0.25)(jnp.array([0.25, 0.5, 0.75])))
        [1.  0.5 0. ]
    """

    @property
    def end(self) -> float:
        """The end of the polynomial, or the cutoff before it."""
        return _sooner(self.d0 + self.r0, self.cutoff)

    def profile(self, y: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """The polynomial."""
        rest = jnp.where(y >= 1.0, 0.0, 1.0 - y)
        return rest * rest * (1.0 + 2.0 * y)


class FermiSwitch(AbstractSwitch):
    r"""Fermi function of the distance, $s = 1 / (1 + e^{\beta (r - d_0 - r_0)})$: a step at $d_0 + r_0$, softened.

    It is not 1 at short distance but $1 / (1 + e^{-\beta r_0})$. :class:`~pysamp.colvars.NativeContacts` uses it.

    Args:
        r0: distance beyond ``d0`` at which the function is a half [length].
        beta: steepness [1/length].
        d0: distance up to which the function is constant [length].
        cutoff: distance from which on it is zero [length]; None for no cutoff.
        stretch: whether to shift and stretch the function so that it starts at 1 and reaches zero at the cutoff.

    Raises:
        InvalidInputError: for parameters that make no switching function.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp.colvars import FermiSwitch
        >>> print(f"{FermiSwitch(0.5, beta=50)(jnp.asarray(0.54)):.4f}")
        0.1192
    """

    beta: float = eqx.field(converter=_number, static=True, kw_only=True)

    def __check_init__(self):
        if not 0 < self.beta < math.inf:
            raise InvalidInputError(f"FermiSwitch needs a positive, finite beta, got {self.beta}.")

    def profile(self, y: Float[Array, "*b"]) -> Float[Array, "*b"]:
        """The Fermi function."""
        return jax.nn.sigmoid(self.beta * self.r0 * (1.0 - y))


def _sooner(end: float, cutoff: float | None) -> float:
    return end if cutoff is None else min(end, cutoff)


def _bounded(y: Float[Array, "*b"], power: int) -> Float[Array, "*b"]:
    """``y``, limited so that its power is finite; there the switching functions have long vanished."""
    return jnp.minimum(y, float(jnp.finfo(y.dtype).max) ** (0.9 / power))


def _geometric_sum(w: Float[Array, "*b"], n: int) -> Float[Array, "*b"]:
    """1 + w + ... + w^(n-1)."""
    total = jnp.ones_like(w)
    for _ in range(n - 1):
        total = 1.0 + w * total
    return total
