"""Umbrella sampling as one run: which window acts where, and that the windows give the exact free energy."""

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp import Grid
from pysamp.analysis import overlap, reduced_potentials, umbrella_integration
from pysamp.backends import toy
from pysamp.colvars import DihedralAngle, Distance
from pysamp.errors import InvalidInputError, PysampWarning, SimulationError
from pysamp.methods import HarmonicBias, UmbrellaSampling, Unbiased
from pysamp.testing import DoubleWell

from .trajectories import observe

pytestmark = pytest.mark.optimized

R, PHI = Distance([0, 1]), DihedralAngle([0, 1, 2, 3])
WELL = DoubleWell(height=5.0, tilt=0.5)
GRID = Grid(-2.0, 2.0, 40)
LEFT, RIGHT = (lambda x: x < 0), (lambda x: x > 0)
CENTERS = np.linspace(-1.5, 1.5, 11)


def at(method, xi, step, start=None):
    state = method.for_replica(method.init(observe(start or xi)), 3)
    now = observe(xi, step)
    return method.bias(method.update(state, now), now)


def test_the_bias_is_that_of_the_replica_s_window():
    method = UmbrellaSampling([R, PHI], centers=[[0.1, 3.0], [0.4, -3.0]], kspring=[[4.0, 2.0], [8.0, 6.0]])
    with jax.enable_x64(True):
        bias = at(method, [0.3, 3.0], 5)  # replica 3 of 2 windows is the second
        np.testing.assert_allclose(bias.energy, 4.0 * 0.1**2 + 3.0 * (2 * math.pi - 6.0) ** 2)
        np.testing.assert_allclose(bias.force, [0.8, 6.0 * (2 * math.pi - 6.0)])
        np.testing.assert_allclose(bias.energy, method.window(1).potential(jnp.array([0.3, 3.0])))


def test_a_restraint_moves_to_its_centre():
    """The short way round for a periodic CV, from where it was at the start."""
    method = UmbrellaSampling(PHI, centers=[0.0, -3.0], kspring=1.0, pull_steps=100)
    way = 2 * math.pi - 6.0
    with jax.enable_x64(True):
        for step, center in ((0, 3.0), (25, 3.0 + 0.25 * way), (100, -3.0), (900, -3.0)):
            np.testing.assert_allclose(at(method, [center], step, start=[3.0]).force, 0.0, atol=1e-12)


def simulation(x=-1.0):
    return toy.Simulation(WELL, [[x, 0.0, 0.0]], timestep=0.05, friction=2.0)


@pytest.fixture(scope="module")
def run():
    method = UmbrellaSampling(WELL.cvs, centers=CENTERS, kspring=25.0, pull_steps=500)
    return pysamp.run(method, simulation, 20_500, replicas=2, seed=5, log_every=10, progress=False)


EXACT = DoubleWell(height=5.0, tilt=0.5).free_energy(GRID)


def exact_difference():
    x = GRID.centers[0]
    return -np.log(np.exp(-EXACT)[x > 0].sum() / np.exp(-EXACT)[x < 0].sum())


def test_every_window_samples_its_own_place(run):
    assert run.n_replicas == 22
    means = run.log.xi.values[:, 200:, 0].mean(axis=1)
    np.testing.assert_allclose(means[:11], means[11:], atol=0.1)
    assert (np.diff(means[:11]) > 0.05).all()  # at the ends the wells hold the windows close together


@pytest.mark.parametrize("estimate", [pysamp.analyze, umbrella_integration], ids=["WHAM", "integration"])
def test_free_energy(run, estimate):
    """Both estimators within 4 standard errors (one false alarm in 16 000), which are small, and the shape of F."""
    fes = estimate(run, grid=GRID)
    value, stderr = fes.difference(LEFT, RIGHT)
    assert stderr < 0.15
    assert abs(value - exact_difference()) < 4 * stderr
    low = EXACT < 6
    assert np.std((fes.values - EXACT)[low]) < 0.15


def test_errors_of_umbrella_integration_are_honest():
    """30 sets of replicas of the windows. False alarms of the coverage: 3 %."""
    method = UmbrellaSampling(WELL.cvs, centers=CENTERS, kspring=25.0, pull_steps=200)
    many = pysamp.run(method, simulation, 3200, replicas=30, seed=6, log_every=10, progress=False)
    found = []
    for copy in range(30):
        which = range(11 * copy, 11 * copy + 11)
        log = many.log.isel(replica=list(which))
        part = pysamp.Run(
            many.methods, many.states[:11], many.snapshots[:11], log, many.kT, many.timestep, many.attributes
        )
        found.append(umbrella_integration(part, grid=GRID).difference(LEFT, RIGHT))
    scaled = np.array([(value - exact_difference()) / stderr for value, stderr in found])
    assert abs(scaled.mean()) < 4 / np.sqrt(30)
    assert 0.5 < np.mean(np.abs(scaled) < 1) < 0.86


def test_windows_as_runs_of_their_own_are_the_same(run):
    """WHAM over a list of HarmonicBias runs: the same numbers."""
    one = pysamp.analyze(run, grid=GRID, discard=0.2)
    xi = run.log.xi.values[:, 50:]  # after the pull
    runs = []
    for w in range(11):
        log = run.log.isel(replica=[w, w + 11], sample=slice(50, None))
        method = HarmonicBias(list(WELL.cvs), kspring=25.0, center=CENTERS[w])
        runs.append(pysamp.Run((method,), run.states[:2], run.snapshots[:2], log, run.kT, run.timestep))
    many = pysamp.analyze(runs, grid=GRID, discard=0.2)
    assert xi.shape[1] == 2000
    np.testing.assert_allclose(many.values, one.values, atol=1e-8)
    np.testing.assert_allclose(many.stderr, one.stderr, atol=1e-8)


PYMBAR = """
import sys, numpy as np
from pymbar import MBAR
data = np.load(sys.argv[1])
found = MBAR(data["u_kn"], data["N_k"]).compute_free_energy_differences()
np.savez(sys.argv[1], value=found["Delta_f"][0], error=found["dDelta_f"][0])
"""


def test_pymbar_agrees(run, tmp_path):
    """MBAR of independent samples: within 4 of pymbar's own standard errors, 10 values. False alarms: 1e-3."""
    pytest.importorskip("pymbar")
    u_kn, n_k = reduced_potentials(run)
    assert n_k.min() > 100
    assert n_k.sum() == u_kn.shape[1]
    path = tmp_path / "mbar.npz"
    np.savez(path, u_kn=u_kn, N_k=n_k)
    subprocess.run([sys.executable, "-c", PYMBAR, path], check=True, timeout=300, capture_output=True)  # it changes JAX
    found = np.load(path)
    x = np.linspace(-2, 2, 4001)
    with jax.enable_x64(True):
        energy = np.asarray(jax.vmap(lambda x: WELL.energy(x[None]))(jnp.asarray(x)))
    exact = np.array([-np.log(np.exp(-energy - 12.5 * (x - c) ** 2).sum()) for c in CENTERS])
    error = found["value"] - (exact - exact[0])
    assert found["error"].max() < 0.3
    assert (np.abs(error[1:]) < 4 * found["error"][1:]).all()


def test_overlap(run):
    matrix = overlap(run)
    np.testing.assert_allclose(matrix.sum("other"), 1.0, atol=1e-4)  # WHAM takes the bias as constant in small cells
    assert (np.diag(matrix, 1) > 0.03).all()
    assert matrix.values[0, -1] < 1e-6


def test_windows_that_hardly_overlap_are_named():
    method = UmbrellaSampling(WELL.cvs, centers=[-1.4, -1.2, -1.0, 0.2, 0.4], kspring=60.0, pull_steps=200)
    poor = pysamp.run(method, simulation, 40_200, seed=5, log_every=20, progress=False)
    with pytest.raises(SimulationError, match="windows. 0 to 2 share no samples with 3 to 4"):
        pysamp.analyze(poor, grid=GRID)
    method = UmbrellaSampling(WELL.cvs, centers=[-1.4, -1.2, -1.0, 0.0, 0.1], kspring=25.0, pull_steps=200)
    poor = pysamp.run(method, simulation, 40_200, seed=5, log_every=20, progress=False)
    with pytest.warns(PysampWarning, match="0 to 2; 3 to 4"):
        pysamp.analyze(poor, grid=GRID)


def test_each_window_may_begin_at_its_own_place():
    """Simulations that differ in positions only run together all the same."""
    method = UmbrellaSampling(WELL.cvs, centers=CENTERS, kspring=25.0)
    starts = [{"x": x} for x in CENTERS]
    run = pysamp.run(method, simulation, 20, context_args=starts, seed=1, log_every=1, progress=False)
    np.testing.assert_allclose(run.log.xi.values[:, 0, 0], CENTERS, atol=1e-12)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"centers": [[1.0, 2.0]], "kspring": 1.0}, "one row of 1"),
        ({"centers": [1.0, np.nan], "kspring": 1.0}, "finite"),
        ({"centers": [1.0, 2.0], "kspring": [1.0, 2.0]}, "kspring must be"),
        ({"centers": [1.0, 2.0], "kspring": -1.0}, "negative"),
        ({"centers": [1.0, 2.0], "kspring": 1.0, "pull_steps": -5}, "pull_steps"),
    ],
)
def test_bad_input(options, text):
    with pytest.raises(InvalidInputError, match=text):
        UmbrellaSampling(R, **options)


def test_two_sets_of_windows_must_agree():
    methods = [UmbrellaSampling(WELL.cvs, centers=range(n), kspring=1.0) for n in (2, 3)]
    with pytest.raises(InvalidInputError, match=r"\[2, 3\]"):
        pysamp.run(methods, simulation, 10, progress=False)


def test_runs_without_windows_say_so(run):
    with pytest.raises(InvalidInputError, match="UmbrellaSampling"):
        overlap(pysamp.run(Unbiased(WELL.cvs), simulation, 100, progress=False))
    with pytest.raises(InvalidInputError, match="whole sets of 11"):
        pysamp.analyze(run.replica(0))
