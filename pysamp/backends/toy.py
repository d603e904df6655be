"""Langevin dynamics on an analytic potential, in JAX: a full backend for teaching and testing, with replicas by vmap."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from ..api import bind, describe, stack
from ..errors import InvalidInputError, SimulationError
from ..loop import FINISHED, NEW_STEP, AbstractEngine, Loop
from ..sampler import BiasForces, Particles, Sampler
from ..snapshot import Cell, Snapshot
from ..system import System
from ..units import as_array
from .base import LoopBound

__all__ = ["Simulation"]


class Simulation:
    r"""Particles in an analytic potential with Langevin dynamics, or none.

    The integrator is the leapfrog form of "middle" Langevin (V R O R), the one of OpenMM's ``LangevinMiddleIntegrator``: its
    configurations are accurate to high order in the time step. With ``friction=0`` it is leapfrog Verlet.

    Args:
        potential: JAX function of all positions ``(n, 3)`` [length] that returns the energy [energy].
        positions: ``(n, 3)`` [length].
        masses: one number, or one per particle [mass].
        kT: thermal energy [energy].
        timestep: [time].
        friction: [1/time].
        velocities: ``(n, 3)`` [length/time]; drawn from the thermal distribution if None.
        box: box vectors as rows [length], or None. The potential itself is responsible for its images.
        seed: of the random numbers.

    Raises:
        InvalidInputError: if shapes or signs are wrong.

    Example:
        >>> import jax.numpy as jnp
        >>> import pysamp
        >>> from pysamp.backends import toy
        >>> from pysamp.colvars import Component
        >>> from pysamp.methods import Unbiased
        >>> def generate_context():
        ...     return toy.Simulation(lambda x: 0.5 * jnp.sum(x**2), [[0.0, 0.0, 0.0]], timestep=0.1)
        >>> run = pysamp.run(Unbiased([Component([0], axis=0)]), generate_context, 100, log_every=10, progress=False)
        >>> run.log.step.values
        array([ 0, 10, 20, 30, 40, 50, 60, 70, 80, 90])

    References:
        Zhang, Liu, Yan, Tuckerman & Liu, J. Phys. Chem. A 123, 6056 (2019), doi 10.1021/acs.jpca.9b02771.
    """

    def __init__(
        self,
        potential: Callable,
        positions: Any,
        *,
        masses: Any = 1.0,
        kT: float = 1.0,
        timestep: float = 0.005,
        friction: float = 1.0,
        velocities: Any = None,
        box: Any = None,
        seed: int = 0,
    ):
        self.potential = potential
        self.positions = np.atleast_2d(as_array(positions))
        if self.positions.ndim != 2 or self.positions.shape[1] != 3:
            raise InvalidInputError(f"positions must have the shape (n, 3), got {self.positions.shape}.")
        n = len(self.positions)
        try:
            self.masses = np.array(np.broadcast_to(as_array(masses), (n,)))
        except ValueError as error:
            raise InvalidInputError(f"masses must be one number or {n}, got {masses!r}.") from error
        self.kT, self.timestep, self.friction = float(kT), float(timestep), float(friction)
        if not (self.timestep > 0 and self.kT > 0 and self.friction >= 0 and (self.masses > 0).all()):
            raise InvalidInputError("timestep, kT and masses must be positive, and friction not negative.")
        self.box = None if box is None else as_array(box)
        self.seed = int(seed)
        if velocities is None:
            normal = np.random.default_rng(self.seed).normal(size=(n, 3))
            self.velocities = normal * np.sqrt(self.kT / self.masses)[:, None]
        else:
            self.velocities = as_array(velocities)
        if self.velocities.shape != (n, 3):
            raise InvalidInputError(f"velocities must have the shape ({n}, 3), got {self.velocities.shape}.")
        self.step = 0


class _Replicas:
    """Several simulations that differ in their positions, velocities and random numbers only."""

    def __init__(self, simulations: Sequence[Simulation]):
        self.simulations = list(simulations)


class _Engine(AbstractEngine):
    """The integrator, all replicas at once."""

    potential: Callable = eqx.field(static=True)
    x: Float[Array, "r n 3"]
    v: Float[Array, "r n 3"]
    keys: UInt32[Array, "r w"]
    step: Int[Array, ""]
    remaining: Int[Array, ""]
    masses: Float[Array, " n"]
    parameters: Float[Array, "3"]
    box: Float[Array, "3 3"] | None
    atoms: tuple[int, ...] = eqx.field(static=True)
    velocities_too: bool = eqx.field(static=True)
    energy_too: bool = eqx.field(static=True)
    held: Bool[Array, " r"] | None = None

    def hold(self, stopped: Bool[Array, " r"]) -> "_Engine":
        """Replicas that stay where they are."""
        return eqx.tree_at(lambda e: e.held, self, stopped)

    def begin(self) -> tuple["_Engine", tuple[Int[Array, ""], Particles]]:
        """Hand over the particles as they are."""
        return self, (jnp.where(self.remaining > 0, NEW_STEP, FINISHED).astype(jnp.int32), self._particles())

    def advance(self, forces: BiasForces) -> tuple["_Engine", tuple[Int[Array, ""], Particles]]:
        """One step under the potential's and the bias forces; a bias that is not finite ends the run."""
        kT, timestep, friction = self.parameters
        gradient = jax.vmap(jax.grad(self.potential))(self.x)
        if forces.slope is not None:
            gradient = gradient * (1.0 + forces.slope)[:, None, None]
        total = (-gradient).at[:, np.asarray(self.atoms, dtype=np.int64)].add(forces.forces)
        masses = self.masses[None, :, None]
        keep = jnp.exp(-friction * timestep)
        keys = jax.vmap(jax.random.fold_in, in_axes=(0, None))(jax.random.wrap_key_data(self.keys), self.step)
        noise = jax.vmap(lambda key: jax.random.normal(key, self.x.shape[1:], dtype=self.x.dtype))(keys)
        v = self.v + timestep * total / masses
        x = self.x + 0.5 * timestep * v
        v = keep * v + jnp.sqrt(kT * (1.0 - keep**2) / masses) * noise
        x = x + 0.5 * timestep * v
        if self.held is not None:
            x, v = (jnp.where(self.held[:, None, None], old, new) for old, new in ((self.x, x), (self.v, v)))
        finite = jnp.all(jnp.isfinite(forces.energy)) & jnp.all(jnp.isfinite(total))
        engine = eqx.tree_at(
            lambda e: (e.x, e.v, e.step, e.remaining),
            self,
            (
                jnp.where(finite, x, self.x),
                jnp.where(finite, v, self.v),
                self.step + finite,
                self.remaining - finite,
            ),
        )
        going = finite & (engine.remaining > 0)
        return engine, (jnp.where(going, NEW_STEP, FINISHED).astype(jnp.int32), engine._particles())

    def _particles(self) -> Particles:
        atoms = np.asarray(self.atoms, dtype=np.int64)
        r = self.x.shape[0]
        box = None if self.box is None else jnp.broadcast_to(self.box[None], (r, 3, 3))
        energy = jax.vmap(self.potential)(self.x) if self.energy_too else None
        return Particles(self.x[:, atoms], box, self.v[:, atoms] if self.velocities_too else None, energy)


class ToyBound(LoopBound):
    """Toy simulations tied to a sampler, all replicas in one compiled program."""

    def __init__(self, simulations: Sequence[Simulation], sampler: Sampler, seeds: Sequence[int] | None):
        self.sampler = sampler
        self.system = describe(simulations[0])
        self.n_replicas = len(simulations)
        self._simulations = list(simulations)
        self._loop = Loop(sampler, self.n_replicas)
        first = simulations[0]
        with jax.enable_x64(True):
            if seeds is None:
                words = [s.seed for s in simulations]
            else:  # what a replica does is the same alone and among others
                words = [int(np.random.SeedSequence(seed).generate_state(1)[0]) for seed in seeds]
            self._engine = _Engine(
                potential=first.potential,
                x=jnp.asarray(np.stack([s.positions for s in simulations])),
                v=jnp.asarray(np.stack([s.velocities for s in simulations])),
                keys=jax.random.key_data(jax.vmap(jax.random.key)(jnp.asarray(words))),
                step=jnp.asarray(np.int64(first.step)),
                remaining=jnp.asarray(np.int64(0)),
                masses=jnp.asarray(first.masses),
                parameters=jnp.array([first.kT, first.timestep, first.friction]),
                box=None if first.box is None else jnp.asarray(first.box),
                atoms=sampler.atoms,
                velocities_too=sampler.needs_velocities,
                energy_too=sampler.needs_energy,
                held=jnp.zeros(self.n_replicas, dtype=bool) if sampler.stops else None,
            )
        self.states = self.initial_states(range(self.n_replicas))

    def run(self, n_steps: int, *, log_every: int = 0) -> Float[np.ndarray, "replica rows width"]:
        """Run ``n_steps`` steps."""
        with jax.enable_x64(True):
            engine = eqx.tree_at(lambda e: e.remaining, self._engine, jnp.asarray(np.int64(n_steps)))
            self._engine = self._loop.run(engine, log_every)
        early = int(self._engine.remaining) > 0 and not self._loop.has_stopped
        if early or not np.isfinite(np.asarray(self._engine.x)).all():
            states = self.states
            bad = next(
                (s for s in states if not (np.isfinite(s.xi).all() and np.isfinite(s.energies).all())), states[0]
            )
            raise SimulationError(f"The simulation stopped at step {int(bad.step) - 1}: {self.sampler.blame(bad)}.")
        return self._loop.take_rows()

    @property
    def arrays(self) -> Mapping[str, Array]:
        """Positions, velocities and masses of all replicas, and the forces of potential and bias."""
        atoms = np.asarray(self.sampler.atoms, dtype=np.int64)
        with jax.enable_x64(True):
            forces = -jax.vmap(jax.grad(self._engine.potential))(self._engine.x)
            for r, (state, snapshot) in enumerate(zip(self.states, self.snapshots(), strict=True)):
                bias = self.sampler.evaluate(state, self.sampler.particles(snapshot))
                if bias.slope is not None:
                    forces = forces.at[r].multiply(1.0 + bias.slope)
                forces = forces.at[r, atoms].add(bias.forces)
        return {
            "positions": self._engine.x,
            "velocities": self._engine.v,
            "masses": self._engine.masses,
            "forces": forces,
        }

    def snapshots(self) -> list[Snapshot]:
        """One snapshot per replica; its ``engine`` is the random key."""
        x, v = np.asarray(self._engine.x), np.asarray(self._engine.v)
        keys = np.asarray(self._engine.keys)
        step = int(self._engine.step)
        masses, box = np.asarray(self._engine.masses), self._simulations[0].box
        energies: list[Any] = [None] * self.n_replicas
        if self.sampler.needs_energy:
            with jax.enable_x64(True):
                energies = [np.asarray(e) for e in jax.vmap(self._engine.potential)(self._engine.x)]
        return [Snapshot(x[r], v[r], masses, box, step, keys[r], energies[r]) for r in range(self.n_replicas)]

    def restore(self, snapshots: Sequence[Snapshot]) -> None:
        """Set positions, velocities, step and random keys."""
        with jax.enable_x64(True):
            keys = self._engine.keys
            if all(s.engine is not None for s in snapshots):
                keys = jnp.asarray(np.stack([np.asarray(s.engine) for s in snapshots]))
            self._engine = eqx.tree_at(
                lambda e: (e.x, e.v, e.keys, e.step),
                self._engine,
                (
                    jnp.asarray(np.stack([np.asarray(s.positions) for s in snapshots])),
                    jnp.asarray(np.stack([np.asarray(s.velocities) for s in snapshots])),
                    keys,
                    jnp.asarray(np.int64(snapshots[0].step)),
                ),
            )

    def reseed(self, seeds: Sequence[int]) -> None:
        """New random keys, one per replica."""
        with jax.enable_x64(True):
            keys = jax.random.key_data(jax.vmap(jax.random.key)(jnp.asarray(np.asarray(seeds, dtype=np.int64))))
            self._engine = eqx.tree_at(lambda e: e.keys, self._engine, keys)

    def close(self) -> None:
        """Write the last positions and velocities to the user's simulations."""
        for simulation, snapshot in zip(self._simulations, self.snapshots(), strict=True):
            simulation.positions, simulation.velocities = (
                np.asarray(snapshot.positions),
                np.asarray(snapshot.velocities),
            )
            simulation.step = int(snapshot.step)


@describe.dispatch
def _describe_toy(simulation: Simulation, /) -> System:
    cell = Cell() if simulation.box is None else Cell.of(simulation.box)
    return System(
        masses=simulation.masses,
        timestep=simulation.timestep,
        kT=simulation.kT,
        # the thermostat acts between two kicks, and takes half of its share of each: see docs/momenta
        momentum_timestep=simulation.timestep * 0.5 * (1.0 + np.exp(-simulation.friction * simulation.timestep)),
        periodic=simulation.box is not None,
        orthorhombic=cell.orthorhombic,
        reduction=cell.reduction,
        hands_over_energy=True,
    )


@describe.dispatch
def _describe_replicas(simulation: _Replicas, /) -> System:
    return describe(simulation.simulations[0])


@bind.dispatch
def _bind_toy(simulation: Simulation, sampler: Sampler, /, *, seed: int | None = None) -> ToyBound:
    return ToyBound([simulation], sampler, None if seed is None else [seed])


@bind.dispatch
def _bind_replicas(simulation: _Replicas, sampler: Sampler, /, *, seed: int | Sequence[int] | None = None) -> ToyBound:
    if isinstance(seed, int):
        seed = [int(word) for word in np.random.SeedSequence(seed).generate_state(len(simulation.simulations))]
    return ToyBound(simulation.simulations, sampler, seed)


@stack.dispatch
def _stack_toy(first: Simulation, others: list, /) -> _Replicas | None:
    if not all(_alike(first, other) for other in others):
        return None
    return _Replicas([first, *others])


def _alike(first: Simulation, second: Simulation) -> bool:
    """Whether two simulations differ in positions, velocities and random numbers at most."""
    what = ("masses", "kT", "timestep", "friction", "box", "step")
    same = all(np.array_equal(getattr(first, name), getattr(second, name)) for name in what)
    return same and _same_function(first.potential, second.potential)


def _same_function(first: Any, second: Any) -> bool:
    """Whether two functions are the same, or made anew by the same lines of code from the same values."""
    if first is second:
        return True
    if isinstance(first, eqx.Module):
        return eqx.tree_equal(first, second) is True
    first, second = inspect.unwrap(first), inspect.unwrap(second)  # what jax.jit hides
    codes = [getattr(function, "__code__", None) for function in (first, second)]
    if codes[0] is None or codes[0] is not codes[1] or first.__defaults__ != second.__defaults__:
        return False
    cells = zip(first.__closure__ or (), second.__closure__ or (), strict=True)
    return all(_same_value(a.cell_contents, b.cell_contents) for a, b in cells)


def _same_value(first: Any, second: Any) -> bool:
    if first is second:
        return True
    if callable(first):
        return _same_function(first, second)
    return type(first) is type(second) and bool(np.array_equal(first, second))
