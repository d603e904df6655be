"""What OpenMM knows of a simulation: its system, temperature and integrator, and what of them cannot be biased."""

# OpenMM has no types, and what is inferred from its sources is often wrong.
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportReturnType=false

import math
import re
from typing import Any

import numpy as np
import openmm
import openmm.app
from openmm import unit

from ..errors import InvalidInputError, UnsupportedError
from ..snapshot import Cell
from ..system import System

_BOLTZMANN = 0.00831446261815324  # kJ/mol/K
_AS_IT_IS = ((1, 0, 0), (0, 1, 0), (0, 0, 1))  # reduction of a box that is reduced
_VARIABLE_STEP = (openmm.VariableLangevinIntegrator, openmm.VariableVerletIntegrator)
_LEAPFROG = (openmm.VerletIntegrator, openmm.NoseHooverIntegrator, openmm.LangevinMiddleIntegrator)


class PythonForceRoute:
    """Wraps what ``generate_context`` returns to have the bias added by ``openmm.PythonForce``, on any platform.

    Args:
        simulation: an ``openmm.app.Simulation`` or ``openmm.Context``.
    """

    def __init__(self, simulation: openmm.app.Simulation | openmm.Context):
        self.simulation = simulation


def context_of(simulation: Any) -> openmm.Context:
    """The Context of what ``generate_context`` returned."""
    if isinstance(simulation, PythonForceRoute):
        return context_of(simulation.simulation)
    return simulation if isinstance(simulation, openmm.Context) else simulation.context


def parts_of(integrator: openmm.Integrator) -> list[openmm.Integrator]:
    """The parts of a CompoundIntegrator; else the integrator alone."""
    if isinstance(integrator, openmm.CompoundIntegrator):
        return [integrator.getIntegrator(i) for i in range(integrator.getNumIntegrators())]
    return [integrator]


def current_integrator(context: openmm.Context) -> openmm.Integrator:
    """The integrator that does the next step."""
    integrator = context.getIntegrator()
    if isinstance(integrator, openmm.CompoundIntegrator):
        return integrator.getIntegrator(integrator.getCurrentIntegrator())
    return integrator


def _kT(context: openmm.Context, integrator: openmm.Integrator) -> float | None:
    """Thermal energy of the integrator or a thermostat, None if there is none."""
    if isinstance(integrator, openmm.NoseHooverIntegrator):
        temperature = integrator.getTemperature(0) if integrator.getNumThermostats() else None
    elif hasattr(integrator, "getTemperature"):
        temperature = integrator.getTemperature()
    elif isinstance(integrator, openmm.CustomIntegrator) and "kT" in _global_variables(integrator):
        return integrator.getGlobalVariableByName("kT")  # the name that MTSLangevinIntegrator and others use
    else:
        parameters = context.getParameters()
        thermostats = [f for f in context.getSystem().getForces() if isinstance(f, openmm.AndersenThermostat)]
        name = openmm.AndersenThermostat.Temperature()
        temperature = parameters[name] * unit.kelvin if thermostats else None
    return None if temperature is None else temperature.value_in_unit(unit.kelvin) * _BOLTZMANN


def _global_variables(integrator: openmm.CustomIntegrator) -> list[str]:
    return [integrator.getGlobalVariableName(i) for i in range(integrator.getNumGlobalVariables())]


def _momentum_timestep(context: openmm.Context, integrator: openmm.Integrator, timestep: float) -> float | None:
    """Time over which a constant force changes the momentum between two force evaluations.

    These integrators kick the velocities by a whole step at each evaluation, so the velocities found there are half a step
    old. A Langevin or Andersen thermostat acts between two kicks; by symmetry half of what it takes belongs to each
    (docs/momenta).
    """
    if not isinstance(integrator, _LEAPFROG):
        return None
    rate = 0.0
    if isinstance(integrator, openmm.LangevinMiddleIntegrator):
        rate += integrator.getFriction().value_in_unit(unit.picosecond**-1)
    collisions = openmm.AndersenThermostat.CollisionFrequency()
    if collisions in context.getParameters():
        rate += context.getParameter(collisions)
    return timestep * 0.5 * (1.0 + math.exp(-rate * timestep))


def _check_positions(context: openmm.Context) -> None:
    try:
        context.getState(getForces=True, groups=0)  # none of them: OpenMM does no more than look
    except openmm.OpenMMException as error:
        raise InvalidInputError(
            f"OpenMM says: {error}. Call simulation.context.setPositions(...) in generate_context, before returning."
        ) from error


def system_of(simulation: Any) -> System:
    """What the sampler must know of a simulation.

    Raises:
        InvalidInputError: if the Context has no positions.
        UnsupportedError: if no bias in steps makes sense with the integrator.
    """
    context = context_of(simulation)
    system, integrator = context.getSystem(), current_integrator(context)
    name = type(integrator).__name__
    if isinstance(integrator, _VARIABLE_STEP):
        raise UnsupportedError(
            f"{name} varies its step, so a bias that changes with time has no meaning in steps. Use a fixed step, such as "
            f"{name.replace('Variable', '').replace('LangevinI', 'LangevinMiddleI')}(...)."
        )
    if isinstance(integrator, openmm.RPMDIntegrator):
        raise UnsupportedError(
            "RPMDIntegrator simulates many copies of the particles; the bias would act on one of them."
        )
    _check_positions(context)
    n = system.getNumParticles()
    timestep = integrator.getStepSize().value_in_unit(unit.picosecond)
    periodic = system.usesPeriodicBoundaryConditions()
    box = context.getState().getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer)
    cell = Cell.of(box) if periodic else Cell()
    flexible = any(isinstance(force, openmm.MonteCarloFlexibleBarostat) for force in system.getForces())
    constraints = [system.getConstraintParameters(i)[:2] for i in range(system.getNumConstraints())]
    return System(
        masses=np.array([system.getParticleMass(i).value_in_unit(unit.dalton) for i in range(n)]),
        timestep=timestep,
        kT=_kT(context, integrator),
        momentum_timestep=_momentum_timestep(context, integrator, timestep),
        periodic=periodic,
        orthorhombic=cell.orthorhombic and not flexible,
        reduction=_AS_IT_IS if cell.orthorhombic and flexible else cell.reduction,
        constraints=np.array(constraints, dtype=np.int64).reshape(-1, 2),
        massless=frozenset(i for i in range(n) if system.isVirtualSite(i)),
        hands_over_energy=True,
    )


def updates_context_state(integrator: openmm.Integrator) -> bool:
    """Whether the first thing in each step is to tell the forces so; a CustomIntegrator may do otherwise."""
    return all(_tells_new_steps(part) for part in parts_of(integrator))


def _tells_new_steps(integrator: openmm.Integrator) -> bool:
    if not isinstance(integrator, openmm.CustomIntegrator):
        return True
    for i in range(integrator.getNumComputations()):
        kind, _, expression = integrator.getComputationStep(i)
        if kind == openmm.CustomIntegrator.UpdateContextState:
            return True
        conditional = kind in (openmm.CustomIntegrator.IfBlockStart, openmm.CustomIntegrator.WhileBlockStart)
        if conditional or re.search(r"\b(f|energy)\d*\b", expression):
            return False
    return False


def force_group(integrator: openmm.Integrator) -> int:
    """A force group that the integrator uses in each step: 0 unless it leaves that out."""
    if isinstance(integrator, openmm.CompoundIntegrator):
        integrator = integrator.getIntegrator(integrator.getCurrentIntegrator())
    mask = integrator.getIntegrationForceGroups()
    groups = {group for group in range(32) if mask >> group & 1}
    if isinstance(integrator, openmm.CustomIntegrator):
        expressions = [integrator.getComputationStep(i)[2] for i in range(integrator.getNumComputations())]
        used = {group for expression in expressions for group in re.findall(r"\bf(\d*)\b", expression)}
        if "" not in used:
            groups = {int(group) for group in used}
    return min(groups, default=0)
