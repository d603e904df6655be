"""The check of CVs on the user's own snapshot."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp import colvars
from pysamp._checks import check_cvs
from pysamp.methods import Unbiased

SNAPSHOT = pysamp.Snapshot(
    np.array([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 0.0], [0.0, 2.0, 0.0]]), None, np.ones(4)
)


def check(cv, snapshot=SNAPSHOT):
    check_cvs(
        pysamp.Sampler.build(Unbiased(cv), pysamp.System(masses=np.asarray(snapshot.masses), timestep=1.0, kT=1.0)),
        [snapshot],
    )


def wrong_by_one_percent(x):
    square = jax.custom_jvp(lambda x: x**2)
    square.defjvp(lambda x, t: (x[0] ** 2, 2.02 * x[0] * t[0]))
    return square(x[0, 0])


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: jnp.log(x[0, 0] - 5.0), "is nan on the snapshot"),
        (lambda x: 1.0 / x[0, 1], "is inf on the snapshot"),
        (lambda x: jnp.linalg.norm(x[0, 1:]), "its derivative is nan"),
        (lambda x: x[0, 0] * jax.lax.stop_gradient(x[0, 0]), "The derivative of the CV .* is not that of its value"),
        (lambda x: jnp.sum(jnp.round(x * 1e8) / 1e8), "The derivative"),
    ],
    ids=["nan", "inf", "nan derivative", "stop_gradient", "round"],
)
def test_wrong_cvs_are_refused(function, text):
    with pytest.raises(pysamp.InvalidInputError, match=text):
        check(colvars.custom(function, atoms=[0]))


def test_a_slightly_wrong_derivative_is_told():
    with pytest.warns(pysamp.PysampWarning, match=r"differs from finite differences by 1\.0%"):
        check(colvars.custom(wrong_by_one_percent, atoms=[0]))


@pytest.mark.parametrize(
    "cv",
    [
        colvars.custom(lambda x: jnp.abs(x[0, 1]), atoms=[0]),
        colvars.custom(lambda x: jnp.maximum(x[0, 1], x[0, 2]), atoms=[0]),
        colvars.custom(lambda x: jnp.float32(x[0, 0]) ** 2, atoms=[0]),
        colvars.custom(lambda x: jnp.floor(x[0, 0] + 0.5), atoms=[0]),
        colvars.custom(lambda x: 1e6 + x[0, 0], atoms=[0]),
        colvars.custom(lambda x: 1e-9 * x[0, 0], atoms=[0]),
        colvars.Angle([0, 1, 2]),
        colvars.DihedralAngle([0, 1, 2, 3]),  # just at the period's end
        colvars.Distance([0, colvars.Group([1, 2])]),
    ],
    ids=["kink", "tie", "float32", "step", "large", "small", "angle", "trans", "group"],
)
def test_right_cvs_pass(cv):
    """Kinks exactly on the starting point, and single precision, are no mistakes."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(cv)


def test_particles_that_coincide_are_no_reason_to_refuse():
    """The derivative of a distance at zero is taken as zero."""
    check(colvars.Distance([0, 1]), pysamp.Snapshot(np.zeros((2, 3)), None, np.ones(2)))


ENERGY = pysamp.Snapshot(SNAPSHOT.positions, None, np.ones(4), energy=np.array(-250.0))


def check_with_energy(cv, snapshot=ENERGY):
    system = pysamp.System(masses=np.ones(4), timestep=1.0, kT=1.0, hands_over_energy=True)
    check_cvs(pysamp.Sampler.build(Unbiased(cv), system), [snapshot])


def test_the_energy_is_varied_too():
    """A derivative that is wrong with respect to the engine's energy alone."""
    energy, distance = colvars.PotentialEnergy(), colvars.Distance([0, 1])
    for cv in (energy, energy / 300, energy * distance, colvars.combine(jnp.tanh, [energy / 300])):
        check_with_energy(cv)
    check_with_energy(energy, pysamp.Snapshot(SNAPSHOT.positions, None, np.ones(4), energy=np.zeros(())))
    wrong = colvars.combine(lambda u, d: d + u * jax.lax.stop_gradient(u), [energy, distance])
    with pytest.raises(pysamp.InvalidInputError, match="is not that of its value"):
        check_with_energy(wrong)
    with pytest.raises(pysamp.InvalidInputError, match="is nan on the snapshot"):
        check_with_energy(colvars.combine(jnp.log, [energy]))
