"""Biases that never change: exact energies and forces, periodic images, bad input."""

from math import pi

import jax
import numpy as np
import pytest

from pysamp.colvars import Component, DihedralAngle
from pysamp.errors import InvalidInputError
from pysamp.methods import HarmonicBias, HarmonicWalls, Unbiased

from .trajectories import observe

X, Y, PHI = Component([0], axis=0), Component([0], axis=1), DihedralAngle([0, 1, 2, 3])


def bias(method, xi):
    result = jax.jit(lambda obs: method.bias(None, obs))(observe(xi))
    return float(result.energy), np.asarray(result.force)


def test_unbiased():
    energy, force = bias(Unbiased([X, PHI]), [0.3, 1.0])
    assert energy == 0.0
    assert force.tolist() == [0.0, 0.0]


def test_harmonic_matrix():
    """Energy d K d / 2 and force -K d, with the off-diagonal part."""
    kspring = np.array([[4.0, 1.0], [1.0, 2.0]])
    energy, force = bias(HarmonicBias([X, Y], kspring=kspring, center=[0.5, -0.5]), [1.0, 1.0])
    d = np.array([0.5, 1.5])
    assert energy == pytest.approx(0.5 * d @ kspring @ d, rel=1e-15)
    np.testing.assert_allclose(force, -kspring @ d, rtol=1e-15)


@pytest.mark.parametrize("kspring", [3.0, [3.0, 3.0], [[3.0, 0.0], [0.0, 3.0]]], ids=["one", "each", "matrix"])
def test_harmonic_in_each_form(kspring):
    energy, force = bias(HarmonicBias([X, Y], kspring=kspring, center=0.0), [1.0, 2.0])
    assert energy == pytest.approx(7.5)
    np.testing.assert_allclose(force, [-3.0, -6.0])


def test_harmonic_takes_the_nearest_image():
    energy, force = bias(HarmonicBias(PHI, kspring=2.0, center=3.0), [-3.0])
    d = 2 * pi - 6.0
    assert energy == pytest.approx(d**2)
    np.testing.assert_allclose(force, [-2.0 * d])


@pytest.mark.parametrize(
    ("x", "beyond"), [(-1.0, 0.0), (0.0, 0.0), (2.0, 0.0), (2.5, 0.5), (-1.2, -0.2)], ids=lambda value: str(value)
)
def test_walls(x, beyond):
    energy, force = bias(HarmonicWalls(X, lower=-1.0, upper=2.0, kspring=4.0), [x])
    assert energy == pytest.approx(2.0 * beyond**2)
    np.testing.assert_allclose(force, [-4.0 * beyond], atol=1e-15)


def test_one_wall():
    walls = HarmonicWalls([X, Y], upper=[1.0, np.inf], kspring=[4.0, 1.0])
    assert bias(walls, [-1e6, 1e6])[0] == 0.0
    assert bias(walls, [1.5, 1e6])[0] == pytest.approx(0.5)


@pytest.mark.parametrize("turns", [-1, 0, 2])
@pytest.mark.parametrize(
    ("phi", "beyond"), [(2.5, 0.0), (pi, 0.0), (-2.5, 0.0), (1.9, -0.1), (-1.8, 0.2), (0.1, -1.9), (-0.1, 1.9)]
)
def test_periodic_walls_across_the_boundary(phi, beyond, turns):
    """Allowed from 2 upwards to -2, through pi; beyond, the nearer wall pushes."""
    walls = HarmonicWalls(PHI, lower=2.0, upper=-2.0, kspring=4.0)
    energy, force = bias(walls, [phi + turns * 2 * pi])
    assert energy == pytest.approx(2.0 * beyond**2, abs=1e-12)
    np.testing.assert_allclose(force, [-4.0 * beyond], atol=1e-12)


def test_periodic_walls_within_one_period():
    walls = HarmonicWalls(PHI, lower=-1.0, upper=1.5, kspring=4.0)
    assert bias(walls, [0.0])[0] == 0.0
    assert bias(walls, [1.7])[0] == pytest.approx(2.0 * 0.2**2)
    assert bias(walls, [-1.2 + 2 * pi])[0] == pytest.approx(2.0 * 0.2**2)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"kspring": -1.0}, "must not be negative"),
        ({"kspring": [[1.0, 2.0], [2.0, 1.0]]}, "must not be negative"),
        ({"kspring": [[1.0, 0.5], [0.0, 1.0]]}, "symmetric"),
        ({"kspring": np.inf}, "finite"),
        ({"kspring": [1.0, 2.0, 3.0]}, "one number, 2 numbers or a 2 x 2 matrix"),
        ({"center": [0.0, 0.0, 0.0]}, "center must be one number or 2 numbers"),
        ({"center": np.nan}, "center must not be NaN"),
        ({"center": "near"}, "Expected a number"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, dict) else "",
)
def test_bad_harmonic(options, says):
    with pytest.raises(InvalidInputError, match=says):
        HarmonicBias([X, Y], **{"kspring": 1.0, "center": 0.0, **options})


@pytest.mark.parametrize(
    ("cv", "options", "says"),
    [
        (X, {}, r"needs lower=\.\.\., upper=\.\.\. or both"),
        (X, {"lower": 1.0, "upper": 0.0}, "needs lower < upper"),
        (X, {"upper": 1.0, "kspring": -1.0}, "kspring must be positive"),
        (X, {"upper": [1.0, 2.0]}, "upper must be one number or 1 numbers"),
        (PHI, {"upper": 1.0}, "is periodic, so it needs both walls or none"),
    ],
)
def test_bad_walls(cv, options, says):
    with pytest.raises(InvalidInputError, match=says):
        HarmonicWalls(cv, **{"kspring": 1.0, **options})
