"""The compiled loop: one function per step, for whatever sampler, and without crashing XLA."""

import os
import re
import subprocess
import sys
import textwrap
from math import pi

import jax
import numpy as np
import pytest

import pysamp
from pysamp import loop
from pysamp.backends.openmm import _HostEngine
from pysamp.colvars import DihedralAngle
from pysamp.methods import ABF, HarmonicBias, Metadynamics

PHI, PSI = DihedralAngle([4, 6, 8, 14]), DihedralAngle([6, 8, 14, 16])
GRID = pysamp.Grid((-pi, -pi), (pi, pi), (40, 40), periodic=True)
HILLS = {"height": 1.2, "sigma": 0.35, "stride": 500, "bias_factor": 10}
METHODS = {
    "harmonic": HarmonicBias([PHI, PSI], kspring=10.0, center=[-1.0, 1.0]),
    "metadynamics on a grid": Metadynamics([PHI, PSI], grid=GRID, **HILLS),
    "metadynamics without a grid": Metadynamics([PHI, PSI], **HILLS),
    "ABF": ABF([PHI, PSI], grid=GRID),
}


def compiled_text(bound):
    with jax.enable_x64(True):
        engine = _HostEngine(
            address=jax.device_put(np.int64(0)),
            n_atoms=len(bound.sampler.atoms),
            periodic=bound.system.periodic,
            velocities=bound.sampler.needs_velocities,
        )
        parts = bound._loop
        lowered = loop._run_loop.lower(
            parts.sampler, parts.state, engine, parts.log, np.int64(10), batched=False, fuse=True
        )
        return lowered.compile().as_text()


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_one_function(systems, name):
    """In the loop's body: the call of the one function, the call of the engine, copies of single numbers, nothing else."""
    if loop.set_xla_metadata is None:
        pytest.fail("This JAX has no xla_metadata: steps are correct, but several times slower on CPU. See pysamp/loop.py.")
    with pysamp.bind(systems.alanine(), METHODS[name]) as bound:
        text = compiled_text(bound)
    body = re.search(r"while\(.*body=%([\w.\-]+)", text[text.index("\nENTRY") :]).group(1)
    start = text.index(f"\n%{body} (")
    lines = text[start : text.index("\n}", start)].splitlines()[2:]
    operations = [re.search(r"= .*? ([a-z\-]+)\(", line).group(1) for line in lines]
    free = ("parameter", "get-tuple-element", "tuple", "constant", "bitcast", "copy")
    assert sorted(o for o in operations if o not in free) == ["call", "custom-call"], operations
    copied = [re.search(r"= \w+\[(.*?)\]", line).group(1) for line in lines if " copy(" in line]
    assert set(copied) <= {"", "2"}, copied  # counters and the like; never a grid
    (call,) = (line for line in lines if " call(" in line)
    assert 'xla_cpu_small_call="true"' in call
    assert sum('xla_cpu_small_call="true"' in line and " call(" in line for line in text.splitlines()) == 1
    assert not re.search(r"custom_call_target=\"(?!pysamp)", text)


UNUSUAL = """
    import numpy as np, openmm, pysamp, jax, jax.numpy as jnp, equinox as eqx
    from pysamp.backends.openmm import PythonForceRoute
    from pysamp.colvars import Distance, DihedralAngle, Component, Group, custom, combine
    from pysamp.methods import HarmonicBias, HarmonicWalls, Metadynamics, Unbiased
    from pysamp.methods.base import AbstractMethod, Bias
    from pysamp import loop

    class Odd(AbstractMethod):
        "Parameters and parts of the state that nothing, or only XLA, finds unused."
        cvs: tuple
        table: object
        number: object
        def init(self, obs):
            return {"unused": jnp.zeros(7), "const": jnp.ones(300), "empty": jnp.zeros((0, 3)), "n": obs.step, "flag": jnp.array(True)}
        def update(self, state, obs):
            noise = jax.random.normal(obs.key, (3,))
            return state | {"const": jnp.zeros(300), "n": state["n"] * 0 + 1, "flag": ~state["flag"], "unused": noise[0] * jnp.ones(7)}
        def bias(self, state, obs):
            dead = 0 * self.number + jnp.where(jnp.zeros((), bool), jnp.sum(self.table), 0.0) + 0 * state["n"]
            energy = 0.5 * jnp.sum(obs.xi**2) + dead
            return Bias(energy, -obs.xi)

    class Idle(AbstractMethod):
        "A bias without any dependence."
        cvs: tuple
        def init(self, obs): return jnp.zeros(())
        def update(self, state, obs): return state
        def bias(self, state, obs): return Bias(jnp.zeros(()), jnp.zeros_like(obs.xi))

    d, e = Distance([0, 1]), Distance([2, 3])
    const = custom(lambda x: jnp.asarray(1.5), atoms=[0])
    gather = custom(lambda x: jnp.sum(x[jnp.array([3, 1, 0])] ** 2), atoms=[0, 1, 2, 3])
    hills = dict(height=1.0, sigma=0.05, stride=2)
    cases = {
        "unbiased": Unbiased(d),
        "constant CV": HarmonicBias(const, kspring=1.0, center=0.0),
        "constant and other": HarmonicBias([const, d], kspring=1.0, center=0.0),
        "odd": Odd((d,), np.ones(500), np.asarray(3)),
        "idle": Idle((d, e)),
        "shared CVs": (HarmonicBias(d, kspring=1.0, center=0.0), Metadynamics([d, e], **hills), Unbiased(d)),
        "twice the same": (HarmonicBias(d, kspring=1.0, center=0.0),) * 2,
        "walls": HarmonicWalls(d, lower=0.1, upper=0.2, kspring=10.0),
        "zero spring": HarmonicBias(d, kspring=0.0, center=0.0),
        "group": HarmonicBias(Distance([Group([0, 1, 2]), Group([3, 4, 5], weights=1)]), kspring=1.0, center=0.0),
        "large group": HarmonicBias(Distance([Group(list(range(0, 40, 2))), 41]), kspring=1.0, center=0.0),
        "large contiguous group": HarmonicBias(Distance([Group(list(range(0, 40))), 41]), kspring=1.0, center=0.0),
        "scatter": HarmonicBias(gather, kspring=1.0, center=0.0),
        "not in one function": HarmonicBias(custom(lambda x: jnp.linalg.eigvalsh(x.T @ x)[0], atoms=range(5)), kspring=1.0, center=0.0),
        "matrix product": HarmonicBias(custom(lambda x: jnp.sum(x @ x.T @ jnp.ones((42, 99))), atoms=range(42)), kspring=1e-9, center=0.0),
    }

    def start(box):
        system = openmm.System()
        force = openmm.NonbondedForce()
        force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic if box else openmm.NonbondedForce.NoCutoff)
        for _ in range(42):
            system.addParticle(40.0)
            force.addParticle(0.0, 0.3, 0.0)
        system.addForce(force)
        if box:
            system.setDefaultPeriodicBoxVectors(*box)
        context = openmm.Context(system, openmm.LangevinMiddleIntegrator(300, 0, 0.001), openmm.Platform.getPlatformByName("Reference"))
        context.setPositions(np.random.default_rng(0).normal(size=(42, 3)))
        return context

    for box in (None, [[3.0, 0, 0], [0, 3.0, 0], [0, 0, 3.0]], [[3.0, 0, 0], [1.4, 2.8, 0], [-1.2, 1.1, 2.9]]):
        for name, method in cases.items():
            if box and name not in BOXED:
                continue
            print(name, flush=True)
            rows = []
            for wrap in (lambda c: c, PythonForceRoute):
                with pysamp.bind(wrap(start(box)), method) as bound:
                    bound.reserve(10)
                    rows.append(bound.run(5, log_every=1))
            np.testing.assert_allclose(*rows, rtol=1e-9, atol=1e-9, err_msg=name)
    print("fine")
"""


def test_unusual_samplers():
    """In a process of their own, because XLA ends the process where it does not like what it is given."""
    code = textwrap.dedent(UNUSUAL).replace("BOXED", '("constant CV", "large group", "shared CVs")')
    result = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert result.returncode == 0, result.stdout[-200:] + result.stderr[-3000:]
    assert result.stdout.splitlines()[-1] == "fine"


def test_nothing_is_compiled_again(systems):
    """Chunks of any length, another start and another spring: one trace. Growing room for hills: few."""
    context = systems.dimer()
    cv = pysamp.colvars.Distance([0, 1])
    with pysamp.bind(context, HarmonicBias(cv, kspring=1.5, center=0.1)) as bound:
        bound.run(3)
        before = loop.Loop.n_traces
        for n, log_every in ((1, 0), (17, 1), (2, 5)):
            bound.run(n, log_every=log_every)
    with pysamp.bind(context, HarmonicBias(cv, kspring=2.5, center=0.2)) as bound:
        bound.run(3)
    assert loop.Loop.n_traces == before
