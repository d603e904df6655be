"""Samplers of all sorts by both routes, which must agree; a program of its own, because XLA may end the process it is in.

Without arguments it tries those that XLA treats in ways of their own; with ``--all`` the common ones as well.
"""

import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import openmm

import pysamp
from pysamp.backends.openmm import PythonForceRoute
from pysamp.colvars import Distance, Group, custom
from pysamp.methods import HarmonicBias, HarmonicWalls, Metadynamics, Unbiased
from pysamp.methods.base import AbstractMethod, Bias

N = 42
SKEWED = [[3.0, 0, 0], [1.4, 2.8, 0], [-1.2, 1.1, 2.9]]


class Odd(AbstractMethod):
    """Parameters, and parts of the state, that nothing uses or that only XLA finds unused."""

    cvs: tuple
    table: Any
    number: Any

    def init(self, obs):
        return {
            "unused": jnp.zeros(7),
            "const": jnp.ones(300),
            "empty": jnp.zeros((0, 3)),
            "n": obs.step,
            "flag": jnp.array(True),
        }

    def update(self, state, obs):
        noise = jax.random.normal(obs.key, (3,))
        new = {"const": jnp.zeros(300), "n": state["n"] * 0 + 1, "flag": ~state["flag"]}
        return state | new | {"unused": noise[0] * jnp.ones(7)}

    def bias(self, state, obs):
        dead = jnp.where(jnp.zeros((), dtype=bool), jnp.sum(self.table), 0.0)
        return Bias(0.5 * jnp.sum(obs.xi**2) + dead + 0 * self.number + 0 * state["n"], -obs.xi)


class Idle(AbstractMethod):
    """A bias that depends on nothing."""

    cvs: tuple

    def init(self, obs):
        return jnp.zeros(())

    def update(self, state, obs):
        return state

    def bias(self, state, obs):
        return Bias(jnp.zeros(()), jnp.zeros_like(obs.xi))


def harmonic(cvs, kspring=1.0):
    return HarmonicBias(cvs, kspring=kspring, center=0.0)


D, E = Distance([0, 1]), Distance([2, 3])
CONSTANT = custom(lambda x: jnp.asarray(1.5), atoms=[0])
CASES = {
    "unbiased": Unbiased(D),
    "constant CV": harmonic(CONSTANT),
    "constant CV and another": harmonic([CONSTANT, D]),
    "odd": Odd((D,), np.ones(500), np.asarray(3)),
    "idle": Idle((D, E)),
    "shared CVs": (harmonic(D), Metadynamics([D, E], height=1.0, sigma=0.05, stride=2), Unbiased(D)),
    "walls": HarmonicWalls(D, lower=0.1, upper=0.2, kspring=10.0),
    "no spring": harmonic(D, 0.0),
    "group": harmonic(Distance([Group([0, 1, 2]), Group([3, 4, 5], weights=1)])),
    "large group": harmonic(Distance([Group(list(range(0, 40, 2))), 41])),
    "scatter": harmonic(custom(lambda x: jnp.sum(x[jnp.array([3, 1, 0])] ** 2), atoms=range(4))),
    "linear algebra": harmonic(custom(lambda x: jnp.linalg.eigvalsh(x.T @ x)[0], atoms=range(5))),
    "matrix product": harmonic(custom(lambda x: jnp.sum(x @ x.T @ jnp.ones((N, 99))), atoms=range(N)), 1e-9),
}


def start(box):
    system = openmm.System()
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic if box else openmm.NonbondedForce.NoCutoff)
    for _ in range(N):
        system.addParticle(40.0)
        force.addParticle(0.0, 0.3, 0.0)
    system.addForce(force)
    if box:
        system.setDefaultPeriodicBoxVectors(*box)
    integrator = openmm.LangevinMiddleIntegrator(300, 0, 0.001)
    context = openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))
    context.setPositions(np.random.default_rng(0).normal(size=(N, 3)))
    return context


def run(method, box):
    rows = []
    for wrap in (lambda context: context, PythonForceRoute):
        with pysamp.bind(wrap(start(box)), method) as bound:
            bound.reserve(10)
            rows.append(bound.run(5, log_every=1))
    return rows


COMMON = {"unbiased", "walls", "no spring", "group"}
IN_A_BOX = ("constant CV", "large group", "shared CVs")

if __name__ == "__main__":
    everything = "--all" in sys.argv
    for name, method in CASES.items():
        if everything or name not in {*COMMON, *IN_A_BOX}:
            print(name, flush=True)
            np.testing.assert_allclose(*run(method, None), rtol=1e-9, atol=1e-9, err_msg=name)
    for name in IN_A_BOX:
        print(name, "in a skewed box", flush=True)
        np.testing.assert_allclose(*run(CASES[name], SKEWED), rtol=1e-9, atol=1e-9, err_msg=name)
    print("fine")
