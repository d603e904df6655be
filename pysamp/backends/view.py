"""An engine's array in host memory as a JAX array, without a copy at any alignment."""

import ctypes
from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, Shaped

__all__ = ["View"]


class View(eqx.Module):
    """Numbers or rows of numbers in an engine's memory.

    JAX takes memory of others without a copy only from 64-byte boundaries, which an engine's arrays rarely start at. So
    ``flat`` starts at the boundary before, and ``array`` leaves out the padding: inside ``jax.jit`` that is part of whatever
    reads the array, without a copy; outside it copies. JAX functions take a View where they take an array, and
    ``numpy.asarray`` gives the memory itself, for reading.

    Attributes:
        flat: the memory from the boundary on, on the engine's own addresses.
        padding: numbers before the array; they belong to somebody else and are never looked at.
        n_rows: number of rows.
        columns: numbers of a row that belong to the array; 0 for an array of one axis.
        width: numbers from one row to the next.
    """

    flat: Shaped[Array, " m"]
    padding: int = eqx.field(static=True)
    n_rows: int = eqx.field(static=True)
    columns: int = eqx.field(static=True, default=3)
    width: int = eqx.field(static=True, default=3)

    @classmethod
    def of(cls, memory: Any, padding: int, n_rows: int, columns: int = 3, width: int = 3) -> "View":
        """Import memory through DLPack; raises if that would need a copy."""
        with jax.enable_x64(True):
            return cls(jnp.from_dlpack(memory, copy=False), padding, n_rows, columns, width)

    @classmethod
    def of_rows(cls, array: Any, flat: Callable[[Any, int], tuple[Any, int]] | None = None) -> "View":
        """A view of what an array shows, which has one axis or rows of neighbouring numbers.

        Args:
            array: of NumPy, or of another library that ``flat`` knows.
            flat: given the array and how many numbers lie between its first and its last, both counted, that memory as an array
                of one axis, and how many more numbers it has before them. None for memory of the host.
        """
        n_rows, columns = len(array), array.shape[1] if array.ndim > 1 else 0
        width = array.strides[0] // array.itemsize
        memory, padding = (flat or _flat_from_boundary)(array, (n_rows - 1) * width + max(columns, 1))
        return cls.of(memory, padding, n_rows, columns, width)

    @property
    def array(self) -> Shaped[Array, "n *c"]:
        """The rows."""
        if self.columns == self.width:
            return self.flat[self.padding :].reshape(self.n_rows, self.width)
        parts = [self.flat[self.padding + k :: self.width] for k in range(max(self.columns, 1))]
        return jnp.stack(parts, axis=-1) if self.columns else parts[0]

    @property
    def address(self) -> int:
        """Address of the first number of the array."""
        return self.flat.unsafe_buffer_pointer() + self.padding * self.flat.dtype.itemsize

    def __jax_array__(self) -> Shaped[Array, "n *c"]:
        return self.array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Shaped[np.ndarray, "n *c"]:
        memory = np.asarray(self.flat)[self.padding :]  # the engine's memory itself
        size = memory.itemsize
        shape, strides = (self.n_rows, self.columns), (self.width * size, size)
        n_axes = 2 if self.columns else 1
        rows = np.lib.stride_tricks.as_strided(memory, shape[:n_axes], strides[:n_axes], writeable=False)
        return np.array(rows, dtype=dtype, copy=copy)

    def rows(self, index: Int[Array, " k"]) -> Shaped[Array, "k *c"]:
        """Some of the rows."""
        places = self.padding + index * self.width
        return self.flat[places[:, None] + jnp.arange(self.columns)[None]] if self.columns else self.flat[places]

    def __getitem__(self, index: Any) -> Shaped[Array, "..."]:
        return self.array[index]


def _flat_from_boundary(array: Shaped[np.ndarray, "..."], length: int) -> tuple[Shaped[np.ndarray, " m"], int]:
    size, address = array.itemsize, array.ctypes.data
    padding = address % 64 // size
    memory = (ctypes.c_char * ((padding + length) * size)).from_address(address - padding * size)
    return np.ctypeslib.as_array(memory).view(array.dtype), padding
