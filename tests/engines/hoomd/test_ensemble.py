"""Physics under HOOMD: ensembles, pressures and volumes under a bias, temperatures that change, momenta."""

# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportOptionalMemberAccess=false

from typing import ClassVar

import hoomd
import hoomd.md
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp.colvars import Component, Distance, Group, Volume
from pysamp.methods import ABF, HarmonicBias, Unbiased
from pysamp.methods.base import AbstractMethod, Bias

N = 32


METHODS = {
    "Langevin": lambda s: hoomd.md.methods.Langevin(filter=s.movers(), kT=1.0, default_gamma=1.0),
    "Brownian": lambda s: hoomd.md.methods.Brownian(filter=s.movers(), kT=1.0, default_gamma=1.0),
    "Bussi": lambda s: hoomd.md.methods.ConstantVolume(
        filter=s.movers(), thermostat=hoomd.md.methods.thermostats.Bussi(kT=1.0, tau=0.5)
    ),
}


@pytest.mark.parametrize("name", METHODS)
def test_variance(systems, name):
    """A harmonic well k = 1 with a bias k = 1 at kT = 1: the variance is 1/2.

    96 oscillators for 600 time units, correlation times of 1 to 2 (Brownian 0.5): 0.500 to 0.006 at most; tested to 5 sigma,
    up to the error of the time step, (w dt)^2 / 4 with w^2 = 2, below 0.002 (Brownian: k dt / 4 = 0.005). Half or stale bias
    gives 0.67 to 0.71, no bias 1. Bussi's thermostat makes the sum over independent oscillators canonical, which is what is
    tested.
    """
    dt = 0.01 if name == "Brownian" else 0.05
    simulation = systems.wells(METHODS[name](systems), n=N, dt=dt)
    centers = np.linspace(-25.0, 25.0, N)[:, None] * np.array([1.0, 0.0, 0.0])
    bias = HarmonicBias(
        [Component([i], axis=k) for i in range(N) for k in range(3)], kspring=1.0, center=centers.reshape(-1)
    )
    with pysamp.bind(simulation, bias) as bound:
        bound.run(500)
        rows = np.concatenate([bound.run(2000, log_every=4)[0] for _ in range(30 if name == "Brownian" else 6)])
    x = rows[:, 1 : 3 * N + 1] - centers.reshape(1, -1)
    assert (x**2).mean() == pytest.approx(0.5, abs=0.035)


BOND = {"k": 7.0, "r0": 1.1}
PAIR = Distance([0, 1])


def spring_by_hoomd(systems):
    return systems.springs(BOND["k"], BOND["r0"])


@pytest.mark.usefixtures("route")
@pytest.mark.parametrize("tilts", [(0.0, 0.0, 0.0), (0.4, -0.3, 0.2)])
def test_pressure_under_the_bias(systems, tilts):
    """The same spring as pysamp's bias and as HOOMD's bond: energy and all components of the pressure agree.

    The two particles are neighbours through a face of the box, where a virial of positions alone is wrong.
    """

    def measured(by_hoomd):
        snapshot = systems.fluid_frame(tilts=tilts, bonds=[(0, 1)] if by_hoomd else [])
        x = np.array(snapshot.particles.position[:])
        edge = np.argsort(x[:, 0])
        snapshot.particles.position[:] = x[[edge[-1], edge[0], *edge[1:-1]]]
        forces = [systems.lennard_jones(1.6), *([spring_by_hoomd(systems)] if by_hoomd else [])]
        simulation = systems.simulation(snapshot, [systems.langevin()], forces)
        thermo = hoomd.md.compute.ThermodynamicQuantities(filter=systems.every())
        simulation.operations.computes.append(thermo)
        simulation.always_compute_pressure = True
        if by_hoomd:
            simulation.run(20)
        else:
            bias = HarmonicBias(PAIR, kspring=BOND["k"], center=BOND["r0"])
            with pysamp.bind(simulation, bias) as bound:
                bound.run(20)
                return [thermo.potential_energy, *thermo.pressure_tensor, thermo.pressure]
        return [thermo.potential_energy, *thermo.pressure_tensor, thermo.pressure]

    np.testing.assert_allclose(measured(False), measured(True), rtol=1e-9, atol=1e-9)


@pytest.mark.usefixtures("route")
@pytest.mark.parametrize("couple", ["xyz", "none"])
def test_constant_pressure_under_the_bias(systems, couple):
    """The same deterministic run of an NPT ensemble with pysamp's bias and with HOOMD's bond has the same volumes."""

    def volumes(by_hoomd, kspring=BOND["k"]):
        snapshot = systems.fluid_frame(spacing=1.3, bonds=[(0, 63)] if by_hoomd else [])
        method = hoomd.md.methods.ConstantPressure(
            filter=systems.every(),
            S=0.5,
            tauS=1.0,
            couple=couple,
            thermostat=hoomd.md.methods.thermostats.MTTK(kT=1.0, tau=0.5),
            box_dof=[True] * 3 + [couple == "none"] * 3,
        )
        forces = [systems.lennard_jones(1.6), *([spring_by_hoomd(systems)] if by_hoomd else [])]
        simulation = systems.simulation(snapshot, [method], forces)
        simulation.always_compute_pressure = (
            True  # HOOMD's own forces have no virial at the first evaluation without it
        )
        methods = [Unbiased(Volume())]
        if not by_hoomd:
            methods.append(HarmonicBias(Distance([0, 63]), kspring=kspring, center=BOND["r0"]))
        with pysamp.bind(simulation, tuple(methods)) as bound:
            return bound.run(300, log_every=10)[0, :, 1]

    expected = volumes(True)
    assert np.ptp(expected) > 0.01 * expected.mean()
    np.testing.assert_allclose(volumes(False), expected, rtol=1e-7)
    assert np.abs(volumes(False, kspring=0.0) - expected).max() > 1e-4 * expected.mean()


class Temperature(AbstractMethod):
    """Logs the kT that methods are given."""

    cvs: tuple
    has_energy: ClassVar[bool] = True

    def init(self, obs):
        return jnp.zeros(())

    def update(self, state, obs):
        return obs.kT

    def bias(self, state, obs):
        return Bias(jnp.zeros(()), jnp.zeros_like(obs.xi))

    def diagnostics(self, state):
        return {"kT": state}


@pytest.mark.usefixtures("route")
def test_a_ramp_of_the_temperature_is_followed(systems):
    ramp = hoomd.variant.Ramp(A=1.0, B=2.0, t_start=10, t_ramp=20)
    with pysamp.bind(systems.fluid([systems.langevin(ramp)]), Temperature(cvs=(PAIR,))) as bound:
        rows = bound.run(40, log_every=1)[0]
    np.testing.assert_allclose(rows[:, -1], [ramp(int(step)) for step in rows[:, 0]], rtol=1e-12)
    assert float(bound.sampler.kT) == 1.0


@pytest.mark.usefixtures("route")
def test_a_box_of_two_dimensions(systems):
    """A spring in the plane, against HOOMD's own; the third dimension stays out of it."""

    def run(by_hoomd):
        side = 8.0
        x = np.zeros((16, 3))
        x[:, :2] = np.stack(np.meshgrid(*[np.arange(4) * 2.0 - 3.0] * 2), axis=-1).reshape(-1, 2)
        snapshot = systems.frame(x, [side, side, 0, 0.2, 0, 0], bonds=[(0, 15)] if by_hoomd else [])
        forces = [systems.lennard_jones(1.6), *([spring_by_hoomd(systems)] if by_hoomd else [])]
        simulation = systems.simulation(snapshot, [systems.nose_hoover()], forces)
        thermo = hoomd.md.compute.ThermodynamicQuantities(filter=systems.every())
        simulation.operations.computes.append(thermo)
        simulation.always_compute_pressure = True
        if by_hoomd:
            simulation.run(100)
        else:
            with pysamp.bind(simulation, HarmonicBias(Distance([0, 15]), kspring=7.0, center=1.1)) as bound:
                bound.run(100)
        return systems.positions(simulation), thermo.pressure

    (x, pressure), (expected, expected_pressure) = run(False), run(True)
    np.testing.assert_allclose(x, expected, atol=1e-8)
    assert pressure == pytest.approx(expected_pressure, rel=1e-8)
    assert (x[:, 2] == 0).all()


@pytest.mark.usefixtures("route")
def test_images_make_groups_whole(systems):
    """A stretched chain of six, longer than half the box, across its border: the centre is that of the chain."""
    side = 5.0
    whole = np.stack([np.arange(6) * 0.9 - 1.0, np.zeros(6), np.zeros(6)], axis=1)
    images = np.floor(whole / side + 0.5)
    bonds = [(i, i + 1) for i in range(5)]
    center = Component([Group([0, 2, 5], weights=1)], axis=0)
    found = []
    for given in (
        images,
        np.zeros_like(images),
    ):  # with right images, and with none: then the nearest image is all there is
        snapshot = systems.frame(whole - images * side, [side, side, side, 0, 0, 0], bonds=bonds, images=given)
        simulation = systems.simulation(snapshot, [systems.langevin()], [systems.springs(50.0, 0.9)])
        with pysamp.bind(simulation, Unbiased(center)) as bound:
            found.append(float(bound.initial_states([0])[0].xi[0]))
    assert found[0] == pytest.approx(whole[[0, 2, 5], 0].mean(), abs=1e-12)
    assert found[1] != pytest.approx(found[0], abs=0.1)


@pytest.mark.parametrize("gamma", [0.0, 1.0, 8.0])
def test_momenta_give_the_mean_force(systems, gamma):
    """The force that ABF finds in harmonic wells of k = 20, -k x, up to g = gamma dt / m = 0.4.

    Without the correction for Langevin's friction the slope at gamma = 8 would be too large by a quarter. 32 wells with 20 000
    steps each, correlated over 16 at gamma = 8 and 80 at gamma = 1: the slope is the ratio of <v^2> to <x^2>, known to 0.7 % and
    1.6 %, and averages over a bin take another 0.5 %; tested to 5 %.
    """
    dt, center = 0.05, np.linspace(-25.0, 25.0, N)
    method = hoomd.md.methods.Langevin(filter=systems.movers(), kT=1.0, default_gamma=gamma)
    if gamma == 0.0:
        method = hoomd.md.methods.ConstantVolume(
            filter=systems.movers(), thermostat=hoomd.md.methods.thermostats.Bussi(kT=1.0, tau=5.0)
        )
    simulation = systems.wells(method, n=N, k=20.0, dt=dt)
    methods = [
        ABF(Component([i], axis=0), grid=pysamp.Grid(center[i] - 0.72, center[i] + 0.72, 24), full_samples=10**9)
        for i in range(N)
    ]
    with pysamp.bind(simulation, tuple(methods)) as bound:
        bound.run(20000)
        (state,) = bound.states
    sums = np.array([np.asarray(s.sums).sum(axis=1) for s in state.methods])
    x = (np.arange(24) + 0.5) * 0.06 - 0.72
    slope = (sums[:, :, 0] * x).sum() / (sums[:, :, -1] * x**2).sum()
    assert slope == pytest.approx(-20.0, rel=0.05)
