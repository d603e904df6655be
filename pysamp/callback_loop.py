"""The sampler's step for engines that only call back: one compiled call for each force evaluation, with few arguments."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Float

from .loop import Log, Loop, as_one_function, take_turn
from .sampler import Particles, SamplerState

__all__ = ["CallbackLoop"]

_SMALL = 64  # leaves up to this size travel together in one array


class CallbackLoop:
    """Calls the sampler's step from Python, once per force evaluation.

    A call of a compiled function costs about a microsecond for each array that goes in or out, so the small parts of the
    state are packed into one array for as long as the engine runs, and all that the engine hands over into another.

    Args:
        loop: holds the state between runs.
        n_atoms: number of the sampler's atoms.
        periodic: whether there is a box.
        velocities: whether velocities are handed over.
        energy: whether the engine's potential energy is handed over.
    """

    def __init__(self, loop: Loop, *, n_atoms: int, periodic: bool, velocities: bool, energy: bool = False):
        self._loop = loop
        self._box = slice(2, 11) if periodic else None
        start = 11 if periodic else 2
        self._positions = slice(start, start + 3 * n_atoms)
        self._velocities = slice(start + 3 * n_atoms, start + 6 * n_atoms) if velocities else None
        size = start + (6 if velocities else 3) * n_atoms
        self._energy = size if energy else None
        self._handed = np.zeros(size + energy)
        self.has_stopped = False
        self._layout: Any = None
        self._packed: list | None = None

    @property
    def is_running(self) -> bool:
        """Whether a run is on."""
        return self._packed is not None

    def start(self, log_every: int) -> None:
        """Begin a run: take the state out of the loop."""
        leaves, structure = jax.tree.flatten((self._loop.state, self._loop.log))
        layout = (structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves))
        with jax.enable_x64(True):
            if layout != self._layout:  # room was made in the state
                self._layout = layout
                self._step = jax.jit(self._call, donate_argnums=(0, 1), static_argnames="fuse")
            self._packed = list(self._pack(leaves))
        self._handed[1] = log_every
        self.has_stopped = False

    def finish(self) -> None:
        """End a run: give the state back to the loop."""
        if self._packed is not None:
            with jax.enable_x64(True):
                self._loop.state, self._loop.log = self._unpack(*self._packed)
            self._packed = None
            self._loop.make_room()

    def __call__(
        self,
        kind: int,
        positions: ArrayLike,
        box: ArrayLike | None,
        velocities: ArrayLike | None,
        energy: float | None = None,
    ) -> Float[np.ndarray, " m"]:
        """One force evaluation; returns ``BiasForces.packed()``. ``has_stopped`` tells of the sampler."""
        handed = self._handed
        handed[0] = kind
        handed[self._positions] = np.ravel(positions)
        if self._box is not None and box is not None:
            handed[self._box] = np.ravel(box)
        if self._velocities is not None and velocities is not None:
            handed[self._velocities] = np.ravel(velocities)
        if self._energy is not None and energy is not None:
            handed[self._energy] = energy
        if self._packed is None:
            raise RuntimeError("start() was not called")
        with jax.enable_x64(True):
            packed = self._packed
            *self._packed, forces = self._loop.compile_as_one_function(
                lambda fuse: self._step(*packed, handed, fuse=fuse), packed[0]
            )
        packed = np.asarray(forces)
        if not self._loop.sampler.stops:
            return packed
        self.has_stopped = bool(packed[-1])
        return packed[:-1]

    def _call(
        self, small: Array, large: list[Array], handed: Float[Array, " m"], *, fuse: bool
    ) -> tuple[Array, list[Array], Float[Array, " f"]]:
        Loop.n_traces += 1
        kept, carried = handed, (small, large)
        return as_one_function(self._turn, kept, carried) if fuse else self._turn(kept, carried)

    def _turn(
        self, handed: Float[Array, " m"], packed: tuple[Array, list[Array]]
    ) -> tuple[Array, list[Array], Float[Array, " f"]]:
        state, log = self._unpack(*packed)
        kind, log_every = handed[0].astype(jnp.int32), handed[1].astype(jnp.int64)
        particles = Particles(
            handed[self._positions].reshape(-1, 3),
            None if self._box is None else handed[self._box].reshape(3, 3),
            None if self._velocities is None else handed[self._velocities].reshape(-1, 3),
            None if self._energy is None else handed[self._energy],
        )
        sampler = self._loop.sampler
        state, log, forces = take_turn(sampler, state, log, kind, particles, log_every)
        result = forces.packed()
        if sampler.stops:
            result = jnp.append(result, sampler.stopped(state).astype(result.dtype))
        return (*self._pack(jax.tree.leaves((state, log))), result)

    def _pack(self, leaves: list[Array]) -> tuple[Float[Array, " s"], list[Array]]:
        """Small leaves as one array of doubles, which hold every integer that occurs exactly; the others as they are."""
        small = [jnp.ravel(leaf).astype(jnp.float64) for leaf in leaves if leaf.size <= _SMALL]
        return jnp.concatenate(small), [leaf for leaf in leaves if leaf.size > _SMALL]

    def _unpack(self, small: Array, large: list[Array]) -> tuple[SamplerState, Log]:
        structure, kinds = self._layout
        leaves, rest, start = [], iter(large), 0
        for shape, dtype in kinds:
            size = math.prod(shape)
            if size > _SMALL:
                leaves.append(next(rest))
            else:
                leaves.append(small[start : start + size].reshape(shape).astype(dtype))
                start += size
        return jax.tree.unflatten(structure, leaves)
