"""RMSD and its kin against SciPy's superposition, and the derivatives that superposition makes delicate."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pysamp.colvars import RMSD, DistanceRMSD, EigenvectorProjection, Group
from pysamp.errors import InvalidInputError
from pysamp.snapshot import Cell
from pysamp.system import System

ATOMS = list(range(8))
rng = np.random.default_rng(4)
X, REFERENCE = rng.normal(size=(2, 8, 3))
FIT, WEIGHTS = rng.uniform(0.2, 2.0, size=(2, 8))


def superposed(x, reference, fit):
    """The reference laid on x, both centred with the same weights."""
    x, reference = (a - np.average(a, axis=0, weights=fit) for a in (x, reference))
    rotation = Rotation.align_vectors(x, reference, weights=fit)[0]
    return x, rotation.apply(reference)


def deviation(x, reference, weights, fit):
    x, reference = superposed(x, reference, fit)
    return np.sqrt(np.average(np.sum((x - reference) ** 2, axis=1), weights=weights))


def test_rmsd_is_that_of_scipy():
    cv = RMSD(ATOMS, REFERENCE, weights=WEIGHTS, fit_weights=FIT)
    assert cv(jnp.asarray(X), Cell()) == pytest.approx(deviation(X, REFERENCE, WEIGHTS, FIT), rel=1e-12)
    cv = RMSD(ATOMS, REFERENCE, weights=WEIGHTS)
    assert cv(jnp.asarray(X), Cell()) == pytest.approx(deviation(X, REFERENCE, WEIGHTS, WEIGHTS), rel=1e-12)


def test_mirror_images_are_not_superposed():
    mirrored = X * [1, 1, -1]
    assert RMSD(ATOMS, mirrored)(jnp.asarray(X), Cell()) == pytest.approx(
        deviation(X, mirrored, np.ones(8), np.ones(8))
    )
    assert RMSD(ATOMS, mirrored)(jnp.asarray(X), Cell()) > 0.1


def test_small_deviations_keep_their_digits():
    """Would catch a difference of large numbers: Gx + Gy - 2 lambda is zero to 1e-16 only, its root to 1e-8."""
    moved = Rotation.from_rotvec([0.3, -1.0, 2.0]).apply(X) + 5.0
    cv = RMSD(ATOMS, moved)
    assert cv(jnp.asarray(X), Cell()) < 1e-14
    nudged = X.copy()
    nudged[0, 0] += 1e-6
    assert cv(jnp.asarray(nudged), Cell()) == pytest.approx(deviation(nudged, X, np.ones(8), np.ones(8)), rel=1e-6)


def test_without_alignment_only_the_centres_are_moved():
    cv = RMSD(ATOMS, X + np.array([1.0, 2.0, 3.0]), align=False)
    assert cv(jnp.asarray(X), Cell()) < 1e-14
    assert "rotation" not in cv.invariances


def test_several_references_are_several_components():
    cv = RMSD(ATOMS, np.stack([REFERENCE, X]))
    np.testing.assert_allclose(
        cv(jnp.asarray(X), Cell()), np.append(RMSD(ATOMS, REFERENCE)(jnp.asarray(X), Cell()), 0.0), atol=1e-14
    )
    assert cv.labels[1] == f"{cv.name}.1"


def test_masses_from_the_engine():
    system = System(masses=np.concatenate([[7.0], WEIGHTS]), timestep=1.0)
    atoms = [i + 1 for i in ATOMS]
    both = RMSD(atoms, REFERENCE, weights=None).resolved(system)
    assert both(jnp.asarray(X), Cell()) == pytest.approx(deviation(X, REFERENCE, WEIGHTS, WEIGHTS), rel=1e-12)
    one = RMSD(atoms, REFERENCE, weights=None, fit_weights=FIT).resolved(system)
    assert one(jnp.asarray(X), Cell()) == pytest.approx(deviation(X, REFERENCE, WEIGHTS, FIT), rel=1e-12)


def test_force_on_a_linear_molecule():
    """The rotation about its axis is not determined, but the gradient is: along the molecule."""
    line = np.arange(4.0)[:, None] * np.array([[0.6, 0.8, 0.0]])
    gradient = jax.grad(RMSD([0, 1, 2, 3], line))(jnp.asarray(1.1 * line), Cell())
    spread = 0.1 * (np.arange(4.0) - 1.5)
    expected = (spread / (4 * np.sqrt(np.mean(spread**2))))[:, None] * np.array([[0.6, 0.8, 0.0]])
    np.testing.assert_allclose(gradient, expected, atol=1e-12)


def test_second_derivatives():
    """The rule for the first derivative leaves the turning of the molecule out; the second needs it."""
    cv, x, h = RMSD(ATOMS, REFERENCE, weights=WEIGHTS), jnp.asarray(X), 1e-5
    direction = jnp.asarray(rng.normal(size=X.shape))
    gradient = jax.grad(cv)
    _, along = jax.jvp(lambda x: gradient(x, Cell()), (x,), (direction,))
    numeric = (gradient(x + h * direction, Cell()) - gradient(x - h * direction, Cell())) / (2 * h)
    np.testing.assert_allclose(along, numeric, rtol=1e-6, atol=1e-8)


def test_distance_rmsd():
    cv = DistanceRMSD(ATOMS, REFERENCE, lower=0.7, upper=2.5)
    i, j = np.triu_indices(8, k=1)
    ours, theirs = (np.linalg.norm(a[i] - a[j], axis=1) for a in (X, REFERENCE))
    counted = (theirs >= 0.7) & (theirs <= 2.5)
    assert 0 < counted.sum() < 28
    assert cv(jnp.asarray(X), Cell()) == pytest.approx(np.sqrt(np.mean((ours - theirs)[counted] ** 2)))


def test_projection_on_vectors():
    vectors = rng.normal(size=(3, 8, 3))
    cv = EigenvectorProjection(ATOMS, REFERENCE, vectors, fit_weights=FIT)
    reference, x = superposed(REFERENCE, X, FIT)  # the frame of the reference
    np.testing.assert_allclose(cv(jnp.asarray(X), Cell()), np.einsum("mia,ia->m", vectors, x - reference), rtol=1e-10)
    assert EigenvectorProjection(ATOMS, REFERENCE, vectors[0])(jnp.asarray(X), Cell()).shape == ()


@pytest.mark.parametrize(
    "make",
    [
        lambda: RMSD(ATOMS, REFERENCE[:7]),
        lambda: RMSD(ATOMS, np.full((8, 3), np.nan)),
        lambda: RMSD(ATOMS, REFERENCE, weights=np.ones(3)),
        lambda: RMSD(ATOMS, REFERENCE, fit_weights="mass"),
        lambda: RMSD([0, 0], REFERENCE[:2]),
        lambda: DistanceRMSD(ATOMS, REFERENCE, lower=50.0),
        lambda: DistanceRMSD(ATOMS, np.stack([X, X])),
        lambda: EigenvectorProjection(ATOMS, REFERENCE, np.ones((2, 7, 3))),
        lambda: RMSD([Group([0, 1]), 5], REFERENCE[:2], weights=None)(jnp.asarray(X[:2]), Cell()),
    ],
)
def test_wrong_arguments(make):
    with pytest.raises(InvalidInputError):
        make()
