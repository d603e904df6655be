"""Forward flux sampling: rates against brute force, the tree of paths, interfaces that are never reached, resumption."""

import signal
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rates import count_transitions

import pysamp
from pysamp._serial import to_arrays
from pysamp.backends import toy
from pysamp.colvars import Component, Displacement
from pysamp.methods import Unbiased
from pysamp.paths import ForwardFlux, ForwardFluxRun, Interface, committor
from pysamp.paths._crossing import CROSSED, OUT_OF_TIME, RETURNED, Crossing, crossing_state
from pysamp.paths._frames import Frames
from pysamp.paths._segments import Segments
from pysamp.paths.flux_result import wilson
from pysamp.testing import DoubleWell, check_method

pytestmark = pytest.mark.optimized

MODEL = DoubleWell(height=4.0)
X = MODEL.cvs[0]
METHOD = ForwardFlux(X, interfaces=[-0.8, -0.5, -0.2, 0.7], n_initial=100, n_trials=150, n_equilibration=200)
N = 50


def generate_context(start=-1.0):
    return toy.Simulation(MODEL, [[start, 0.0, 0.0]], timestep=0.05)


def run_it(method: Any = METHOD, timesteps=10**7, **options):
    return pysamp.run(method, generate_context, timesteps, **{"replicas": N, "seed": 3, "progress": False, **options})


@pytest.fixture(scope="module")
def result():
    return run_it()


@pytest.fixture(scope="module")
def watched():
    """x at every step of many replicas without a bias."""
    run = pysamp.run(Unbiased(X), generate_context, 4000, replicas=300, log_every=1, seed=5, progress=False)
    return run.log["xi"].values[..., 0]


def assert_same(one, other):
    a, b = ([to_arrays(interface) for interface in run.interfaces] for run in (one, other))
    assert len(a) == len(b)
    for first, second in zip(a, b, strict=True):
        assert first.keys() == second.keys()
        for name in first:
            np.testing.assert_array_equal(first[name], second[name], err_msg=name)
    np.testing.assert_array_equal(one.walker_steps, other.walker_steps)
    assert one.message == other.message


# ------------------------------------------------------------------------------------------------------ the rate


def test_the_rate_is_that_of_brute_force(result, watched):
    """Within 3 standard errors; the seeds are fixed. Catches a flux that counts recrossings, crossings that are taken where
    waits are long, trials that begin at other points than crossings, or a clock that runs while a walker is in B.
    """
    exact, error = count_transitions(watched, -0.8, 0.7, 0.05)
    rate = pysamp.analyze(result)
    assert error < 0.1 * exact
    assert rate.stderr < 0.5 * rate.value
    assert abs(rate.value - exact) < 3 * np.hypot(rate.stderr, error)
    assert rate.value < rate.upper_bound < 3 * rate.value
    assert rate.n_roots[0] == result.interfaces[0].n_points >= 100


def test_the_flux_is_that_of_brute_force(result, watched):
    """Crossings of the first interface: no more than 3 standard errors away."""
    x = watched
    state = np.where(x < -0.8, 1, np.where(x >= 0.7, 2, 0))
    last = np.maximum.accumulate(np.where(state > 0, np.arange(x.shape[1]), 0), axis=1)
    in_a = np.take_along_axis(state, last, axis=1) == 1
    exact = np.sum((x[:, :-1] < -0.8) & (x[:, 1:] >= -0.8)) / (in_a.sum() * 0.05)
    rate = pysamp.analyze(result)
    assert abs(rate.flux - exact) < 3 * rate.flux_stderr < 0.5 * exact


def tree(succeeded=(True, False, True, True), second=(True, False, False, True)):
    """Two walkers with two crossings, four trials, three or fewer points, four trials more."""
    none, like = np.zeros(0, dtype=np.int64), pysamp.Snapshot(np.zeros((1, 3)), None, np.ones(1))

    def interface(value, n, **arrays):
        parts = dict.fromkeys(("trial", "root", "walker", "n_steps", "parent", "trial_steps"), none)
        parts |= {"succeeded": np.zeros(0, dtype=bool), "highest": np.zeros(0)}
        frames = Frames.of([pysamp.Snapshot(np.full((1, 3), value + i), None, np.ones(1)) for i in range(n)], like)
        return Interface(value=np.asarray(value), frames=frames, **{**parts, **arrays})

    def trials(parent, success):
        return {
            "parent": np.array(parent),
            "succeeded": np.array(success),
            "trial_steps": np.ones(len(parent), dtype=np.int64),
            "highest": np.zeros(len(parent)),
        }

    def points(trial, root):
        trial = np.array(trial, dtype=np.int64)
        return {"trial": trial, "root": np.array(root), "walker": np.array(root) // 2, "n_steps": np.ones_like(trial)}

    first = interface(0.0, 4, **points([-1] * 4, [0, 1, 2, 3]), **trials([0, 1, 2, 3], succeeded))
    made = np.flatnonzero(succeeded)
    parents = np.arange(len(second)) % len(made)
    middle = interface(10.0, len(made), **points(made, made), **trials(parents, second))
    reached = np.flatnonzero(second)
    last = interface(20.0, len(reached), **points(reached, made[parents[reached]]))
    return ForwardFluxRun(METHOD, (first, middle, last), np.ones(1), 1.0, 0.5, np.array([40, 60]))


def test_a_rate_by_hand():
    rate = pysamp.analyze(tree())
    assert rate.flux == pytest.approx(4 / 50)
    np.testing.assert_allclose(rate.probabilities, [3 / 4, 1 / 2])
    assert rate.value == pytest.approx(4 / 50 * 3 / 4 / 2)
    assert rate.n_roots.tolist() == [4, 3, 1]
    assert rate.n_trials.tolist() == [4, 4]


def test_wilson_by_hand():
    """z = 1: centre (k + 1/2) / (n + 1), half-width sqrt(k (n - k) / n + 1/4) / (n + 1)."""
    low, high = wilson(3, 12, confidence=0.6826894921370859)
    assert (low, high) == pytest.approx((3.5 / 13 - np.sqrt(2.5) / 13, 3.5 / 13 + np.sqrt(2.5) / 13))
    assert wilson(0, 10)[0] == 0.0
    assert wilson(10, 10)[1] == 1.0


def test_committors_by_hand():
    """Points 0, 1, 2 of the middle interface have trials 0 and 3, 1, 2, of which 0 and 3 succeed."""
    found = committor(tree())
    middle = found.where(found.interface == 1, drop=True)
    assert middle.committor.values.tolist() == [1.0, 0.0, 0.0]
    assert found.where(found.interface == 0, drop=True).committor.values.tolist() == [1.0, 0.0, 0.0, 0.0]
    np.testing.assert_allclose(found["mean"], [3 / 8, 1 / 2, 1.0])


def test_paths_by_hand():
    path = tree().path(1)
    assert [float(snapshot.positions[0, 0]) for snapshot in path] == [0.0, 10.0, 21.0]
    with pytest.raises(pysamp.InvalidInputError, match="2 points at this interface, but 2"):
        tree().path(2)


def test_committors_rise_along_the_way(result):
    means = committor(result)["mean"].values
    assert (np.diff(means) > 0).all()
    assert means[-1] == 1.0


# ------------------------------------------------------------------------------------------------------ the tree


def test_points_lie_just_beyond_their_interface(result):
    """By less than a step can go; each trial's point descends from its parent."""
    for interface in result.interfaces:
        x = interface.frames.positions[:, 0, 0]
        assert (x >= interface.value).all()
        assert (x < interface.value + 0.4).all()
    for before, after in zip(result.interfaces[:-1], result.interfaces[1:], strict=True):
        np.testing.assert_array_equal(after.root, before.root[before.parent[after.trial]])
        assert before.succeeded.sum() == after.n_points
        assert np.ptp(np.bincount(before.parent, minlength=before.n_points)) <= 1


def test_a_trial_repeats_what_the_engine_does(result):
    """From the point of a trial with its seed, the unbiased engine comes to the next point, and not before it ends."""
    from pysamp.paths._segments import seed_of

    first, second = result.interfaces[:2]
    trial = int(second.trial[0])
    start = first.frames.snapshot(int(first.parent[trial]), result.masses)
    with pysamp.bind(generate_context(), Unbiased(X)) as bound:
        bound.reseed([seed_of(3, 1, 1, trial)])
        bound.restore([start])
        n = int(first.trial_steps[trial])
        rows = bound.run(n, log_every=1)
        end = bound.snapshots()[0]
    assert (rows[0, :, 1] < -0.5).all()
    np.testing.assert_allclose(end.positions, second.frames.positions[0], rtol=1e-9)


def test_save_and_load(result, tmp_path):
    pysamp.save(result, tmp_path / "rate.nc")
    loaded = pysamp.load(tmp_path / "rate.nc")
    assert_same(loaded, result)
    assert pysamp.analyze(loaded).value == pysamp.analyze(result).value
    assert loaded.method.cv.labels == X.labels
    assert loaded.attributes["seed"] == 3


def test_falling_interfaces(result):
    """The mirror image, with the same random numbers but for the noise's sign: another run, the same rate."""
    method = ForwardFlux(X, interfaces=[0.8, 0.5, 0.2, -0.7], n_initial=100, n_trials=150, n_equilibration=200)
    run = run_it(method, context_args={"start": 1.0})
    one, other = pysamp.analyze(result), pysamp.analyze(run)
    assert abs(one.value - other.value) < 3 * np.hypot(one.stderr, other.stderr)
    assert (run.interfaces[1].frames.positions[:, 0, 0] <= 0.5).all()


def test_interfaces_are_placed_for_the_probability_asked_for():
    method = ForwardFlux(X, interfaces=[-0.8, 0.7], target=0.4, n_pilot=100, n_trials=150, n_equilibration=200)
    run = run_it(method)
    rate = pysamp.analyze(run)
    assert len(rate.interfaces) > 3
    assert (np.diff(rate.interfaces) > 0).all()
    assert rate.interfaces[[0, -1]].tolist() == [-0.8, 0.7]
    assert (np.abs(rate.probabilities[:-1] - 0.4) < 0.25).all()  # 4 standard errors of pilot and trials together


# --------------------------------------------------------------------------------------- where it cannot be reached


def test_an_interface_that_is_never_reached():
    method = ForwardFlux(X, interfaces=[-0.8, -0.5, 3.0], n_initial=60, n_trials=60, n_equilibration=200)
    run = run_it(method)
    assert not run.is_complete
    assert "None of the 60 trials from interface 1, at -0.5, reached the next, at 3" in run.message
    rate = pysamp.analyze(run)
    assert rate.value == 0.0
    expected = rate.flux * rate.probabilities[0] * (1 - 0.05 ** (1 / 60))
    assert rate.upper_bound == pytest.approx(expected)
    assert rate.message == run.message
    with pytest.raises(pysamp.InvalidInputError, match="None of the 60 trials"):
        committor(run)


def test_a_first_interface_that_is_never_crossed():
    method = ForwardFlux(X, interfaces=[1.2, 2.0], basin=-0.8, n_equilibration=100)
    run = run_it(method, timesteps=20_000)
    rate = pysamp.analyze(run)
    assert rate.value == 0.0
    assert "no walker crossed the first interface" in rate.message
    assert rate.upper_bound == pytest.approx(-np.log(0.05) / (run.walker_steps.sum() * 0.05))
    assert run.attributes["timesteps"] <= 20_000


def test_a_walker_that_is_not_in_the_basin():
    with pytest.raises(pysamp.InvalidInputError, match="did not come into it in 3 steps"):
        run_it(ForwardFlux(X, interfaces=[-3.0, 0.0], n_equilibration=3))


# ------------------------------------------------------------------------------------------------------ going on


def test_more_steps_go_on_from_the_checkpoint(result, tmp_path):
    folder = tmp_path / "flux.ckpt"
    spent = result.attributes["timesteps"]
    for part in (0.02, 0.3, 0.7):
        run = run_it(timesteps=int(part * spent), checkpoint=folder)
        assert "steps that were granted" in run.message
        assert np.isnan(pysamp.analyze(run).value) or not run.interfaces
    assert_same(run_it(checkpoint=folder), result)
    assert_same(run_it(checkpoint=folder, seed=None), result)  # all is there, the seed too


@pytest.mark.parametrize("n_calls", [1, 6, 20])
def test_a_run_that_dies_goes_on(result, n_calls, tmp_path, monkeypatch):
    """A number of calls of the engine, then the end; the checkpoint is written after each of them."""
    calls = 0
    whole = Segments.run

    def dies(self, *args):
        nonlocal calls
        calls += 1
        if calls > n_calls:
            raise ZeroDivisionError
        return whole(self, *args)

    monkeypatch.setattr(Segments, "run", dies)
    with pytest.raises(ZeroDivisionError):
        run_it(checkpoint=tmp_path / "c", checkpoint_every=1)
    monkeypatch.setattr(Segments, "run", whole)
    assert_same(run_it(checkpoint=tmp_path / "c"), result)


def test_a_checkpoint_of_another_run_is_refused(tmp_path):
    folder = tmp_path / "c"
    run_it(timesteps=1000, checkpoint=folder)
    for options, text in (({"seed": 4}, "seed is 3 there and 4"), ({"replicas": 7}, "replicas is 50 there and 7")):
        with pytest.raises(pysamp.CheckpointError, match=text):
            run_it(timesteps=1000, checkpoint=folder, **options)
    with pytest.raises(pysamp.CheckpointError, match=r"method.n_trials is 150 there and 9"):
        run_it(ForwardFlux(X, interfaces=METHOD.interfaces, n_initial=100, n_trials=9), checkpoint=folder)
    plain = tmp_path / "plain"
    pysamp.run(Unbiased(X), generate_context, 10, checkpoint=plain, progress=False)
    with pytest.raises(pysamp.CheckpointError, match="another kind of run"):
        run_it(checkpoint=plain)


def test_ctrl_c(result, tmp_path, monkeypatch):
    whole, calls = Segments.run, 0

    def interrupted(self, *args):
        nonlocal calls
        calls += 1
        if calls == 5:
            signal.raise_signal(signal.SIGINT)
        return whole(self, *args)

    monkeypatch.setattr(Segments, "run", interrupted)
    with pytest.raises(pysamp.RunInterrupted, match="goes on from the checkpoint"):
        run_it(checkpoint=tmp_path / "c")
    assert_same(run_it(checkpoint=tmp_path / "c"), result)


def test_an_executor():
    """Trajectories of their own on two threads: the same as another time, and a rate."""
    method = ForwardFlux(X, interfaces=[-0.8, -0.6, -0.4], n_initial=8, n_trials=8, n_equilibration=100)
    runs = []
    for _ in range(2):
        with ThreadPoolExecutor(2) as executor:
            runs.append(run_it(method, executor=executor, replicas=2))
    assert_same(*runs)
    with pytest.raises(pysamp.InvalidInputError, match=r"executor must be a concurrent.futures.Executor"):
        run_it(method, executor=3)


# ------------------------------------------------------------------------------------------------ what is refused


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"interfaces": [0.0]}, "at least two numbers"),
        ({"interfaces": [0.0, 1.0, 0.5]}, "must rise, or fall"),
        ({"basin": 0.5}, "basin must not lie beyond the first interface"),
        ({"target": 1.5}, "between 0 and 1"),
        ({"n_trials": 0}, "n_trials must be a positive whole number"),
        ({"cv": Displacement([0, 1])}, "one CV of one component"),
        ({"cv": pysamp.colvars.DihedralAngle([0, 1, 2, 3])}, "without a period"),
    ],
)
def test_what_makes_no_sense_is_refused(change, text):
    options = {"cv": X, "interfaces": [0.0, 1.0], **change}
    with pytest.raises(pysamp.InvalidInputError, match=text):
        ForwardFlux(options.pop("cv"), **options)


def test_misspelt_options_are_refused():
    with pytest.raises(TypeError):
        run_it(chekpoint="x")


# ------------------------------------------------------------------------------------------- stopping at a crossing


def test_contract_of_the_method_that_watches():
    check_method(Crossing(cvs=(Component([0], axis=0),), sign=np.asarray(1.0)))


def test_a_method_that_stops_is_not_run_by_itself():
    with pytest.raises(pysamp.InvalidInputError, match="Crossing ends its trajectories by itself"):
        pysamp.run(Crossing(cvs=(X,), sign=np.asarray(1.0)), generate_context, 10, progress=False)


def test_replicas_stop_each_at_its_own_crossing():
    """Compared with the same replicas watched at every step: none stops late, early, or moves on afterwards."""
    from pysamp.backends.toy import _Replicas

    def replicas():
        return _Replicas([toy.Simulation(MODEL, [[-1.0, 0.0, 0.0]], timestep=0.05, seed=s) for s in range(6)])

    with pysamp.bind(replicas(), Unbiased(X)) as bound:
        x = bound.run(1000, log_every=1)[:, :, 1]
    state = crossing_state(basin=-1.25, interface=-0.75, target=np.inf, is_trial=True, in_basin=True, limit=60)
    crossing = Crossing(cvs=(X,), sign=np.asarray(1.0))
    with pysamp.bind(replicas(), crossing) as bound, jax.enable_x64(True):
        bound.states = [
            pysamp.SamplerState(s.step, s.key, (jax.tree.map(jnp.asarray, state),), s.xi, s.forces, s.energies, s.lists)
            for s in bound.states
        ]
        bound.run(7)
        bound.run(1000)
        ends, snapshots = bound.states_on_host, bound.snapshots()
        assert bound.stopped.all()
    outcomes = set()
    for row, end, snapshot in zip(x, ends, snapshots, strict=True):
        decided = (row < -1.25) | (row >= -0.75)
        decided[60] = True
        step = int(np.argmax(decided))
        value = row[step]
        outcome = RETURNED if value < -1.25 else CROSSED if value >= -0.75 else OUT_OF_TIME
        outcomes.add(outcome)
        assert int(end.methods[0].outcome) == outcome
        assert int(end.methods[0].n_steps) == step
        assert snapshot.positions[0, 0] == pytest.approx(value, rel=1e-12)
        assert float(end.methods[0].highest) == pytest.approx(row[: step + 1].max(), rel=1e-12)
    assert len(outcomes) > 1
