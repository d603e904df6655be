"""A box that moves: the bias acts on it as a term of the energy would."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax_md import energy, quantity, simulate, space

from pysamp import bind
from pysamp.backends import jaxmd
from pysamp.colvars import Distance, Volume
from pysamp.methods import HarmonicBias

SIDE = 4.8
DISPLACEMENT: Any
PAIRS: Any
DISPLACEMENT, SHIFT = space.periodic_general(SIDE, fractional_coordinates=True)
PAIRS = energy.soft_sphere_pair(DISPLACEMENT, alpha=3.0)
INTEGRATOR = partial(simulate.npt_nose_hoover, dt=0.02, pressure=0.1, kT=0.5)


def npt(energy_fn):
    lattice = np.stack(np.meshgrid(*[np.arange(3.0)] * 3), axis=-1).reshape(-1, 3) / 3.0
    x = jnp.asarray(lattice + np.random.default_rng(0).uniform(0.02, 0.1, size=(27, 3)))
    init, _ = INTEGRATOR(energy_fn, SHIFT)
    state = init(jax.random.PRNGKey(0), x, box=jnp.asarray(SIDE))
    return jaxmd.Simulation(energy_fn, state, shift_fn=SHIFT, integrator=INTEGRATOR)


def with_springs(x, box, perturbation=1.0, **unused):
    """The distance feels the box through its image; the volume is nothing else."""
    apart = DISPLACEMENT(x[26], x[0], box=box, perturbation=perturbation)
    volume = quantity.volume(3, box) * perturbation**3
    springs = 0.5 * 5.0 * (jnp.linalg.norm(apart) - 2.0) ** 2 + 0.5 * 0.02 * (volume - 100.0) ** 2
    return PAIRS(x, box=box, perturbation=perturbation) + springs


def test_positions_and_box_are_those_of_the_whole_energy():
    """Without the bias's virial the box goes its own way, from the first steps on."""
    simulation = npt(with_springs)
    _, apply = INTEGRATOR(with_springs, SHIFT)
    state = jax.jit(lambda state: jax.lax.fori_loop(0, 40, lambda i, s: apply(s), state))(simulation.state)
    methods = (
        HarmonicBias(Distance([26, 0]), kspring=5.0, center=2.0),
        HarmonicBias(Volume(), kspring=0.02, center=100.0),
    )
    with bind(npt(PAIRS), methods) as bound:
        bound.run(15)
        bound.run(25)
        snapshot = bound.snapshots()[0]
    box = np.asarray(state.box)
    assert snapshot.box is not None
    assert abs(box[0, 0] - SIDE) > 0.003
    np.testing.assert_allclose(snapshot.box, box.T, rtol=1e-9)
    np.testing.assert_allclose(snapshot.positions, np.asarray(state.position) @ box.T, rtol=0, atol=1e-8)
