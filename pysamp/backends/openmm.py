"""OpenMM: stepped from inside the compiled loop on the platforms in host memory, through ``PythonForce`` elsewhere.

``generate_context`` returns an ``openmm.app.Simulation`` or an ``openmm.Context`` with positions set. The route is chosen for the
platform; return ``PythonForceRoute(simulation)`` to insist on the one that needs no compiled extension.
"""

# OpenMM has no types, and what is inferred from its sources is often wrong.
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportReturnType=false

import importlib
import logging
import math
import os
import re
import sys
import warnings
import weakref
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import openmm
import openmm.app
from jaxtyping import Array, Float, Int
from openmm import unit

from ..api import bind, describe
from ..callback_loop import CallbackLoop, Places
from ..errors import InvalidInputError, PysampWarning, SimulationError, UnsupportedError
from ..loop import MAX_ROWS, NEW_STEP, SAME_STEP, AbstractEngine, Loop, prefer_synchronous_dispatch
from ..sampler import BiasForces, Particles, Sampler
from ..snapshot import Cell, Snapshot
from ..system import System
from ._interrupt import interrupts_deferred
from .base import Bound, LoopBound
from .openmm_energy import EnergyCopy
from .view import View

__all__ = ["PythonForceRoute"]

_LOGGER = logging.getLogger("pysamp")
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


# ------------------------------------------------------------------------------------------------- what OpenMM knows


def _context(simulation: Any) -> openmm.Context:
    if isinstance(simulation, PythonForceRoute):
        return _context(simulation.simulation)
    return simulation if isinstance(simulation, openmm.Context) else simulation.context


def _integrator(context: openmm.Context) -> openmm.Integrator:
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


def _describe(simulation: Any) -> System:
    context = _context(simulation)
    system, integrator = context.getSystem(), _integrator(context)
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


# ------------------------------------------------------------------------------------------------------ native route


def _load_native() -> tuple[Any, str]:
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


_REGISTERED: set[str] = set()


class _HostEngine(AbstractEngine):
    """OpenMM on a platform in host memory: an XLA FFI call resumes it."""

    fuse: ClassVar[bool] = True

    address: Int[Array, ""]
    n_atoms: int = eqx.field(static=True)
    periodic: bool = eqx.field(static=True)
    velocities: bool = eqx.field(static=True)

    def begin(self) -> tuple["_HostEngine", Float[Array, " m"]]:
        """Start the steps that the hook was told to do."""
        return self.advance(jnp.zeros(1 + 3 * self.n_atoms))

    def advance(self, forces: Float[Array, " f"]) -> tuple["_HostEngine", Float[Array, " m"]]:
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


# -------------------------------------------------------------------------------------------------------- the bounds


class OpenMMBound(LoopBound):
    """What both routes share: the user's System and Context, snapshots, reporters, errors."""

    route: ClassVar[str]
    _force_index: int

    def __init__(self, simulation: Any, sampler: Sampler, seed: int | None):
        self.sampler = sampler
        self.system = describe(simulation)
        self._simulation = simulation
        self._context = _context(simulation)
        self._engine_system = self._context.getSystem()
        self._integrator = self._context.getIntegrator()
        self._due: list = []
        self._check(sampler)
        self._loop = Loop(sampler, device=self._device())
        self._closed = False
        self._add_force()
        force = self._engine_system.getForce(self._force_index)
        self._force_address = int(force.this)
        try:
            force.setName("pysamp")
            force.setForceGroup(_force_group(self._integrator))
            self._reinitialize(seed)
            self.states = self.initial_states([0])
        except BaseException:
            self.close()
            raise

    def _add_force(self) -> None:
        raise NotImplementedError

    def _device(self) -> Any:
        """Where the sampler runs: on the host, also where JAX has a GPU."""
        prefer_synchronous_dispatch()  # before JAX is asked anything
        return None if jax.default_backend() == "cpu" else jax.local_devices(backend="cpu")[0]

    def _advance(self, n_steps: int, log_every: int) -> None:
        raise NotImplementedError

    def _check(self, sampler: Sampler) -> None:
        barostats = [type(f).__name__ for f in self._engine_system.getForces() if "Barostat" in type(f).__name__]
        for method in sampler.methods:
            if barostats and not method.has_energy:
                warnings.warn(
                    f"{type(method).__name__} has no bias energy, so {barostats[0]} accepts volume moves without it. That is "
                    "right only if the CVs do not change with the volume.",
                    PysampWarning,
                    stacklevel=4,
                )

    def _reinitialize(self, seed: int | None = None) -> None:
        """Make the Context take up the changed System, and keep its state; with a seed, start new random numbers."""
        context = self._context
        if seed is None:
            context.reinitialize(preserveState=True)
            return
        state = context.getState(
            getPositions=True, getVelocities=True, getParameters=True, getIntegratorParameters=True
        )
        generators = [*_integrators(self._integrator), *self._engine_system.getForces()]
        generators = [g for g in generators if hasattr(g, "setRandomNumberSeed")]
        before = [g.getRandomNumberSeed() for g in generators]
        seeds = np.random.SeedSequence(seed).generate_state(len(generators)) % (2**31 - 1) + 1
        try:
            for generator, value in zip(generators, seeds, strict=True):
                generator.setRandomNumberSeed(int(value))
            context.reinitialize()
        finally:
            for generator, value in zip(generators, before, strict=True):
                generator.setRandomNumberSeed(value)
            context.setState(state)

    def run(self, n_steps: int, *, log_every: int = 0) -> Float[np.ndarray, "replica rows width"]:
        """Run ``n_steps`` steps. Ctrl-C is honoured after them."""
        self._check_open()
        if n_steps < 0 or log_every < 0:
            raise InvalidInputError(f"Steps must not be negative, got {n_steps} with a row every {log_every}.")
        if log_every and -(-n_steps // log_every) > MAX_ROWS:
            raise InvalidInputError(f"{n_steps} steps with a row every {log_every} are more than {MAX_ROWS} rows.")
        with interrupts_deferred():
            before = int(self._loop.state.step)
            try:
                self._advance(n_steps, log_every)
            except SimulationError:
                if not self._loop.log.n_rows.is_deleted():
                    self._loop.take_rows()
                raise
            rows = self._loop.take_rows()
            n_seen = int(self._loop.state.step) - before
        if n_seen != n_steps and not self._loop.has_stopped:
            raise SimulationError(
                f"OpenMM did {n_steps} steps, but asked for the forces of the bias in {n_seen} of them: the bias has not "
                f"acted as it should. {type(self._integrator).__name__} must use the forces of group "
                f"{_force_group(self._integrator)} in every step."
            )
        return rows

    @property
    def provenance(self) -> Mapping[str, str]:
        """OpenMM's version and platform, the route, and the unit of energy."""
        return {
            "engine_version": openmm.Platform.getOpenMMVersion(),
            "platform": self._context.getPlatform().getName(),
            "route": self.route,
            "energy_unit": "kJ/mol",
        }

    def _check_open(self) -> None:
        if self._closed:
            raise SimulationError("The simulation was closed; bind it again.")

    def _fail(self, message: str, not_finite: bool, cause: BaseException | None = None) -> None:
        if self._loop.state.step.is_deleted():
            step = self._context.getStepCount()
            raise SimulationError(f"The simulation stopped at about step {step}: {message}. Bind it again.") from cause
        state = self.states[0]
        step = max(int(state.step) - 1, 0)
        if not_finite:
            raise SimulationError(f"The simulation stopped at step {step}: {self.sampler.blame(state)}.") from cause
        raise SimulationError(f"OpenMM stopped at step {step}: {message}") from cause

    def _energy(self) -> Float[np.ndarray, ""] | None:
        """Potential energy without the bias, where the sampler needs it."""
        return None

    def snapshots(self) -> list[Snapshot]:
        """Positions, velocities, box, step, and OpenMM's own checkpoint."""
        state = self._context.getState(getPositions=True, getVelocities=True)
        return [
            Snapshot(
                positions=np.array(state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)),
                velocities=np.array(state.getVelocities(asNumpy=True).value_in_unit(unit.nanometer / unit.picosecond)),
                masses=self.system.masses,
                box=np.array(state.getPeriodicBoxVectors(asNumpy=True).value_in_unit(unit.nanometer))
                if self.system.periodic
                else None,
                step=state.getStepCount(),
                engine=np.frombuffer(self._context.createCheckpoint(), dtype=np.uint8),
                energy=self._energy(),
            )
        ]

    def restore(self, snapshots: Sequence[Snapshot]) -> None:
        """Exactly from OpenMM's checkpoint, or from the arrays if it is of another platform or version."""
        (snapshot,) = snapshots
        if snapshot.engine is not None:
            try:
                self._context.loadCheckpoint(np.asarray(snapshot.engine).tobytes())
            except openmm.OpenMMException as error:
                warnings.warn(
                    f"OpenMM cannot load its checkpoint here ({error}); going on from positions and velocities, with other "
                    "random numbers.",
                    PysampWarning,
                    stacklevel=2,
                )
            else:
                return
        context = self._context
        if snapshot.box is not None:
            context.setPeriodicBoxVectors(*np.asarray(snapshot.box))
        context.setPositions(np.asarray(snapshot.positions))
        if snapshot.velocities is not None:
            context.setVelocities(np.asarray(snapshot.velocities))
        context.setStepCount(int(snapshot.step))
        context.setTime(int(snapshot.step) * self.system.timestep)

    def reseed(self, seeds: Sequence[int]) -> None:
        """Begin new random numbers; OpenMM makes its Context anew for that, which takes as long as it takes."""
        (seed,) = seeds
        self._reinitialize(seed)

    def steps_until_report(self, limit: int) -> int:
        """Steps until the next of the Simulation's reporters is due."""
        self._due = []
        simulation = self._app_simulation
        if simulation is None:
            return limit
        for reporter in simulation.reporters:
            report = reporter.describeNextReport(simulation)
            if isinstance(report, tuple):
                included = ("positions", "velocities", "forces", "energy")
                report = {
                    "steps": report[0],
                    "include": [name for name, wanted in zip(included, report[1:5], strict=True) if wanted],
                    "periodic": report[5] if len(report) > 5 else None,
                }
            if 0 < report["steps"] <= limit:
                if report["steps"] < limit:
                    self._due = []
                limit = report["steps"]
                self._due.append((reporter, report))
        return limit

    def report(self) -> None:
        """Run the reporters that the last ``steps_until_report`` found due."""
        due, self._due = self._due, []
        simulation = self._app_simulation
        for reporter, report in due:
            periodic = report.get("periodic")
            options = dict.fromkeys(report["include"], True) | {
                "parameters": True,
                "groups": self._integrator.getIntegrationForceGroups(),
                "enforcePeriodicBox": self.system.periodic if periodic is None else periodic,
            }
            reporter.report(simulation, self._context.getState(**options))

    @property
    def _app_simulation(self) -> Any:
        simulation = self._simulation
        if isinstance(simulation, PythonForceRoute):
            simulation = simulation.simulation
        return None if isinstance(simulation, openmm.Context) else simulation

    def close(self) -> None:
        """Take the force out of the System and let the Context forget it."""
        if not self._closed:
            self._closed = True
            system = self._engine_system
            for i in range(system.getNumForces()):  # others may have been added or removed since
                if int(system.getForce(i).this) == self._force_address:
                    system.removeForce(i)
                    break
            self._context.reinitialize(preserveState=True)


class NativeBound(OpenMMBound):
    """OpenMM on the Reference or CPU platform, stepped from inside the compiled loop."""

    route = "native"

    def _add_force(self) -> None:
        native, reason = _load_native()
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
            engine = _HostEngine(
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


def _integrators(integrator: openmm.Integrator) -> list[openmm.Integrator]:
    """The parts of a CompoundIntegrator; else the integrator alone."""
    if isinstance(integrator, openmm.CompoundIntegrator):
        return [integrator.getIntegrator(i) for i in range(integrator.getNumIntegrators())]
    return [integrator]


def updates_context_state(integrator: openmm.Integrator) -> bool:
    """Whether the first thing in each step is to tell the forces so; a CustomIntegrator may do otherwise."""
    return all(_tells_new_steps(part) for part in _integrators(integrator))


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


def _force_group(integrator: openmm.Integrator) -> int:
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


def _needs_own_thread() -> bool:
    """Whether the engine needs a thread of its own instead of a stack of its own.

    From 3.14 on CPython checks the stack pointer, which fails if the engine calls Python code (a user's PythonForce) on a
    stack that Python does not know.
    """
    return sys.version_info >= (3, 14) or os.environ.get("PYSAMP_OPENMM_THREAD", "0") not in ("", "0")


# -------------------------------------------------------------------------------------------------------- dispatch


def _route(context: openmm.Context, sampler: Sampler) -> type[OpenMMBound]:
    prefer_synchronous_dispatch()
    platform = context.getPlatform().getName()
    if sampler.needs_energy:
        _LOGGER.info("OpenMM %s platform: bias through PythonForce, energy from a second Context", platform)
        return PythonForceBound
    if platform in ("Reference", "CPU"):
        native, reason = _load_native()
        if native is not None:
            _LOGGER.info("OpenMM %s platform: stepped from the compiled loop", platform)
            return NativeBound
        _warn_once(f"pysamp adds its bias through openmm.PythonForce, which is slower, because {reason}.")
    if platform == "CUDA" and not sampler.stops:  # a loop of counted turns does not end early
        from .openmm_cuda import CudaBound  # which needs this module

        reason = CudaBound.unsupported(context)
        if not reason:
            _LOGGER.info("OpenMM CUDA platform: stepped from the compiled loop, on the same GPU")
            return CudaBound
        _LOGGER.info("the route on the GPU cannot be used: %s", reason)
    _LOGGER.info("OpenMM %s platform: bias through PythonForce", platform)
    return PythonForceBound


def _warn_once(text: str) -> None:
    if text not in _WARNED:
        _WARNED.add(text)
        warnings.warn(text, PysampWarning, stacklevel=5)


_WARNED: set[str] = set()


@describe.dispatch
def _describe_openmm(simulation: openmm.app.Simulation | openmm.Context | PythonForceRoute, /) -> System:
    return _describe(simulation)


@bind.dispatch
def _bind_openmm(
    simulation: openmm.app.Simulation | openmm.Context, sampler: Sampler, /, *, seed: int | None = None
) -> Bound:
    return _route(_context(simulation), sampler)(simulation, sampler, seed)


@bind.dispatch
def _bind_python_force(simulation: PythonForceRoute, sampler: Sampler, /, *, seed: int | None = None) -> Bound:
    return PythonForceBound(simulation, sampler, seed)
