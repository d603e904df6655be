"""The one pure function that runs once per time step: from particles to biased forces, and the only place with the chain rule."""

from collections.abc import Callable, Sequence
from functools import partial, reduce
from operator import add
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, UInt32

from .colvars._neighbors import NeighborList, with_room
from .colvars.base import AbstractCV, Energy, Group, evaluated
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


class Particles(eqx.Module):
    """What an engine hands over at a force evaluation: the sampler's atoms, in the order of ``Sampler.atoms``, and the box.

    Attributes:
        positions: [length].
        box: box vectors as rows [length], or None.
        velocities: velocities half a step before the positions [length/time], or None where no method asks for them.
        energy: potential energy of the engine without the bias [energy], or None where no CV asks for it.
        kT: thermal energy at this step, where a thermostat changes it during a run [energy]; None for the sampler's.
    """

    positions: Float[Array | np.ndarray, "... k 3"]
    box: Float[Array | np.ndarray, "... 3 3"] | None = None
    velocities: Float[Array | np.ndarray, "... k 3"] | None = None
    energy: Float[Array | np.ndarray, "..."] | None = None
    kT: Float[Array | np.ndarray, "..."] | None = None

    @property
    def points(self) -> Float[Array | np.ndarray, "m 3"]:
        """The positions of one replica and, where the energy was handed over, one more row: (energy, 0, 0)."""
        if self.energy is None:
            return self.positions
        row = jnp.zeros((1, 3), dtype=jnp.result_type(self.positions)).at[0, 0].set(self.energy)
        return jnp.concatenate([jnp.asarray(self.positions), row])


class BiasForces(eqx.Module):
    """What goes back to the engine.

    Attributes:
        energy: bias energy, summed over methods [energy].
        forces: force on each of the sampler's atoms [energy/length].
        virial: minus the derivative of the energy with respect to a strain of positions and box together [energy], where
            the engine wants it.
        slope: derivative of the bias energy with respect to the engine's potential energy, or None where no CV asks for that
            energy. The engine must add ``slope`` times its own forces (and virial), on all particles.
    """

    energy: Float[Array, ""]
    forces: Float[Array, "k 3"]
    virial: Float[Array, "3 3"] | None = None
    slope: Float[Array, ""] | None = None

    @property
    def packed(self) -> Float[Array, " m"]:
        """One array: energy, forces, of the virial what is above and on the diagonal (xx, xy, xz, yy, yz, zz), slope."""
        parts = [self.energy[None], self.forces.reshape(-1)]
        if self.virial is not None:
            parts.append(self.virial[np.triu_indices(3)])
        if self.slope is not None:
            parts.append(self.slope[None])
        return jnp.concatenate(parts)


type_of_lists = tuple[tuple[tuple[NeighborList, ...], ...], ...]


class SamplerState(eqx.Module):
    """Everything that changes from step to step.

    Attributes:
        step: number of MD steps that the methods have seen.
        key: data of the run's random key; a typed key would make every call of a compiled function ten times slower.
        methods: one state per method.
        xi: CVs at the last step, methods one after the other.
        forces: bias forces on them at the last step [energy / CV unit].
        energies: bias energy of each method at the last step [energy].
        lists: neighbour lists of each method's CVs, of those that want some. They save time only: whatever they hold, the
            bias is the same to rounding.
    """

    step: Int[Array, ""]
    key: UInt32[Array, " w"]
    methods: tuple[Any, ...]
    xi: Float[Array, " n"]
    forces: Float[Array, " n"]
    energies: Float[Array, " m"]
    lists: type_of_lists = ()


class _Points(eqx.Module):
    """Where the points of one CV are among the sampler's atoms."""

    groups: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    weights: tuple[Float[np.ndarray, " _"] | None, ...]
    whole: tuple[bool, ...] = eqx.field(static=True)

    def __call__(self, x: Float[Array | np.ndarray, "k 3"], cell: Cell) -> Float[Array, "p 3"]:
        if all(weight is None for weight in self.weights):
            return _take(x, tuple(group[0] for group in self.groups))
        return jnp.stack(
            [
                _take(x, group)[0] if weight is None else _center(_take(x, group), weight, Cell() if whole else cell)
                for group, weight, whole in zip(self.groups, self.weights, self.whole, strict=True)
            ]
        )


class _Momenta(eqx.Module):
    """Masses and constraints that the generalized momentum of one method involves, as places among the sampler's atoms.

    Attributes:
        inverse_masses: of the sampler's atoms.
        clusters: the constraints, those that share particles together.
    """

    inverse_masses: Float[np.ndarray, " k"]
    clusters: tuple[tuple[tuple[int, int], ...], ...] = eqx.field(static=True)

    def __call__(self, jacobian: Float[Array, "n k 3"], particles: Particles, cell: Cell) -> Float[Array, " n"]:
        """Momentum conjugate to xi: the inverse of the effective inverse mass, times the velocity of xi.

        With J = d xi / d x and M the masses, the effective inverse mass is Z = J M^-1 J^T. Under constraints with
        gradients G it loses what they take away: Z - J M^-1 G^T (G M^-1 G^T)^-1 G M^-1 J^T. Without that correction the
        mean force is wrong by the ratio of the two, some percent for a CV on an atom with a constrained hydrogen.
        """
        if particles.velocities is None:
            raise ValueError("the engine handed over no velocities")
        velocity = jnp.sum(jacobian * particles.velocities[None], axis=(1, 2))
        return _solve(self.inverse_mass(jacobian, particles, cell), velocity[:, None])[:, 0]

    def inverse_mass(self, jacobian: Float[Array, "n k 3"], particles: Particles, cell: Cell) -> Float[Array, "n n"]:
        """Effective inverse mass matrix of xi."""
        inverse_masses = jnp.asarray(self.inverse_masses)
        weighted = jacobian * inverse_masses[None, :, None]
        inverse_mass = jnp.sum(weighted[:, None] * jacobian[None], axis=(2, 3))
        for cluster in self.clusters:
            first = _take(particles.positions, tuple(a for a, _ in cluster))
            second = _take(particles.positions, tuple(b for _, b in cluster))
            bond = cell.displacement(first, second)
            coupling = jnp.stack(
                [
                    jnp.sum((weighted[:, b] - weighted[:, a]) * bond[i][None], axis=-1)
                    for i, (a, b) in enumerate(cluster)
                ]
            )
            reaction = _solve(self._metric(cluster, bond, inverse_masses), coupling)
            inverse_mass = inverse_mass - jnp.sum(coupling[:, :, None] * reaction[:, None, :], axis=0)
        return inverse_mass

    @staticmethod
    def _metric(
        cluster: tuple[tuple[int, int], ...], bond: Float[Array, "m 3"], inverse_masses: Float[Array, " k"]
    ) -> Float[Array, "m m"]:
        """G M^-1 G^T for the gradients G of the constraints' squared distances (halved)."""
        zero = jnp.zeros(())
        rows = []
        for i, (a, b) in enumerate(cluster):
            row = []
            for j, (c, d) in enumerate(cluster):
                shared = [
                    sign * inverse_masses[p]
                    for p, q, sign in ((a, c, 1.0), (a, d, -1.0), (b, c, -1.0), (b, d, 1.0))
                    if p == q
                ]
                row.append(sum(shared) * jnp.dot(bond[i], bond[j]) if shared else zero)
            rows.append(jnp.stack(row))
        return jnp.stack(rows)


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
    points: tuple[tuple[_Points, ...], ...]
    momenta: tuple[_Momenta | None, ...]
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
                _check_atoms(cv, n_particles)
        needs_energy = _needs_energy(methods, system)
        methods = tuple(_resolved(method, system) for method in methods)
        order: dict[int, int] = {}
        for method in methods:
            for cv in method.cvs:
                for index in _indices(cv):
                    order.setdefault(index, len(order))
        partners = {
            i: _constraint_cluster([index for cv in method.cvs for index in _indices(cv)], system)
            for i, method in enumerate(methods)
            if {"momentum", "inverse_mass"} & method.needs
        }
        for pairs in partners.values():
            for index in (index for pair in pairs for index in pair):
                order.setdefault(index, len(order))
        points = tuple(tuple(_locate(cv, order, system) for cv in method.cvs) for method in methods)
        momenta = tuple(
            _momenta(method, order, partners[i], system) if i in partners else None for i, method in enumerate(methods)
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

        def trace() -> dict[str, Float[Array, ""]]:
            x = jnp.zeros((len(self.atoms), 3))
            energy = jnp.zeros(()) if self.needs_energy else None
            return self.diagnostics(self.init(Particles(x, jnp.eye(3) if self.periodic else None, x, energy)))

        with jax.enable_x64(True):
            return tuple(jax.eval_shape(trace))

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

        def renewed(cv: AbstractCV, points: _Points, lists: tuple[NeighborList, ...]) -> tuple[NeighborList, ...]:
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

    def _cvs(self, index: int) -> list[tuple[AbstractCV, _Points]]:
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


def _value(
    cv: AbstractCV, points: _Points, places: Any, cell: Cell, lists: tuple[NeighborList, ...]
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


def _indices(cv: AbstractCV) -> tuple[int, ...]:
    points = (point for point in cv.atoms if not isinstance(point, Energy))
    return tuple(i for point in points for i in (point.indices if isinstance(point, Group) else (point,)))


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


def _check_atoms(cv: AbstractCV, n_particles: int) -> None:
    wrong = [i for i in _indices(cv) if i >= n_particles]
    if wrong:
        raise InvalidInputError(
            f"{cv.name} refers to particle {wrong[0]}, but the system has {n_particles} particles, numbered from 0 to "
            f"{n_particles - 1}."
        )


def _resolved(method: AbstractMethod, system: System) -> AbstractMethod:
    """The method with CVs that know what they take from the engine."""
    return eqx.tree_at(lambda m: m.cvs, method, tuple(cv.resolved(system) for cv in method.cvs))


def _locate(cv: AbstractCV, order: dict[int, int], system: System) -> _Points:
    groups, weights, whole = [], [], []
    for point in cv.atoms:
        whole.append(isinstance(point, Group) and _is_in_one_molecule(point.indices, system.molecules))
        if isinstance(point, Energy):
            groups.append((len(order),))  # after all atoms
            weights.append(None)
        elif isinstance(point, Group):
            groups.append(tuple(order[i] for i in point.indices))
            weight = system.masses[list(point.indices)] if point.weights is None else np.asarray(point.weights)
            if not weight.sum() > 0:
                raise InvalidInputError(
                    f"The group {list(point.indices)[:10]} of {cv.name} has no mass; give Group(..., weights=1) for its "
                    "centre of geometry."
                )
            weights.append(weight / weight.sum())
        else:
            groups.append((order[point],))
            weights.append(None)
    return _Points(tuple(groups), tuple(weights), tuple(whole))


def _is_in_one_molecule(indices: Sequence[int], molecules: Int[np.ndarray, " n"] | None) -> bool:
    if molecules is None:
        return False
    found = molecules[list(indices)]
    return bool(found[0] >= 0 and (found == found[0]).all())


def _constraint_cluster(atoms: Sequence[int], system: System) -> list[tuple[int, int]]:
    """All constraints that are tied, directly or through others, to one of ``atoms``."""
    partners: dict[int, list[int]] = {}
    for k, (a, b) in enumerate(system.constraints.tolist()):
        partners.setdefault(a, []).append(k)
        partners.setdefault(b, []).append(k)
    found: dict[int, None] = {}
    queue, seen = list(dict.fromkeys(atoms)), set(atoms)
    while queue:
        for k in partners.get(queue.pop(), []):
            found.setdefault(k)
            for other in system.constraints[k].tolist():
                if other not in seen:
                    seen.add(other)
                    queue.append(other)
    return [(int(a), int(b)) for a, b in system.constraints[sorted(found)]]


def _momenta(
    method: AbstractMethod, order: dict[int, int], pairs: Sequence[tuple[int, int]], system: System
) -> _Momenta:
    name = type(method).__name__
    if "momentum" in method.needs and system.momentum_timestep is None:
        raise InvalidInputError(
            f"{name} needs the momenta of a leapfrog or velocity-Verlet-like integrator with a fixed step, which this "
            "engine or integrator does not give. Use one that has them (OpenMM: LangevinMiddleIntegrator), or a method "
            "that needs no momenta, such as Metadynamics."
        )
    atoms = {index for cv in method.cvs for index in _indices(cv)}
    followers = sorted(atoms & system.massless)
    if followers:
        raise InvalidInputError(
            f"{name} needs momenta, but particle {followers[0]} is a virtual site, which has none. Use the particles that "
            "define it."
        )
    masses = system.masses[list(order)]
    inverse = np.divide(1.0, masses, out=np.zeros_like(masses), where=masses > 0)
    clusters: list[list[tuple[int, int]]] = []
    for pair in pairs:
        touched = [cluster for cluster in clusters if any(set(pair) & set(other) for other in cluster)]
        clusters = [cluster for cluster in clusters if cluster not in touched]
        clusters.append([other for cluster in touched for other in cluster] + [pair])
    places = tuple(tuple((order[a], order[b]) for a, b in cluster) for cluster in clusters)
    return _Momenta(inverse, places)


def _take(x: Float[Array | np.ndarray, "k 3"], places: tuple[int, ...]) -> Float[Array, "p 3"]:
    """Rows of ``x``. A slice where they are contiguous and single rows where they are few: XLA fuses both, forward and back."""
    if places == tuple(range(places[0], places[0] + len(places))):
        return jnp.asarray(x[places[0] : places[0] + len(places)])
    if len(places) <= 16:
        return jnp.stack([x[i] for i in places])
    unique = len(set(places)) == len(places)  # not so in a combination of CVs that share particles
    return jnp.asarray(x).at[np.asarray(places)].get(mode="promise_in_bounds", unique_indices=unique)


def _center(x: Float[Array, "g 3"], weights: Float[Array | np.ndarray, " g"], cell: Cell) -> Float[Array, "3"]:
    """Weighted centre of a group made whole along its list (without building the whole group)."""
    weights = jnp.asarray(weights)
    if cell.box is None:
        return weights @ x
    remaining = jnp.cumsum(weights[::-1])[::-1][1:]
    return x[0] + remaining @ cell.displacement(x[:-1], x[1:])


def _solve(matrix: Float[Array, "n n"], right: Float[Array, "n m"]) -> Float[Array, "n m"]:
    """Solve a positive definite system; small ones unrolled, which keeps the step one compiled function."""
    n = matrix.shape[0]
    if n > 8:
        return jnp.linalg.solve(matrix, right)
    rows = [matrix[i] for i in range(n)]
    values = [right[i] for i in range(n)]
    for i in range(n):
        for j in range(i + 1, n):
            factor = rows[j][i] / rows[i][i]
            rows[j] = rows[j] - factor * rows[i]
            values[j] = values[j] - factor * values[i]
    result: list = [None] * n
    for i in reversed(range(n)):
        rest = sum((rows[i][j] * result[j] for j in range(i + 1, n)), jnp.zeros_like(values[i]))
        result[i] = (values[i] - rest) / rows[i][i]
    return jnp.stack(result)
