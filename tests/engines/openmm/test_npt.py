"""Constant pressure: the barostat sees the bias energy, and the bias sees the box."""

from typing import ClassVar

import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp.colvars import Distance, Volume
from pysamp.methods import HarmonicBias
from pysamp.methods.base import Bias

N, N_PAIRS, LENGTH = 40, 10, 3.0
N_BODIES = N - N_PAIRS
KT = 300 * 0.00831446261815324
PRESSURE = (N_BODIES + 1) * KT / LENGTH**3 / (6.02214076e23 * 1e-25)  # [bar], at which <V> is LENGTH^3

# An ideal gas, some atoms of which are held in pairs by springs without length: p(V) ~ V^n exp(-PV/kT) with n bodies, a gamma
# distribution of mean (n + 1) kT/P.
DISTANCES = [Distance([2 * i, 2 * i + 1]) for i in range(N_PAIRS)]
PAIRS = HarmonicBias(DISTANCES, kspring=2000.0, center=0.0)


class Energyless(HarmonicBias):
    """The same force without its energy: the mistake that the test is to catch."""

    has_energy: ClassVar[bool] = True

    def bias(self, state, obs):
        return Bias(jnp.zeros(()), super().bias(state, obs).force)


def ideal_gas(systems, *, extra=()):
    system = systems.openmm.System()
    system.setDefaultPeriodicBoxVectors([LENGTH, 0, 0], [0, LENGTH, 0], [0, 0, LENGTH])
    for _ in range(N):
        system.addParticle(40.0)
    periodic = systems.openmm.HarmonicBondForce()  # without bonds, but it makes the system periodic
    periodic.setUsesPeriodicBoundaryConditions(True)
    system.addForce(periodic)
    barostat = systems.openmm.MonteCarloBarostat(PRESSURE, 300.0, 1)
    barostat.setRandomNumberSeed(4)
    for force in (*extra, barostat):
        system.addForce(force)
    positions = systems.gas_positions(N, LENGTH)
    for i in range(N_PAIRS):
        positions[2 * i + 1] = positions[2 * i] + 0.02
    context = systems.context(system, systems.langevin(0.01, friction=1.0, seed=2), positions)
    context.setVelocitiesToTemperature(300.0, 3)
    return context


def volume(context):
    return context.getState().getPeriodicBoxVolume()._value


def moments(volumes):
    """Mean and its standard error, from 20 blocks after the first fifth."""
    kept = np.asarray(volumes)[len(volumes) // 5 :]
    blocks = kept[: len(kept) // 20 * 20].reshape(20, -1).mean(axis=1)
    return blocks.mean(), blocks.std(ddof=1) / np.sqrt(20)


def sample(context, advance, n, volume=volume):
    volumes = []
    for _ in range(n):
        advance()
        volumes.append(volume(context))
    return moments(volumes)


@pytest.mark.parametrize("n", [600, pytest.param(20_000, marks=pytest.mark.validation)])
def test_volume_under_a_bias(systems, route, n):
    """<V> = (n + 1) kT/P, within 4.5 standard errors of 20 blocks (a false alarm in 4000; seeds are fixed).

    Would catch a bias energy of 0, which gives a mean volume some 30 % larger: see the next test.
    """
    context = ideal_gas(systems)
    with pysamp.bind(route(context), PAIRS) as bound:
        mean, error = sample(context, lambda: bound.run(10), n)
    assert error < 0.05 * LENGTH**3
    assert abs(mean - LENGTH**3) < 4.5 * error


def test_a_bias_without_energy_would_be_noticed(systems):
    context = ideal_gas(systems)
    with pysamp.bind(context, Energyless(DISTANCES, kspring=2000.0, center=0.0)) as bound:
        mean, error = sample(context, lambda: bound.run(10), 1000)
    assert mean - LENGTH**3 > 4.5 * error


def test_a_bias_on_the_volume_itself(systems, route):
    """p(V) ~ V^n exp(-(PV + k (V - c)^2 / 2) / kT) by quadrature, within 4.5 standard errors of 20 blocks."""
    v0, n = LENGTH**3, N_BODIES
    kspring, center = 20.0 * KT / v0**2, 1.4 * v0
    v = np.linspace(0.3, 3.0, 5001) * v0
    log_p = n * np.log(v) - (n + 1) * v / v0 - 0.5 * kspring / KT * (v - center) ** 2
    p = np.exp(log_p - log_p.max())
    exact = float((p * v).sum() / p.sum())
    assert exact > 1.1 * v0
    methods = (PAIRS, HarmonicBias(Volume(), kspring=kspring, center=center))
    with pysamp.bind(route(ideal_gas(systems)), methods) as bound:
        mean, error = sample(bound, lambda: bound.run(10), 1000, lambda bound: np.linalg.det(bound.snapshots()[0].box))
    assert error < 0.05 * v0
    assert abs(mean - exact) < 4.5 * error


@pytest.mark.validation
def test_volume_under_the_same_bias_of_openmm(systems):
    """The same with OpenMM's CustomCVForce gives the same volumes: the exact answer above is right."""
    force = systems.openmm.CustomCVForce("energy")
    bond = systems.openmm.CustomBondForce("1000*r^2")
    bond.setUsesPeriodicBoundaryConditions(True)
    for i in range(N_PAIRS):
        bond.addBond(2 * i, 2 * i + 1, [])
    force.addCollectiveVariable("energy", bond)
    context = ideal_gas(systems, extra=[force])
    mean, error = sample(context, lambda: context.getIntegrator().step(20), 20_000)
    assert error < 0.02 * LENGTH**3
    assert abs(mean - LENGTH**3) < 4.5 * error


def test_box_is_current_in_every_step(systems):
    """Particles without mass stay where the barostat puts them: what is logged in a step is seen after it."""
    context = systems.gas(n=8, mass=0.0, epsilon=0.0, barostat=1)
    far = context.getSystem().getNumParticles() - 1
    logged, expected, boxes = [], [], []
    with pysamp.bind(context, HarmonicBias(Distance([0, far]), kspring=1.0, center=0.5)) as bound:
        for _ in range(30):
            logged.append(bound.run(1, log_every=1)[0, 0, 1])
            snapshot = bound.snapshots()[0]
            box = np.diag(np.asarray(snapshot.box))
            vector = np.asarray(snapshot.positions)[far] - np.asarray(snapshot.positions)[0]
            expected.append(np.linalg.norm(vector - box * np.round(vector / box)))
            boxes.append(box[0])
    assert len(set(boxes)) > 5
    np.testing.assert_allclose(logged, expected, rtol=1e-12)


def test_python_force_sees_the_box_of_each_evaluation(systems):
    """The callback has no way to tell a barostat's first evaluation from the step's own; it sees that step's start."""
    context = systems.gas(n=8, mass=0.0, epsilon=0.0, barostat=1)
    method = HarmonicBias(Distance([0, 7]), kspring=1.0, center=0.5)
    with pysamp.bind(pysamp.backends.openmm.PythonForceRoute(context), method) as bound:
        for _ in range(10):
            snapshot = bound.snapshots()[0]
            box = np.diag(np.asarray(snapshot.box))
            vector = np.asarray(snapshot.positions)[7] - np.asarray(snapshot.positions)[0]
            expected = np.linalg.norm(vector - box * np.round(vector / box))
            assert bound.run(1, log_every=1)[0, 0, 1] == pytest.approx(expected, rel=1e-12)


def test_a_method_without_energy_is_told(systems):
    method = pysamp.methods.ABF(Distance([0, 1]), grid=pysamp.Grid(0.1, 1.0, 10))
    with (
        pytest.warns(pysamp.PysampWarning, match="ABF has no bias energy, so MonteCarloBarostat"),
        pysamp.bind(systems.gas(barostat=5), method),
    ):
        pass
