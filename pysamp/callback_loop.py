"""The sampler's step for engines that only call back: one compiled call for each force evaluation, with few arguments."""

import abc
import math
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .loop import Log, Loop, as_one_function, learned_if_due, take_turn
from .sampler import Particles, SamplerState

__all__ = ["CallbackLoop", "PackedLoop", "Places"]

_SMALL = 64  # leaves up to this size travel together in one array


class Places(NamedTuple):
    """Where things are in what an engine hands over: two numbers for other uses, then these.

    Attributes:
        positions: three numbers for each of the sampler's atoms.
        box: the box vectors, or None without a box.
        velocities: or None where none are wanted.
        images: how often each position was wrapped along the first axes of the box.
        image_axes: how many axes; 0 where positions are not wrapped.
        kT: or None where it is constant.
        energy: the engine's potential energy, or None where it is not wanted.
        size: of the whole.
    """

    positions: slice
    box: slice | None
    velocities: slice | None
    images: slice
    image_axes: int
    kT: int | None
    energy: int | None
    size: int

    @classmethod
    def of(
        cls,
        n_atoms: int,
        *,
        periodic: bool,
        velocities: bool,
        image_axes: int = 0,
        ramped: bool = False,
        energy: bool = False,
    ) -> "Places":
        """Places for what is handed over.

        Args:
            n_atoms: number of the sampler's atoms.
            periodic: whether there is a box.
            velocities: whether velocities are handed over.
            image_axes: along how many axes of the box positions are wrapped and come with images; 0 for none.
            ramped: whether the thermal energy is handed over.
            energy: whether the engine's potential energy is handed over.
        """
        start = 11 if periodic else 2
        end = start + 3 * n_atoms
        last = end + 3 * n_atoms * velocities
        size = last + image_axes * n_atoms
        return cls(
            positions=slice(start, end),
            box=slice(2, 11) if periodic else None,
            velocities=slice(end, last) if velocities else None,
            images=slice(last, size),
            image_axes=image_axes,
            kT=size if ramped else None,
            energy=size + ramped if energy else None,
            size=size + ramped + energy,
        )

    def rows_of_images(self, handed: Float[Array | np.ndarray, " m"]) -> Float[Array | np.ndarray, "k _"]:
        """The images, one row for each atom."""
        n_atoms = (self.positions.stop - self.positions.start) // 3
        return handed[self.images].reshape(n_atoms, self.image_axes)

    def particles(self, handed: Float[Array, " m"]) -> Particles:
        """What was handed over, with the positions not wrapped."""
        x = handed[self.positions].reshape(-1, 3)
        box = None if self.box is None else handed[self.box].reshape(3, 3)
        if box is not None and self.image_axes:
            images = self.rows_of_images(handed)
            x = x + sum(images[:, i, None] * box[None, i] for i in range(self.image_axes))
        return Particles(
            x,
            box,
            None if self.velocities is None else handed[self.velocities].reshape(-1, 3),
            None if self.energy is None else handed[self.energy],
            None if self.kT is None else handed[self.kT],
        )


def _shared(size: int) -> tuple[Float[np.ndarray, " m"], Float[Array, " m"]]:
    """The same memory for NumPy to write and for JAX to read, which takes it only from 64-byte boundaries."""
    memory = np.zeros(size + 8)
    start = -memory.ctypes.data % 64 // 8
    ours = memory[start : start + size]
    with jax.enable_x64(True):
        return ours, jnp.from_dlpack(ours, copy=False)


class PackedLoop(abc.ABC):
    """The sampler's step for engines that call Python once per force evaluation.

    A call of a compiled function costs about a microsecond for each array that goes in or out, so the small parts of the
    state are packed into one array for as long as the engine runs.

    Args:
        loop: holds the state between runs.
        places: what is handed over.

    Attributes:
        has_stopped: whether the sampler has ended the run.
    """

    def __init__(self, loop: Loop, places: Places):
        self._loop = loop
        self._places = places
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
                self._step = self._compiled()
            self._packed = list(self._pack(leaves))
        self._log_every = log_every
        self.has_stopped = False

    def finish(self) -> None:
        """End a run: give the state back to the loop."""
        if self._packed is not None:
            with jax.enable_x64(True):
                self._loop.state, self._loop.log = self._unpack(*self._packed)
            self._packed = None
            self._loop.make_room()

    def _carried(self) -> list:
        """The small and the large parts of the state."""
        if self._packed is None:
            raise RuntimeError("start() was not called")
        return self._packed

    @abc.abstractmethod
    def _compiled(self) -> Any:
        """The compiled step, for the present layout of the state."""

    def _call(
        self, small: Array, large: list[Array], handed: Float[Array, " m"], *, call: Callable
    ) -> tuple[Array, list[Array], Float[Array, " f"]]:
        Loop.n_traces += 1
        small, large, forces = call(self._turn, handed, (small, large))
        sampler = self._loop.sampler
        if sampler.learns:
            state, log = self._unpack(small, large)
            state = learned_if_due(sampler, state, handed[0], self._places.particles(handed))
            small, large = self._pack(jax.tree.leaves((state, log)))
        return small, large, forces

    def _turn(
        self, handed: Float[Array, " m"], packed: tuple[Array, list[Array]]
    ) -> tuple[Array, list[Array], Float[Array, " f"]]:
        state, log = self._unpack(*packed)
        kind, log_every = handed[0].astype(jnp.int32), handed[1].astype(jnp.int64)
        particles = self._places.particles(handed)
        sampler = self._loop.sampler
        state, log, forces = take_turn(sampler, state, log, kind, particles, log_every)
        result = forces.packed
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


class CallbackLoop(PackedLoop):
    """The same for an engine in host memory.

    All that the engine hands over is one array. It is memory of ours that JAX has taken for an array once, which saves the 6 us
    that taking it at every call costs.

    Args:
        loop: holds the state between runs.
        places: what is handed over.
    """

    def __init__(self, loop: Loop, places: Places):
        super().__init__(loop, places)
        self._handed, self._handed_to_jax = _shared(places.size)
        self._positions = self._handed[places.positions].reshape(-1, 3)
        nothing = slice(0, 0)
        self._box = self._handed[places.box or nothing].reshape(-1, 3)
        self._velocities = self._handed[places.velocities or nothing].reshape(-1, 3)
        self._images = places.rows_of_images(self._handed)

    def __call__(
        self,
        kind: int,
        positions: Float[np.ndarray, "k 3"],
        box: Float[np.ndarray, "3 3"] | None,
        velocities: Float[np.ndarray, "k 3"] | None,
        *,
        images: Int[np.ndarray, "k _"] | None = None,
        kT: float | None = None,
        energy: float | None = None,
    ) -> Float[np.ndarray, " m"]:
        """One force evaluation; returns ``BiasForces.packed``. ``has_stopped`` tells of the sampler."""
        small, large = self._carried()
        self._handed[:2] = kind, self._log_every
        self._positions[:] = positions
        if box is not None:
            self._box[:] = box
        if velocities is not None:
            self._velocities[:] = velocities
        if images is not None:
            self._images[:] = images
        if self._places.kT is not None:
            self._handed[self._places.kT] = kT
        if self._places.energy is not None:
            self._handed[self._places.energy] = energy
        with jax.enable_x64(True):
            *self._packed, forces = self._loop.compile_as_one_function(
                lambda fuse: self._step[fuse](small, large, self._handed_to_jax), small
            )
        packed = np.asarray(forces)
        if not self._loop.sampler.stops:
            return packed
        self.has_stopped = bool(packed[-1])
        return packed[:-1]

    def _compiled(self) -> Any:
        """The step, as one function and not."""
        ways = {True: as_one_function, False: lambda turn, *args: turn(*args)}
        return {fuse: jax.jit(partial(self._call, call=call), donate_argnums=(0, 1)) for fuse, call in ways.items()}
