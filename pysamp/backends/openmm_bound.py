"""What all routes to OpenMM share: the user's System and Context, snapshots, reporters, errors."""

# OpenMM has no types, and what is inferred from its sources is often wrong.
# pyright: reportAttributeAccessIssue=false, reportOperatorIssue=false, reportArgumentType=false, reportReturnType=false

import warnings
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
import openmm
import openmm.app
from jaxtyping import Float
from openmm import unit

from ..api import describe
from ..errors import InvalidInputError, PysampWarning, SimulationError
from ..loop import MAX_ROWS, Loop, prefer_synchronous_dispatch
from ..sampler import Sampler
from ..snapshot import Snapshot
from ._interrupt import interrupts_deferred
from .base import LoopBound
from .openmm_system import PythonForceRoute, context_of, force_group, parts_of


class OpenMMBound(LoopBound):
    """OpenMM with the force of the bias in it; a route says how that force is computed."""

    route: ClassVar[str]
    _force_index: int

    def __init__(self, simulation: Any, sampler: Sampler, seed: int | None):
        self.sampler = sampler
        self.system = describe(simulation)
        self._simulation = simulation
        self._context = context_of(simulation)
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
            force.setForceGroup(force_group(self._integrator))
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
        generators = [*parts_of(self._integrator), *self._engine_system.getForces()]
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
                f"{force_group(self._integrator)} in every step."
            )
        return rows

    @property
    def provenance(self) -> Mapping[str, str]:
        """The engine, its version and platform, the route, and the unit of energy."""
        return {
            "engine": "openmm",  # whichever module holds the route
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
