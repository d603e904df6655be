"""String methods: the path of minimum free energy of Müller and Brown, mean forces, periodic CVs, resumption."""

import math
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.interpolate import CubicSpline

import pysamp
from pysamp.backends import toy
from pysamp.colvars import Component, Distance, custom
from pysamp.paths import MeanForceString, SwarmString
from pysamp.paths._image import Image, image_state
from pysamp.paths._segments import Segments
from pysamp.paths.string_method import arc_length, equally_spaced
from pysamp.testing import MuellerBrown, check_method

pytestmark = pytest.mark.optimized

MODEL = MuellerBrown(scale=0.05)
SADDLES = np.array([[-0.82200, 0.62431], [0.21249, 0.29299]])
MINIMA = np.array([[-0.55822, 1.44173], [0.62350, 0.02804]])
BARRIERS = 0.05 * (146.6995 - np.array([40.6648, 72.2489]))
LINE = {"path": MINIMA, "n_images": 24, "kspring": 500.0}
METHOD = MeanForceString(MODEL.cvs, n_steps=100, n_equilibration=50, step=3.0, **LINE)
ITERATION = 24 * 150


def generate_context(x=-0.5582, y=1.4417):
    return toy.Simulation(MODEL, [[x, y, 0.0]], kT=0.05, timestep=0.02, friction=5.0)


def run_it(method: Any = METHOD, timesteps=10 * ITERATION, **options):
    return pysamp.run(method, generate_context, timesteps, **{"seed": 1, "progress": False, **options})


def distance_to(path, points):
    """Of each point to the spline through the images."""
    s = np.linspace(0, 1, len(path))
    fine = CubicSpline(s, path)(np.linspace(0, 1, 4000))
    return np.linalg.norm(fine[:, None] - points[None], axis=-1).min(axis=0)


def maxima(fes):
    s = np.linspace(0, 1, len(fes.values))
    fine = CubicSpline(s, fes.values)(np.linspace(0, 1, 4000))
    return fine[1:-1][(fine[1:-1] > fine[:-2]) & (fine[1:-1] > fine[2:])]


@pytest.mark.parametrize(
    ("method", "n_steps", "tolerance"),
    [
        (METHOD, 150 * ITERATION, 0.03),
        pytest.param(
            SwarmString(MODEL.cvs, n_steps=50, n_equilibration=30, n_swarm=10, n_release=10, **LINE),
            100 * 24 * 190,
            0.04,
            marks=pytest.mark.validation,
        ),
    ],
    ids=["mean force", "swarms"],
)
def test_the_path_of_mueller_and_brown(method, n_steps, tolerance):
    """At kT = 1/40 of the barrier the path of minimum free energy is that of the potential: through both saddle points, from one
    minimum to another, with the potential's barriers between them (3 %, and 4 of the stated errors).
    """
    result = run_it(method, n_steps)
    fes = pysamp.analyze(result)
    assert (distance_to(fes.path, SADDLES) < tolerance).all()
    assert (np.linalg.norm(fes.path[[0, -1]] - MINIMA, axis=1) < tolerance).all()
    found = maxima(fes)
    assert len(found) == 2
    assert (np.abs(found - BARRIERS) < np.maximum(0.03 * BARRIERS, 4 * fes.stderr.max())).all()
    assert (fes.stderr < 0.2).all()
    value, error = fes.difference(0, -1)
    assert abs(value - 0.05 * (146.6995 - 108.1667)) < 4 * error + 0.01
    lengths = np.linalg.norm(np.diff(result.path, axis=0), axis=1)
    assert np.ptp(lengths) < 0.1 * lengths.mean()  # chords, shorter where they cut a corner
    assert result.drift[-1] < 0.03 < np.linalg.norm(result.paths[0] - result.path, axis=1).mean()


def test_the_metric_turns_the_way_downhill():
    """Masses 1 and 4: the metric is diag(1, 1/4), so the one moves by step, the other by a quarter of it."""

    def generate():
        return toy.Simulation(
            lambda x: 0.5 * jnp.sum((x - 1.0) ** 2), np.zeros((2, 3)), masses=[1.0, 4.0], kT=1e-6, timestep=0.05
        )

    cvs = [Component([0], axis=0), Component([1], axis=0)]
    method = MeanForceString(
        cvs, path=[[0, 0], [0.5, 0.1], [0.4, 0.2]], n_images=3, kspring=1.0, n_steps=600, n_equilibration=600, step=0.1
    )
    result = pysamp.run(method, generate, 3 * 1200 * 3, seed=1, progress=False)
    ends = [0, -1]  # the middle is moved along the string as well
    force = (1.0 - result.paths[0]) / 2  # spring and potential in series: the average is half-way to the minimum
    np.testing.assert_allclose(-result.gradients[0], force, atol=0.01)
    moved = result.paths[1] - result.paths[0]
    np.testing.assert_allclose(moved[ends], 0.1 * (force * [1.0, 0.25])[ends], atol=2e-3)


def test_a_swarm_drifts_as_its_mean_does():
    """In a harmonic well the mean of a swarm follows the noiseless integrator (V R O R), from rest half-way to the well."""

    def generate():
        return toy.Simulation(
            lambda x: 0.5 * jnp.sum((x - 1.0) ** 2), [[0.0, 0, 0]], kT=1e-8, timestep=0.1, friction=0.5
        )

    method = SwarmString(
        Component([0], axis=0),
        path=[0.0, 0.4],
        n_images=3,
        kspring=1.0,
        n_swarm=4,
        n_release=7,
        n_steps=4,
        n_equilibration=2000,
    )
    result = pysamp.run(method, generate, 3 * 8000, seed=1, progress=False)
    moved = []
    for z in (0.0, 0.4):
        x, v, keep = (z + 1.0) / 2, 0.0, math.exp(-0.05)
        for _ in range(7):
            v += 0.1 * (1.0 - x)
            x += 0.05 * v * (1 + keep)
            v *= keep
        moved.append(x)
    np.testing.assert_allclose(result.paths[1][[0, -1], 0], moved, atol=1e-3)


def test_constraints_take_their_part_of_the_metric():
    """The distance of two particles of mass 1 and 4 has the inverse mass 5/4, and 0 where it is constrained."""
    import equinox as eqx
    import jax

    system = pysamp.System(masses=np.array([1.0, 4.0]), timestep=0.1, kT=1.0)
    method = Image(cvs=(Distance([0, 1]),), kspring=np.array([1.0]))
    x = np.array([[0.0, 0.0, 0.0], [1.0, 2.0, 2.0]])
    with jax.enable_x64(True):
        for constraints, expected in (([], 1.25), ([[0, 1]], 0.0)):
            constrained = eqx.tree_at(
                lambda s: s.constraints, system, np.array(constraints, dtype=np.int64).reshape(-1, 2)
            )
            sampler = pysamp.Sampler.build(method, constrained)
            particles = pysamp.Particles(jnp.asarray(x))
            state, _ = sampler.step(sampler.init(particles), particles)
            assert float(state.methods[0].inverse_mass[0, 0]) == pytest.approx(expected, abs=1e-12)
            assert not sampler.needs_velocities


def test_a_periodic_cv_goes_the_short_way():
    """From 3 to -3 over pi, in a ring whose potential pulls to pi: the images stay together, and F is that of the ring."""

    def ring(x):
        angle = jnp.arctan2(x[0, 1], x[0, 0])
        radius = jnp.sqrt(x[0, 0] ** 2 + x[0, 1] ** 2)
        return 100.0 * (radius - 1.0) ** 2 + 2.0 * jnp.cos(angle) + 0.5 * x[0, 2] ** 2

    def generate():
        return toy.Simulation(ring, [[math.cos(2.5), math.sin(2.5), 0.0]], kT=0.1, timestep=0.02, friction=2.0)

    angle = custom(lambda x: jnp.arctan2(x[0, 1], x[0, 0]), atoms=[0], period=2 * math.pi)
    method = MeanForceString(
        angle, path=[2.4, -2.4], n_images=7, kspring=100.0, n_steps=400, n_equilibration=100, fixed_ends=True
    )
    assert method.path[-1, 0] == pytest.approx(2 * math.pi - 2.4)
    result = pysamp.run(method, generate, 20 * 7 * 500, seed=1, progress=False)
    fes = pysamp.analyze(result, discard=0.1)
    expected = 2.0 * (np.cos(fes.path[:, 0]) - np.cos(fes.path[0, 0]))
    assert (np.abs(fes.values - expected) < 4 * fes.stderr + 0.01).all()
    assert (fes.stderr[1:] < 0.1).all()
    assert result.path[0, 0] == pytest.approx(2.4)


def test_images_may_begin_where_the_user_says():
    starts = [{"x": float(x), "y": float(y)} for x, y in METHOD.path]
    result = run_it(timesteps=4 * ITERATION, context_args=starts)
    assert len(result.gradients) == 3
    positions = result.frames.positions[:, 0, :2]
    assert (np.linalg.norm(positions - result.paths[-2], axis=1) < 0.1).all()


def assert_same(one, other):
    np.testing.assert_array_equal(one.paths, other.paths)
    np.testing.assert_array_equal(one.gradients, other.gradients)
    np.testing.assert_array_equal(one.frames.positions, other.frames.positions)


SWARM = SwarmString(MODEL.cvs, n_swarm=3, n_steps=30, n_equilibration=20, **LINE)


@pytest.mark.parametrize("method", [METHOD, pytest.param(SWARM, marks=pytest.mark.validation)])
def test_a_string_that_dies_goes_on(method, tmp_path, monkeypatch):
    whole = run_it(method, 90_000)
    calls, run = 0, Segments.run

    def dies(self, *args):
        nonlocal calls
        calls += 1
        if calls > 35:
            raise ZeroDivisionError
        return run(self, *args)

    monkeypatch.setattr(Segments, "run", dies)
    with pytest.raises(ZeroDivisionError):
        run_it(method, 90_000, checkpoint=tmp_path / "c", checkpoint_every=1)
    monkeypatch.setattr(Segments, "run", run)
    assert_same(run_it(method, 90_000, checkpoint=tmp_path / "c"), whole)


def test_more_steps_go_on(tmp_path):
    run_it(timesteps=ITERATION * 6, checkpoint=tmp_path / "c")
    assert_same(run_it(timesteps=ITERATION * 9, checkpoint=tmp_path / "c"), run_it(timesteps=ITERATION * 9))
    with pytest.raises(pysamp.CheckpointError, match=r"method.step is 3.0 there and 2.0"):
        run_it(MeanForceString(MODEL.cvs, n_steps=100, n_equilibration=50, step=2.0, **LINE), checkpoint=tmp_path / "c")


def test_save_and_load(tmp_path):
    result = run_it()
    pysamp.save(result, tmp_path / "string.nc")
    loaded = pysamp.load(tmp_path / "string.nc")
    assert_same(loaded, result)
    assert isinstance(loaded.method, MeanForceString)
    assert len(loaded.snapshots()) == 24
    np.testing.assert_array_equal(pysamp.analyze(loaded).values, pysamp.analyze(result).values)


def test_a_tolerance_ends_the_run():
    loose = MeanForceString(MODEL.cvs, n_steps=20, n_equilibration=10, step=1.0, tolerance=10.0, **LINE)
    assert len(run_it(loose, 10**6).gradients) == 9  # as many as make two averages over five strings


def test_too_few_steps():
    with pytest.raises(pysamp.InvalidInputError, match="do not suffice for the first iteration of 24 images"):
        run_it(timesteps=100)


def test_equal_spacing_by_hand():
    """A corner of sides 3 and 1; with the second CV weighed a quarter, 3 and 0.5."""
    corner = np.array([[0.0, 0.0], [3.0, 0.0], [3.0, 1.0]])
    np.testing.assert_allclose(equally_spaced(corner, np.ones(2), 5), [[0, 0], [1, 0], [2, 0], [3, 0], [3, 1]])
    np.testing.assert_allclose(arc_length(corner, np.array([4.0, 1.0])), [0.0, 3.0, 3.5])


def test_contract_of_the_method_that_holds_an_image():
    check_method(Image(cvs=(Distance([0, 1]),), kspring=np.array([2.0])))
    assert image_state([1.0]).center.tolist() == [1.0]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"path": [[0.0, 0.0]]}, "at least two points"),
        ({"path": [[0.0], [1.0]]}, "at least two points of 2 CVs"),
        ({"path": [[1.0, 1.0], [1.0, 1.0]]}, "from one point to another"),
        ({"n_images": 2}, "three images at least"),
        ({"kspring": 0.0}, "kspring must be positive"),
        ({"step": 0.0}, "step must be positive"),
        ({"smoothing": 2.0}, "smoothing must lie between 0 and 1"),
    ],
)
def test_what_makes_no_sense_is_refused(change, text):
    with pytest.raises(pysamp.InvalidInputError, match=text):
        MeanForceString(MODEL.cvs, **{**LINE, **change})
    if "step" not in change:
        with pytest.raises(pysamp.InvalidInputError, match=text):
            SwarmString(MODEL.cvs, **{**LINE, **change})


def test_a_swarm_needs_steps_to_begin_from():
    with pytest.raises(pysamp.InvalidInputError, match="let n_steps be 20 at least"):
        SwarmString(MODEL.cvs, n_steps=10, **LINE)
