"""What needs a GPU: the route that is taken, views of the GPU's memory, and that the host does not wait for the GPU."""

import logging
import subprocess
import sys
import textwrap
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

openmm = pytest.importorskip("openmm")

import pysamp  # noqa: E402
from pysamp import bind, describe  # noqa: E402
from pysamp.backends.openmm import PythonForceRoute  # noqa: E402
from pysamp.backends.openmm_cuda import CudaBound  # noqa: E402
from pysamp.backends.openmm_python_force import PythonForceBound  # noqa: E402
from pysamp.colvars import Component, Distance  # noqa: E402
from pysamp.methods import HarmonicBias, Metadynamics, Unbiased  # noqa: E402
from pysamp.sampler import Sampler  # noqa: E402

pytestmark = [pytest.mark.gpu, pytest.mark.openmm]


@pytest.fixture(autouse=True)
def _cuda():
    try:
        openmm.Platform.getPlatformByName("CUDA")
        jax.devices("cuda")
    except (openmm.OpenMMException, RuntimeError) as error:
        pytest.skip(f"no CUDA here: {error}")


def argon(n_side=6, precision="mixed", cutoff=True, platform="CUDA"):
    system, n, spacing = openmm.System(), n_side**3, 0.4
    system.setDefaultPeriodicBoxVectors(*np.diag([n_side * spacing] * 3))
    force = openmm.NonbondedForce()
    force.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic if cutoff else openmm.NonbondedForce.NoCutoff)
    force.setCutoffDistance(0.9)
    for _ in range(n):
        system.addParticle(39.9)
        force.addParticle(0.0, 0.34, 1.0)
    system.addForce(force)
    integrator = openmm.LangevinMiddleIntegrator(120.0, 1.0, 0.002)
    integrator.setRandomNumberSeed(3)
    chosen = openmm.Platform.getPlatformByName(platform)
    context = openmm.Context(system, integrator, chosen, {"Precision": precision} if platform == "CUDA" else {})
    grid = np.stack(np.meshgrid(*[np.arange(n_side)] * 3, indexing="ij"), -1).reshape(-1, 3)
    context.setPositions((grid + 0.5) * spacing + np.random.default_rng(0).normal(scale=0.01, size=(n, 3)))
    context.setVelocitiesToTemperature(120.0, 1)
    return context


def test_the_route_is_the_gpu_s(caplog):
    with caplog.at_level(logging.INFO, logger="pysamp"), bind(argon(), Unbiased([Distance([0, 1])])) as bound:
        assert type(bound) is CudaBound
        assert bound.states[0].xi.devices().pop().platform == "gpu"
    assert "on the same GPU" in caplog.text
    with bind(PythonForceRoute(argon()), Unbiased([Distance([0, 1])])) as bound:
        assert type(bound) is PythonForceBound
        assert bound.states[0].xi.devices().pop().platform == "cpu"


def test_the_host_platforms_keep_to_the_host():
    """With a GPU as JAX's default device."""
    with bind(argon(platform="Reference"), Unbiased([Distance([0, 1])])) as bound:
        bound.run(3)
        assert bound.states[0].xi.devices().pop().platform == "cpu"


@pytest.mark.parametrize("precision", ["double", "mixed", "single"])
def test_arrays_are_openmm_s_memory(precision):
    """OpenMM's memory belongs to a CUDA context of its own. In a process of its own: a wrong address ends all use of the GPU."""
    script = f"""
        import sys
        sys.path.insert(0, {str(__file__.rsplit("/", 1)[0])!r})
        import jax, jax.numpy as jnp, numpy as np
        from test_cuda import argon, Distance, Unbiased, bind
        context = argon(precision={precision!r})
        with bind(context, Unbiased([Distance([0, 1])])) as bound:
            bound.run(600)
            state = context.getState(getPositions=True, getVelocities=True, getForces=True)
            arrays = bound.arrays
            assert all(arrays[name].address == bound.arrays[name].address for name in ("positions", "velocities", "forces"))
            box = np.diag([2.4] * 3)
            x = np.asarray(arrays["positions"].array)
            moved = (x - state.getPositions(asNumpy=True)._value) / 2.4
            np.testing.assert_allclose(moved, np.round(moved), atol=1e-5)
            v, f = (np.asarray(arrays[name].array) for name in ("velocities", "forces"))
            np.testing.assert_allclose(v, state.getVelocities(asNumpy=True)._value, rtol=1e-6)
            np.testing.assert_allclose(f, state.getForces(asNumpy=True)._value, rtol=1e-6, atol=1e-6)
            total = jax.jit(lambda v: jnp.sum(v, axis=0))(arrays["velocities"])
            np.testing.assert_allclose(total, v.sum(axis=0), rtol=1e-4, atol=1e-4)
            print("all is well")
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=300
    )
    assert "all is well" in result.stdout, result.stderr[-3000:]


def test_the_host_does_not_wait_for_the_gpu():
    """The host has enqueued some steps of many particles long before the GPU has done them.

    Without a cutoff, because OpenMM's neighbour list makes the host wait once per step by itself; and few steps, because the
    driver takes about a thousand kernels before it makes the host wait.
    """
    context = argon(n_side=34, cutoff=False)
    n_steps = 8
    grid = pysamp.Grid((0.0,), (20.0,), (1000,))
    method = Metadynamics([Distance([0, 1])], height=0.1, sigma=0.05, stride=2, grid=grid)
    with CudaBound(context, Sampler.build(method, describe(context)), None) as bound:
        bound.run(n_steps)
        context.getState(getPositions=True)
        before = bound._hook.counts[0]
        worker = threading.Thread(target=bound.run, args=(n_steps,))
        start = time.perf_counter()
        worker.start()
        while bound._hook.counts[0] < before + n_steps and worker.is_alive():
            time.sleep(1e-5)
        enqueued = time.perf_counter() - start
        worker.join()
        done = time.perf_counter() - start
    assert enqueued < 0.5 * done


def test_groups_of_many_atoms():
    context = argon(n_side=16)
    first, second = list(range(2000)), list(range(2000, 4096))
    cv = Distance([pysamp.Group(first), pysamp.Group(second)])
    with bind(context, HarmonicBias([cv], kspring=100.0, center=0.5)) as bound:
        for _ in range(3):
            bound.run(150)
            x = context.getState(getPositions=True).getPositions(asNumpy=True)._value
            bound.run(1)
            particles = bound.sampler.particles(bound.snapshots()[0])
            assert np.isfinite(np.asarray(bound.sampler.xi(particles))).all()
            assert x.shape == (4096, 3)


def test_run_from_a_script(tmp_path):
    """The same script as on a CPU: log, checkpoint, callback, and a second run that goes on."""
    seen = []

    def look(bound, step):
        seen.append((step, np.asarray(bound.arrays["positions"].array).shape))

    method = Metadynamics([Component([0], axis=0)], height=0.1, sigma=0.05, stride=50, kT=1.0)
    run = pysamp.run(
        method,
        argon,
        1000,
        log_every=100,
        callback=pysamp.Callback(look, every=500),
        checkpoint=tmp_path / "checkpoint",
        progress=False,
    )
    assert dict(run.log.sizes)["sample"] == 10
    assert seen == [(500, (216, 3)), (1000, (216, 3))]
    longer = pysamp.run(run, argon, 500, progress=False)
    assert int(longer.states[0].step) == 1500
    assert isinstance(jnp.asarray(longer.states[0].xi), jax.Array)
