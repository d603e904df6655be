"""Rings built from known puckering coordinates: above a regular polygon the mean plane is that of the polygon, exactly."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.colvars import (
    PuckeringAmplitude,
    PuckeringCoordinates,
    PuckeringPhase,
    PuckeringTheta,
    SugarPuckering,
    SugarPuckeringPhase,
)
from pysamp.errors import InvalidInputError
from pysamp.snapshot import Cell


def ring(n, q2, phase, q3=0.0):
    """Atoms of a ring with these coordinates, numbered clockwise as seen from the side of positive heights."""
    j = np.arange(n)
    z = math.sqrt(2 / n) * q2 * np.cos(phase + 4 * np.pi * j / n)
    z = z + (math.sqrt(1 / 6) * q3 * (-1.0) ** j if n == 6 else 0.0)
    x = np.stack([0.14 * np.cos(2 * np.pi * j / n), -0.14 * np.sin(2 * np.pi * j / n), z], axis=1)
    q, _ = np.linalg.qr(np.random.default_rng(n).normal(size=(3, 3)))
    return jnp.asarray(x @ (q * np.linalg.det(q)) + [1.0, 2.0, 3.0])


@pytest.mark.parametrize("n", [5, 6])
@pytest.mark.parametrize("phase", [-3.0, -0.7, 0.0, 1.2, 2.8])
def test_coordinates_that_were_put_in(n, phase):
    x, atoms = ring(n, 0.05, phase, 0.03), list(range(n))
    q3 = 0.03 if n == 6 else 0.0
    expected = [0.05 * math.cos(phase), 0.05 * math.sin(phase), q3][: n - 3]
    np.testing.assert_allclose(PuckeringCoordinates(atoms)(x, Cell()), expected, atol=1e-14)
    assert PuckeringAmplitude(atoms)(x, Cell()) == pytest.approx(math.hypot(0.05, q3))
    assert PuckeringPhase(atoms)(x, Cell()) == pytest.approx(phase)
    if n == 6:
        assert PuckeringTheta(atoms)(x, Cell()) == pytest.approx(math.atan2(0.05, 0.03))


def test_the_two_chairs():
    for q3, theta in ((0.06, 0.0), (-0.06, math.pi)):
        assert PuckeringTheta([0, 1, 2, 3, 4, 5])(ring(6, 0.0, 0.0, q3), Cell()) == pytest.approx(theta, abs=1e-12)


@pytest.mark.parametrize("n", [5, 6])
def test_the_planar_ring_has_finite_forces(n):
    x, atoms = ring(n, 0.0, 0.0), list(range(n))
    for kind in (PuckeringCoordinates, PuckeringAmplitude, PuckeringPhase):
        assert np.isfinite(jax.jacrev(kind(atoms))(x, Cell())).all()
    # Each coordinate changes with the height of an atom as it should, also there.
    jacobian = np.asarray(jax.jacrev(PuckeringCoordinates(atoms))(x, Cell()))
    np.testing.assert_allclose(np.sum(jacobian**2, axis=(1, 2)), 1.0)


def test_a_ring_across_the_boundary():
    x = ring(6, 0.05, 1.0, 0.03)
    box = np.array([[1.0, 0, 0], [0.4, 1.0, 0], [-0.3, 0.2, 1.0]])
    cell = Cell.of(box)
    wrapped = x + jnp.asarray(np.random.default_rng(0).integers(-2, 3, size=(6, 3)) @ box)
    atoms = list(range(6))
    np.testing.assert_allclose(
        PuckeringCoordinates(atoms)(wrapped, cell), PuckeringCoordinates(atoms)(x, Cell()), atol=1e-14
    )


@pytest.mark.parametrize("phase", [-2.0, 0.3, 2.8])
def test_sugar_phase_follows_that_of_the_heights(phase):
    """For small puckering of a regular ring the torsions are q2 times a cosine of the phase and a constant."""
    x, atoms = ring(5, 1e-4, phase), list(range(5))
    turned = SugarPuckeringPhase(atoms)(x, Cell()) - SugarPuckeringPhase(atoms)(ring(5, 1e-4, 0.0), Cell())
    assert math.cos(turned) == pytest.approx(math.cos(phase), abs=1e-6)  # in one sense or the other
    xy = SugarPuckering(atoms)(x, Cell())
    assert SugarPuckeringPhase(atoms)(x, Cell()) == pytest.approx(math.atan2(xy[1], xy[0]))


@pytest.mark.parametrize(
    "kind", [PuckeringCoordinates, PuckeringAmplitude, PuckeringPhase, PuckeringTheta, SugarPuckering]
)
@pytest.mark.parametrize("n", [4, 7])
def test_other_rings_are_refused(kind, n):
    with pytest.raises(InvalidInputError):
        kind(list(range(n)))
