"""JAX MD: simulations that are JAX programs, biased inside one compiled loop, alone or many together."""

import importlib.metadata
import inspect
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._serial import is_key
from ..api import bind, describe, stack
from ..errors import SimulationError
from ..loop import Loop
from ..sampler import Sampler
from ..snapshot import Cell, Snapshot
from ..system import System
from ._jaxmd_engine import stacked, trace_update
from ._jaxmd_replicas import Replicas, are_alike
from ._jaxmd_simulation import Simulation, momentum_timestep, name_of
from ._jaxmd_start import begun, completed, copied, evaluated, forces_of_all, renewed_lists, traced_functions
from .base import LoopBound

__all__ = ["Simulation"]

_GROWTH = 0.3  # by which part the room of a neighbour list grows at least that was too short, so that it does so rarely


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
            engine = eqx.tree_at(lambda e: e.remaining, copied(self._engine), jnp.asarray(np.int64(n_steps)))
            self._engine = self._loop.run(engine, log_every)
            while bool(self._engine.overflow):
                self._make_room()
                self._engine = self._loop.run(copied(self._engine), log_every)
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
        return {"jax_md": version, "integrator": name_of(self._first.integrator)}

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
                neighbors, overflow = renewed_lists(self._engine.update, self._engine.neighbors, md.position, box)
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
        step, update = traced_functions(self._first, engine.md, engine.x, engine.box, self._neighbors)
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
        traced = traced_functions(self._first, md, x, box, template)
        self._engine = eqx.tree_at(
            lambda e: (e.step, e.update), self._engine, traced, is_leaf=lambda leaf: leaf is None
        )

    def _cell_capacity(self) -> int:
        capacity = getattr(self._neighbors, "cell_list_capacity", None)
        return -1 if capacity is None else int(capacity)

    def _bias(self) -> Any:
        """The present bias on all replicas."""
        with jax.enable_x64(True):
            return evaluated(self.sampler, self._loop.state, self._engine.particles())

    def _forces(self) -> Array:
        """Forces of the energy function at the present positions."""
        engine = self._engine
        structure = jax.tree.structure(self._neighbors)
        with self._engine_precision():
            return forces_of_all(self._first.energy_fn, structure, engine.x, engine.box, engine.neighbors)

    def _rested(self) -> Any:
        """JAX MD's states at the present positions: with the bias in the momenta, and without it in the forces."""
        engine = self._engine
        if bool(engine.fresh) or not engine.step.n_notes:
            return engine.md
        with jax.enable_x64(True):
            return completed(engine, self._bias())

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


@describe.dispatch
def _describe_jaxmd(simulation: Simulation, /) -> System:
    rows = simulation.box_rows
    cell = Cell() if rows is None else Cell.of(rows)
    return System(
        masses=simulation.masses,
        timestep=simulation.timestep,
        kT=simulation.kT,
        momentum_timestep=momentum_timestep(simulation),
        periodic=rows is not None,
        orthorhombic=cell.orthorhombic,
        reduction=cell.reduction,
        wants_virial=simulation.has_own_box,
    )


@describe.dispatch
def _describe_replicas(simulation: Replicas, /) -> System:
    return describe(simulation.simulations[0])


@bind.dispatch
def _bind_jaxmd(simulation: Simulation, sampler: Sampler, /, *, seed: int | None = None) -> JaxMDBound:
    return JaxMDBound([simulation], sampler, None if seed is None else [seed])


@bind.dispatch
def _bind_replicas(simulation: Replicas, sampler: Sampler, /, *, seed: int | Sequence[int] | None = None) -> JaxMDBound:
    if isinstance(seed, int):
        seed = [int(word) for word in np.random.SeedSequence(seed).generate_state(len(simulation.simulations))]
    return JaxMDBound(simulation.simulations, sampler, seed)


@stack.dispatch
def _stack_jaxmd(first: Simulation, others: list, /) -> Replicas | None:
    return Replicas([first, *others]) if all(are_alike(first, other) for other in others) else None


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
