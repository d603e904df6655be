"""An engine's array in host memory as a JAX array, without a copy at any alignment."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

__all__ = ["View"]


class View(eqx.Module):
    """Rows of three numbers in an engine's memory.

    JAX takes memory of others without a copy only from 64-byte boundaries, which an engine's arrays rarely start at. So
    ``flat`` starts at the boundary before, and ``array`` leaves out the padding: inside ``jax.jit`` that is part of whatever
    reads the array, without a copy; outside it copies. JAX functions take a View where they take an array, and
    ``numpy.asarray`` gives the memory itself, for reading.

    Attributes:
        flat: the memory from the boundary on, on the engine's own addresses.
        padding: numbers before the array; they belong to somebody else and are never looked at.
        n_rows: number of rows.
    """

    flat: Float[Array, " m"]
    padding: int = eqx.field(static=True)
    n_rows: int = eqx.field(static=True)

    @classmethod
    def of(cls, memory: Any, padding: int, n_rows: int) -> "View":
        """Import memory through DLPack; raises if that would need a copy."""
        with jax.enable_x64(True):
            return cls(jnp.from_dlpack(memory, copy=False), padding, n_rows)

    @property
    def array(self) -> Float[Array, "n 3"]:
        """The rows."""
        return self.flat[self.padding :].reshape(self.n_rows, 3)

    @property
    def address(self) -> int:
        """Address of the first number of the array."""
        return self.flat.unsafe_buffer_pointer() + self.padding * self.flat.dtype.itemsize

    def __jax_array__(self) -> Float[Array, "n 3"]:
        return self.array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Float[np.ndarray, "n 3"]:
        rows = np.asarray(self.flat)[self.padding :].reshape(self.n_rows, 3)  # the engine's memory itself
        return np.array(rows, dtype=dtype, copy=copy)

    def __getitem__(self, index: Any) -> Float[Array, "..."]:
        return self.array[index]
