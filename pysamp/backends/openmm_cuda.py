"""OpenMM on its CUDA platform: OpenMM's and XLA's kernels by turns on the same GPU, ordered by events (docs/cuda.md)."""

# OpenMM has no types, and what is inferred from its sources is often wrong.
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportReturnType=false

import importlib
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import openmm
from jaxtyping import Array, Bool, Float, Int

from ..counted_loop import run_counted
from ..errors import SimulationError, UnsupportedError
from ..loop import FINISHED, AbstractEngine
from ..sampler import BiasForces, Particles
from .openmm_bound import OpenMMBound
from .openmm_host import unpack_particles
from .openmm_system import updates_context_state

__all__ = ["CudaBound", "DeviceBound", "DeviceEngine", "FixedPointView", "SortedView"]

_LARGEST_FORCE = 2.0**30  # OpenMM adds forces up as 64-bit integers, in units of 2^-32


class DeviceEngine(AbstractEngine):
    """OpenMM with its particles on a device: an XLA FFI call has it enqueue its kernels up to the next force evaluation.

    Attributes:
        ok: whether all forces so far were finite. Once they were not, none are added and the sampler's state stays as it is.
        target: name of the FFI call.
        slot: number of the hook.
    """

    ok: Bool[Array, ""]
    target: str = eqx.field(static=True)
    slot: int = eqx.field(static=True)
    n_atoms: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    velocities: bool = eqx.field(static=True)

    def begin(self) -> tuple["DeviceEngine", Float[Array, " m"]]:
        """Start the steps that the hook was told to do."""
        return self.advance(jnp.zeros(1 + 3 * self.n_atoms))

    def advance(self, forces: Float[Array, " f"]) -> tuple["DeviceEngine", Float[Array, " m"]]:
        """Hand the forces over and let the engine go on to its next force evaluation."""
        small = jnp.all(jnp.abs(forces[1:]) < _LARGEST_FORCE)  # which NaN is not
        ok = self.ok & small & jnp.isfinite(forces[0])
        size = 10 + (6 if self.velocities else 3) * self.n_atoms
        call = jax.ffi.ffi_call(self.target, jax.ShapeDtypeStruct((size,), jnp.float64), has_side_effect=True)
        handed = call(jnp.where(ok, forces, 0.0), slot=np.int64(self.slot))
        return eqx.tree_at(lambda engine: engine.ok, self, ok), handed

    def unpack(self, handed: Float[Array, " m"]) -> tuple[Int[Array, ""], Particles]:
        """Kind, box, positions, velocities."""
        kind = jnp.where(self.ok, handed[0], FINISHED).astype(jnp.int32)
        return kind, unpack_particles(handed, self.n_atoms, self.periodic, self.velocities)

    def pack(self, forces: BiasForces) -> Float[Array, " f"]:
        """Energy, then forces."""
        return jnp.append(forces.energy, forces.forces)


class SortedView(eqx.Module):
    """Particles in OpenMM's memory on a GPU, where they are kept in an order that changes as they move.

    ``array`` brings them into the System's order: inside ``jax.jit`` that is part of whatever reads it, without a copy of its
    own; outside it copies. JAX functions take this where they take an array. Positions are those of the periodic cell to
    which OpenMM has last moved each molecule.

    Attributes:
        rows: OpenMM's array itself, one row for each particle and some more.
        rest: what the rows lack in precision, in mixed precision; else None.
        row_of_atom: where each particle is.
    """

    rows: Float[Array, "p 4"]
    rest: Float[Array, "p 4"] | None
    row_of_atom: Int[Array, " n"]

    @property
    def array(self) -> Float[Array, "n 3"]:
        """The particles in the System's order, in double precision."""
        with jax.enable_x64(True):
            result = self.rows[self.row_of_atom, :3].astype(jnp.float64)
            return result if self.rest is None else result + self.rest[self.row_of_atom, :3]

    @property
    def address(self) -> int:
        """Address of OpenMM's array."""
        return self.rows.unsafe_buffer_pointer()

    def __jax_array__(self) -> Float[Array, "n 3"]:
        return self.array


class FixedPointView(eqx.Module):
    """OpenMM's forces on a GPU: integers in units of 2^-32, components one after the other, in an order of its own.

    Attributes:
        components: OpenMM's array itself.
        row_of_atom: where each particle is.
    """

    components: Int[Array, "3 p"]
    row_of_atom: Int[Array, " n"]

    @property
    def array(self) -> Float[Array, "n 3"]:
        """The forces in the System's order."""
        with jax.enable_x64(True):
            return self.components[:, self.row_of_atom].T.astype(jnp.float64) * 2.0**-32

    @property
    def address(self) -> int:
        """Address of OpenMM's array."""
        return self.components.unsafe_buffer_pointer()

    def __jax_array__(self) -> Float[Array, "n 3"]:
        return self.array


class DeviceBound(OpenMMBound):
    """OpenMM with its particles on a device, stepped from inside a compiled loop of counted turns."""

    route = "native"
    module: ClassVar[str]
    target: ClassVar[str]
    ffi_platform: ClassVar[str]

    def _add_force(self) -> None:
        this = weakref.ref(self)

        def evaluate(packed: np.ndarray) -> np.ndarray:
            bound = this()
            if bound is None:
                raise RuntimeError("the simulation was not closed")
            return bound._loop.evaluate(bound._particles(packed))

        self._hook = self._load().Hook(
            system=int(self._engine_system.this),
            atoms=list(self.sampler.atoms),
            velocities=self.sampler.needs_velocities,
            steps_by_count=not updates_context_state(self._integrator),
            evaluate=evaluate,
        )
        self._force_index = self._hook.index

    @classmethod
    def _load(cls) -> Any:
        """The compiled extension, known to XLA.

        Raises:
            UnsupportedError: if it is not there or does not fit.
        """
        try:
            extension = importlib.import_module(cls.module)
        except ImportError as error:
            raise UnsupportedError(f"the compiled extension {cls.module} is not there ({error})") from error
        built, found = extension.openmm_version, openmm.Platform.getOpenMMVersion()
        if built != found:
            raise UnsupportedError(
                f"it was built for OpenMM {built} and this is {found}; reinstall pysamp to build it again"
            )
        if extension.library_address() != int(openmm.Platform.getPlatformByName("Reference").this):
            raise UnsupportedError(
                "it loads another copy of OpenMM than 'import openmm'; reinstall pysamp to build it again"
            )
        if cls.target not in _REGISTERED:
            jax.ffi.register_ffi_target(cls.target, extension.advance_target(), platform=cls.ffi_platform)
            _REGISTERED.add(cls.target)
        return extension

    def _particles(self, packed: Any) -> Particles:
        return unpack_particles(packed, len(self.sampler.atoms), self.system.periodic, self.sampler.needs_velocities)

    def _advance(self, n_steps: int, log_every: int) -> None:
        if n_steps == 0:
            return
        hook = self._hook
        with jax.enable_x64(True):
            engine = DeviceEngine(
                ok=jax.device_put(np.bool_(True), self._loop.device),
                target=self.target,
                slot=hook.slot,
                n_atoms=len(self.sampler.atoms),
                periodic=self.system.periodic,
                velocities=self.sampler.needs_velocities,
            )
        n_before, _ = hook.counts
        cause = None
        hook.start(n_steps)
        try:
            engine = run_counted(
                self._loop,
                engine,
                n_steps=n_steps,
                log_every=log_every,
                turns_left=lambda: hook.turns_left(n_steps, n_before),
            )
        except Exception as error:
            cause = error
        finally:
            message, not_finite = hook.finish()
        if cause is not None:  # and the sampler's state is lost
            step = self._context.getStepCount()
            raise SimulationError(f"The simulation stopped at about step {step}: {cause} {message}".rstrip()) from cause
        if message or not engine.ok:
            self._fail(message, not_finite or not engine.ok)

    def close(self) -> None:
        """Take the force out of the System and let the Context forget it."""
        super().close()
        self._hook.release()


class CudaBound(DeviceBound):
    """OpenMM on the CUDA platform."""

    module = "pysamp.backends._openmm_cuda"
    target = "pysamp_openmm_cuda_advance"
    ffi_platform = "CUDA"

    @classmethod
    def unsupported(cls, context: openmm.Context) -> str:
        """Why this route does not serve a Context; empty if it does."""
        index = context.getPlatform().getPropertyValue(context, "DeviceIndex")
        if "," in index:
            return f"the simulation is spread over the GPUs {index}"
        try:
            _jax_device(int(index))
            cls._load()
        except (RuntimeError, UnsupportedError) as error:  # what JAX raises without CUDA
            return str(error)
        return ""

    def _device(self) -> Any:
        return _jax_device(int(self._context.getPlatform().getPropertyValue(self._context, "DeviceIndex")))

    @property
    def arrays(self) -> Mapping[str, Any]:
        """Positions, velocities and forces in the engine's memory on the GPU, and the masses."""
        with jax.enable_x64(True):
            memory = {
                name: jnp.from_dlpack(array, copy=False) for name, array in self._hook.arrays(self._context).items()
            }
            row_of_atom = jnp.argsort(memory["atom_of_row"][: self.system.masses.shape[0]])
        return {
            "positions": SortedView(memory["posq"], memory.get("posq_correction"), row_of_atom),
            "velocities": SortedView(memory["velm"], None, row_of_atom),
            "forces": FixedPointView(memory["forces"], row_of_atom),
            "masses": self.system.masses,
        }


_REGISTERED: set[str] = set()


def _jax_device(index: int) -> Any:
    """JAX's name for the GPU that OpenMM calls ``index``."""
    for device in jax.local_devices(backend="cuda"):
        if device.local_hardware_id == index:
            return device
    raise UnsupportedError(f"JAX has no CUDA device {index}, where the simulation is")
