"""CVs of the box and of charges as the reference data describe them, and those that are not among ours but a user's own."""

import math

import jax.numpy as jnp
import numpy as np

from pysamp.colvars import Dipole, DipoleMoment, Displacement, Volume, combine, custom


def dipole(p):
    kind = Dipole if p["components"] else DipoleMoment
    return kind(p["atoms"], [p["charges"][i] for i in p["atoms"]])


def scaled(function, p):
    """Fractional coordinates, each with a period of its own."""
    atoms = [site["atoms"][0] for site in p["sites"]]
    solved = lambda x, cell: jnp.linalg.solve(cell.box.T, function(x))  # noqa: E731
    return custom(solved, atoms=atoms, period=1.0, components=["a", "b", "c"])


def torsion_of_vectors(p):
    """As of a dihedral, with bonds that do not meet."""

    def torsion(v, b2, b3):
        n1, n2 = jnp.cross(-v, b2), jnp.cross(b2, b3)
        return jnp.arctan2(jnp.linalg.norm(b2) * (-v @ n2), n1 @ n2)

    return combine(torsion, [Displacement(p[key]) for key in ("vector_a", "axis", "vector_b")], period=2 * math.pi)


def debye_huckel(p):
    a, b, q = p["a"], p["b"], np.array(p["charges"])
    kappa = 502.903741125 * math.sqrt(p["ionic_strength"] / (p["epsilon"] * p["temperature"]))
    strength = 138.935458111 / p["epsilon"] * np.outer(q[a], q[b])

    def energy(x, cell):
        r = jnp.linalg.norm(cell.displacement(x[: len(a), None], x[None, len(a) :]), axis=-1)
        return jnp.sum(strength * jnp.exp(-kappa * r) / r)

    return custom(energy, atoms=a + b)


MAKE = {
    "cell": lambda p: custom(
        lambda x, cell: cell.box.reshape(9), atoms=[0], components=[a + b for a in "abc" for b in "xyz"]
    ),
    "debye_huckel": debye_huckel,
    "dipole": dipole,
    "distance_scaled": lambda p: scaled(lambda x: x[1] - x[0], p),
    "position_scaled": lambda p: scaled(lambda x: x[0], p),
    "torsion_of_vectors": torsion_of_vectors,
    "volume": lambda p: Volume(),
}
