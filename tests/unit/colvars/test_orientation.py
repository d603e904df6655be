"""Rotations against SciPy's."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from pysamp.colvars import EulerAngle, Orientation, RotationAngle, SpinAngle, TiltAngle
from pysamp.errors import InvalidInputError
from pysamp.snapshot import Cell

ATOMS = [0, 1, 2, 3, 4]
REFERENCE = np.random.default_rng(1).normal(size=(5, 3))
AXIS = np.array([2.0, -1.0, 2.0]) / 3
ROTATIONS = list(Rotation.random(8, rng=np.random.default_rng(3)))


def turned(rotation):
    return jnp.asarray(rotation.apply(REFERENCE) + np.array([1.0, -2.0, 0.5]))


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_a_rotated_reference_gives_the_rotation(rotation):
    x, y, z, w = rotation.as_quat(canonical=True)
    np.testing.assert_allclose(Orientation(ATOMS, REFERENCE)(turned(rotation), Cell()), [w, x, y, z], atol=1e-14)
    assert RotationAngle(ATOMS, REFERENCE)(turned(rotation), Cell()) == pytest.approx(rotation.magnitude())
    roll, pitch, yaw = rotation.as_euler("xyz")  # about fixed axes, x first
    for angle, expected in (("roll", roll), ("pitch", pitch), ("yaw", yaw)):
        assert EulerAngle(ATOMS, REFERENCE, angle=angle)(turned(rotation), Cell()) == pytest.approx(expected)


@pytest.mark.parametrize("rotation", ROTATIONS)
def test_tilt_and_spin_make_up_the_rotation(rotation):
    tilt = TiltAngle(ATOMS, REFERENCE, axis=3 * AXIS)(turned(rotation), Cell())
    tipped = rotation.apply(AXIS)
    assert tilt == pytest.approx(math.acos(AXIS @ tipped))
    spin = float(SpinAngle(ATOMS, REFERENCE, axis=3 * AXIS)(turned(rotation), Cell()))
    normal = np.cross(AXIS, tipped)
    shortest = Rotation.from_rotvec(float(tilt) * normal / np.linalg.norm(normal))
    np.testing.assert_allclose(
        (shortest * Rotation.from_rotvec(spin * AXIS)).as_matrix(), rotation.as_matrix(), atol=1e-12
    )


def test_pure_spin_and_pure_tilt():
    spin, tilt = SpinAngle(ATOMS, REFERENCE, axis=AXIS), TiltAngle(ATOMS, REFERENCE, axis=AXIS)
    for angle in (-3.0, -0.5, 1e-9, 2.0):
        x = turned(Rotation.from_rotvec(angle * AXIS))
        assert spin(x, Cell()) == pytest.approx(angle, abs=1e-14)
        assert tilt(x, Cell()) == pytest.approx(0.0, abs=1e-14)
    across = np.array([1.0, 2.0, 0.0]) / np.sqrt(5)
    assert spin(turned(Rotation.from_rotvec(1.3 * across)), Cell()) == pytest.approx(0.0, abs=1e-14)


def test_weights_decide_where_parts_move_apart():
    x = np.array(REFERENCE)
    x[4] += 5.0
    angle = RotationAngle(ATOMS, REFERENCE, weights=[1, 1, 1, 1, 0])(jnp.asarray(x), Cell())
    assert angle == pytest.approx(0.0, abs=1e-7)
    assert RotationAngle(ATOMS, REFERENCE)(jnp.asarray(x), Cell()) > 0.1


def test_torque_on_points_on_a_line_is_finite():
    line = np.arange(4.0)[:, None] * np.array([[1.0, 2.0, 3.0]])
    for kind in (Orientation, RotationAngle, TiltAngle, SpinAngle):
        jacobian = jax.jacrev(kind([0, 1, 2, 3], line))(jnp.asarray(line[:, [1, 0, 2]]), Cell())
        assert np.isfinite(jacobian).all()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Orientation([0, 1], REFERENCE[:2]),
        lambda: Orientation(ATOMS, REFERENCE[:4]),
        lambda: Orientation(ATOMS, np.stack([REFERENCE, REFERENCE])),
        lambda: TiltAngle(ATOMS, REFERENCE, axis=(0, 0, 0)),
        lambda: EulerAngle(ATOMS, REFERENCE, angle="theta"),
    ],
)
def test_wrong_arguments(make):
    with pytest.raises(InvalidInputError):
        make()
