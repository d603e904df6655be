"""Methods that begin at stored configurations and end their trajectories."""

import jax.numpy as jnp
import numpy as np
import pytest
from rates import count_transitions

import pysamp
from pysamp.colvars import Component
from pysamp.methods import Unbiased
from pysamp.paths import ForwardFlux

X = Component([0], axis=0)


def double_well(x, **unused):
    return 3.0 * jnp.sum((x[:, 0] ** 2 - 1.0) ** 2) + 0.5 * jnp.sum(x[:, 1:] ** 2)


@pytest.mark.validation
def test_the_rate_is_that_of_brute_force(systems):
    """Within 3 standard errors; the seeds are fixed."""
    made = systems.simulation("nvt_langevin", double_well, n=1, seed=3)

    def generate_context():
        made.state = made.state.set(position=jnp.full((1, 3), -1.0))
        return made

    watched = pysamp.run(Unbiased(X), generate_context, 3000, replicas=200, log_every=1, seed=5, progress=False)
    exact, error = count_transitions(watched.log["xi"].values[..., 0], -0.8, 0.7, 0.05)
    method = ForwardFlux(X, interfaces=[-0.8, -0.5, -0.1, 0.7], n_initial=100, n_trials=150, n_equilibration=200)
    rate = pysamp.analyze(pysamp.run(method, generate_context, 10**6, seed=2, progress=False, replicas=20))
    assert rate.stderr < 0.5 * rate.value
    assert abs(rate.value - exact) < 3 * np.hypot(rate.stderr, error)
