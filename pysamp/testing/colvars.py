"""The contract of collective variables."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from .._compile import jit_in_haste
from ..colvars.base import AbstractCV
from ..methods.base import periodic_difference
from ..methods.unbiased import Unbiased
from ..sampler import Particles, Sampler
from ..snapshot import Cell, Snapshot
from ..system import System
from . import tolerances
from ._numbers import assert_close, displaced, from_differences

__all__ = ["check_cv"]

_INVARIANCES = frozenset({"translation", "rotation", "image", "permutation"})


def check_cv(cv: AbstractCV, snapshot: Snapshot, *, degenerate: bool = True, eager: bool = True, seed: int = 0) -> None:
    """Check that a collective variable keeps the contract of all CVs, at the positions of a snapshot.

    In float64: the number of components and their labels; gradient and strain derivative (the virial) against finite
    differences; the declared invariances; jit equals eager; vmap equals one by one. In float32: the same value. And
    where all points coincide or lie on a line: value and gradient finite.

    Args:
        cv: the collective variable.
        snapshot: positions at which the CV is smooth, with a box or without.
        degenerate: False for a CV that has no meaning at coinciding points, whatever one does.
        eager: False leaves out the value outside of jit, for which JAX compiles every operation by itself.
        seed: for the random directions.

    Raises:
        AssertionError: saying which part of the contract does not hold.

    Example:
        >>> import numpy as np
        >>> from pysamp import Snapshot
        >>> from pysamp.colvars import Distance
        >>> from pysamp.testing import check_cv
        >>> positions = np.random.default_rng(1).normal(size=(5, 3))
        >>> check_cv(Distance([0, 3]), Snapshot(positions, None, np.ones(5)))
    """
    with jax.enable_x64(True):
        _Check(cv, snapshot, eager, seed).run(degenerate)


class _Check:
    def __init__(self, cv: AbstractCV, snapshot: Snapshot, eager: bool, seed: int):
        self.rng = np.random.default_rng(seed)
        self.cell = snapshot.cell
        masses = np.asarray(snapshot.masses, dtype=np.float64)
        self.sampler = _sampler(cv, masses, self.cell)
        self.cv = cv = self.sampler.methods[0].cvs[0]  # with its masses
        # A box with right angles loses them under strain.
        identity = ((1, 0, 0), (0, 1, 0), (0, 0, 1))
        self.strained = _sampler(cv, masses, Cell(snapshot.box, reduction=self.cell.reduction or identity))
        self.x = np.asarray(snapshot.positions, dtype=np.float64)[np.asarray(self.sampler.atoms, dtype=np.int64)]
        if self.sampler.needs_energy:  # one more point for the CV, and so one more here
            energy = 1.0 if snapshot.energy is None else float(snapshot.energy)
            self.x = np.concatenate([self.x, [[energy, 0.0, 0.0]]])
        self.box = None if snapshot.box is None else np.asarray(snapshot.box, dtype=np.float64)
        self.periods = (cv.period,) * cv.n_components
        self.scale = float(np.std(self.x, axis=0).max()) or 1.0
        points = lambda x: self.sampler.points[0][0](x, self.cell)  # noqa: E731 - atoms, and centres of groups
        value, self.points = jax.tree.map(
            np.asarray, jit_in_haste(lambda x, box: (self.xi(x, box), points(x)))(self.x, self.box)
        )
        self.value = np.asarray(self.xi(self.x, self.box)) if eager else value

    def xi(self, x: Any, box: Any) -> Float[Array, " n"]:
        """The CV of the sampler's atoms."""
        return self.sampler.xi(self.particles(jnp.asarray(x), None if box is None else jnp.asarray(box)))

    def particles(self, x: Float[Array, "m 3"], box: Float[Array, "3 3"] | None) -> Particles:
        """What the sampler gets; the energy is in the last row of ``x``, where the CV asks for it."""
        if not self.sampler.needs_energy:
            return Particles(x, box)
        return Particles(x[:-1], box, energy=x[-1, 0])

    def run(self, degenerate: bool) -> None:
        """All parts of the contract."""
        self.declaration()
        self.derivatives(degenerate)
        self.precision()

    def same(self, got: Any, tolerance: float, what: str) -> None:
        """Compare a value with the one at the snapshot, up to the period."""
        difference = np.asarray(periodic_difference(got, self.value, self.periods))
        size = max(np.abs(self.value).max(), 1e-3)
        assert_close(difference, np.zeros_like(difference), tolerance, f"{self.cv.name} {what}, by", size)

    def declaration(self) -> None:
        cv = self.cv
        assert self.value.shape == (cv.n_components,), f"{cv.name} returns {self.value.size}, not {cv.n_components}."
        assert len(set(cv.labels)) == cv.n_components, f"{cv.name} has the labels {cv.labels}, not one per component."
        assert self.value.dtype == np.float64, f"{cv.name} turns float64 into {self.value.dtype}."
        assert np.isfinite(self.value).all(), f"{cv.name} is {self.value} at the snapshot."
        unknown = cv.invariances - _INVARIANCES
        assert not unknown, f"{cv.name} declares the unknown invariances {sorted(unknown)}."
        hash(jax.tree.structure(cv))

    def derivatives(self, degenerate: bool) -> None:
        """Gradient and strain derivative, and what leaves the value as it is.

        Two programs for all of it, as compiling takes the time: the values one by one, in a loop, and the derivatives with
        their values under vmap.
        """
        step, strain_step = 1e-4 * self.scale, 1e-4
        stretches = np.eye(3) + displaced(np.zeros((3, 3)), strain_step)
        moved = {"changes under jit": self.x, **self.transformed()}
        rotation = self.rotation() if "rotation" in self.cv.invariances else np.eye(3)
        points = [np.stack(list(moved.values())), (self.x @ rotation)[None], displaced(self.x, step)]
        boxes = None
        if self.box is not None:
            boxes = [np.broadcast_to(self.box, (len(x), 3, 3)) for x in points]
            boxes = np.concatenate([*boxes, self.box @ stretches])
            boxes[len(moved)] = self.box @ rotation
            points.append(self.x @ stretches)
        one_by_one = jit_in_haste(lambda all_: jax.lax.map(lambda one: self.strained.xi(self.particles(*one)), all_))
        values = np.asarray(one_by_one((np.concatenate(points), boxes)))
        for what, value in zip([*moved, "is not invariant to rotation"], values, strict=False):
            self.same(value, (1 if what == "changes under jit" else 10) * tolerances.ROUNDING, what)
        values = np.asarray(periodic_difference(values[len(moved) + 1 :], self.value[None], self.periods))

        cases = self.degenerate_positions() if degenerate else {}
        with_value = lambda x, box: (self.xi(x, box),) * 2  # noqa: E731
        arguments = 0 if self.box is None else (0, 1)
        jacobian = jit_in_haste(jax.vmap(jax.jacrev(with_value, argnums=arguments, has_aux=True), in_axes=(0, None)))
        gradients, at_cases = jacobian(np.stack([*moved.values(), *cases.values()]), self.box)
        by_position, by_box = (gradients, None) if self.box is None else gradients
        for what, value in zip(["changes under vmap", *list(moved)[1:]], at_cases, strict=False):
            self.same(value, (1 if what == "changes under vmap" else 10) * tolerances.ROUNDING, what)
        for name, value, gradient in zip([*moved, *cases], at_cases, by_position, strict=True):
            where = f"for {name}" if name in cases else "at the snapshot"
            assert np.isfinite(value).all(), f"{self.cv.name} is {value} {where}."
            assert np.isfinite(gradient).all(), f"{self.cv.name} has a gradient of\n{gradient}\n{where}."

        n_displaced = 4 * self.x.size
        expected = from_differences(values[:n_displaced], self.x.shape, step)
        what = f"{self.cv.name}: gradient"
        assert_close(by_position[0], expected, tolerances.FINITE_DIFFERENCE, what, 1e-3 / self.scale)
        if self.box is not None and by_box is not None:
            expected = from_differences(values[n_displaced:], (3, 3), strain_step)
            strain = np.einsum("ia,nib->nab", self.x, by_position[0]) + np.einsum("ia,nib->nab", self.box, by_box[0])
            what = f"{self.cv.name}: strain derivative"
            assert_close(strain, expected, tolerances.FINITE_DIFFERENCE, what, 1e-3)

    def transformed(self) -> dict[str, Float[np.ndarray, "k 3"]]:
        """Positions at which the value is the same, by what is wrong with the CV if it is not."""
        has = self.cv.invariances.__contains__
        result = {}
        if has("translation"):
            result["is not invariant to translation"] = self.x + self.scale * self.rng.normal(size=3)
        if has("image") and self.box is not None:
            moved = self.x + self.rng.integers(-2, 3, size=self.x.shape) @ self.box
            result["is not invariant to periodic images"] = moved
        if has("permutation"):
            points = self.points
            shuffled = np.roll(points, 1, axis=0)
            shuffled[:2] = shuffled[1::-1] if len(points) > 2 else shuffled[:2]
            if self.sampler.atoms == self.cv.atoms:
                result["is not invariant to permutation"] = shuffled
            else:
                value = self.of_points(shuffled, self.cell)
                self.same(value, 10 * tolerances.ROUNDING, "is not invariant to permutation")
        return result

    def rotation(self) -> Float[np.ndarray, "3 3"]:
        """A random rotation of row vectors."""
        q, r = np.linalg.qr(self.rng.normal(size=(3, 3)))
        rotation = q * np.sign(np.diag(r))
        return rotation * np.linalg.det(rotation)

    def precision(self) -> None:
        box = None if self.box is None else self.box.astype(np.float32)
        points = self.points.astype(np.float32)
        with jax.enable_x64(False):
            value = self.of_points(points, self.cell.with_box(box))
        assert value.dtype == jnp.float32, f"{self.cv.name} turns float32 into {value.dtype}."
        self.same(value, tolerances.SINGLE_PRECISION, "differs in float32")

    def of_points(self, points: Any, cell: Cell) -> Float[Array, " n"]:
        """The CV of its points."""
        return jnp.reshape(jit_in_haste(lambda x, cell: self.cv(x, cell))(jnp.asarray(points), cell), -1)

    def degenerate_positions(self) -> dict[str, Float[np.ndarray, "k 3"]]:
        """Positions at which angles and directions are not defined."""
        x, n = self.x, len(self.x)
        line = self.scale * 0.1 * np.arange(n)[:, None] * np.array([[1.0, 0.0, 0.0]])
        two, neighbours, planar = x.copy(), x.copy(), x.copy()
        two[-1] = x[0]
        neighbours[-1] = x[max(n - 2, 0)]
        planar[:, 2] = 0.0
        return {
            "coinciding points": np.broadcast_to(x[0], x.shape),
            "first and last point coinciding": two,
            "the last two points coinciding": neighbours,
            "points on an axis": line,
            "points on a line": line @ np.linalg.qr(self.rng.normal(size=(3, 3)))[0],
            "points that go to and fro": line * (np.arange(n) % 2)[:, None],
            "points in a plane": planar,
        }


def _sampler(cv: AbstractCV, masses: Float[np.ndarray, " n"], cell: Cell) -> Sampler:
    system = System(
        masses=masses,
        timestep=1.0,
        kT=1.0,
        periodic=cell.box is not None,
        orthorhombic=cell.orthorhombic,
        reduction=cell.reduction,
        hands_over_energy=True,
    )
    return Sampler.build(Unbiased([cv]), system)
