"""Generalized momenta of CVs, under constraints."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._exchange import Particles
from ._points import indices, take
from .errors import InvalidInputError
from .methods.base import AbstractMethod
from .snapshot import Cell
from .system import System


class Momenta(eqx.Module):
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
            first = take(particles.positions, tuple(a for a, _ in cluster))
            second = take(particles.positions, tuple(b for _, b in cluster))
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


def constraints_of(atoms: Sequence[int], system: System) -> list[tuple[int, int]]:
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


def momenta_of(
    method: AbstractMethod, order: dict[int, int], pairs: Sequence[tuple[int, int]], system: System
) -> Momenta:
    """What the momenta of a method's CVs involve; ``order`` gives the place of each particle among those handed over.

    Raises:
        InvalidInputError: if the integrator or a particle has none.
    """
    name = type(method).__name__
    if "momentum" in method.needs and system.momentum_timestep is None:
        raise InvalidInputError(
            f"{name} needs the momenta of a leapfrog or velocity-Verlet-like integrator with a fixed step, which this "
            "engine or integrator does not give. Use one that has them (OpenMM: LangevinMiddleIntegrator), or a method "
            "that needs no momenta, such as Metadynamics."
        )
    atoms = {index for cv in method.cvs for index in indices(cv)}
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
    return Momenta(inverse, places)


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
