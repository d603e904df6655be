"""Where the points of a CV, which are atoms or centres of groups, are among the atoms that the engine hands over."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from .colvars.base import AbstractCV, Energy, Group
from .errors import InvalidInputError
from .snapshot import Cell
from .system import System


class Points(eqx.Module):
    """Where the points of one CV are among the sampler's atoms."""

    groups: tuple[tuple[int, ...], ...] = eqx.field(static=True)
    weights: tuple[Float[np.ndarray, " _"] | None, ...]
    whole: tuple[bool, ...] = eqx.field(static=True)

    def __call__(self, x: Float[Array | np.ndarray, "k 3"], cell: Cell) -> Float[Array, "p 3"]:
        if all(weight is None for weight in self.weights):
            return take(x, tuple(group[0] for group in self.groups))
        return jnp.stack(
            [
                take(x, group)[0] if weight is None else _center(take(x, group), weight, Cell() if whole else cell)
                for group, weight, whole in zip(self.groups, self.weights, self.whole, strict=True)
            ]
        )


def indices(cv: AbstractCV) -> tuple[int, ...]:
    """All particles of a CV, those of its groups too."""
    points = (point for point in cv.atoms if not isinstance(point, Energy))
    return tuple(i for point in points for i in (point.indices if isinstance(point, Group) else (point,)))


def check_atoms(cv: AbstractCV, n_particles: int) -> None:
    """Raise InvalidInputError if a CV refers to a particle that is not there."""
    wrong = [i for i in indices(cv) if i >= n_particles]
    if wrong:
        raise InvalidInputError(
            f"{cv.name} refers to particle {wrong[0]}, but the system has {n_particles} particles, numbered from 0 to "
            f"{n_particles - 1}."
        )


def locate(cv: AbstractCV, order: dict[int, int], system: System) -> Points:
    """The points of a CV, where ``order`` gives the place of each particle among those handed over."""
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
    return Points(tuple(groups), tuple(weights), tuple(whole))


def _is_in_one_molecule(indices: Sequence[int], molecules: Int[np.ndarray, " n"] | None) -> bool:
    if molecules is None:
        return False
    found = molecules[list(indices)]
    return bool(found[0] >= 0 and (found == found[0]).all())


def take(x: Float[Array | np.ndarray, "k 3"], places: tuple[int, ...]) -> Float[Array, "p 3"]:
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
