"""OpenMM on a platform in host memory, stepped from inside the compiled loop."""

# OpenMM has no types, and what is inferred from its sources is often wrong.
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportReturnType=false

import importlib
import os
import sys
import weakref
from collections.abc import Mapping
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import openmm
import openmm.app
from jaxtyping import Array, Float, Int

from ..errors import UnsupportedError
from ..loop import AbstractEngine
from ..sampler import BiasForces, Particles
from .openmm_bound import OpenMMBound
from .openmm_system import updates_context_state
from .view import View

_REGISTERED: set[str] = set()


def load_native() -> tuple[Any, str]:
    """The compiled extension, or None and the reason why it cannot be used."""
    try:
        native = importlib.import_module("pysamp.backends._openmm_native")
    except ImportError as error:
        return None, f"the compiled extension is not there ({error})"
    built, found = native.openmm_version, openmm.Platform.getOpenMMVersion()
    if built != found:
        return None, f"it was built for OpenMM {built} and this is {found}; reinstall pysamp to build it again"
    if native.library_address() != int(openmm.Platform.getPlatformByName("Reference").this):
        return None, "it loads another copy of OpenMM than 'import openmm'; reinstall pysamp to build it again"
    if "pysamp_openmm_advance" not in _REGISTERED:
        jax.ffi.register_ffi_target("pysamp_openmm_advance", native.advance_target(), platform="cpu")
        _REGISTERED.add("pysamp_openmm_advance")
    return native, ""


class HostEngine(AbstractEngine):
    """OpenMM on a platform in host memory: an XLA FFI call resumes it."""

    fuse: ClassVar[bool] = True

    address: Int[Array, ""]
    n_atoms: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    velocities: bool = eqx.field(static=True)

    def begin(self) -> tuple["HostEngine", Float[Array, " m"]]:
        """Start the steps that the hook was told to do."""
        return self.advance(jnp.zeros(1 + 3 * self.n_atoms))

    def advance(self, forces: Float[Array, " f"]) -> tuple["HostEngine", Float[Array, " m"]]:
        """Hand the forces over and let the engine go on to its next force evaluation."""
        size = 10 + (6 if self.velocities else 3) * self.n_atoms
        call = jax.ffi.ffi_call(
            "pysamp_openmm_advance", jax.ShapeDtypeStruct((size,), jnp.float64), has_side_effect=True
        )
        return self, call(self.address, forces)

    def unpack(self, handed: Float[Array, " m"]) -> tuple[Int[Array, ""], Particles]:
        """Kind, box, positions, velocities."""
        return handed[0].astype(jnp.int32), unpack_particles(handed, self.n_atoms, self.periodic, self.velocities)

    def pack(self, forces: BiasForces) -> Float[Array, " f"]:
        """Energy, then forces."""
        return jnp.append(forces.energy, forces.forces)


def unpack_particles(packed: Any, n_atoms: int, periodic: bool, velocities: bool) -> Particles:
    """Particles from ``kind, box (9), positions (3 k), velocities (3 k)``."""
    end = 10 + 3 * n_atoms
    return Particles(
        packed[10:end].reshape(n_atoms, 3),
        packed[1:10].reshape(3, 3) if periodic else None,
        packed[end:].reshape(n_atoms, 3) if velocities else None,
    )


class NativeBound(OpenMMBound):
    """OpenMM on the Reference or CPU platform, stepped from inside the compiled loop."""

    route = "native"

    def _add_force(self) -> None:
        native, reason = load_native()
        if native is None:
            raise UnsupportedError(f"The native route cannot be used: {reason}.")
        this = weakref.ref(self)

        def evaluate(packed: np.ndarray) -> np.ndarray:
            bound = this()
            if bound is None:
                raise RuntimeError("the simulation was not closed")
            return bound._loop.evaluate(bound._particles(packed))

        self._native = native
        self._hook = native.Hook(
            system=int(self._engine_system.this),
            atoms=list(self.sampler.atoms),
            velocities=self.sampler.needs_velocities,
            steps_by_count=not updates_context_state(self._integrator),
            own_thread=_needs_own_thread(),
            evaluate=evaluate,
        )
        self._force_index = self._hook.index
        self._views: dict[str, View] = {}

    def _particles(self, packed: Any) -> Particles:
        return unpack_particles(packed, len(self.sampler.atoms), self.system.periodic, self.sampler.needs_velocities)

    def _advance(self, n_steps: int, log_every: int) -> None:
        with jax.enable_x64(True):
            engine = HostEngine(
                address=jax.device_put(np.int64(self._hook.address), self._loop.device),
                n_atoms=len(self.sampler.atoms),
                periodic=self.system.periodic,
                velocities=self.sampler.needs_velocities,
            )
        self._hook.start(n_steps)
        cause = None
        try:
            self._loop.run(engine, log_every)
        except Exception as error:
            cause = error
        finally:
            message, not_finite = self._hook.finish()
        if cause is None and not not_finite and self._loop.has_stopped:
            return  # the engine was left at the beginning of a step, which it has not done
        if message or cause is not None:
            self._fail(message or str(cause), not_finite, cause)

    @property
    def arrays(self) -> Mapping[str, View | Array]:
        """Positions, velocities and forces in the engine's memory, and the masses, which the engine has in no array.

        ``close`` makes them raise.
        """
        self._check_open()
        for name, (flat, padding) in self._hook.arrays(self._context).items():
            view = self._views.get(name)
            if view is None or view.flat.unsafe_buffer_pointer() != flat.ctypes.data:
                self._views[name] = View.of(flat, padding, len(self.system.masses))
        with jax.enable_x64(True):
            return self._views | {"masses": jax.device_put(self.system.masses, self._loop.device)}

    def close(self) -> None:
        """Take the force out of the System and let the Context forget it."""
        while self._views:
            self._views.popitem()[1].flat.delete()
        super().close()


def _needs_own_thread() -> bool:
    """Whether the engine needs a thread of its own instead of a stack of its own.

    From 3.14 on CPython checks the stack pointer, which fails if the engine calls Python code (a user's PythonForce) on a
    stack that Python does not know.
    """
    return sys.version_info >= (3, 14) or os.environ.get("PYSAMP_OPENMM_THREAD", "0") not in ("", "0")
