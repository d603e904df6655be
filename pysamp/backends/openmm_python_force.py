"""OpenMM on any platform, through a Python callback at each force evaluation."""

# OpenMM has no types, and what is inferred from its sources is often wrong.
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportReturnType=false

import math
from collections.abc import Mapping

import numpy as np
import openmm
import openmm.app
from jaxtyping import Array, Float

from ..callback_loop import CallbackLoop, Places
from ..errors import UnsupportedError
from ..loop import NEW_STEP, SAME_STEP
from ..sampler import Particles
from .openmm_bound import OpenMMBound
from .openmm_energy import EnergyCopy


class _StoppedError(Exception):
    """Leaves a step of OpenMM that is not to be done."""


class PythonForceBound(OpenMMBound):
    """OpenMM on any platform, through a Python callback at each force evaluation."""

    route = "PythonForce"

    def _add_force(self) -> None:
        force = openmm.PythonForce(self._compute)
        self._copy = EnergyCopy(self._context) if self.sampler.needs_energy else None
        if self._copy is None:  # else all particles feel a bias
            force.setParticles(list(self.sampler.atoms))
        force.setUsesPeriodicBoundaryConditions(self.system.periodic)
        self._atoms = np.asarray(self.sampler.atoms, dtype=np.int64)
        self._periodic, self._velocities = self.system.periodic, self.sampler.needs_velocities
        self._positions = np.zeros((len(self._atoms if self._copy is None else self.system.masses), 3))
        places = Places.of(
            len(self._atoms), periodic=self._periodic, velocities=self._velocities, energy=self._copy is not None
        )
        self._callback = CallbackLoop(self._loop, places)
        self._last_step = -1
        self._not_finite = False
        self._force_index = self._engine_system.addForce(force)

    def _compute(self, state: openmm.State) -> tuple[float, np.ndarray]:
        positions = self._positions
        # getPositions(asNumpy=True) costs 8 us more, with its units and caches
        state._getVectorAsNumpy(openmm.State.Positions, positions)
        box = state.getPeriodicBoxVectors(asNumpy=True)._value if self._periodic else None
        velocities = energy = None
        forces = np.zeros((0, 3))
        if self._copy is not None:
            energy, forces = self._copy(positions, box, state.getParameters())
            positions = positions[self._atoms]
        if self._velocities:
            everything = self._context.getState(getVelocities=True).getVelocities(asNumpy=True)._value
            velocities = everything[self._atoms]
        if self._callback.is_running:
            step = state.getStepCount()
            kind = SAME_STEP if step == self._last_step else NEW_STEP
            packed = self._callback(kind, positions, box, velocities, energy=energy)
            self._last_step = step
        else:
            handed = None if energy is None else np.asarray(energy)
            packed = self._loop.evaluate(Particles(positions, box, velocities, handed))
        if not math.isfinite(packed.sum()):
            self._not_finite = True
            raise FloatingPointError("a bias energy or force is not finite")
        if self._callback.has_stopped:
            raise _StoppedError
        if self._copy is None:
            return float(packed[0]), packed[1:].reshape(-1, 3)
        forces = packed[-1] * forces
        forces[self._atoms] += packed[1:-1].reshape(-1, 3)
        return float(packed[0]), forces

    def _energy(self) -> Float[np.ndarray, ""] | None:
        """Potential energy without the bias, where the sampler needs it."""
        if self._copy is None:
            return None
        state = self._context.getState(getPositions=True, getParameters=True)
        positions = state.getPositions(asNumpy=True)._value
        box = state.getPeriodicBoxVectors(asNumpy=True)._value if self._periodic else None
        return np.asarray(self._copy(positions, box, state.getParameters())[0])

    def _advance(self, n_steps: int, log_every: int) -> None:
        self._last_step, self._not_finite = -1, False
        failure = None
        self._callback.start(log_every)
        try:
            self._integrator.step(n_steps)
        except Exception as error:
            failure = error
        finally:
            self._callback.finish()
        if failure is not None and not self._loop.has_stopped:
            self._fail(str(failure), self._not_finite, failure)

    @property
    def arrays(self) -> Mapping[str, Array]:
        """Copies: this route has no access to the engine's memory."""
        raise UnsupportedError(
            "The PythonForce route has no view of OpenMM's memory; use bound.snapshots(), or the native route."
        )
