"""Failures of engine, bias and user: a clear error, and simulation and process live on."""

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp.backends.openmm_host import NativeBound
from pysamp.colvars import Distance, custom
from pysamp.methods import HarmonicBias, Metadynamics, Unbiased
from pysamp.methods.base import AbstractStaticBias

DISTANCE = Distance([0, 1])
BIAS = HarmonicBias(DISTANCE, kspring=800.0, center=0.25)


class BadBeyond(AbstractStaticBias):
    """A bias that is not a number beyond a value."""

    cvs: tuple = (DISTANCE,)
    limit: float = 10.0

    def potential(self, xi):
        return jnp.sqrt(self.limit - xi[0])


def shoot(systems, context, speed=50.0):
    """The dimer's second particle flies away."""
    context.setVelocities([[0, 0, 0], [speed, 0, 0]])
    return context


@pytest.mark.skipif(
    len(getattr(os, "sched_getaffinity", lambda _: ())(0)) < 2, reason="needs two processors, and Linux"
)
@pytest.mark.parametrize("fails", [False, True])
def test_the_loop_follows_the_engine_only_while_it_runs(systems, fails, monkeypatch):
    """From processor to processor."""
    monkeypatch.setenv("PYSAMP_OPENMM_THREAD", "1")
    before, during, owner, over = os.sched_getaffinity(0), set(), threading.get_native_id(), threading.Event()

    def watch():
        while not over.wait(0.001):
            during.add(len(os.sched_getaffinity(owner)))

    context = systems.dimer(kspring=0.0 if fails else 500.0)
    with ThreadPoolExecutor(1) as executor, pysamp.bind(context, BadBeyond(limit=30.0)) as bound:
        bound.run(1)  # compiled
        watching = executor.submit(watch)
        try:
            if fails:
                shoot(systems, context, 1.0)
                with pytest.raises(pysamp.SimulationError):
                    bound.run(10**6)
            else:
                bound.run(50_000)
        finally:
            after = os.sched_getaffinity(0)
            over.set()
        watching.result()
    assert 1 in during
    assert after == before


@pytest.mark.parametrize("own_thread", ["0", "1"])
def test_bias_not_finite(systems, route, own_thread, monkeypatch):
    monkeypatch.setenv("PYSAMP_OPENMM_THREAD", own_thread)
    context = shoot(systems, systems.dimer(kspring=0.0))
    with pysamp.bind(route(context), BadBeyond()) as bound:
        bound.run(10, log_every=1)
        with pytest.raises(
            pysamp.SimulationError, match=r"at step 1\d\d: the bias energy of BadBeyond is nan at CVs \[10"
        ):
            bound.run(100, log_every=1)
        assert np.isfinite(systems.positions(context)).all()
        context.setPositions([[0, 0, 0], [0.3, 0, 0]])
        before = int(bound.states[0].step)
        rows = bound.run(5, log_every=1)  # usable again, without rows of the failed chunk
        assert rows[0, :, 0].tolist() == [*range(before, before + 5)]
    context.getIntegrator().step(3)


def test_cv_not_finite(systems, route):
    context = shoot(systems, systems.dimer(kspring=0.0))
    cv = custom(lambda x: jnp.log(2.0 - x[1, 0]), atoms=[0, 1])
    with (
        pysamp.bind(route(context), HarmonicBias(cv, kspring=1.0, center=0.0)) as bound,
        pytest.raises(pysamp.SimulationError, match=r"at step 1\d: the CV custom\(0, 1\) is nan"),
    ):
        bound.run(100)


def test_engine_error(systems, route):
    """OpenMM's own exception goes through, and the step is named."""
    context = systems.gas(barostat=1)
    with pysamp.bind(route(context), BIAS) as bound:
        bound.run(3)
        context.setPeriodicBoxVectors([1.0, 0, 0], [0, 1.0, 0], [0, 0, 1.0])
        with pytest.raises(pysamp.SimulationError, match="OpenMM stopped at step .*twice the nonbonded cutoff"):
            bound.run(3)
        context.setPeriodicBoxVectors([2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0])
        bound.run(3)


def test_positions_not_finite(systems, route):
    context = systems.dimer()
    with pysamp.bind(route(context), BIAS) as bound:
        context.setPositions([[0, 0, 0], [np.nan, 0, 0]])
        with pytest.raises(pysamp.SimulationError, match=r"at step 0: the CV Distance\(0, 1\) is nan"):
            bound.run(3)
        with pytest.raises(systems.openmm.OpenMMException, match="not finite"):
            context.getState(getEnergy=True)
    assert context.getSystem().getNumForces() == 1


def users_force(function, context_system, particles=None):
    import openmm

    force = openmm.PythonForce(function)
    if particles is not None:
        force.setParticles(particles)
    context_system.addForce(force)


@pytest.mark.parametrize("own_thread", ["0", "1"])
def test_a_users_own_python_force(systems, own_thread, monkeypatch):
    """Runs on the engine's stack, deep recursion and JAX inside included, and may raise there."""
    monkeypatch.setenv("PYSAMP_OPENMM_THREAD", own_thread)
    calls = {"n": 0, "raise": False}
    square = jax.jit(lambda x: jnp.sum(x * x))

    def deep(n):
        return 0 if n == 0 else 1 + deep(n - 1)

    def compute(state):
        calls["n"] += 1
        if calls["raise"]:
            raise ValueError("user's own mistake")
        assert deep(600) == 600
        assert float(square(np.ones(4, dtype=np.float32))) == 4.0
        return 0.0, np.zeros((2, 3))

    system = systems.dimer_system()
    users_force(compute, system)
    context = systems.context(system, systems.langevin(), [[0, 0, 0], [0.33, 0, 0]])
    plain = systems.dimer_system()
    reference = systems.context(plain, systems.langevin(), [[0, 0, 0], [0.33, 0, 0]])
    with pysamp.bind(reference, BIAS) as bound:
        bound.run(10)
        expected = systems.positions(reference)
    context.reinitialize()
    context.setPositions([[0, 0, 0], [0.33, 0, 0]])
    with pysamp.bind(context, BIAS) as bound:
        assert isinstance(bound, NativeBound)
        bound.run(10)
        np.testing.assert_array_equal(systems.positions(context), expected)
        assert calls["n"] >= 10
        calls["raise"] = True
        with pytest.raises(pysamp.SimulationError, match="user's own mistake"):
            bound.run(10)
        calls["raise"] = False
        bound.run(3)


def test_several_contexts_in_turn(systems):
    """Each keeps its own state: the same as one after the other."""
    method = Metadynamics(DISTANCE, height=1.0, sigma=0.02, stride=3)

    def start(i):
        context = systems.dimer(systems.langevin(friction=0.0))
        context.setVelocitiesToTemperature(300.0, i)
        return context

    expected = []
    for i in range(1, 4):
        context = start(i)
        with pysamp.bind(context, method) as bound:
            bound.reserve(30)
            bound.run(30)
            expected.append(systems.positions(context))
    contexts = [start(i) for i in range(1, 4)]
    bounds = [pysamp.bind(context, method) for context in contexts]
    for bound in bounds:
        bound.reserve(30)
    for _ in range(6):
        for bound in bounds:
            bound.run(5)
    for bound, context, positions in zip(bounds, contexts, expected, strict=True):
        np.testing.assert_array_equal(systems.positions(context), positions)
        bound.close()


@pytest.mark.parametrize("own_thread", ["0", "1"])
def test_contexts_in_several_threads(systems, own_thread, monkeypatch):
    monkeypatch.setenv("PYSAMP_OPENMM_THREAD", own_thread)

    def simulate(i):
        context = systems.dimer(systems.langevin(friction=0.0))  # deterministic: random numbers are shared on Reference
        context.setVelocitiesToTemperature(300.0, i)
        with pysamp.bind(context, BIAS) as bound:
            for _ in range(20):
                bound.run(50)
                systems.energy(context)
            assert int(bound.states[0].step) == 1000
        return systems.positions(context)

    alone = [simulate(i) for i in range(1, 5)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(simulate, range(1, 5)))
    np.testing.assert_array_equal(together, alone)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="needs POSIX signals")
def test_ctrl_c_during_a_run(systems, route):
    """Honoured after the chunk, nothing lost; again and again, at random moments."""
    context = systems.dimer()
    random = np.random.default_rng(0)
    n_chunk = 4000
    with pysamp.bind(route(context), BIAS) as bound:
        n_chunk = 4000 if isinstance(bound, NativeBound) else 200
        bound.run(n_chunk)
        for i in range(15):
            started = threading.Event()

            def interrupt(delay, started=started):
                started.wait()
                time.sleep(delay)
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

            thread = threading.Thread(target=interrupt, args=(random.uniform(0, 0.03),))
            thread.start()
            with pytest.raises(KeyboardInterrupt):
                started.set()
                for _ in range(1000):
                    bound.run(n_chunk)
            thread.join()
            assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
            assert int(bound.states[0].step) == context.getStepCount(), i
        bound.run(5)


CASE = """
    import jax
    jax.config.update("jax_cpu_enable_async_dispatch", {asynchronous})
    import numpy as np, openmm, pysamp
    from pysamp.colvars import Distance, custom
    from pysamp.methods import HarmonicBias
    import jax.numpy as jnp
    system = openmm.System()
    for _ in range(16):
        system.addParticle(10.0)
    context = openmm.Context(system, openmm.LangevinMiddleIntegrator(300, 1, 0.001), openmm.Platform.getPlatformByName("CPU"))
    context.setPositions(np.random.default_rng(0).normal(size=(16, 3)))
    many_kernels = custom(lambda x: jnp.sort(x[:, 0])[3] + jnp.sum(x @ x.T @ jnp.ones((16, 300))), atoms=range(16))
    bound = pysamp.bind(context, HarmonicBias([Distance([0, 1]), many_kernels], kspring=0.001, center=0.0))
    for _ in range(5):
        bound.run(100)
        context.getState(getEnergy=True)
    assert int(bound.states[0].step) == 500
    print("fine")  # and Python ends with the simulation bound
"""


@pytest.mark.parametrize(("asynchronous", "own_thread"), [(True, "0"), (False, "1")])
def test_ways_to_run_a_step_of_many_kernels(asynchronous, own_thread):
    """XLA may run such a step in several threads."""
    assert "leaked" not in check_process(CASE.format(asynchronous=asynchronous), PYSAMP_OPENMM_THREAD=own_thread)


def check_process(code, **environment):
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.splitlines()[-1] == "fine"
    return result.stderr


def test_unbiased_runs_on_with_a_cv_that_is_not_finite(systems, route):
    """Observing a CV must not move particles, whatever it is: nothing is applied, nothing is hidden."""
    context = shoot(systems, systems.dimer(kspring=0.0))
    cv = custom(lambda x: jnp.log(2.0 - x[1, 0]), atoms=[0, 1])
    with pysamp.bind(route(context), Unbiased(cv)) as bound:
        try:
            rows = bound.run(40, log_every=1)
        except pysamp.SimulationError as error:
            assert "CV" in str(error)  # noqa: PT017
        else:
            assert np.isnan(rows[0, -1, 1])


FIRST_USE = """
    import sys
    import threading
    from concurrent.futures import ThreadPoolExecutor

    import openmm

    from pysamp.api import describe

    def context():
        system = openmm.System()
        system.addParticle(1.0)
        integrator = openmm.LangevinMiddleIntegrator(300, 1, 0.002)
        return openmm.Context(system, integrator, openmm.Platform.getPlatformByName("Reference"))

    contexts = [context() for _ in range(8)]
    for c in contexts:
        c.setPositions([[0, 0, 0]])
    together = threading.Barrier(len(contexts))

    def use(c):
        together.wait()
        return len(describe(c).masses)

    sys.setswitchinterval(1e-6)
    with ThreadPoolExecutor(len(contexts)) as executor:
        assert list(executor.map(use, contexts)) == [1] * len(contexts)
    print("fine")
"""


def test_several_threads_use_the_backend_first():
    """While one of them imports it, the others do not take it for one that does not know them."""
    check_process(FIRST_USE)
