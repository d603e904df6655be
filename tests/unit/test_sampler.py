"""What the sampler gives back besides forces, and what it makes of what an engine hands over."""

from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp import Grid, Sampler, System
from pysamp.colvars import Angle, Component, CoordinationNumber, DihedralAngle, Distance, Group, RationalSwitch, Volume
from pysamp.loop import NEW_STEP, Log, log_columns, take_turn
from pysamp.methods import ABF, HarmonicBias, Metadynamics
from pysamp.methods.base import AbstractMethod, Bias
from pysamp.sampler import Particles

BOX = np.array([[3.0, 0.0, 0.0], [0.7, 2.5, 0.0], [-0.6, 0.5, 2.8]])
N = 12


def system(**options):
    return System(masses=np.arange(1.0, N + 1), timestep=0.01, kT=1.0, momentum_timestep=0.01, periodic=True, **options)


def positions():
    return np.random.default_rng(2).uniform(size=(N, 3)) @ BOX


CVS = {
    "distance of groups": Distance([Group([0, 1, 2]), Group([3, 4], weights=1)]),
    "angle": Angle([0, 4, 7]),
    "dihedral": DihedralAngle([0, 1, 2, 3]),
    "coordination": CoordinationNumber([0, 1, 2, 3], [4, 5, 6, 7], switch=RationalSwitch(0.8, cutoff=1.2)),
    "volume": Volume(),
}


@pytest.mark.parametrize("name", CVS)
def test_the_virial_is_that_of_a_strain(name):
    """W = -dE / d(strain), for all nine components of a strain of positions and box together."""
    sampler = Sampler.build(HarmonicBias(CVS[name], kspring=3.0, center=0.1), system(wants_virial=True))
    x = positions()[list(sampler.atoms)]
    with jax.enable_x64(True):
        state = sampler.init(Particles(x, BOX))
        forces = sampler.evaluate(state, Particles(jnp.asarray(x), jnp.asarray(BOX)))

        def energy(strain):
            matrix = np.eye(3) + strain
            return float(sampler.evaluate(state, Particles(jnp.asarray(x @ matrix), jnp.asarray(BOX @ matrix))).energy)

        expected = np.zeros((3, 3))
        for i, j in np.ndindex(3, 3):
            strain = np.zeros((3, 3))
            strain[i, j] = 1e-5
            expected[i, j] = (energy(-strain) - energy(strain)) / 2e-5
    np.testing.assert_allclose(np.asarray(forces.virial), expected, rtol=1e-6, atol=1e-6 * np.abs(expected).max())
    packed = np.asarray(forces.packed)
    assert packed[0] == float(forces.energy)
    np.testing.assert_array_equal(packed[-6:], np.asarray(forces.virial)[np.triu_indices(3)])


def test_virials_of_methods_add_up():
    """ABF takes the other way to its forces, through the whole Jacobian."""
    distance = Distance([0, 1])
    methods = [HarmonicBias(distance, kspring=2.0, center=0.0), ABF(distance, grid=Grid(0.0, 3.0, 10))]
    both = Sampler.build(methods, system(wants_virial=True))
    one = Sampler.build(methods[0], system(wants_virial=True))
    x = positions()[:2]
    with jax.enable_x64(True):
        v = np.ones((2, 3))
        state = both.init(Particles(x, BOX, v))
        biases = both.evaluate(state, Particles(jnp.asarray(x), jnp.asarray(BOX), jnp.asarray(v)))
        alone = one.evaluate(one.init(Particles(x, BOX)), Particles(jnp.asarray(x), jnp.asarray(BOX)))
    np.testing.assert_allclose(biases.packed, alone.packed, rtol=1e-12)  # ABF has seen nothing yet
    assert np.abs(np.asarray(biases.virial)).max() > 0


def test_without_an_engine_that_wants_it_there_is_no_virial():
    sampler = Sampler.build(HarmonicBias(Distance([0, 1]), kspring=2.0, center=0.0), system())
    with jax.enable_x64(True):
        forces = sampler.evaluate(sampler.init(Particles(positions()[:2], BOX)), Particles(positions()[:2], BOX))
    assert forces.virial is None
    assert forces.packed.shape == (1 + 6,)


class Temperature(AbstractMethod):
    """Shows the kT that methods are given."""

    cvs: tuple
    has_energy: ClassVar[bool] = True

    def init(self, obs):
        return jnp.zeros(())

    def update(self, state, obs):
        return obs.kT

    def bias(self, state, obs):
        return Bias(jnp.zeros(()), jnp.zeros_like(obs.xi))


def test_a_temperature_that_is_handed_over_reaches_the_methods():
    sampler = Sampler.build(Temperature(cvs=(Distance([0, 1]),)), system())
    x = positions()[:2]
    with jax.enable_x64(True):
        state = sampler.init(Particles(x, BOX))
        fixed, _ = sampler.step(state, Particles(x, BOX))
        ramped, _ = sampler.step(state, Particles(x, BOX, kT=jnp.asarray(1.75)))
    assert float(fixed.methods[0]) == 1.0
    assert float(ramped.methods[0]) == 1.75


@pytest.mark.parametrize(("molecules", "whole"), [(None, False), (1, True), (-1, False), ("two", False)])
def test_a_group_within_a_molecule_is_whole_already(molecules, whole):
    """A chain longer than half the box: its own positions are its shape, the nearest images are not."""
    n = np.full(N, -1)
    if molecules == "two":
        n[:3] = [1, 1, 2]
    elif molecules is not None:
        n[:3] = molecules
    sampler = Sampler.build(
        HarmonicBias(Component([Group([0, 1, 2], weights=1)], axis=0), kspring=1.0, center=0.0),
        system(molecules=None if molecules is None else n),
    )
    x = np.array([[0.0, 0.0, 0.0], [2.0, 0.0, 0.0], [4.0, 0.0, 0.0]])  # steps of 2 in a box of 3
    with jax.enable_x64(True):
        xi = sampler.xi(Particles(x, BOX))
    np.testing.assert_allclose(xi, 2.0 if whole else -1.0, rtol=1e-12)


@pytest.mark.parametrize("first_step", [0, 1])
def test_rows_carry_the_steps_of_the_engine(first_step):
    """An engine that shows configurations at the end of a step logs every third from step 3 on."""
    sampler = Sampler.build(
        Metadynamics(Distance([0, 1]), height=1.0, sigma=0.3, stride=2, grid=Grid(0.0, 3.0, 30)), system()
    )
    x = positions()[:2]
    with jax.enable_x64(True):
        state = sampler.init(Particles(x, BOX))
        log = Log(jnp.zeros((10, len(log_columns(sampler)))), jnp.zeros((), dtype=jnp.int32), first_step)
        for _ in range(8):
            kind = jnp.asarray(NEW_STEP, dtype=jnp.int32)
            state, log, _ = take_turn(sampler, state, log, kind, Particles(x, BOX), jnp.asarray(3))
    n_rows = int(log.n_rows)
    assert np.asarray(log.rows)[:n_rows, 0].tolist() == ([3, 6] if first_step else [0, 3, 6])
