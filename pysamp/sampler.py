"""The one pure function that runs once per time step: from particles to biased forces, and the only place with the chain rule."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import add
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from ._exchange import BiasForces, Particles, SamplerState, type_of_lists
from ._momenta import Momenta, constraints_of, momenta_of
from ._points import Points, check_atoms, indices, locate
from .colvars._neighbors import NeighborList, with_room
from .colvars.base import AbstractCV, Energy, evaluated
from .errors import InvalidInputError, UnsupportedError
from .methods.base import AbstractMethod, Bias, Observation
from .snapshot import Cell, Snapshot, type_of_reduction
from .system import System

__all__ = ["BiasForces", "Particles", "Sampler", "SamplerState"]

_NOT_TRACEABLE = (
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
    jax.errors.ConcretizationTypeError,
)


class Sampler(eqx.Module):
    """CVs and methods, tied to the particles of one system; pure functions of the state and of what the engine hands over.

    Build it with :meth:`~pysamp.Sampler.build`. Cost per step is that of the atoms in the CVs, whatever the size
    of the system.

    Attributes:
        methods: the methods whose biases add up.
        atoms: indices of the particles that the engine hands over, each once.
        kT: thermal energy [energy].
        needs_velocities: whether the engine must hand over velocities.
        needs_energy: whether the engine must hand over its potential energy.
        walkers: how many simulations share the states of the methods.
    """

    methods: tuple[AbstractMethod, ...]
    atoms: tuple[int, ...] = eqx.field(static=True)
    needs_energy: bool = eqx.field(static=True)
    kT: Float[np.ndarray, ""]
    timestep: Float[np.ndarray, ""]
    momentum_timestep: Float[np.ndarray, ""] | None
    periodic: bool = eqx.field(static=True)
    orthorhombic: bool = eqx.field(static=True)
    reduction: type_of_reduction | None = eqx.field(static=True)
    wants_virial: bool = eqx.field(static=True)
    points: tuple[tuple[Points, ...], ...]
    momenta: tuple[Momenta | None, ...]
    walkers: int = eqx.field(static=True, default=1)

    @classmethod
    def build(
        cls, methods: AbstractMethod | Sequence[AbstractMethod], system: System, *, walkers: int = 1
    ) -> "Sampler":
        """Tie methods to a system.

        Args:
            methods: whose biases add up.
            system: what they act on.
            walkers: how many simulations are to share the states of the methods.

        Raises:
            InvalidInputError: if an atom does not exist, kT is needed but not known, or a method asks for momenta that the
                system cannot give.
            UnsupportedError: if a CV asks for the potential energy and the engine does not hand it over.
        """
        methods = as_methods(methods)
        n_particles = len(system.masses)
        for method in methods:
            for cv in method.cvs:
                check_atoms(cv, n_particles)
        needs_energy = _needs_energy(methods, system)
        methods = tuple(_resolved(method, system) for method in methods)
        order: dict[int, int] = {}
        for method in methods:
            for cv in method.cvs:
                for index in indices(cv):
                    order.setdefault(index, len(order))
        partners = {
            i: constraints_of([index for cv in method.cvs for index in indices(cv)], system)
            for i, method in enumerate(methods)
            if {"momentum", "inverse_mass"} & method.needs
        }
        for pairs in partners.values():
            for index in (index for pair in pairs for index in pair):
                order.setdefault(index, len(order))
        points = tuple(tuple(locate(cv, order, system) for cv in method.cvs) for method in methods)
        momenta = tuple(
            momenta_of(method, order, partners[i], system) if i in partners else None
            for i, method in enumerate(methods)
        )
        kT = system.kT
        if kT is None:
            given = [float(m.kT) for m in methods if m.kT is not None]
            if not given:
                raise InvalidInputError(
                    "The temperature is not known: the engine's integrator has none. Give the method kT=..., in the "
                    "engine's energy unit (OpenMM: 2.494 kJ/mol at 300 K)."
                )
            kT = given[0]
        return cls(
            methods=methods,
            atoms=tuple(order),
            needs_energy=needs_energy,
            kT=np.asarray(kT, dtype=np.float64),
            timestep=np.asarray(system.timestep, dtype=np.float64),
            momentum_timestep=None
            if system.momentum_timestep is None
            else np.asarray(system.momentum_timestep, dtype=np.float64),
            periodic=system.periodic,
            orthorhombic=system.orthorhombic,
            reduction=system.reduction,
            wants_virial=system.wants_virial and system.periodic,
            points=points,
            momenta=momenta,
            walkers=walkers,
        )

    @property
    def needs_velocities(self) -> bool:
        """Whether a method asks for momenta."""
        return any("momentum" in method.needs for method in self.methods)

    @property
    def stops(self) -> bool:
        """Whether a method can end a run."""
        return any(method.stops for method in self.methods)

    def stopped(self, state: SamplerState) -> Bool[Array, ""]:
        """Whether a method has ended the run."""
        flags = [m.stopped(s) for m, s in zip(self.methods, state.methods, strict=True) if m.stops]
        return jnp.any(jnp.stack(flags)) if flags else jnp.zeros((), dtype=bool)

    @property
    def learns(self) -> bool:
        """Whether a method has more to do now and then than its steps."""
        return any(method.learns for method in self.methods)

    def is_due(self, state: SamplerState) -> Bool[Array, ""]:
        """Whether a method is to learn after the step that ``state`` has last seen."""
        return jnp.any(jnp.stack([method.is_due(state.step) for method in self.methods]))

    def temperature(self, particles: Particles) -> Float[Array, "..."]:
        """Thermal energy [energy]."""
        return jnp.asarray(self.kT if particles.kT is None else particles.kT)

    def learned(self, state: SamplerState, kT: Float[Array, ""]) -> SamplerState:
        """The state after a step, when those methods have learned that are due. Before the next step comes."""
        methods = tuple(m.learned(s, state.step, kT) for m, s in zip(self.methods, state.methods, strict=True))
        return eqx.tree_at(lambda s: s.methods, state, methods)

    @property
    def labels(self) -> tuple[str, ...]:
        """Labels of the components of ``SamplerState.xi``."""
        return tuple(label for method in self.methods for label in method.labels)

    def cell(self, box: Float[Array | np.ndarray, "3 3"] | None) -> Cell:
        """The cell for a box that the engine handed over."""
        return Cell(box if self.periodic else None, orthorhombic=self.orthorhombic, reduction=self.reduction)

    def init(self, particles: Particles, seed: int | Int[Array, ""] = 0) -> SamplerState:
        """State before the first step; ``particles`` give the methods something to look at."""
        key = jax.random.key(seed)
        xi = [self._xi(i, particles) for i in range(len(self.methods))]
        step, none = jnp.zeros((), dtype=jnp.int64), [jnp.zeros_like(value) for value in xi]
        methods = tuple(
            method.init(
                Observation(value, step, jnp.asarray(self.kT), jax.random.fold_in(key, i), zero, zero, jnp.ones(()))
            )
            for i, (method, value, zero) in enumerate(zip(self.methods, xi, none, strict=True))
        )
        lists = self.renewed(no_lists(self.methods), particles)
        energies = jnp.zeros(len(self.methods))
        key = jax.random.key_data(key)
        return SamplerState(step, key, methods, jnp.concatenate(xi), jnp.concatenate(none), energies, lists)

    def particles(self, snapshot: Snapshot) -> Particles:
        """The sampler's particles in a snapshot of the whole system."""
        atoms = np.asarray(self.atoms, dtype=np.int64)
        velocities = None
        if self.needs_velocities and snapshot.velocities is not None:
            velocities = jnp.asarray(snapshot.velocities[atoms])
        box = jnp.asarray(snapshot.box) if self.periodic else None
        energy = jnp.asarray(snapshot.energy) if self.needs_energy and snapshot.energy is not None else None
        return Particles(jnp.asarray(snapshot.positions[atoms]), box, velocities, energy)

    def reserve(self, state: SamplerState, n_steps: int) -> SamplerState:
        """Room in the state for ``n_steps`` more steps."""
        n_steps = n_steps * self.walkers
        methods = tuple(m.reserve(s, n_steps) for m, s in zip(self.methods, state.methods, strict=True))
        return eqx.tree_at(lambda s: s.methods, state, methods)

    def for_replica(self, state: SamplerState, replica: int) -> SamplerState:
        """The first state of one of several replicas."""
        methods = tuple(m.for_replica(s, replica) for m, s in zip(self.methods, state.methods, strict=True))
        return eqx.tree_at(lambda s: s.methods, state, methods)

    def with_room(self, state: SamplerState) -> SamplerState:
        """The state with longer neighbour lists where they were too short, else itself. On the host."""
        if not jax.tree.leaves(state.lists):
            return state
        lists = tuple(
            tuple(
                tuple(with_room(old, pairs) for old, pairs in zip(lists, cv.neighborhoods, strict=True))
                for cv, lists in zip(method.cvs, of_method, strict=True)
            )
            for method, of_method in zip(self.methods, state.lists, strict=True)
        )
        return eqx.tree_at(lambda s: s.lists, state, lists)

    def step(
        self, state: SamplerState, particles: Particles, is_step: bool | Bool[Array, ""] = True
    ) -> tuple[SamplerState, BiasForces]:
        """One force evaluation of the engine: the methods see it if it is a new MD step, the bias is evaluated always.

        Args:
            state: state so far.
            particles: what the engine handed over.
            is_step: False for one more evaluation within the same step (barostat trial, energy query): the state stays, up
                to the neighbour lists.
        """
        lists = self.renewed(state.lists, particles)
        observations, pullbacks = self.observe(state, particles, lists)
        methods = []
        for method, method_state, obs in zip(self.methods, state.methods, observations, strict=True):
            if is_step is True:
                methods.append(method.update(method_state, obs))
            else:
                methods.append(
                    jax.lax.cond(
                        is_step, lambda m=method, s=method_state, o=obs: m.update(s, o), lambda s=method_state: s
                    )
                )
        biases = [m.bias(s, o) for m, s, o in zip(self.methods, methods, observations, strict=True)]
        xi = jnp.concatenate([obs.xi for obs in observations])
        forces = jnp.concatenate([bias.force for bias in biases])
        energies = jnp.stack([bias.energy for bias in biases])
        after = SamplerState(
            step=state.step + jnp.asarray(is_step, dtype=state.step.dtype),
            key=state.key,
            methods=tuple(methods),
            xi=jnp.where(is_step, xi, state.xi),
            forces=jnp.where(is_step, forces, state.forces),
            energies=jnp.where(is_step, energies, state.energies),
            lists=lists,
        )
        return after, self.assemble(biases, pullbacks, particles)

    def evaluate(self, state: SamplerState, particles: Particles) -> BiasForces:
        """Bias at other positions; the state does not move."""
        observations, pullbacks = self.observe(state, particles, self.renewed(state.lists, particles))
        biases = [m.bias(s, o) for m, s, o in zip(self.methods, state.methods, observations, strict=True)]
        return self.assemble(biases, pullbacks, particles)

    def xi(self, particles: Particles) -> Float[Array, " n"]:
        """All CVs, methods one after the other."""
        return jnp.concatenate([self._xi(i, particles) for i in range(len(self.methods))])

    def blame(self, state: SamplerState) -> str:
        """Which CV or method is not finite in ``state``, for an error text."""
        bad = [label for label, value in zip(self.labels, state.xi, strict=True) if not np.isfinite(value)]
        if bad:
            return f"the CV {bad[0]} is {state.xi[self.labels.index(bad[0])]}"
        for method, energy in zip(self.methods, state.energies, strict=True):
            if not np.isfinite(energy):
                return f"the bias energy of {type(method).__name__} is {energy} at CVs {np.asarray(state.xi).tolist()}"
        return f"a bias force is not finite at CVs {dict(zip(self.labels, np.asarray(state.xi).tolist(), strict=True))}"

    @property
    def diagnostic_names(self) -> tuple[str, ...]:
        """Names of the scalars in the log."""
        x = np.zeros((len(self.atoms), 3))
        particles = Particles(
            x,
            np.eye(3) if self.periodic else None,
            x if self.needs_velocities else None,
            np.zeros(()) if self.needs_energy else None,
        )
        with jax.enable_x64(True):  # the shapes are those of a run, whose trace this shares
            return tuple(jax.eval_shape(lambda: self.diagnostics(first_state(self, particles, 0))))

    def diagnostics(self, state: SamplerState) -> dict[str, Float[Array, ""]]:
        """The methods' scalars for the log, named after the method, with its place where a class is used twice."""
        names = [type(method).__name__ for method in self.methods]
        result = {}
        for i, (name, method, method_state) in enumerate(zip(names, self.methods, state.methods, strict=True)):
            label = name if names.count(name) == 1 else f"{name}[{i}]"
            for quantity, value in method.diagnostics(method_state).items():
                result[f"{label}.{quantity}"] = value
        return dict(sorted(result.items()))  # the order in which JAX returns dictionaries

    def renewed(self, lists: type_of_lists, particles: Particles) -> type_of_lists:
        """The neighbour lists for the present positions."""
        cell, all_points = self.cell(particles.box), self._points(particles)

        def renewed(cv: AbstractCV, points: Points, lists: tuple[NeighborList, ...]) -> tuple[NeighborList, ...]:
            if not lists:
                return ()
            x = points(all_points, cell)
            return tuple(old.renewed(pairs, x, cell) for old, pairs in zip(lists, cv.neighborhoods, strict=True))

        return tuple(
            tuple(renewed(*of_cv) for of_cv in zip(method.cvs, points, of_method, strict=True))
            for method, points, of_method in zip(self.methods, self.points, lists, strict=True)
        )

    def _points(self, particles: Particles) -> Float[Array | np.ndarray, "m 3"]:
        if self.needs_energy and particles.energy is None:
            raise InvalidInputError(
                "A CV takes the engine's potential energy, which these particles or this snapshot do not hold. Snapshots of a "
                "simulation that is bound to the CV do; otherwise give energy=..., in the engine's unit."
            )
        return particles.points

    def _xi(self, index: int, particles: Particles) -> Float[Array, " n"]:
        """The CVs of one method."""
        cell, places = self.cell(particles.box), self._points(particles)
        return jnp.concatenate([_value(cv, points, places, cell, ()) for cv, points in self._cvs(index)])

    def _cvs(self, index: int) -> list[tuple[AbstractCV, Points]]:
        return list(zip(self.methods[index].cvs, self.points[index], strict=True))

    def observe(
        self, state: SamplerState, particles: Particles, lists: type_of_lists
    ) -> tuple[list[Observation], list[Callable]]:
        """What each method sees, and for each the map from a force on xi to forces on the atoms, and on the box if wanted."""
        cell, kT = self.cell(particles.box), self.temperature(particles)
        observations, pullbacks = [], []
        applied = _split(state.forces, [method.n_cvs for method in self.methods])
        for i, momenta in enumerate(self.momenta):
            values, pulls = [], []
            for k, (cv, points) in enumerate(self._cvs(i)):

                def value_of(x: Any, *box: Any, cv: Any = cv, points: Any = points, own: Any = lists[i][k]) -> Any:
                    return _value(cv, points, x, self.cell(box[0]) if box else cell, own)

                value, pull = jax.vjp(value_of, self._points(particles), *([particles.box] * self.wants_virial))
                values.append(value)
                pulls.append(pull)
            xi = jnp.concatenate(values)
            momentum, inverse_mass = jnp.zeros_like(xi), None
            if momenta is not None:
                units = [jnp.eye(value.size, dtype=xi.dtype) for value in values]
                rows = [pull(unit) for pull, all in zip(pulls, units, strict=True) for unit in all]
                jacobian, *of_box = (jnp.stack(parts) for parts in zip(*rows, strict=True))
                by_atoms = jacobian[:, : len(self.atoms)]
                if "momentum" in self.methods[i].needs:
                    momentum = momenta(by_atoms, particles, cell)
                if "inverse_mass" in self.methods[i].needs:
                    inverse_mass = momenta.inverse_mass(by_atoms, particles, cell)
                pullbacks.append(
                    lambda force, all=(jacobian, *of_box): [jnp.sum(force[:, None, None] * j, axis=0) for j in all]
                )
            else:
                pullbacks.append(partial(_pulled, pulls, [value.size for value in values]))
            key = jax.random.fold_in(jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step), i)
            timestep = self.timestep if self.momentum_timestep is None else self.momentum_timestep
            observations.append(
                Observation(xi, state.step, kT, key, momentum, applied[i], jnp.asarray(timestep), inverse_mass)
            )
        return observations, pullbacks

    def assemble(self, biases: Sequence[Bias], pullbacks: Sequence[Callable], particles: Particles) -> BiasForces:
        """What all biases together exert on the particles."""
        of_methods = [pullback(bias.force) for bias, pullback in zip(biases, pullbacks, strict=True)]
        energy = reduce(add, (bias.energy for bias in biases))
        forces, *on_box = (reduce(add, terms) for terms in zip(*of_methods, strict=True))
        slope = virial = None
        if self.needs_energy:
            forces, slope = forces[:-1], -forces[-1, 0]
        if on_box and particles.box is not None:  # a strain takes positions and box with it
            r = jnp.concatenate([particles.positions, particles.box])
            f = jnp.concatenate([forces, *on_box])
            virial = jnp.sum(r[:, :, None] * f[:, None, :], axis=0)
        return BiasForces(energy, forces, virial, slope)


@jax.jit
def first_state(sampler: Sampler, particles: Particles, seed: int | Int[Array, ""]) -> SamplerState:
    """``Sampler.init`` as one compiled program."""
    return sampler.init(particles, seed)


def _value(
    cv: AbstractCV, points: Points, places: Any, cell: Cell, lists: tuple[NeighborList, ...]
) -> Float[Array, " n"]:
    """A CV's components."""
    try:
        value = jnp.asarray(evaluated(cv, points(places, cell), cell, lists), dtype=jnp.result_type(float))
    except _NOT_TRACEABLE as error:
        raise InvalidInputError(
            f"The CV {cv.name} is not made of JAX operations, so it has no derivative and cannot be compiled. Use "
            f"jax.numpy instead of numpy, and jnp.where instead of if. JAX says: {str(error).splitlines()[0]}"
        ) from error
    if value.size != cv.n_components or value.ndim > 1:
        expected = f"a vector of {cv.n_components}" if cv.n_components > 1 else "a scalar"
        raise InvalidInputError(
            f"The CV {cv.name} must return {expected}, got an array of shape {value.shape}. Reduce it to one "
            "number, or name its components: custom(..., components=['x', 'y', ...])."
        )
    return value.reshape(-1)


def _pulled(pulls: Sequence[Callable], sizes: Sequence[int], force: Float[Array, " n"]) -> list[Array]:
    """Forces on the CVs of a method as forces on the atoms, and on the box."""
    of_cvs = [pull(part) for pull, part in zip(pulls, _split(force, sizes), strict=True)]
    return [reduce(add, parts) for parts in zip(*of_cvs, strict=True)]


def _split(values: Float[Array, " n"], sizes: Sequence[int]) -> list[Array]:
    """Consecutive parts of these sizes."""
    return jnp.split(values, np.cumsum(sizes)[:-1])


def no_lists(methods: Sequence[AbstractMethod]) -> type_of_lists:
    """Neighbour lists of all CVs, still to be built."""
    dtype = jnp.result_type(float)
    return tuple(
        tuple(tuple(NeighborList.empty(pairs, dtype) for pairs in cv.neighborhoods) for cv in method.cvs)
        for method in methods
    )


def as_methods(methods: Any) -> tuple[AbstractMethod, ...]:
    """One method or a sequence of them as a tuple.

    Raises:
        InvalidInputError: if something in it is not a method.
    """
    result = tuple(methods) if isinstance(methods, list | tuple) else (methods,)
    for method in result:
        if not isinstance(method, AbstractMethod):
            raise InvalidInputError(
                f"Expected a method such as pysamp.methods.Metadynamics(...), or a list of methods, got {method!r}."
            )
    if not result:
        raise InvalidInputError(
            "Expected at least one method, got an empty list; pysamp.methods.Unbiased only observes."
        )
    return result


def _needs_energy(methods: Sequence[AbstractMethod], system: System) -> bool:
    """Whether a CV takes the engine's potential energy."""
    takers = [(m, cv) for m in methods for cv in m.cvs if any(isinstance(point, Energy) for point in cv.atoms)]
    if not takers:
        return False
    if not system.hands_over_energy:
        raise UnsupportedError(
            f"{takers[0][1].name} takes the engine's potential energy, which pysamp does not get from this engine: it does so "
            "from OpenMM and pysamp.backends.toy. Build the simulation in OpenMM, or write the part of the energy that "
            "matters as a CV of your own: custom(function, atoms=[...])."
        )
    for method, cv in takers:
        if {"momentum", "inverse_mass"} & method.needs:
            raise UnsupportedError(
                f"{type(method).__name__} needs the momentum of {cv.name}, which takes the derivatives of the engine's energy "
                "with respect to all particles. Use Metadynamics, OPES or ExtendedABF, which need none."
            )
    return True


def _resolved(method: AbstractMethod, system: System) -> AbstractMethod:
    """The method with CVs that know what they take from the engine."""
    return eqx.tree_at(lambda m: m.cvs, method, tuple(cv.resolved(system) for cv in method.cvs))
