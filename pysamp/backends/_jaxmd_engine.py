"""JAX MD's integrators as an engine that a compiled loop can advance: cut where they evaluate the force."""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import ShapedArray
from jax.extend.core import Primitive
from jaxtyping import Array, Bool, Float, Int

from .._cut import Cut, Traced, with_common_branches
from ..errors import UnsupportedError
from ..loop import FINISHED, NEW_STEP, AbstractEngine
from ..sampler import BiasForces, Particles

__all__ = ["Engine", "biased", "noting", "renewed", "rows_of_box", "stacked", "trace_step", "trace_update"]

_bias = Primitive("pysamp_bias")  # positions and perhaps the box -> energy, forces, derivative for a dilation
_bias.multiple_results = True
_shift = Primitive("pysamp_shift")  # a displacement -> itself


@_bias.def_abstract_eval
def _shapes_of_bias(x: ShapedArray, *box: ShapedArray) -> list[ShapedArray]:
    scalar = ShapedArray((), x.dtype)
    return [scalar, ShapedArray(x.shape, x.dtype), scalar]


_shift.def_abstract_eval(lambda displacement: displacement)


def biased(function: Callable) -> Callable:
    """An energy or force function that asks for the bias at the positions that it is given."""

    def with_bias(x: Any, **options: Any) -> Any:
        value = function(x, **options)
        box = (jnp.asarray(options["box"]),) if "box" in options else ()
        if jnp.shape(value) != ():
            return value + _bias.bind(x, *box)[1].astype(value.dtype)

        @jax.custom_jvp
        def energy(x: Any, stretch: Any) -> Any:
            return _bias.bind(x, *box)[0]

        @energy.defjvp
        def _(primals: tuple, tangents: tuple) -> tuple:
            energy, forces, dilation = _bias.bind(primals[0], *box)
            if jnp.ndim(primals[1]) != 0:
                raise UnsupportedError(
                    "The integrator asks for a whole stress tensor; pysamp knows isotropic barostats only."
                )
            along_x, along_stretch = tangents
            return energy, dilation * along_stretch.astype(dilation.dtype) - jnp.sum(forces * along_x)

        stretch = jnp.asarray(options.get("perturbation", 1.0), dtype=x.dtype)
        return value + energy(x, stretch).astype(value.dtype)

    return with_bias


def noting(shift: Callable) -> Callable:
    """A shift function whose displacements can be found in the traced step: they tell the velocities."""
    return lambda x, displacement, **options: shift(x, _shift.bind(displacement), **options)


def trace_step(apply: Callable, state: Any, neighbors: Any) -> Cut:
    """The step of an integrator, made with :func:`biased` and :func:`noting`, cut where it asks for the bias.

    Args:
        apply: JAX MD's function from state to state.
        state: JAX MD's state.
        neighbors: JAX MD's neighbour list, or None.

    Returns:
        A function of the state and of the leaves of the neighbour list.
    """
    leaves, structure = jax.tree.flatten(neighbors)

    def step(state: Any, leaves: Any) -> Any:
        return apply(state, neighbor=structure.unflatten(leaves)) if leaves else apply(state)

    return Cut.of(step, _bias, _shift, state, leaves)


def trace_update(neighbors: Any, x: Any, box: Any) -> Traced | None:
    """The renewal of a neighbour list: from its leaves, positions and box to its leaves, and whether they have no room."""
    if neighbors is None:
        return None
    leaves, structure = jax.tree.flatten(neighbors)

    def update(leaves: Any, x: Any, box: Any) -> tuple[list[Any], Any]:
        options = {} if box is None else {"box": box}
        new = structure.unflatten(leaves).update(x, **options)
        return jax.tree.leaves(new), (new.did_buffer_overflow | new.cell_size_too_small) != 0

    return Traced.of(update, leaves, x, box)


def rows_of_box(box: Array) -> Float[Array, "3 3"]:
    """JAX MD's box (a side, sides, or vectors as columns; two or three dimensions) as rows of three vectors."""
    if box.ndim == 0:
        return jnp.diag(jnp.broadcast_to(box[None], (3,)))
    if box.ndim == 1:
        return jnp.diag(jnp.concatenate([box, jnp.ones(3 - box.size, dtype=box.dtype)]))
    missing = 3 - box.shape[0]
    whole = jnp.pad(box, ((0, missing), (0, missing)))
    return whole.T + jnp.diag(jnp.asarray([0.0] * box.shape[0] + [1.0] * missing, dtype=box.dtype))


class Engine(AbstractEngine):
    """JAX MD's state between two force evaluations, all replicas at once, on the first axis of every array.

    Attributes:
        step: the integrator's step, cut where it asks for the bias.
        update: renews a neighbour list, or None.
        md: JAX MD's state after the last whole step.
        carried: what was computed in the step that is under way.
        x: positions at which the force is wanted, as JAX MD keeps them.
        box: the box there, as JAX MD keeps it, or None.
        v: velocities on the way there, or None where they are not known.
        neighbors: leaves of the neighbour list at these positions; none without one.
        fresh: whether no step is under way: the positions are those of ``md``, whose force has yet to get its bias.
        overflow: whether the neighbour list has no room for all neighbours.
        remaining: steps still to do.
        n_steps: steps done.
        box_rows: the box where it never changes.
        fractional: whether positions are in units of the box.
        velocity_scale: turns the last displacement into a velocity.
    """

    step: Cut
    update: Traced | None
    md: Any
    carried: list[Any]
    x: Float[Array, "r n d"]
    box: Array | None
    v: Float[Array, "r n d"] | None
    neighbors: list[Array]
    fresh: Bool[Array, ""]
    overflow: Bool[Array, ""]
    remaining: Int[Array, ""]
    n_steps: Int[Array, ""]
    box_rows: Float[Array, "3 3"] | None
    fractional: bool = eqx.field(static=True)
    velocity_scale: float | None = eqx.field(static=True)
    atoms: tuple[int, ...] = eqx.field(static=True)
    velocities_too: bool = eqx.field(static=True)
    held: Bool[Array, " r"] | None = None

    @property
    def moving(self) -> tuple:
        """What changes from step to step, but for counters and flags."""
        return self.md, self.carried, self.x, self.box, self.v, self.neighbors

    def hold(self, stopped: Bool[Array, " r"]) -> "Engine":
        """Replicas that stay where they are."""
        return eqx.tree_at(lambda e: e.held, self, stopped, is_leaf=lambda leaf: leaf is None)

    def begin(self) -> tuple["Engine", tuple[Int[Array, ""], Particles]]:
        """Hand over the particles as they are."""
        return self, self._handed((self.remaining > 0) & ~self.overflow)

    def advance(self, forces: BiasForces) -> tuple["Engine", tuple[Int[Array, ""], Particles]]:
        """Finish the step that asked for the bias, and begin the next, up to where it asks again."""
        answer = self.answer(forces)
        md = self.completed(answer)
        inputs, displacement, carried = jax.vmap(self.step.before)((md, self.neighbors), answer)
        x, *box = inputs
        v = None if self.velocity_scale is None else displacement * jnp.asarray(self.velocity_scale, dtype=x.dtype)
        moved = (md, carried, x, box[0] if box else None, v)
        present = (self.md, self.carried, self.x, self.box, self.v)
        held = self.held
        if held is not None:
            moved = jax.tree.map(lambda old, new: jnp.where(_along(held, new), old, new), present, moved)
        finite = jnp.all(jnp.isfinite(forces.energy)) & jnp.all(jnp.isfinite(forces.forces)) & jnp.all(jnp.isfinite(x))
        moved = jax.tree.map(lambda old, new: jnp.where(finite, new, old), present, moved)
        neighbors, overflow = renewed(self.update, self.neighbors, moved[2], moved[3])
        engine = eqx.tree_at(
            lambda e: (e.md, e.carried, e.x, e.box, e.v, e.neighbors, e.fresh, e.overflow, e.remaining, e.n_steps),
            self,
            (
                *moved,
                neighbors,
                self.fresh & ~finite,
                overflow,
                self.remaining - finite,
                self.n_steps + finite,
            ),
            is_leaf=lambda leaf: leaf is None,
        )
        return engine, engine._handed(finite & (engine.remaining > 0) & ~engine.overflow)

    def answer(self, forces: BiasForces) -> list[Array]:
        """The bias as JAX MD's function wants it: energy, force on all particles, derivative for a dilation."""
        of_atoms = forces.forces[..., : self.x.shape[-1]].astype(self.x.dtype)
        everywhere = jnp.zeros_like(self.x).at[:, np.asarray(self.atoms)].add(of_atoms)
        energy = forces.energy.astype(self.x.dtype)
        virial = forces.virial
        dilation = jnp.zeros_like(energy) if virial is None else -jnp.trace(virial, axis1=-2, axis2=-1)
        return [energy, everywhere, dilation.astype(self.x.dtype)]

    def completed(self, answer: list[Array]) -> Any:
        """JAX MD's state at the positions of this stop, where the bias is known."""
        completed = jax.vmap(lambda md, neighbors, carried, answer: self.step.after((md, neighbors), carried, answer))(
            self.md, self.neighbors, self.carried, answer
        )
        if not self.step.n_notes:  # the force is the first thing that a step asks for, and nothing moves before
            return completed
        energy, forces, dilation = answer
        fields = {"force": forces, "dUdV": dilation, "potential_energy": energy}
        begun = {name: getattr(self.md, name) + term for name, term in fields.items() if hasattr(self.md, name)}
        started = self.md.set(**begun)
        return jax.tree.map(lambda new, old: jnp.where(self.fresh, new, old), started, completed)

    def particles(self) -> Particles:
        """The sampler's particles, in three dimensions and the engine's length."""
        x = self.x[:, np.asarray(self.atoms)].astype(jnp.float64)
        rows = self.box_rows
        if self.box is not None:
            rows = jax.vmap(rows_of_box)(self.box.astype(jnp.float64))
        elif rows is not None:
            rows = jnp.broadcast_to(rows[None], (x.shape[0], 3, 3))
        x = jnp.pad(x, ((0, 0), (0, 0), (0, 3 - x.shape[-1])))
        if self.fractional and rows is not None:
            x = x @ rows
        v = None
        if self.velocities_too and self.v is not None:
            v = self.v[:, np.asarray(self.atoms)].astype(jnp.float64)
            v = jnp.pad(v, ((0, 0), (0, 0), (0, 3 - v.shape[-1])))
        return Particles(x, rows, v)

    def _handed(self, goes_on: Bool[Array, ""]) -> tuple[Int[Array, ""], Particles]:
        return jnp.where(goes_on, NEW_STEP, FINISHED).astype(jnp.int32), self.particles()


def renewed(
    update: Traced | None, neighbors: list[Array], x: Float[Array, "r n d"], box: Array | None
) -> tuple[list[Array], Bool[Array, ""]]:
    """Neighbour lists at other positions, and whether one of them has no room for all neighbours.

    Those of several replicas are built anew all at once, as soon as one has to be.
    """
    if update is None:
        return neighbors, jnp.zeros((), dtype=bool)
    neighbors, x, box = jax.lax.stop_gradient((neighbors, x, box))
    if x.shape[0] == 1:
        new, overflow = update(*jax.tree.map(lambda leaf: leaf[0], (neighbors, x, box)))
        return [leaf[None] for leaf in new], overflow
    new, overflow = with_common_branches(update, neighbors, x, box)
    return new, jnp.any(overflow)


def _along(flags: Bool[Array, " r"], leaf: Array) -> Array:
    return flags.reshape(flags.shape + (1,) * (leaf.ndim - 1))


def stacked(trees: Sequence[Any]) -> Any:
    """Trees with the same structure as one, with a first axis for them."""
    return jax.tree.map(lambda *leaves: jnp.stack([jnp.asarray(leaf) for leaf in leaves]), *trees)
