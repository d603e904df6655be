"""Derivatives through a whole biased simulation."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_md import simulate as md
from jax_md import space

import pysamp
from pysamp import bind
from pysamp.backends import jaxmd
from pysamp.colvars import Component, Distance, custom
from pysamp.differentiable import simulate
from pysamp.methods import ABF, HarmonicBias, Metadynamics

N_STEPS = 60


def well(k):
    return lambda x, **unused: 0.5 * k * jnp.sum(x**2) + 0.05 * jnp.sum(x**4)


def with_parameters(systems, *, name="nvt_langevin", dt=None):
    """The state is made beforehand, as under jit it must be."""
    made = systems.simulation(name, well(1.0), n=3, dt=dt)
    return lambda k: jaxmd.Simulation(well(k), made.state, shift_fn=made.shift_fn, integrator=made.integrator, kT=1.0)


def assert_derivative(function, at, h=1e-5):
    value, derivative = jax.jit(jax.value_and_grad(function))(at)
    plain = jax.jit(function)
    difference = (plain(at + h) - plain(at - h)) / (2 * h)
    assert np.isfinite(value)
    assert abs(float(difference)) > 1e-4
    np.testing.assert_allclose(derivative, difference, rtol=1e-5)


def spring(kspring=2.0):
    method = HarmonicBias(Distance([0, 1]), kspring=1.0, center=1.5)
    return eqx.tree_at(lambda m: m.kspring, method, jnp.asarray(kspring).reshape(method.kspring.shape) * np.ones(1))


@pytest.mark.parametrize("name", ["nve", "nvt_langevin", "brownian"])
def test_the_steps_are_those_of_a_run(systems, name):
    make = with_parameters(systems, name=name)
    method = HarmonicBias(Distance([0, 1]), kspring=2.0, center=1.5)
    found = simulate(method, make(1.0), n_steps=N_STEPS, segment=7)
    with bind(make(1.0), method) as bound:
        rows = bound.run(N_STEPS, log_every=1)
        expected = bound.snapshots()[0].positions
    np.testing.assert_allclose(found.state.position, expected, rtol=0, atol=1e-11)
    np.testing.assert_allclose(found.xi[:, 0], rows[0, :, 1], rtol=0, atol=1e-11)


def test_with_respect_to_the_potential(systems):
    make = with_parameters(systems)
    assert_derivative(lambda k: jnp.sum(simulate(spring(), make(k), n_steps=N_STEPS).state.position[0] ** 2), 1.3)


def repulsive_in_a_box(n):
    """Particles that repel each other, every pair, in a periodic box; a function of how strongly."""
    displacement, shift = space.periodic(4.0, wrapped=False)
    integrator = partial(md.nvt_langevin, dt=0.02, kT=1.0, gamma=1.0)

    def potential(strength):
        def energy(x, **unused):
            squared = jnp.sum(space.map_product(displacement)(x, x) ** 2, axis=-1)
            return 0.5 * strength * jnp.sum(jnp.exp(-squared))

        return energy

    init, _ = integrator(potential(1.0), shift)
    state = init(jax.random.PRNGKey(0), jnp.asarray(np.random.default_rng(0).uniform(0.0, 4.0, (n, 3))))
    return lambda k: jaxmd.Simulation(potential(k), state, shift_fn=shift, integrator=integrator, box=4.0)


def test_in_a_periodic_box():
    make = repulsive_in_a_box(3)
    assert_derivative(lambda k: simulate(spring(), make(k), n_steps=N_STEPS).xi.mean(), 1.3)


def test_what_steps_compute_on_the_way_is_not_kept():
    """Squared distances of all pairs, kept for each step, would alone be twice of what is allowed here."""
    n, n_steps = 40, 100
    make = repulsive_in_a_box(n)
    derivative = jax.grad(lambda k: simulate(spring(), make(k), n_steps=n_steps).xi.mean())
    needed = jax.jit(derivative).lower(jnp.asarray(1.0)).compile().memory_analysis()
    assert needed is not None
    assert needed.temp_size_in_bytes < 0.5 * n_steps * 8 * n**2


def test_with_respect_to_the_bias(systems):
    make = with_parameters(systems)
    assert_derivative(lambda k: simulate(spring(k), make(1.0), n_steps=N_STEPS).xi.mean(), 2.0)


def test_with_respect_to_the_cv(systems):
    make = with_parameters(systems)

    def average(power):
        cv = custom(lambda x, cell: jnp.sum((x[1] - x[0]) ** 2) ** power, atoms=[0, 1])
        return simulate(HarmonicBias(cv, kspring=2.0, center=1.0), make(1.0), n_steps=N_STEPS).xi.mean()

    assert_derivative(average, 0.6)


@pytest.mark.parametrize("method", [pytest.param("hills", marks=pytest.mark.validation), "forces"])
def test_through_a_bias_that_adapts(systems, method):
    """The bias that is built depends on the parameter too, and that part is large."""
    make = with_parameters(systems, dt=0.1)
    x = Component([0], axis=0)
    chosen = {
        "hills": Metadynamics(x, height=0.5, sigma=0.3, stride=5, bias_factor=5, grid=pysamp.Grid(-4.0, 4.0, 80)),
        "forces": ABF(x, grid=pysamp.Grid(-4.0, 4.0, 4), full_samples=5),
    }[method]
    assert_derivative(lambda k: jnp.sum(simulate(chosen, make(k), n_steps=N_STEPS).xi ** 2), 1.0)


def test_with_respect_to_the_height_of_hills(systems):
    make = with_parameters(systems, dt=0.1)
    hills = Metadynamics(
        Component([0], axis=0), height=0.5, sigma=0.3, stride=5, bias_factor=5, grid=pysamp.Grid(-4.0, 4.0, 80)
    )

    def average(height):
        method = eqx.tree_at(lambda m: m.height, hills, height)
        return jnp.sum(simulate(method, make(1.0), n_steps=N_STEPS).xi ** 2)

    assert_derivative(average, 0.5)


def test_what_has_no_derivative_is_refused(systems):
    method = Metadynamics(Component([0], axis=0), height=0.5, sigma=0.3, stride=5)
    with pytest.raises(pysamp.errors.UnsupportedError, match="Metadynamics has no reverse-mode"):
        simulate(method, with_parameters(systems)(1.0), n_steps=10)
