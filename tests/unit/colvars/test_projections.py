import math

import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.colvars import (
    AzimuthalAngle,
    Displacement,
    Distance,
    DistanceFromLine,
    DistanceFromPlane,
    PolarAngle,
    PositionOnAxis,
    ProjectedDistance,
    VectorAngle,
)
from pysamp.errors import InvalidInputError
from pysamp.snapshot import Cell

BOX = Cell.of(np.diag([4.0, 5.0, 6.0]))


def test_cylindrical_coordinates_of_an_axis():
    """A point at height 1.5 and radius 2 of an axis that lies anywhere, broken across the boundaries."""
    direction = np.array([1.0, 2.0, -2.0]) / 3
    normal = np.array([2.0, 1.0, 2.0]) / 3
    start = np.array([0.3, -0.2, 0.9])
    point = start + 1.5 * direction + 2.0 * normal * 0.5
    x = jnp.asarray(np.stack([start, start + 0.7 * direction, point]) + np.diag([4.0, -5.0, 12.0]))
    assert PositionOnAxis([0, 1, 2])(x, BOX) == pytest.approx(1.5)
    assert DistanceFromLine([0, 1, 2])(x, BOX) == pytest.approx(1.0)
    assert PositionOnAxis([0, 2], direction=-5 * direction)(x[::2], BOX) == pytest.approx(-1.5)
    assert DistanceFromLine([0, 2], direction=-5 * direction)(x[::2], BOX) == pytest.approx(1.0)


def test_side_of_a_plane():
    x = jnp.array([[1.0, 0, 0], [0, 0, 0], [0, 1.0, 0], [0.3, 0.4, -2.0]])
    assert DistanceFromPlane([0, 1, 2, 3])(x, Cell()) == pytest.approx(-2.0)
    assert DistanceFromPlane([2, 1, 0, 3])(x[jnp.array([2, 1, 0, 3])], Cell()) == pytest.approx(2.0)
    assert DistanceFromPlane([0, 1, 2, 3])(x, BOX) == pytest.approx(-2.0)


def test_projected_distance():
    x = jnp.array([[0.0, 0, 0], [0.3, -0.4, 2.9]])
    assert ProjectedDistance([0, 1], axes=(0, 1))(x, BOX) == pytest.approx(0.5)
    assert ProjectedDistance([0, 1], axes=[2])(x + jnp.array([[0, 0, 6.0], [0, 0, 0]]), BOX) == pytest.approx(2.9)
    assert ProjectedDistance([0, 1], axes=(0, 2)).name == "ProjectedDistance(0, 1).xz"


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_spherical_coordinates(axis):
    """Polar and azimuthal angle give back the vector, counted from the axis after the polar one."""
    r = np.array([0.3, -1.1, 0.7])
    x = jnp.asarray(np.stack([np.ones(3), np.ones(3) + r]))
    theta, phi = PolarAngle([0, 1], axis=axis)(x, Cell()), AzimuthalAngle([0, 1], axis=axis)(x, Cell())
    back = np.array([math.sin(theta) * math.cos(phi), math.sin(theta) * math.sin(phi), math.cos(theta)])
    np.testing.assert_allclose(np.linalg.norm(r) * np.roll(back, axis - 2), r)


@pytest.mark.parametrize("angle", [0.0, 1e-9, 1.0, math.pi - 1e-9])
def test_angle_of_two_vectors(angle):
    x = jnp.array(
        [[0, 0, 0], [2.0, 0, 0], [5.0, 5.0, 5.0], [5.0 + 0.5 * math.cos(angle), 5.0 + 0.5 * math.sin(angle), 5.0]]
    )
    assert VectorAngle([0, 1, 2, 3])(x, Cell()) == pytest.approx(angle, rel=1e-6, abs=1e-15)


def test_components_by_name():
    x = jnp.array([[0.0, 0, 0], [0.3, -0.4, 0.9]])
    z = Displacement([0, 1])["z"]
    assert z(x, Cell()) == pytest.approx(0.9)
    assert (z.name, z.labels, z.unit) == ("Displacement(0, 1).z", ("Displacement(0, 1).z",), "length")
    with pytest.raises(InvalidInputError, match="its components are x, y, z"):
        Displacement([0, 1])["w"]
    with pytest.raises(InvalidInputError, match="it is a scalar"):
        Distance([0, 1])["x"]
    with pytest.raises(InvalidInputError):
        next(iter(Distance([0, 1])))  # type: ignore[call-overload]


@pytest.mark.parametrize(
    "make",
    [
        lambda: PositionOnAxis([0, 1]),
        lambda: PositionOnAxis([0, 1, 2], direction=(0, 0, 1)),
        lambda: PositionOnAxis([0, 1], direction=(0, 0, 0)),
        lambda: DistanceFromLine([0, 1], direction=(1, 0)),
        lambda: DistanceFromPlane([0, 1, 2]),
        lambda: ProjectedDistance([0, 1], axes=(0, 0)),
        lambda: ProjectedDistance([0, 1], axes=(0, 1, 2)),
        lambda: PolarAngle([0, 1], axis=3),
        lambda: AzimuthalAngle([0]),
        lambda: VectorAngle([0, 1, 2]),
    ],
)
def test_wrong_arguments(make):
    with pytest.raises(InvalidInputError):
        make()
