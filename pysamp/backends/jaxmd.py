"""JAX MD: simulations that are JAX programs, biased inside one compiled loop, alone or many together."""

import importlib.metadata
import inspect
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._cut import Cut, Traced
from .._serial import is_key
from ..api import bind, describe, stack
from ..errors import InvalidInputError, SimulationError
from ..loop import Loop, replica_axes
from ..sampler import BiasForces, Particles, Sampler, SamplerState
from ..snapshot import Cell, Snapshot
from ..system import System
from ._jaxmd_engine import Engine, biased, noting, renewed, rows_of_box, stacked, trace_step, trace_update
from .base import LoopBound

__all__ = ["Simulation"]

_GROWTH = 0.3  # by which part the room of a neighbour list grows at least that was too short, so that it does so rarely


class Simulation:
    r"""A JAX MD simulation, in the parts from which its step is made.

    JAX MD evaluates the force in the middle of a step, at the new positions, so that the bias must be there, in the function
    that the integrator calls; adding it to the forces between steps gives half of it. Therefore this class takes the energy
    function and the integrator's constructor, and makes the step itself. All else is an ordinary JAX MD script.

    The bias is computed in double precision; energy, integrator and state keep the precision in which they were made. With a
    neighbour list, that is renewed where the force is evaluated; if it is too short, the loop stops before that evaluation,
    the list is made anew with more room, and the run goes on from there. Integrators with a box of their own
    (``npt_nose_hoover``) get the bias energy's derivative with respect to the volume.

    Args:
        energy_fn: JAX MD's energy (or force) function, ``energy_fn(R, **kwargs)``.
        state: what the integrator's own ``init_fn`` returned for it, without a bias.
        shift_fn: JAX MD's function that moves particles, from ``jax_md.space``.
        integrator: ``functools.partial(jax_md.simulate.nvt_langevin, dt=..., kT=..., ...)``, or any function of (energy_fn,
            shift_fn) that returns ``init_fn, apply_fn``; then give ``timestep`` and ``kT`` as well.
        box: as for ``jax_md.space``: a side, sides, or a matrix with the box vectors as columns [length]; None for free
            space, or where the state has its own.
        neighbor_fn: ``jax_md.partition.neighbor_list(...)`` or the like; ``energy_fn`` gets the list as ``neighbor=``.
        neighbors: the list that ``neighbor_fn`` made for ``state``; None to make one. Where JAX traces the making of the
            simulation, as under ``jax.jit``, it must be given.
        timestep: [time]; None for the integrator's ``dt``.
        kT: thermal energy [energy]; None for the integrator's, if it has one.

    Attributes:
        state: the state; after a run, the last one, with the force of the energy function alone.
        neighbors: the neighbour list, or None.

    Raises:
        InvalidInputError: if a part does not fit the others.

    Example:
        >>> from functools import partial
        >>> import jax
        >>> import jax.numpy as jnp
        >>> import pysamp
        >>> from jax_md import simulate, space
        >>> from pysamp.backends import jaxmd
        >>> from pysamp.colvars import Component
        >>> from pysamp.methods import HarmonicBias
        >>> displacement, shift = space.free()
        >>> def energy(R, **kwargs):
        ...     return 0.5 * jnp.sum(R**2)
        >>> integrator = partial(simulate.nvt_langevin, dt=0.1, kT=1.0, gamma=1.0)
        >>> init_fn, _ = integrator(energy, shift)
        >>> def generate_context():
        ...     state = init_fn(jax.random.PRNGKey(0), jnp.zeros((4, 3)))
        ...     return jaxmd.Simulation(energy, state, shift_fn=shift, integrator=integrator)
        >>> bias = HarmonicBias(Component([0], axis=0), kspring=1.0, center=0.0)
        >>> run = pysamp.run(bias, generate_context, 100, log_every=10, seed=1, progress=False)
        >>> run.log.sizes["sample"]
        10
    """

    def __init__(
        self,
        energy_fn: Callable,
        state: Any,
        *,
        shift_fn: Callable,
        integrator: Callable,
        box: Any = None,
        neighbor_fn: Any = None,
        neighbors: Any = None,
        timestep: Any = None,
        kT: Any = None,
    ):
        for name, value in (("energy_fn", energy_fn), ("shift_fn", shift_fn), ("integrator", integrator)):
            if not callable(value):
                raise InvalidInputError(f"{name} must be a function, got {value!r}.")
        shape = np.shape(getattr(state, "position", ()))
        if len(shape) != 2 or shape[1] not in (2, 3):
            raise InvalidInputError(
                "state must be what the integrator's init_fn returned, with positions of the shape (n, 3) or (n, 2); got "
                f"{type(state).__name__} with positions of the shape {shape}."
            )
        self.energy_fn, self.state, self.shift_fn, self.integrator = energy_fn, state, shift_fn, integrator
        self.box = None if box is None else np.asarray(box)
        self.neighbor_fn = neighbor_fn
        self.neighbors = neighbors
        given = _options(integrator)
        self.timestep = _number(given.get("dt") if timestep is None else timestep, "timestep", "dt")
        kT = given.get("kT") if kT is None else kT
        self.kT = None if kT is None else _number(kT, "kT", "kT")
        self.friction: Any = given.get("gamma")
        self.step = 0
        self.x64: bool = bool(
            jax.config.read("jax_enable_x64")
        )  # the precision in which the user's functions are traced
        if self.has_own_box and box is not None:
            raise InvalidInputError("This integrator's state has a box of its own; leave box=... out.")

    @property
    def has_own_box(self) -> bool:
        """Whether the integrator moves the box."""
        return hasattr(self.state, "reference_box")

    @property
    def masses(self) -> Float[np.ndarray, " n"]:
        """Masses of all particles."""
        n = len(self.state.position)
        return np.array(np.broadcast_to(np.asarray(self.state.mass, dtype=np.float64).reshape(-1), (n,)))

    @property
    def box_rows(self) -> Float[np.ndarray, "3 3"] | None:
        """The present box, with its vectors as rows, or None."""
        box = self.state.box if self.has_own_box else self.box
        if box is None:
            return None
        with jax.enable_x64(True), jax.ensure_compile_time_eval():  # also where a simulation is made under jit
            return np.asarray(rows_of_box(jnp.asarray(np.asarray(box), dtype=jnp.float64)))


class _Replicas:
    """Several simulations that differ in their states only."""

    def __init__(self, simulations: Sequence[Simulation]):
        self.simulations = list(simulations)


class JaxMDBound(LoopBound):
    """JAX MD simulations tied to a sampler, all replicas in one compiled program."""

    def __init__(self, simulations: Sequence[Simulation], sampler: Sampler, seeds: Sequence[int] | None):
        self.sampler = sampler
        self.system = describe(simulations[0])
        self.n_replicas = len(simulations)
        self._simulations = list(simulations)
        self._first = first = simulations[0]
        self._loop = Loop(sampler, self.n_replicas)
        self._engine: Any = None
        with self._engine_precision():
            md = stacked([s.state for s in simulations])
        self._start(md, first.step)
        if seeds is not None:
            self.reseed(seeds)
        self.states = self.initial_states(range(self.n_replicas))

    def run(self, n_steps: int, *, log_every: int = 0) -> Float[np.ndarray, "replica rows width"]:
        """Run ``n_steps`` steps."""
        with jax.enable_x64(True):
            engine = eqx.tree_at(lambda e: e.remaining, _copied(self._engine), jnp.asarray(np.int64(n_steps)))
            self._engine = self._loop.run(engine, log_every)
            while bool(self._engine.overflow):
                self._make_room()
                self._engine = self._loop.run(_copied(self._engine), log_every)
        early = int(self._engine.remaining) > 0 and not self._loop.has_stopped
        if early or not np.isfinite(np.asarray(self._engine.x)).all():
            states = self.states
            bad = [s for s in states if not (np.isfinite(s.xi).all() and np.isfinite(s.energies).all())]
            step = int(states[0].step) - 1
            if not bad and np.isfinite(np.concatenate([s.xi for s in states])).all():
                what = "positions or bias forces are no longer finite; try a smaller time step or a relaxed start"
            else:
                what = self.sampler.blame(bad[0])
            raise SimulationError(f"The simulation stopped at step {step}: {what}.")
        return self._loop.take_rows()

    @property
    def arrays(self) -> Mapping[str, Array]:
        """Positions, velocities and masses as JAX MD keeps them, of all replicas, and the forces of potential and bias."""
        engine = self._engine
        with jax.enable_x64(True):
            total = self._forces() + engine.answer(self._bias())[1]
            velocities = jnp.zeros_like(engine.x) if not hasattr(engine.md, "momentum") else _velocities(engine.md)
        return {
            "positions": engine.x,
            "velocities": velocities if engine.v is None else engine.v,
            "masses": jnp.asarray(self.system.masses),
            "forces": total,
        }

    def snapshots(self) -> list[Snapshot]:
        """One snapshot per replica, in real coordinates; its ``engine`` is all that JAX MD carries from step to step."""
        engine = self._engine
        with jax.enable_x64(True):
            every = replace(engine, atoms=tuple(range(engine.x.shape[1])), velocities_too=True).particles()
        x = np.asarray(every.positions)
        v = None if every.velocities is None else np.asarray(every.velocities)
        boxes = [None] * len(x) if every.box is None else np.asarray(every.box)
        leaves = [_plain(leaf) for leaf in jax.tree.leaves(self._engine.moving)]
        common = [np.asarray(engine.fresh), np.asarray(self._cell_capacity())]
        return [
            Snapshot(
                x[r],
                None if v is None else v[r],
                self.system.masses,
                boxes[r],
                int(engine.n_steps),
                _to_bytes([*common, *(np.asarray(leaf[r]) for leaf in leaves)]),
            )
            for r in range(self.n_replicas)
        ]

    def restore(self, snapshots: Sequence[Snapshot]) -> None:
        """Set everything that JAX MD carries; without the engine's own part, positions and velocities."""
        if any(s.engine is None for s in snapshots):
            self._restore_positions(snapshots)
            return
        kept = [_from_bytes(np.asarray(s.engine)) for s in snapshots]
        fresh, capacity = kept[0][:2]
        with jax.enable_x64(True):
            structure = jax.tree.structure(self._engine.moving)
            leaves = [jnp.asarray(np.stack(column)) for column in list(zip(*kept, strict=True))[2:]]
            old = jax.tree.leaves(self._engine.moving)
            leaves = [
                jax.random.wrap_key_data(new, impl=jax.random.key_impl(leaf)) if is_key(leaf) else new
                for new, leaf in zip(leaves, old, strict=True)
            ]
            md, carried, x, box, v, neighbors = structure.unflatten(leaves)
            if [leaf.shape for leaf in neighbors] != [leaf.shape for leaf in self._engine.neighbors]:
                self._resize(neighbors, int(capacity), md, x, box)
            self._engine = eqx.tree_at(
                lambda e: (e.md, e.carried, e.x, e.box, e.v, e.neighbors, e.fresh, e.overflow, e.n_steps),
                self._engine,
                (
                    *(md, carried, x, box, v, neighbors),
                    jnp.asarray(fresh),
                    jnp.zeros((), dtype=bool),
                    jnp.asarray(np.int64(snapshots[0].step)),
                ),
                is_leaf=lambda leaf: leaf is None,
            )

    def reseed(self, seeds: Sequence[int]) -> None:
        """New random numbers, one seed per replica; an integrator that has none begins again with new momenta."""
        md = self._rested()
        if not hasattr(md, "rng"):
            md = self._with_new_momenta(md, seeds)
        else:
            with jax.enable_x64(True):
                keys = jax.vmap(jax.random.key)(jnp.asarray(np.asarray(seeds, dtype=np.int64)))
                md = md.set(rng=keys if is_key(md.rng) else jax.random.key_data(keys))
        self._start(md, int(self._engine.n_steps))

    def close(self) -> None:
        """Write the last states, with the forces of the potential alone, to the user's simulations."""
        md = self._rested()
        for r, simulation in enumerate(self._simulations):
            simulation.state = jax.tree.map(lambda leaf, r=r: leaf[r], md)
            simulation.step = int(self._engine.n_steps)
            if self._neighbors is not None:
                structure = jax.tree.structure(self._neighbors)
                simulation.neighbors = structure.unflatten([leaf[r] for leaf in self._engine.neighbors])

    @property
    def provenance(self) -> Mapping[str, str]:
        """Version of JAX MD and name of the integrator."""
        try:
            version = importlib.metadata.version("jax-md")
        except importlib.metadata.PackageNotFoundError:
            version = "unknown"
        return {"jax_md": version, "integrator": _name(self._first.integrator)}

    def _engine_precision(self) -> Any:
        """JAX as it was when the simulation was made: the user's functions are traced in that."""
        return jax.enable_x64(self._first.x64)

    def _start(self, md: Any, n_steps: int) -> None:
        """An engine that stands at the positions of JAX MD's states, with no step under way."""
        with self._engine_precision():
            box = jax.vmap(lambda state: state.box)(md) if self._first.has_own_box else None
        traced, neighbors, overflow = None, [], True
        if self._engine is not None:  # a step that is traced once is compiled once
            traced = self._engine.step, self._engine.update
            with jax.enable_x64(True):
                neighbors, overflow = _renewed(self._engine.update, self._engine.neighbors, md.position, box)
        if bool(overflow):
            self._neighbors, neighbors = self._allocated(md.position, box)
            traced = None
        self._engine = begun(self._first, self.sampler, md, self._neighbors, neighbors, n_steps, traced)

    def _allocated(self, x: Array, box: Array | None, extra: int = 0) -> tuple[Any, list[Array]]:
        """A neighbour list with room for every replica, as the template of all, and the leaves for each of them."""
        if self._first.neighbor_fn is None:
            return None, []
        worst = 0
        while True:
            with self._engine_precision():
                options = {} if box is None else {"box": box[worst]}
                template = self._first.neighbor_fn.allocate(x[worst], extra_capacity=extra, **options)
                update = trace_update(template, x[worst], None if box is None else box[worst])
            with jax.enable_x64(True):
                if self.n_replicas == 1:
                    return template, [leaf[None] for leaf in jax.tree.leaves(template)]
                leaves = [jnp.broadcast_to(leaf, (len(x), *leaf.shape)) for leaf in jax.tree.leaves(template)]
                leaves, overflow = jax.vmap(update)(leaves, x, box)  # pyright: ignore[reportArgumentType, reportCallIssue]
            if not np.asarray(overflow).any():
                return template, leaves
            extra = math.ceil((1.0 + _GROWTH) * extra) + 1
            worst = int(np.argmax(np.asarray(overflow)))

    def _make_room(self) -> None:
        """Neighbour lists with more room, at the present positions."""
        engine = self._engine
        n, shape = engine.x.shape[1], self._neighbors.idx.shape
        of_each = shape[-1] if shape[0] == n else shape[-1] / n  # dense, or a list of pairs
        self._neighbors, neighbors = self._allocated(engine.x, engine.box, math.ceil(_GROWTH * of_each) + 1)
        step, update = _traced(self._first, engine.md, engine.x, engine.box, self._neighbors)
        self._engine = eqx.tree_at(
            lambda e: (e.step, e.update, e.neighbors, e.overflow),
            engine,
            (step, update, neighbors, jnp.zeros((), dtype=bool)),
        )

    def _resize(self, neighbors: list[Array], capacity: int, md: Any, x: Array, box: Array | None) -> None:
        """The same lists with the room that those of a snapshot have."""
        structure = jax.tree.structure(self._neighbors)
        template = structure.unflatten([leaf[0] for leaf in neighbors])
        template = template.set(
            max_occupancy=int(template.idx.shape[-1]), cell_list_capacity=None if capacity < 0 else capacity
        )
        self._neighbors = template
        traced = _traced(self._first, md, x, box, template)
        self._engine = eqx.tree_at(
            lambda e: (e.step, e.update), self._engine, traced, is_leaf=lambda leaf: leaf is None
        )

    def _cell_capacity(self) -> int:
        capacity = getattr(self._neighbors, "cell_list_capacity", None)
        return -1 if capacity is None else int(capacity)

    def _bias(self) -> Any:
        """The present bias on all replicas."""
        with jax.enable_x64(True):
            return _evaluated(self.sampler, self._loop.state, self._engine.particles())

    def _forces(self) -> Array:
        """Forces of the energy function at the present positions."""
        engine = self._engine
        structure = jax.tree.structure(self._neighbors)
        with self._engine_precision():
            return _forces_of_all(self._first.energy_fn, structure, engine.x, engine.box, engine.neighbors)

    def _rested(self) -> Any:
        """JAX MD's states at the present positions: with the bias in the momenta, and without it in the forces."""
        engine = self._engine
        if bool(engine.fresh) or not engine.step.n_notes:
            return engine.md
        with jax.enable_x64(True):
            return _completed(engine, self._bias())

    def _with_new_momenta(self, md: Any, seeds: Sequence[int]) -> Any:
        first = self._first
        if first.kT is None:
            return md
        with self._engine_precision():
            init, _ = first.integrator(first.energy_fn, first.shift_fn)
            started = []
            for r, seed in enumerate(seeds):
                state = jax.tree.map(lambda leaf, r=r: leaf[r], md)
                options: dict[str, Any] = {"mass": state.mass}
                if "kT" in inspect.signature(init).parameters:
                    options["kT"] = first.kT
                if first.has_own_box:
                    options["box"] = state.box
                if self._neighbors is not None:
                    structure = jax.tree.structure(self._neighbors)
                    options["neighbor"] = structure.unflatten([leaf[r] for leaf in self._engine.neighbors])
                started.append(init(jax.random.PRNGKey(seed), state.position, **options))
            return stacked(started)

    def _restore_positions(self, snapshots: Sequence[Snapshot]) -> None:
        """From positions and velocities alone, as another engine or program left them."""
        md = self._rested()
        with jax.enable_x64(True):
            x = jnp.asarray(np.stack([np.asarray(s.positions) for s in snapshots]))
            if self._engine.fractional:
                x = x @ jnp.linalg.inv(jnp.asarray(np.stack([np.asarray(s.box) for s in snapshots])))
            x = x[..., : md.position.shape[-1]].astype(md.position.dtype)
            md = md.set(position=x)
            if hasattr(md, "momentum") and all(s.velocities is not None for s in snapshots):
                v = jnp.asarray(np.stack([np.asarray(s.velocities) for s in snapshots]))[..., : x.shape[-1]]
                md = md.set(momentum=jax.vmap(lambda v, mass: v * mass)(v, md.mass).astype(x.dtype))
        self._start(md, int(snapshots[0].step))
        if hasattr(md, "force"):
            self._start(md.set(force=self._forces()), int(snapshots[0].step))


def begun(
    first: Simulation,
    sampler: Sampler,
    md: Any,
    template: Any,
    neighbors: list[Array],
    n_steps: int,
    traced: tuple[Cut, Traced | None] | None = None,
) -> Engine:
    """An engine that stands at the positions of JAX MD's states, with no step under way.

    Args:
        first: one of the simulations.
        sampler: what the engine hands particles to.
        md: JAX MD's states, one for each replica on the first axis.
        template: a neighbour list, or None.
        neighbors: its leaves for each of the replicas.
        n_steps: steps done before.
        traced: step and renewal of the neighbour list for these shapes; None to trace them.
    """
    with jax.enable_x64(first.x64):
        x = md.position
        box = jax.vmap(lambda state: state.box)(md) if first.has_own_box else None
    step, update = traced or _traced(first, md, x, box, template)
    scale = _velocity_scale(first, step.n_notes)
    rows = None if box is not None else first.box_rows
    with jax.enable_x64(True):
        nothing = [jnp.zeros(len(x), x.dtype), jnp.zeros_like(x), jnp.zeros(len(x), x.dtype)]
        _, _, carried = _before(step, (md, neighbors), nothing)
        v = None
        if scale is not None:
            v = jax.vmap(lambda s: s.velocity - 0.5 * first.timestep * s.force / s.mass)(md).astype(x.dtype)
        return Engine(
            step=step,
            update=update,
            md=md,
            carried=carried,
            x=x,
            box=box,
            v=v,
            neighbors=neighbors,
            fresh=jnp.asarray(step.n_notes > 0),
            overflow=jnp.zeros((), dtype=bool),
            remaining=jnp.asarray(np.int64(0)),
            n_steps=jnp.asarray(np.int64(n_steps)),
            box_rows=None if rows is None else jnp.asarray(rows),
            fractional=_is_fractional(first),
            velocity_scale=scale,
            atoms=sampler.atoms,
            velocities_too=sampler.needs_velocities,
            held=jnp.zeros(len(x), dtype=bool) if sampler.stops else None,
        )


@jax.jit
def _before(step: Cut, inputs: Any, answer: list[Array]) -> Any:
    return jax.vmap(step.before)(inputs, answer)


_renewed = jax.jit(renewed)


@jax.jit
def _evaluated(sampler: Sampler, state: SamplerState, particles: Particles) -> BiasForces:
    return jax.vmap(sampler.evaluate, in_axes=(replica_axes(sampler, state), 0))(state, particles)


@jax.jit
def _completed(engine: Engine, bias: BiasForces) -> Any:
    """JAX MD's states with the bias in the momenta, and without it in the forces."""
    answer = engine.answer(bias)
    md = engine.completed(answer)
    fields = {"force": answer[1], "dUdV": answer[2], "potential_energy": answer[0]}
    return md.set(**{name: getattr(md, name) - term for name, term in fields.items() if hasattr(md, name)})


@partial(jax.jit, static_argnums=(0, 1))
def _forces_of_all(energy_fn: Callable, structure: Any, x: Array, box: Array | None, leaves: list[Array]) -> Array:
    return jax.vmap(lambda x, box, leaves: forces(energy_fn, x, box, leaves, structure))(x, box, leaves)


def forces(energy_fn: Callable, x: Array, box: Array | None, leaves: list[Array], structure: Any) -> Array:
    """Forces of the energy function alone, for one replica; ``structure`` is that of its neighbour list."""
    options: dict[str, Any] = {} if box is None else {"box": box}
    if leaves:
        options["neighbor"] = structure.unflatten(leaves)
    value = energy_fn(x, **options)
    if jnp.shape(value) != ():
        return value
    return -jax.grad(lambda x: energy_fn(x, **options))(x)


def _traced(first: Simulation, md: Any, x: Array, box: Array | None, template: Any) -> tuple[Cut, Traced | None]:
    """Step and renewal of the neighbour list for the present shapes."""
    one_md, one_x, one_box = jax.tree.map(lambda leaf: leaf[0], (md, x, box))
    with jax.enable_x64(first.x64):
        _, apply = first.integrator(biased(first.energy_fn), noting(first.shift_fn))
        return trace_step(apply, one_md, template), trace_update(template, one_x, one_box)


@describe.dispatch
def _describe_jaxmd(simulation: Simulation, /) -> System:
    rows = simulation.box_rows
    cell = Cell() if rows is None else Cell.of(rows)
    return System(
        masses=simulation.masses,
        timestep=simulation.timestep,
        kT=simulation.kT,
        momentum_timestep=_momentum_timestep(simulation),
        periodic=rows is not None,
        orthorhombic=cell.orthorhombic,
        reduction=cell.reduction,
        wants_virial=simulation.has_own_box,
    )


@describe.dispatch
def _describe_replicas(simulation: _Replicas, /) -> System:
    return describe(simulation.simulations[0])


@bind.dispatch
def _bind_jaxmd(simulation: Simulation, sampler: Sampler, /, *, seed: int | None = None) -> JaxMDBound:
    return JaxMDBound([simulation], sampler, None if seed is None else [seed])


@bind.dispatch
def _bind_replicas(
    simulation: _Replicas, sampler: Sampler, /, *, seed: int | Sequence[int] | None = None
) -> JaxMDBound:
    if isinstance(seed, int):
        seed = [int(word) for word in np.random.SeedSequence(seed).generate_state(len(simulation.simulations))]
    return JaxMDBound(simulation.simulations, sampler, seed)


@stack.dispatch
def _stack_jaxmd(first: Simulation, others: list, /) -> _Replicas | None:
    return _Replicas([first, *others]) if all(_alike(first, other) for other in others) else None


def _alike(first: Simulation, second: Simulation) -> bool:
    """Whether two simulations differ in their states at most."""
    if (first.timestep, first.kT, first.step, first.x64) != (second.timestep, second.kT, second.step, second.x64):
        return False
    if not np.array_equal(first.masses, second.masses) or (first.box is None) != (second.box is None):
        return False
    if first.box is not None and second.box is not None and not np.array_equal(first.box, second.box):
        return False
    shapes = [jax.tree.map(lambda leaf: (np.shape(leaf), jnp.result_type(leaf)), s.state) for s in (first, second)]
    if jax.tree.structure(shapes[0]) != jax.tree.structure(shapes[1]) or shapes[0] != shapes[1]:
        return False
    if first.neighbor_fn is not second.neighbor_fn:
        return False
    same = first.energy_fn is second.energy_fn and first.shift_fn is second.shift_fn
    if same and _is_same_integrator(first.integrator, second.integrator):
        return True
    return first.neighbor_fn is None and _program(first) == _program(second)


def _is_same_integrator(first: Any, second: Any) -> bool:
    if first is second:
        return True
    if not (isinstance(first, partial) and isinstance(second, partial)) or first.func is not second.func:
        return False
    given = [(f.args, f.keywords) for f in (first, second)]
    return repr(given[0]) == repr(given[1])


def _program(simulation: Simulation) -> tuple[str, list[bytes]]:
    """What a step computes, as text, with the arrays that its functions hold."""
    with jax.enable_x64(simulation.x64):
        _, apply = simulation.integrator(simulation.energy_fn, simulation.shift_fn)
        closed = jax.make_jaxpr(apply)(simulation.state)
    return str(closed.jaxpr), [np.asarray(value).tobytes() for value in closed.consts]


def _copied(engine: Engine) -> Engine:
    """The same in arrays of its own, which the loop may overwrite: some are the user's, or two are one."""
    return jax.tree.map(lambda leaf: leaf.copy() if isinstance(leaf, jax.Array) else jnp.asarray(leaf), engine)


def _options(integrator: Any) -> dict[str, Any]:
    """Keyword arguments that a ``functools.partial`` gives an integrator, and the defaults of the others."""
    if not isinstance(integrator, partial):
        return {}
    parameters = inspect.signature(integrator).parameters.values()
    return {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}


def _name(integrator: Any) -> str:
    return getattr(integrator.func if isinstance(integrator, partial) else integrator, "__name__", "unknown")


def _number(value: Any, name: str, option: str) -> float:
    try:
        number = math.nan if value is None else float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not number > 0:
        raise InvalidInputError(
            f"{name} must be a positive number, got {value!r}: give {name}=..., or the integrator as functools.partial("
            f"jax_md.simulate.nvt_langevin, {option}=..., ...), from which it is taken."
        )
    return number


def _has_momenta_half_a_step_before(simulation: Simulation) -> bool:
    func = simulation.integrator.func if isinstance(simulation.integrator, partial) else None
    known = ("nve", "nvt_langevin", "nvt_nose_hoover")
    return getattr(func, "__module__", "").startswith("jax_md.") and _name(simulation.integrator) in known


def _velocity_scale(simulation: Simulation, n_shifts: int) -> float | None:
    """What turns the last displacement of a step into a velocity: they are all of equal length in time."""
    if not _has_momenta_half_a_step_before(simulation) or n_shifts == 0 or _is_fractional(simulation):
        return None
    return n_shifts / simulation.timestep


def _momentum_timestep(simulation: Simulation) -> float | None:
    if not _has_momenta_half_a_step_before(simulation) or _is_fractional(simulation):
        return None
    if _name(simulation.integrator) != "nvt_langevin":
        return simulation.timestep
    if np.ndim(simulation.friction) != 0:
        return None
    # the thermostat acts between two kicks, and takes half of its share of each: see docs/momenta
    return simulation.timestep * 0.5 * (1.0 + math.exp(-float(simulation.friction) * simulation.timestep))


def _is_fractional(simulation: Simulation) -> bool:
    """Whether positions are kept in units of the box: then a displacement moves them by as much less."""
    rows = simulation.box_rows
    if rows is None:
        return False
    dimension = np.shape(simulation.state.position)[1]
    side = float(np.abs(np.diag(rows)[:dimension]).min())
    with jax.enable_x64(simulation.x64):
        x = jnp.full_like(simulation.state.position[:1], 0.25)
        moved = simulation.shift_fn(x, jnp.full_like(x, 0.01 * side)) - simulation.shift_fn(x, jnp.zeros_like(x))
    return not np.allclose(np.asarray(moved), 0.01 * side, rtol=1e-2)


def _velocities(md: Any) -> Array:
    return jax.vmap(lambda state: state.velocity)(md)


def _plain(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def _to_bytes(arrays: Sequence[np.ndarray]) -> np.ndarray:
    buffer = io.BytesIO()
    np.savez(buffer, *arrays)
    return np.frombuffer(buffer.getvalue(), dtype=np.uint8)


def _from_bytes(data: np.ndarray) -> list[np.ndarray]:
    with np.load(io.BytesIO(data.tobytes()), allow_pickle=False) as file:
        return [file[f"arr_{i}"] for i in range(len(file.files))]
