"""What a method learns now and then it learns once, when it is due, between two steps."""

from typing import Any, ClassVar

import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Bool, Float, Int

import pysamp
from pysamp.backends import toy
from pysamp.colvars import AbstractCV, Component
from pysamp.methods import AbstractMethod, Bias, Observation
from pysamp.testing import DoubleWell

EVERY = 7


class Learner(AbstractMethod):
    """Remembers when it learned; its spring becomes stiffer each time, by what takes a matrix factorisation to find out."""

    learns: ClassVar[bool] = True

    cvs: tuple[AbstractCV, ...]

    def init(self, obs: Observation) -> dict[str, Array]:
        return {"n_steps": jnp.zeros(()), "times": jnp.zeros(64), "n": jnp.zeros((), dtype=jnp.int64)}

    def update(self, state: dict[str, Array], obs: Observation) -> dict[str, Array]:
        return {**state, "n_steps": state["n_steps"] + 1.0}

    def is_due(self, n_steps: Int[Array, ""]) -> Bool[Array, ""]:
        return n_steps % EVERY == 0

    def learn(self, state: dict[str, Array], n_steps: Int[Array, ""], kT: Float[Array, ""]) -> dict[str, Array]:
        one = jnp.linalg.eigvalsh(jnp.diag(kT * jnp.ones(3)))[1] / kT
        times = state["times"].at[state["n"]].set(one * state["n_steps"])
        return {"n_steps": state["n_steps"], "times": times, "n": state["n"] + 1}

    def bias(self, state: dict[str, Array], obs: Observation) -> Bias:
        force = -0.01 * state["n"] * obs.xi
        return Bias(-0.5 * jnp.sum(force * obs.xi), force)


def check(state: Any, n_steps: int) -> None:
    """It has seen each step, and learned after every seventh."""
    n = n_steps // EVERY
    assert (float(state["n_steps"]), int(state["n"])) == (n_steps, n)
    np.testing.assert_allclose(state["times"][:n], EVERY * np.arange(1, n + 1))
    assert not np.asarray(state["times"])[n:].any()


@pytest.mark.parametrize("replicas", [1, 3])
def test_toy(replicas):
    method = Learner((Component([0], axis=0),))
    simulation = lambda: toy.Simulation(DoubleWell(), [[-1.0, 0.0, 0.0]], timestep=0.05, friction=2.0)  # noqa: E731
    run = pysamp.run(method, simulation, 20, replicas=replicas, seed=1, log_every=1)
    again = pysamp.run(pysamp.run(method, simulation, 13, replicas=replicas, seed=1, log_every=1), simulation, 7)
    for state in (*run.states, *again.states):
        check(state.methods[0], 20)
    np.testing.assert_array_equal(run.log["xi"].values, again.log["xi"].values)
    # what was learned acts from the next step on
    energy, xi = run.log["bias_energy"].values, run.log["xi"].values[..., 0]
    times_learned = np.arange(20) // EVERY
    np.testing.assert_allclose(energy, 0.005 * times_learned * xi**2)
