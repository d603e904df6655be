import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp._compile import jit_in_haste
from pysamp.colvars import CubicSwitch, FCCOrder, SimpleCubicOrder, TetrahedralOrder
from pysamp.errors import InvalidInputError
from pysamp.snapshot import Cell

from . import structures

NEAR = CubicSwitch(0.5, d0=2.0)
KINDS = [SimpleCubicOrder, FCCOrder, TetrahedralOrder]


def of_shell(kind, shell, **options):
    """The value of a particle at the origin."""
    x = jnp.concatenate([jnp.zeros((1, 3)), jnp.asarray(shell, dtype=float)])
    return float(kind([0], range(1, len(x)), switch=NEAR, **options)(x, Cell()))


@pytest.mark.parametrize(
    ("kind", "along_axis", "along_face", "along_cube"),
    [
        (SimpleCubicOrder, 1.0, 1 / 2, 1 / 3),
        (FCCOrder, -2240 / 2765, 1.0, 80080 / 2765 * (3 / 81 - 3 / 729) - 2240 / 2765),
        (TetrahedralOrder, 0.0, 0.0, 1.0),
    ],
)
def test_directions(kind, along_axis, along_face, along_cube):
    assert of_shell(kind, [[0.0, 1.3, 0.0]]) == pytest.approx(along_axis, abs=1e-12)
    assert of_shell(kind, [[0.9, 0.0, -0.9]]) == pytest.approx(along_face, abs=1e-12)
    assert of_shell(kind, [[-0.7, 0.7, -0.7]]) == pytest.approx(along_cube, abs=1e-12)


def test_crystals():
    """Each has 1 in its own crystal, and what its formula says of another's shell."""
    for structure, kind in (("sc", SimpleCubicOrder), ("fcc", FCCOrder)):
        assert of_shell(kind, structures.SHELLS[structure]) == pytest.approx(1.0)
    assert of_shell(TetrahedralOrder, structures.TETRAHEDRON) == pytest.approx(1.0)
    assert of_shell(TetrahedralOrder, -structures.TETRAHEDRON) == pytest.approx(-1.0)
    assert of_shell(TetrahedralOrder, structures.TETRAHEDRON, normalized=False) == pytest.approx(8 / np.sqrt(3))
    assert of_shell(FCCOrder, structures.SHELLS["fcc"], alpha=27) == pytest.approx(1.0)
    assert of_shell(FCCOrder, structures.SHELLS["sc"], alpha=27) == pytest.approx(16 * (27 - 143) / (2717 + 16 * 27))


@pytest.mark.parametrize(
    ("kind", "options", "mean"),
    [(SimpleCubicOrder, {}, 0.6), (FCCOrder, {}, 0), (FCCOrder, {"alpha": 27}, 0), (TetrahedralOrder, {}, 0)],
)
def test_means_over_all_directions(kind, options, mean):
    """The norms: a product rule that integrates polynomials up to degree 12 on the sphere exactly."""
    z, weights = np.polynomial.legendre.leggauss(7)
    phi = 2 * np.pi * np.arange(13) / 13
    u = np.array([[np.sqrt(1 - c * c) * np.cos(p), np.sqrt(1 - c * c) * np.sin(p), c] for c in z for p in phi])
    cv = kind([0], [1], switch=NEAR, **options)
    values = np.asarray(jax.vmap(lambda d: cv(jnp.stack([jnp.zeros(3), d]), Cell()))(u)).reshape(7, 13)
    assert float(weights @ values.mean(axis=1)) / 2 == pytest.approx(mean, abs=1e-13)


@pytest.mark.parametrize("kind", KINDS)
def test_neighbors_count_by_the_switching_function(kind):
    """Two neighbours, one of them half way out; with ``above``, the fraction of particles beyond a threshold."""
    full, half = np.array([[0.9, 0.4, 1.0]]), np.array([[1.2, 1.5, 1.1]])
    half *= 2.25 / np.linalg.norm(half)
    expected = (of_shell(kind, full) + 0.5 * of_shell(kind, half)) / 1.5
    assert of_shell(kind, np.concatenate([full, half])) == pytest.approx(expected)
    above = CubicSwitch(1.0)
    fraction = of_shell(kind, full, above=above)
    assert fraction == pytest.approx(1 - float(above(jnp.maximum(of_shell(kind, full), 0.0))))


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_infinite(kind):
    """No neighbour at all, and all points in one place: zero, with a gradient of zero."""
    cv = kind(range(4), switch=NEAR)
    for x in (10.0 * jnp.arange(12.0).reshape(4, 3), jnp.ones((4, 3))):
        result, gradient = jit_in_haste(jax.value_and_grad(lambda x: cv(x, Cell())))(x)
        assert float(result) == 0.0
        assert not np.asarray(gradient).any()


def test_many_particles():
    """More than are computed at once: a crystal whose neighbours are found by a list."""
    x = 0.5 * np.array(list(itertools.product(range(5), repeat=3)), dtype=float)
    cv = SimpleCubicOrder(range(125), switch=CubicSwitch(0.1, d0=0.55))
    assert cv.neighborhoods
    assert float(jit_in_haste(cv)(x, Cell.of(2.5 * np.eye(3)))) == pytest.approx(1.0)


def test_mistakes():
    with pytest.raises(InvalidInputError, match="alpha above -169.8"):
        FCCOrder(range(4), switch=NEAR, alpha=-170)
    with pytest.raises(InvalidInputError, match="switch must be a switching function"):
        TetrahedralOrder(range(4), switch=0.3)
    with pytest.raises(InvalidInputError, match="at least two"):
        SimpleCubicOrder([3], switch=NEAR)
