"""Small JAX MD systems."""

from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("jax_md")
from jax_md import simulate, space

from pysamp.backends import jaxmd

JAX_MD_WARNS = ["scatter inputs have incompatible types", "Explicitly requested dtype"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            for warning in JAX_MD_WARNS:
                item.add_marker(pytest.mark.filterwarnings(f"ignore:{warning}"))


@pytest.fixture(autouse=True)
def settings_of_users():
    """JAX MD relies on what these tests forbid elsewhere; double precision makes comparisons sharp."""
    with jax.numpy_rank_promotion("allow"), jax.enable_x64(True):
        yield


def stirred(x, **unused):
    """Each x alone is a Gaussian of variance 1; what stirs them does not change that, since y and z take up any shift."""
    stir = jnp.sin(2.0 * x[:, 0] + jnp.roll(x[:, 0], 1))
    rest = 0.5 * (x[:, 1] - 1.5 * stir) ** 2 + 0.5 * (x[:, 2] - jnp.sin(2.0 * x[:, 1])) ** 2
    return jnp.sum(0.5 * x[:, 0] ** 2 + rest)


INTEGRATORS = {
    "nve": partial(simulate.nve, dt=0.05),
    "nvt_langevin": partial(simulate.nvt_langevin, dt=0.05, kT=1.0, gamma=1.0),
    "nvt_nose_hoover": partial(simulate.nvt_nose_hoover, dt=0.05, kT=1.0, tau=1.0),
    "brownian": partial(simulate.brownian, dt=0.02, kT=1.0, gamma=1.0),
}


def simulation(name, energy=stirred, n=4, *, dt=None, seed=0, dtype=jnp.float64):
    """Particles without a box; the same each time."""
    integrator = INTEGRATORS[name] if dt is None else partial(INTEGRATORS[name], dt=dt)
    _, shift = space.free()
    init, _ = integrator(energy, shift)
    x = jnp.asarray(np.random.default_rng(seed).normal(size=(n, 3)), dtype)
    options = {"kT": 1.0} if name == "nve" else {}
    state = init(jax.random.PRNGKey(seed), x, **options)
    return jaxmd.Simulation(energy, state, shift_fn=shift, integrator=integrator, kT=1.0)


def stepped(simulation, n):
    """JAX MD alone, and the positions after n steps."""
    _, apply = simulation.integrator(simulation.energy_fn, simulation.shift_fn)
    state = simulation.state
    for _ in range(n):
        state = apply(state)
    simulation.state = state
    return np.asarray(state.position)
