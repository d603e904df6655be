"""The potential energy of an OpenMM simulation and its forces at a force evaluation, from a second Context.

OpenMM sums energy and forces only after every force was asked for its part, so a force cannot see the sum that it is part of.
A second Context with copies of the forces can: that is how ``CustomCVForce`` does it too.
"""

# OpenMM has no types, and what is inferred from its sources is often wrong.
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportReturnType=false

import copy
from typing import Any

import numpy as np
import openmm
from jaxtyping import Float

from ..errors import UnsupportedError

__all__ = ["EnergyCopy"]

_WITHOUT_ENERGY = (
    openmm.AndersenThermostat,
    openmm.CMMotionRemover,
    openmm.MonteCarloBarostat,
    openmm.MonteCarloAnisotropicBarostat,
    openmm.MonteCarloFlexibleBarostat,
    openmm.MonteCarloMembraneBarostat,
)


class EnergyCopy:
    """A second Context on the same platform, with copies of the forces that have energy.

    It has no constraints, and virtual sites are ordinary particles in it: its forces are those before OpenMM hands the virtual
    sites' on, which it then does for the bias as for any other force. The copies are of when it was made; parameters of the
    Context are followed, ``updateParametersInContext`` is not.

    Args:
        context: the simulation's Context, without the force of the bias.

    Raises:
        UnsupportedError: if a force cannot be copied.
    """

    def __init__(self, context: openmm.Context):
        original = context.getSystem()
        system = openmm.System()
        n = original.getNumParticles()
        for _ in range(n):
            system.addParticle(1.0)
        system.setDefaultPeriodicBoxVectors(*context.getState().getPeriodicBoxVectors())
        for force in original.getForces():
            if isinstance(force, _WITHOUT_ENERGY):
                continue
            try:
                system.addForce(copy.deepcopy(force))
            except Exception as error:
                raise UnsupportedError(
                    f"PotentialEnergy needs copies of all forces of the System, and OpenMM cannot copy {force.getName()} "
                    f"({error}). Define the function of a PythonForce at the top of a module, so that it can be pickled."
                ) from error
        platform = context.getPlatform()
        properties = {name: platform.getPropertyValue(context, name) for name in platform.getPropertyNames()}
        self._integrator = openmm.VerletIntegrator(0.001)
        self._context = openmm.Context(system, self._integrator, platform, properties)
        self._groups = context.getIntegrator().getIntegrationForceGroups()
        self._periodic = system.usesPeriodicBoundaryConditions()
        self._parameters = dict(self._context.getParameters())
        self._forces = np.zeros((n, 3))

    def __call__(
        self, positions: Float[np.ndarray, "n 3"], box: Any, parameters: Any
    ) -> tuple[float, Float[np.ndarray, "n 3"]]:
        """Potential energy [kJ/mol] and forces [kJ/mol/nm] at these positions.

        Args:
            positions: of all particles [nm].
            box: box vectors [nm], or None where there is no box.
            parameters: parameters of the simulation's Context.
        """
        context = self._context
        for name, value in self._parameters.items():
            present = parameters[name]
            if present != value:
                context.setParameter(name, present)
                self._parameters[name] = present
        if self._periodic and box is not None:
            context.setPeriodicBoxVectors(*box)
        context.setPositions(positions)
        state = context.getState(getEnergy=True, getForces=True, groups=self._groups)
        state._getVectorAsNumpy(openmm.State.Forces, self._forces)
        return state.getPotentialEnergy()._value, self._forces
