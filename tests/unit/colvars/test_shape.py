import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.colvars import (
    Acylindricity,
    Asphericity,
    Group,
    PrincipalMoments,
    PrincipalMomentsOfInertia,
    RadiusOfGyration,
    RelativeShapeAnisotropy,
)
from pysamp.errors import InvalidInputError
from pysamp.snapshot import Cell
from pysamp.system import System

X = np.random.default_rng(2).normal(size=(9, 3)) * [1.0, 2.0, 0.5]
WEIGHTS = np.arange(1.0, 10.0)
ATOMS = list(range(9))


def test_against_the_tensors_themselves():
    centred = X - np.average(X, axis=0, weights=WEIGHTS)
    gyration = np.einsum("i,ia,ib->ab", WEIGHTS / WEIGHTS.sum(), centred, centred)
    inertia = np.einsum("i,iab->ab", WEIGHTS, np.sum(centred**2, axis=1)[:, None, None] * np.eye(3)) - 45 * gyration
    a, b, c = np.linalg.eigvalsh(gyration)[::-1]
    expected = {
        RadiusOfGyration: np.sqrt(a + b + c),
        PrincipalMoments: [a, b, c],
        Asphericity: a - (b + c) / 2,
        Acylindricity: b - c,
        RelativeShapeAnisotropy: 1.5 * (a**2 + b**2 + c**2) / (a + b + c) ** 2 - 0.5,
        PrincipalMomentsOfInertia: np.linalg.eigvalsh(inertia)[::-1],
    }
    for kind, value in expected.items():
        np.testing.assert_allclose(kind(ATOMS, weights=WEIGHTS)(jnp.asarray(X), Cell()), value, rtol=1e-12)


def test_masses_come_from_the_engine_and_groups_count_with_theirs():
    masses = np.array([1.0, 2.0, 3.0, 6.0])
    cv = RadiusOfGyration([3, Group([0, 1, 2], weights=1)]).resolved(System(masses=masses, timestep=1.0))
    np.testing.assert_array_equal(cv.weights, [6.0, 6.0])


def test_a_chain_longer_than_the_box_is_made_whole():
    """Fourteen bonds of 0.6 along the diagonal of a box of 2: the chain is 8.4 long."""
    chain = 0.6 * np.arange(15)[:, None] * np.ones(3) / np.sqrt(3)
    wrapped = chain % 2.0
    cv = RadiusOfGyration(range(15), weights=1)
    expected = 0.6 * np.sqrt((15**2 - 1) / 12)
    assert cv(jnp.asarray(chain), Cell()) == pytest.approx(expected)
    assert cv(jnp.asarray(wrapped), Cell.of(2.0 * np.eye(3))) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("x", "kappa", "asphericity"),
    [
        (np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]), 0.0, 0.0),  # tetrahedron
        (np.array([[1, 0, 0], [-1, 0, 0], [0, 1, 0], [0, -1, 0]]), 0.25, 0.25),  # square
        (np.array([[0, 0, 0], [1, 1, 1], [2, 2, 2], [3, 3, 3]]), 1.0, 3.75),  # rod
    ],
)
def test_regular_shapes_whose_moments_coincide(x, kappa, asphericity):
    x = jnp.asarray(x, dtype=float)
    assert RelativeShapeAnisotropy([0, 1, 2, 3], weights=1)(x, Cell()) == pytest.approx(kappa, abs=1e-15)
    assert Asphericity([0, 1, 2, 3], weights=1)(x, Cell()) == pytest.approx(asphericity, abs=1e-14)
    for kind in (PrincipalMoments, PrincipalMomentsOfInertia):
        jacobian = jax.jacrev(kind([0, 1, 2, 3], weights=1))(x, Cell())
        assert np.isfinite(jacobian).all()
        assert np.abs(jacobian).max() < 20  # a moment cannot change faster than that: no 1/0 of degenerate eigenvalues


def test_wrong_arguments():
    for make in (
        lambda: RadiusOfGyration([0]),
        lambda: RadiusOfGyration([0, 1], weights=[1.0]),
        lambda: Asphericity([0, 0]),
    ):
        with pytest.raises(InvalidInputError):
            make()
