"""HOOMD-blue on a GPU: HOOMD's kernels and XLA's by turns, on the same memory, and the host waits for neither.

HOOMD calls Python for the force of the bias while the GPU still works on what comes before. pysamp takes HOOMD's arrays as CuPy
has them, by ``__cuda_array_interface__``, hands them to a compiled step by DLPack, which has XLA's stream wait for HOOMD's, and
writes the forces of the few atoms in the same way back.
"""

# HOOMD has no types, and CuPy is only where there is a GPU.
# pyright: reportAttributeAccessIssue=false, reportMissingImports=false, reportOptionalMemberAccess=false

import functools
import importlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ..callback_loop import PackedLoop, Places
from ..counted_loop import without_branches
from ..loop import FINISHED, NEW_STEP, SAME_STEP, Loop
from ._hoomd_memory import PARTICLES
from ._hoomd_system import box_vectors
from .hoomd import HoomdBound
from .view import View

__all__ = ["HoomdDeviceBound"]


class DeviceLoop(PackedLoop):
    """Calls the sampler's step from Python once per force evaluation, for particles in the memory of a GPU.

    The host does not learn what comes out. Once a bias was not finite, no forces are added and the state stays as it is.

    Attributes:
        is_finite: whether all biases of this run were finite; to ask for it is to wait for the GPU.
    """

    is_finite: Bool[Array, ""]

    def __init__(self, loop: Loop, places: Places):
        super().__init__(loop, places)
        with jax.enable_x64(True):
            self._atoms = jax.device_put(np.asarray(loop.sampler.atoms, dtype=np.int64), loop.device)

    def start(self, log_every: int) -> None:
        """Begin a run: take the state out of the loop."""
        super().start(log_every)
        self.is_finite = jax.device_put(np.True_, self._loop.device)

    def step(
        self, kind: int, views: Mapping[str, View], box: Float[np.ndarray, "3 3"], kT: float | None
    ) -> tuple[Float[Array, " m"], Int[Array, " k"]]:
        """One force evaluation; returns ``BiasForces.packed``, and where the atoms are among HOOMD's rows."""
        small, large = self._carried()
        header = _header(kind, self._log_every, box, kT)
        with jax.enable_x64(True):
            *self._packed, self.is_finite, packed, rows = self._step(
                small, large, self.is_finite, header, views, self._atoms
            )
        if self._loop.sampler.stops:
            self.has_stopped = bool(packed[-1])  # for which the host waits
        return packed, rows

    def evaluate(
        self, views: Mapping[str, View], box: Float[np.ndarray, "3 3"], kT: float | None
    ) -> tuple[Float[Array, " m"], Int[Array, " k"]]:
        """The same outside a run: the present bias, which changes nothing."""
        with jax.enable_x64(True):
            handed, rows = _gathered(self._places, _header(SAME_STEP, 0, box, kT), views, self._atoms)
            packed = self._loop.evaluate(self._places.particles(handed))
            if not np.isfinite(packed).all():
                raise FloatingPointError("a bias energy or force is not finite")
            return jax.device_put(packed, self._loop.device), rows

    def _compiled(self) -> Any:
        return jax.jit(self._call_on_device, donate_argnums=(0, 1, 2))

    def _call_on_device(
        self,
        small: Array,
        large: list[Array],
        ok: Bool[Array, ""],
        header: Float[Array, " h"],
        views: Mapping[str, View],
        atoms: Int[Array, " k"],
    ) -> tuple[Array, list[Array], Bool[Array, ""], Float[Array, " m"], Int[Array, " k"]]:
        handed, rows = _gathered(self._places, header, views, atoms)
        handed = handed.at[0].set(jnp.where(ok, handed[0], FINISHED))
        small, large, packed = self._call(small, large, handed, call=without_branches)
        ok &= jnp.isfinite(packed).all()
        return small, large, ok, jnp.where(ok, packed, 0.0), rows


def _header(kind: int, log_every: int, box: Float[np.ndarray, "3 3"], kT: float | None) -> Float[np.ndarray, " h"]:
    return np.array([kind, log_every, *box.flat, *([] if kT is None else [kT])], dtype=np.float64)


def _gathered(
    places: Places, header: Float[Array | np.ndarray, " h"], views: Mapping[str, View], atoms: Int[Array, " k"]
) -> tuple[Float[Array, " m"], Int[Array, " k"]]:
    """What an engine hands over, from HOOMD's own arrays; and the rows of the atoms."""
    rows = views["rtag"].rows(atoms).astype(jnp.int64)
    before = places.positions.start
    parts = [header[:before], views["positions"].rows(rows)]
    if places.velocities is not None:
        parts.append(views["velocities"].rows(rows))
    parts += [views["images"].rows(rows)[:, : places.image_axes], header[before:]]
    return jnp.concatenate([jnp.ravel(part).astype(jnp.float64) for part in parts]), rows


class HoomdDeviceBound(HoomdBound):
    """A HOOMD simulation on a GPU with the bias as one of its forces."""

    _callback: DeviceLoop
    _lent: Any = None

    @property
    def provenance(self) -> Mapping[str, str]:
        """HOOMD, its version and device, and the route."""
        return {**super().provenance, "route": "called, on the GPU"}

    def _jax_device(self) -> Any:
        return self.arrays["rtag"].flat.devices().pop()  # HOOMD's GPU among JAX's

    def _make_relay(self) -> None:
        return None

    def _make_callback(self) -> DeviceLoop:
        return DeviceLoop(self._loop, self._places)

    def _run_called(self, n_steps: int, log_every: int) -> Exception | None:
        failure = super()._run_called(n_steps, log_every)
        if failure is None and not self._callback.is_finite:
            return FloatingPointError("a bias energy or force is not finite")
        return failure

    def set_forces(self, timestep: int) -> None:
        """Have the bias evaluated, and written into the arrays of the force, after what the GPU is at."""
        kT = None if self._kT is None else self._kT(timestep)
        box = box_vectors(self._simulation.state.box)
        needed = ["rtag", "positions", "images", *(["velocities"] if self._velocities else [])]
        with self._snapshot() as snapshot, self._force_arrays() as arrays:
            views = {name: self._view(getattr(snapshot.particles, PARTICLES[name])) for name in needed}
            if self._callback.is_running:
                kind = SAME_STEP if timestep == self._seen else NEW_STEP
                self._seen = timestep
                lent = self._callback.step(kind, views, box, kT)
            else:
                lent = self._callback.evaluate(views, box, kT)
            packed, rows = map(self._from_jax, lent)
            end = 1 + 3 * len(rows)
            first = rows[:1] if len(rows) else [0]  # HOOMD has both for each particle; it is their sums that count
            self._array(arrays.force)[rows] = packed[1:end].reshape(-1, 3)
            self._array(arrays.potential_energy)[first] = packed[0]
            self._array(arrays.virial)[first] = packed[end : end + 6]
        self._lent = lent  # for as long as the GPU may read it, which the next step of the bias waits for

    @property
    def arrays(self) -> Mapping[str, View]:
        """Positions, velocities, masses, images and net forces in HOOMD's memory, in its order; ``rtag`` has the places."""
        self._check_open()
        with self._snapshot() as snapshot:
            return {name: self._view(getattr(snapshot.particles, local)) for name, local in PARTICLES.items()}

    def _snapshot(self) -> Any:
        return self._simulation.state.gpu_local_snapshot

    def _force_arrays(self) -> Any:
        return self._force.gpu_local_force_arrays

    def _array(self, local: Any) -> Any:
        """An array of HOOMD's for writing, as CuPy has it."""
        return _cupy().asarray(local)

    def _view(self, local: Any) -> View:
        """An array of HOOMD's for JAX, whose kernels then wait for those that HOOMD has started."""
        return View.of_rows(self._array(local), _flat_on_device)

    def _from_jax(self, array: Array) -> Any:
        """A result of JAX as CuPy has it, whose kernels then wait for those of JAX."""
        return _cupy().from_dlpack(array)


def _flat_on_device(array: Any, length: int) -> tuple[Any, int]:
    """HOOMD's arrays on a GPU begin at boundaries that suit JAX."""
    return _cupy().lib.stride_tricks.as_strided(array, (length,), (array.itemsize,)), 0


@functools.cache
def _cupy() -> Any:
    return importlib.import_module("cupy")
