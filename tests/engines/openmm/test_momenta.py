"""The generalized momentum that ABF is built on: its rate of change is the mean force, with thermostats and constraints."""

from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from openmm import AndersenThermostat, HarmonicAngleForce, NoseHooverIntegrator, System, VerletIntegrator
from scipy.integrate import quad

import pysamp
from pysamp.colvars import Angle, Distance
from pysamp.methods.base import AbstractMethod, Bias

KT = 300 * 0.00831446261815324


class MeanForces(AbstractMethod):
    """Adds up the force on each CV, as ABF does, in bins; applies none."""

    needs: ClassVar[frozenset[str]] = frozenset({"momentum"})
    cvs: tuple
    lower: float = eqx.field(static=True)
    upper: float = eqx.field(static=True)
    n_bins: int = eqx.field(static=True, default=40)

    def init(self, obs):
        n = obs.xi.size
        return jnp.zeros((n, self.n_bins, 2)), jnp.zeros(n), jnp.zeros(n), jnp.zeros(())

    def update(self, state, obs):
        sums, momentum, xi, n = state
        place = jnp.clip(jnp.floor((xi - self.lower) / (self.upper - self.lower) * self.n_bins), 0, self.n_bins - 1)
        here = jnp.arange(self.n_bins)[None] == place[:, None]
        force = (obs.momentum - momentum) / obs.timestep
        new = jnp.stack([here * force[:, None], here * jnp.ones_like(force)[:, None]], axis=-1)
        return sums + jnp.where(n > 0, new, 0.0), obs.momentum, obs.xi, n + 1

    def bias(self, state, obs):
        return Bias(jnp.zeros(()), jnp.zeros_like(obs.xi))


def factor(bound, potential, slope):
    """Least-squares factor between measured and exact mean forces, over bins within the grid's ends."""
    sums = np.asarray(bound.states[0].methods[0][0]).sum(axis=0)[1:-1]
    (method,) = bound.sampler.methods
    edges = np.linspace(method.lower, method.upper, method.n_bins + 1)[1:-1]
    exact = []
    for a, b in zip(edges[:-1], edges[1:], strict=True):
        weight = quad(lambda x: np.exp(-potential(x) / KT), a, b)[0]
        exact.append(quad(lambda x: -slope(x) * np.exp(-potential(x) / KT), a, b)[0] / weight)
    count, exact = sums[:, 1], np.array(exact)
    return np.sum(sums[:, 0] * exact) / np.sum(count * exact**2)


def dimers(systems, integrator, *, n=8, masses=(10.0, 20.0), extra=()):
    """n independent dimers."""
    system = System()
    bonds = systems.openmm.HarmonicBondForce()
    for i in range(n):
        for mass in masses:
            system.addParticle(mass)
        bonds.addBond(2 * i, 2 * i + 1, 0.3, 1000.0)
    for force in (bonds, *extra):
        system.addForce(force)
    rows = [[[i, 0, 0], [i + 0.3, 0, 0]] for i in range(n)]
    context = systems.context(system, integrator, np.concatenate(rows))
    context.setVelocitiesToTemperature(300.0, 1)
    return context


def bond_energy(r):
    return 500.0 * (r - 0.3) ** 2 - 2 * KT * np.log(r)


def bond_slope(r):
    return 1000.0 * (r - 0.3) - 2 * KT / r


def no_extra(systems):
    return ()


CASES = {
    "Langevin, friction * dt = 0.2": (lambda s: s.langevin(0.02, friction=10.0), (), (10.0, 20.0)),
    "Langevin, weak friction": (lambda s: s.langevin(0.02, friction=1.0), (), (10.0, 20.0)),
    "Verlet and Andersen, frequency * dt = 0.2": (lambda _: VerletIntegrator(0.02), (10.0,), (10.0, 20.0)),
    "NoseHoover": (lambda _: NoseHooverIntegrator(300.0, 2.0, 0.02), (), (10.0, 20.0)),
    "one particle frozen": (lambda s: s.langevin(0.02, friction=10.0), (), (0.0, 20.0)),
}


@pytest.mark.parametrize("name", CASES)
def test_mean_force_of_a_distance(systems, name):
    """Factor 1 between measured and exact -dA/dr, A = U - 2 kT ln r, to 0.01 (about 1 % noise: 4 sigma is 0.04).

    With a time of one whole step between momenta it would be 0.91 at friction * dt = 0.2.
    """
    make, frequency, masses = CASES[name]
    extra = [AndersenThermostat(300.0, f) for f in frequency]
    for force in extra:
        force.setRandomNumberSeed(1)
    context = dimers(systems, make(systems), masses=masses, extra=extra)
    method = MeanForces(tuple(Distance([2 * i, 2 * i + 1]) for i in range(8)), 0.15, 0.45)
    with pysamp.bind(context, method) as bound:
        bound.run(20_000)
        result = factor(bound, bond_energy, bond_slope)
    assert result == pytest.approx(1.0, abs=0.04)


def rigid_angle(systems, masses, *, n=8):
    """n triatomic molecules with two rigid bonds and a harmonic angle."""
    system = System()
    angles = HarmonicAngleForce()
    for i in range(n):
        for mass in masses:
            system.addParticle(mass)
        system.addConstraint(3 * i, 3 * i + 1, 0.1)
        system.addConstraint(3 * i + 1, 3 * i + 2, 0.1)
        angles.addAngle(3 * i, 3 * i + 1, 3 * i + 2, 1.7, 30.0)
    system.addForce(angles)
    rows = [[[i + 0.1, 0, 0], [i, 0, 0], [i - 0.02, 0.0979796, 0]] for i in range(n)]
    integrator = systems.langevin(0.01, friction=10.0)
    integrator.setConstraintTolerance(1e-8)
    context = systems.context(system, integrator, np.concatenate(rows))
    context.applyConstraints(1e-8)
    context.setVelocitiesToTemperature(300.0, 1)
    return context


def log_metric(theta, masses):
    """ln of the volume element of a triatomic with rigid bonds, as function of its angle (up to a constant)."""
    masses = jnp.asarray(masses)

    def place(theta):
        x = jnp.array([[0.1, 0.0, 0.0], [0.0, 0.0, 0.0], [0.1 * jnp.cos(theta), 0.1 * jnp.sin(theta), 0.0]])
        return x - (masses @ x / masses.sum())[None]

    x, moved = place(theta), jax.jacfwd(place)(theta)
    tangents = jnp.concatenate([jnp.cross(jnp.eye(3)[:, None], x[None]), moved[None]])
    metric = jnp.einsum("ikd,jkd,k->ij", tangents, tangents, masses)
    return 0.5 * jnp.linalg.slogdet(metric)[1]


def test_mean_force_of_an_angle_between_rigid_bonds(systems):
    """Exact: A = U - kT ln(volume element of the constrained surface). The factor is 1 to 0.01, tested to 4 sigma.

    Would catch momenta without the constraints' part, which differ by more than 10 % here: see the last lines.
    """
    masses, n = (8.0, 2.0, 8.0), 2
    context = rigid_angle(systems, masses, n=n)
    method = MeanForces(tuple(Angle([3 * i, 3 * i + 1, 3 * i + 2]) for i in range(n)), 0.9, 2.5)

    def potential(x):
        return 15.0 * (x - 1.7) ** 2 - KT * log_metric(x, masses)

    with jax.enable_x64(True):
        x = np.linspace(0.9, 2.5, 200)
        energies, slopes = map(np.asarray, jax.jit(jax.vmap(jax.value_and_grad(potential)))(x))
    with pysamp.bind(context, method) as bound:
        assert len(bound.sampler.momenta[0].clusters) == n
        bound.run(80_000)
        result = factor(bound, lambda v: np.interp(v, x, energies), lambda v: np.interp(v, x, slopes))
        particles = bound.sampler.particles(bound.snapshots()[0])
        unconstrained = eqx.tree_at(lambda s: s.constraints, bound.system, np.zeros((0, 2), dtype=np.int64))
        free = pysamp.Sampler.build(method, unconstrained)
        momenta = [momentum(sampler, particles) for sampler in (bound.sampler, free)]
    assert result == pytest.approx(1.0, abs=0.04)
    assert np.abs(momenta[1] / momenta[0] - 1).min() > 0.1


def momentum(sampler, particles):
    """The generalized momentum of a sampler's only method; the atoms of constraints alone come last."""
    k = len(sampler.atoms)
    particles = jax.tree.map(lambda rows: rows[:k], particles)
    with jax.enable_x64(True):
        jacobian = jax.jit(jax.jacobian(lambda x: sampler.xi(pysamp.Particles(x))))(particles.positions)
        return np.asarray(sampler.momenta[0](jacobian, particles, sampler.cell(None)))


def test_routes_agree_on_momenta(systems):
    ends = []
    for wrap in (lambda c: c, pysamp.backends.openmm.PythonForceRoute):
        context = dimers(systems, systems.langevin())
        method = MeanForces(tuple(Distance([2 * i, 2 * i + 1]) for i in range(8)), 0.15, 0.45)
        with pysamp.bind(wrap(context), method) as bound:
            bound.run(30)
            ends.append(bound.states[0].methods[0])
    for a, b in zip(*ends, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


def test_virtual_sites_have_no_momentum(systems):
    method = MeanForces((Distance([0, 7]),), 0.1, 1.0)
    with pytest.raises(pysamp.InvalidInputError, match="particle 7 is a virtual site"):
        pysamp.bind(systems.water(), method)


def test_integrators_without_such_momenta_are_refused(systems):
    method = MeanForces((Distance([0, 1]),), 0.1, 1.0)
    with pytest.raises(pysamp.InvalidInputError, match="LangevinMiddleIntegrator"):
        pysamp.bind(systems.dimer(systems.openmm.BrownianIntegrator(300, 1.0, 0.001)), method)
