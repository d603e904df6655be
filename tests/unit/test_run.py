"""run: continuation, replicas, executors, callbacks, Ctrl-C, and errors before step 0."""

import multiprocessing
import os
import signal
import sys
import threading
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor

import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp import _drive
from pysamp._serial import to_arrays
from pysamp.backends import toy
from pysamp.colvars import Component, custom
from pysamp.loop import MAX_ROWS, Loop
from pysamp.methods import ABF, HarmonicBias, HarmonicWalls, Metadynamics, Unbiased

X = Component([0], axis=0)
GRID = pysamp.Grid(-2.0, 2.0, 32)
WALLS = HarmonicWalls(X, lower=-1.8, upper=1.8, kspring=100.0)
METHODS = {
    "gridded": [Metadynamics(X, height=0.3, sigma=0.2, stride=20, bias_factor=8, grid=GRID), WALLS],
    "hills": Metadynamics(X, height=0.3, sigma=0.2, stride=3),
    "abf": ABF(X, grid=GRID),
}
SPRING = HarmonicBias(X, kspring=1.0, center=0.5)  # compiles quickly


def potential(x):
    return jnp.sum((x[:, 0] ** 2 - 1.0) ** 2) + 0.5 * jnp.sum(x[:, 1:] ** 2)


def generate_context(start=1.0, seed=0, masses=1.0):
    return toy.Simulation(potential, [[start, 0.0, 0.0]], timestep=0.01, seed=seed, masses=masses)


def assert_same(one, other):
    """Equal to the last bit: states, snapshots, log."""
    a, b = (to_arrays([run.states, run.snapshots]) for run in (one, other))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert one.log.identical(other.log)


def assert_close(one, other):
    """Equal to rounding: replicas in one program are added up in another order than one alone."""
    a, b = (to_arrays([run.states, run.snapshots]) for run in (one, other))
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=1e-9, atol=1e-9, err_msg=name)
    np.testing.assert_allclose(one.log.xi, other.log.xi, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_a_continued_run_equals_one_long_run(method):
    whole = pysamp.run(method, generate_context, 1500, log_every=7, seed=1)
    part = pysamp.run(method, generate_context, 400, log_every=7, seed=1)
    assert_same(pysamp.run(part, generate_context, 1100), whole)
    assert_same(pysamp.run(part, generate_context, 1100), whole)  # the first result is not used up
    assert whole.log.step.values.tolist() == list(range(0, 1500, 7))


def test_the_log_has_names():
    log = pysamp.run(METHODS["gridded"], generate_context, 600, log_every=100).log
    assert dict(log.sizes) == {"replica": 1, "sample": 6, "cv": 2, "method": 2}
    assert log.cv.values.tolist() == ["Component(0).x", "Component(0).x [HarmonicWalls]"]
    assert log.method.values.tolist() == ["Metadynamics", "HarmonicWalls"]
    assert log.cv_unit.values.tolist() == ["length", "length"]
    np.testing.assert_allclose(log.time, 0.01 * log.step)
    np.testing.assert_array_equal(log.bias_energy, log.method_energy.sum("method"))
    # a hill every 20 steps, the first after 20; the step itself is counted
    np.testing.assert_array_equal(log["Metadynamics.n_hills"][0], np.arange(6) * 5)
    assert log.xi.sel(replica=0, cv="Component(0).x")[0] == 1.0


def test_a_continuation_may_log_at_another_stride():
    run = pysamp.run(SPRING, generate_context, 50, log_every=20)
    run = pysamp.run(run, generate_context, 50, log_every=5)
    assert run.log.step.values.tolist() == [0, 20, 40, *range(50, 100, 5)]
    assert run.attributes["timesteps"] == 100


@pytest.mark.parametrize(("n_steps", "stride"), [(1, 1), (3999, 1), (4000, 2), (500_000, 200), (10**9, 500_000)])
def test_default_stride(n_steps, stride):
    assert sys.modules["pysamp.run"]._default_stride(n_steps) == stride


def test_attributes_tell_where_a_run_comes_from():
    attributes = pysamp.run(SPRING, generate_context, 200, seed=5).attributes
    assert attributes["seed"] == 5
    assert attributes["engine"] == "toy"
    assert attributes["pysamp"] == pysamp.__version__
    assert attributes["timesteps"] == 200
    assert attributes["wall_time"] > attributes["seconds_per_step"] > 0


def test_states_are_in_double_precision_and_the_default_is_left_alone():
    run = pysamp.run(SPRING, generate_context, 10)
    assert run.states[0].xi.dtype == np.float64
    assert jnp.zeros(1).dtype == np.float32


def test_results_do_not_depend_on_the_chunks(monkeypatch):
    whole = pysamp.run(SPRING, generate_context, 300, log_every=3, seed=1)
    monkeypatch.setattr(_drive, "_CHUNK", 1e-6)
    assert_same(pysamp.run(SPRING, generate_context, 300, log_every=3, seed=1), whole)


def test_no_row_is_lost_where_a_chunk_has_more_than_fit():
    run = pysamp.run(Unbiased(X), generate_context, 3 * MAX_ROWS + 5, log_every=1)
    assert run.log.step.values.tolist() == list(range(3 * MAX_ROWS + 5))


def test_nothing_recompiles_during_a_run():
    run = pysamp.run(METHODS["gridded"], generate_context, 100)
    before = Loop.n_traces
    run = pysamp.run(run, generate_context, 3000, callback=pysamp.Callback(lambda bound, step: None, every=17))
    assert Loop.n_traces == before


# ----------------------------------------------------------------------------------------------------------- replicas


def test_replicas_differ_and_repeat():
    runs = [pysamp.run(SPRING, generate_context, 200, replicas=3, seed=s, log_every=10) for s in (1, 1, 2)]
    assert_same(runs[0], runs[1])
    ends = np.array([s.positions for run in (runs[0], runs[2]) for s in run.snapshots])
    assert len(np.unique(ends[:, 0, 0])) == 6
    assert runs[0].log.sizes["replica"] == 3
    keys = {tuple(np.asarray(state.key).tolist()) for state in runs[0].states}
    assert len(keys) == 3


def test_replicas_without_a_seed_differ():
    run = pysamp.run(SPRING, generate_context, 50, replicas=2)
    assert run.snapshots[0].positions[0, 0] != run.snapshots[1].positions[0, 0]


def test_without_a_seed_the_engine_keeps_its_own():
    one, two = (pysamp.run(SPRING, lambda: generate_context(seed=4), 50) for _ in range(2))
    np.testing.assert_array_equal(one.snapshots[0].positions, two.snapshots[0].positions)


def test_continued_replicas_equal_one_long_run():
    whole = pysamp.run(SPRING, generate_context, 300, replicas=2, log_every=10, seed=1)
    part = pysamp.run(SPRING, generate_context, 100, replicas=2, log_every=10, seed=1)
    assert_same(pysamp.run(part, generate_context, 200), whole)


def spawn():
    return ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))


@pytest.mark.parametrize("make_executor", [lambda: ThreadPoolExecutor(2), spawn], ids=["threads", "processes"])
def test_executors_give_what_this_process_gives(make_executor):
    kwargs = {"replicas": 2, "context_args": [{"start": -1.0}, {"start": 1.0}], "log_every": 10, "seed": 1}
    here = pysamp.run(SPRING, generate_context, 100, **kwargs)
    assert here.log.xi[:, 0, 0].values.tolist() == [-1.0, 1.0]

    def generate(start):  # cannot be imported elsewhere, as in a script
        return toy.Simulation(potential, [[start, 0.0, 0.0]], timestep=0.01)

    with make_executor() as executor:
        assert_close(pysamp.run(SPRING, generate, 100, executor=executor, **kwargs), here)


def test_replicas_in_an_executor_go_on():
    starts = [{"start": -1.0}, {"start": 1.0}]
    kwargs = {"context_args": starts, "log_every": 10}
    whole = pysamp.run(SPRING, generate_context, 100, replicas=2, seed=1, **kwargs)
    part = pysamp.run(SPRING, generate_context, 50, replicas=2, seed=1, **kwargs)
    with ThreadPoolExecutor(1) as executor:
        assert_close(pysamp.run(part, generate_context, 50, executor=executor, **kwargs), whole)


def test_an_error_in_an_executor_comes_back():
    with ThreadPoolExecutor(1) as executor, pytest.raises(pysamp.InvalidInputError, match="particle 7"):
        pysamp.run(Unbiased(Component([7], axis=0)), generate_context, 10, replicas=3, executor=executor)


# ------------------------------------------------------------------------------------------- callbacks, reports, Ctrl-C


def test_callbacks_come_at_multiples_and_see_the_present():
    seen = []

    def look(bound, step):
        x = float(bound.arrays["positions"].reshape(-1)[0])
        seen.append((step, int(bound.states[0].step), x == bound.snapshots()[0].positions[0, 0]))

    pysamp.run(SPRING, generate_context, 100, callback=pysamp.Callback(look, every=30))
    assert seen == [(step, step, True) for step in (30, 60, 90)]


def test_reports_come_at_their_steps(monkeypatch):
    steps = []
    monkeypatch.setattr(toy.ToyBound, "steps_until_report", lambda self, n: min(n, 7 - int(self.states[0].step) % 7))
    monkeypatch.setattr(toy.ToyBound, "report", lambda self: steps.append(int(self.states[0].step)))
    pysamp.run(SPRING, generate_context, 30)
    assert {7, 14, 21, 28} <= set(steps)


def interrupt(bound, step):
    signal.raise_signal(signal.SIGINT)


def test_ctrl_c_keeps_what_was_done():
    whole = pysamp.run(SPRING, generate_context, 500, log_every=10, seed=1)
    with pytest.raises(KeyboardInterrupt, match="at step 200 of 500") as caught:
        pysamp.run(SPRING, generate_context, 500, log_every=10, seed=1, callback=pysamp.Callback(interrupt, every=200))
    assert isinstance(caught.value, pysamp.RunInterrupted)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert_same(pysamp.run(caught.value.run, generate_context, 300), whole)


def test_a_second_ctrl_c_stops_at_once():
    def twice(bound, step):
        interrupt(bound, step)
        interrupt(bound, step)
        pytest.fail("went on")

    with pytest.raises(KeyboardInterrupt) as caught:
        pysamp.run(SPRING, generate_context, 100, log_every=10, callback=twice)
    assert type(caught.value) is KeyboardInterrupt
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_stops_the_replicas_that_wait():
    with pytest.raises(pysamp.RunInterrupted, match="equally far") as caught:
        pysamp.run(
            SPRING,
            generate_context,
            100,
            replicas=2,
            context_args=[{"masses": 1.0}, {"masses": 2.0}],  # so that they run one after the other
            callback=interrupt,
        )
    assert caught.value.run is None


def test_ctrl_c_stops_threads():
    def note(bound, step):
        if step == 1000 and threading.current_thread().name.endswith("_0"):
            os.kill(os.getpid(), signal.SIGINT)  # reaches the main thread, which waits

    with ThreadPoolExecutor(2) as executor, pytest.raises(pysamp.RunInterrupted):
        pysamp.run(SPRING, generate_context, 10**6, log_every=1000, replicas=2, executor=executor, callback=note)


def test_a_progress_bar_counts_the_steps(monkeypatch, capsys):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    pysamp.run(SPRING, generate_context, 200)
    assert "200/200" in capsys.readouterr().err
    pysamp.run(SPRING, generate_context, 200, progress=False)
    assert capsys.readouterr().err == ""


# ------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"timesteps": 0}, "timesteps must be a positive whole number, got 0"),
        ({"timesteps": 10.5}, "timesteps must be"),
        ({"timesteps": "many"}, "timesteps must be"),
        ({"timesteps": None}, "timesteps must be"),
        ({"replicas": 0}, "replicas must be a positive"),
        ({"log_every": -1}, "log_every must be a positive"),
        ({"generate_context": None}, "generate_context must be a function"),
        ({"generate_context": generate_context()}, "without calling it"),
        ({"context_args": [{}, {}]}, "2 entries for 1 replicas.*replicas=2"),
        ({"context_args": 300}, "must be a dictionary"),
        ({"checkpoint_every": 10}, "give checkpoint="),
        ({"checkpoint": 3}, "name of a folder"),
        ({"seed": -1}, "seed must be"),
        ({"seed": 1.5}, "seed must be"),
        ({"callback": 3}, "callback must be a function"),
        ({"executor": "threads"}, "executor must be"),
        ({"methods": X}, "Expected a method"),
        ({"methods": []}, "at least one method"),
        ({"methods": Unbiased(Component([1], axis=0))}, "particle 1, but the system has 1"),
    ],
)
def test_bad_arguments_are_refused(arguments, text):
    good = {"methods": SPRING, "generate_context": generate_context, "timesteps": 10}
    arguments = good | arguments
    with pytest.raises(pysamp.InvalidInputError, match=text):
        pysamp.run(arguments.pop("methods"), **arguments)


def test_counts_may_be_written_as_floats():
    assert pysamp.run(SPRING, generate_context, 1e2).attributes["timesteps"] == 100


def test_an_unknown_option_is_an_error():
    with pytest.raises(TypeError, match="log_stride"):
        pysamp.run(SPRING, generate_context, 10, log_stride=3)


@pytest.mark.parametrize("returned", [None, 3, "simulation"])
def test_a_generator_must_return_a_simulation(returned):
    with pytest.raises(pysamp.UnsupportedError, match="return simulation"):
        pysamp.run(SPRING, lambda: returned, 10)


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (lambda x: jnp.log(x[0, 0] - 5.0), "is nan on the snapshot"),
        (lambda x: x[0], r"must return a scalar, got an array of shape \(3,\)"),
        (lambda x: np.sin(x[0, 0]) if x[0, 0] > 0 else x[0, 0], "JAX operations"),
    ],
    ids=["nan", "vector", "numpy"],
)
def test_bad_cvs_are_found_before_step_0(function, text):
    def stepped(bound, step):
        pytest.fail("went on")

    with pytest.raises(pysamp.InvalidInputError, match=text):
        pysamp.run(Unbiased(custom(function, atoms=[0])), generate_context, 10, log_every=1, callback=stepped)


@pytest.mark.parametrize("every", [0, 2.5, "often"])
def test_a_callback_needs_a_stride(every):
    with pytest.raises(pysamp.InvalidInputError, match="every must be a positive whole number"):
        pysamp.Callback(print, every=every)


def test_kt_must_be_known():
    system = pysamp.describe(generate_context())
    with pytest.raises(pysamp.InvalidInputError, match="kT="):
        pysamp.Sampler.build(METHODS["hills"], pysamp.System(masses=system.masses, timestep=system.timestep))


def test_a_result_goes_on_with_its_own_system_only():
    run = pysamp.run(SPRING, generate_context, 10)
    with pytest.raises(pysamp.InvalidInputError, match="masses differ"):
        pysamp.run(run, lambda: toy.Simulation(potential, np.zeros((2, 3))), 10)


@pytest.mark.parametrize("change", [{"timestep": 0.02}, {"kT": 2.0}], ids=["time step", "kT"])
def test_a_result_goes_on_under_its_own_conditions_only(change):
    run = pysamp.run(SPRING, generate_context, 10)
    with pytest.raises(pysamp.InvalidInputError, match="Make them equal, or begin a new run"):
        pysamp.run(run, lambda: toy.Simulation(potential, [[0.0, 0.0, 0.0]], **{"timestep": 0.01, **change}), 10)


def test_a_run_that_fails_says_what_to_do():
    def generate():
        return toy.Simulation(lambda x: 1e12 * jnp.sum(x**4), [[1.0, 0.0, 0.0]], timestep=1.0)

    with pytest.raises(pysamp.SimulationError, match=r"step \d+.*give checkpoint="):
        pysamp.run(HarmonicBias(X, kspring=1.0, center=0.0), generate, 1000)


# ---------------------------------------------------------------------------------------------------------- citations


def test_citation_collects_the_references_of_a_run():
    text = pysamp.citation(pysamp.run(METHODS["gridded"], generate_context, 10))
    assert "10.1103/PhysRevLett.100.020603" in text
    assert "jax" in text
    with pytest.raises(pysamp.InvalidInputError, match="citation takes"):
        pysamp.citation("metadynamics")


def test_states_are_used_without_a_warning():
    """Outside enable_x64 JAX warns about its own arrays of 64 bits, and warnings are errors here."""
    (state,) = pysamp.run(METHODS["hills"], generate_context, 100, seed=1).states
    assert (state.methods[0].heights[:33] == 0.3).all()
    assert state.step + 1 == 101
