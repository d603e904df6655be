"""Checkpoints: exact resumption, real kills, full disks, and checkpoints of other runs."""

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

import pysamp
from pysamp import _drive
from pysamp._serial import to_arrays
from pysamp.backends import toy
from pysamp.checkpoint import Checkpoint, definition
from pysamp.colvars import Component, Group, custom
from pysamp.methods import HarmonicBias, Metadynamics

resource = pytest.importorskip("resource")

X = Component([0], axis=0)
HILLS = Metadynamics(X, height=0.3, sigma=0.2, stride=3)
SPRING = HarmonicBias(X, kspring=1.0, center=0.5)


def potential(x):
    return jnp.sum((x[:, 0] ** 2 - 1.0) ** 2) + 0.5 * jnp.sum(x[:, 1:] ** 2)


def generate_context(start=1.0, n=1, timestep=0.01, masses=1.0):
    return toy.Simulation(potential, [[start, 0.0, 0.0]] * n, timestep=timestep, masses=masses)


def assert_same(one, other):
    """Equal to the last bit: states, snapshots, log."""
    a, b = (to_arrays([run.states, run.snapshots]) for run in (one, other))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)
    assert one.log.identical(other.log)


class Killed(Exception):  # noqa: N818
    pass


def die_at(step):
    def die(bound, now):
        if now == step:
            raise Killed

    return pysamp.Callback(die, every=step)


def start_and_die(path, step=150, method=SPRING, **kwargs):
    with pytest.raises(Killed):
        pysamp.run(method, generate_context, checkpoint=path, callback=die_at(step), **{"timesteps": 200, **kwargs})


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.ckpt"


@pytest.mark.parametrize("method", [SPRING, HILLS], ids=["static", "hills"])
def test_the_same_call_goes_on(path, method):
    whole = pysamp.run(method, generate_context, 1500, log_every=7, seed=1)
    kwargs = {"log_every": 7, "seed": 1, "timesteps": 1500}
    start_and_die(path, 1100, method, checkpoint_every=64, **kwargs)
    resumed = []
    run = pysamp.run(
        method,
        generate_context,
        checkpoint=path,
        checkpoint_every=64,
        callback=pysamp.Callback(lambda bound, step: resumed.append(step), every=1),
        **kwargs,
    )
    assert_same(run, whole)
    assert resumed == list(range(1089, 1501))  # 1088 = 17 * 64


def test_a_finished_run_is_read_and_goes_on_if_more_is_asked_for(path):
    def stepped(bound, step):
        raise AssertionError

    kwargs = {"log_every": 7, "seed": 1}
    first = pysamp.run(SPRING, generate_context, 100, checkpoint=path, **kwargs)
    assert_same(pysamp.run(SPRING, generate_context, 100, checkpoint=path, callback=stepped, **kwargs), first)
    longer = pysamp.run(SPRING, generate_context, 200, checkpoint=path, **kwargs)
    assert_same(longer, pysamp.run(SPRING, generate_context, 200, **kwargs))
    with pytest.raises(pysamp.CheckpointError, match="at step 200, beyond the 150 steps"):
        pysamp.run(SPRING, generate_context, 150, checkpoint=path, **kwargs)


def test_what_was_left_open_comes_from_the_checkpoint(path):
    first = pysamp.run(SPRING, generate_context, 100, checkpoint=path, log_every=5, seed=3, replicas=2)
    again = pysamp.run(SPRING, generate_context, 10_000, checkpoint=path, replicas=2)
    assert again.attributes["seed"] == 3
    assert again.log.step.values.tolist() == list(range(0, 10_000, 5))
    assert again.log.isel(sample=slice(20)).identical(first.log)


def test_without_a_stride_checkpoints_go_by_the_clock(path, monkeypatch):
    monkeypatch.setattr(_drive, "_CHECKPOINT_INTERVAL", 0.0)
    monkeypatch.setattr(_drive, "_WORK_PER_WRITE", 0.0)
    monkeypatch.setattr(_drive, "_CHUNK", 0.02)
    start_and_die(path, 200_000, timesteps=10**6)
    with Checkpoint(path, 0) as checkpoint:
        assert checkpoint.step
        assert checkpoint.step < 200_000


def test_replicas_go_on_each_from_its_own_checkpoint(path):
    starts = [{"start": 1.0}, {"start": -1.0, "masses": 2.0}]  # too different to run together
    kwargs = {"replicas": 2, "context_args": starts, "log_every": 7, "seed": 1}
    seen = []

    def die(bound, step):
        seen.append(step)
        if seen.count(150) == 2:
            raise Killed

    whole = pysamp.run(SPRING, generate_context, 200, **kwargs)
    with pytest.raises(Killed):
        pysamp.run(
            SPRING,
            generate_context,
            200,
            checkpoint=path,
            checkpoint_every=20,
            callback=pysamp.Callback(die, 50),
            **kwargs,
        )
    with ThreadPoolExecutor(1) as executor:
        assert_same(pysamp.run(SPRING, generate_context, 200, checkpoint=path, executor=executor, **kwargs), whole)


def test_a_continued_run_has_a_checkpoint_of_its_own(path, tmp_path):
    kwargs = {"log_every": 7, "checkpoint_every": 20}
    first = pysamp.run(SPRING, generate_context, 100, seed=1, checkpoint=path, **kwargs)
    with pytest.raises(pysamp.CheckpointError, match="first step is 0 there and 100 in this call"):
        pysamp.run(first, generate_context, 100, checkpoint=path, **kwargs)
    second = tmp_path / "second"
    with pytest.raises(Killed):
        pysamp.run(first, generate_context, 100, checkpoint=second, callback=die_at(150), **kwargs)
    whole = pysamp.run(SPRING, generate_context, 200, seed=1, log_every=7)
    assert_same(pysamp.run(first, generate_context, 100, checkpoint=second, **kwargs), whole)
    other = pysamp.run(SPRING, generate_context, 100, seed=2, log_every=7)
    with pytest.raises(pysamp.CheckpointError, match="seed is 1 there and 2"):
        pysamp.run(other, generate_context, 100, checkpoint=second, **kwargs)


def test_ctrl_c_writes_a_checkpoint(path):
    interrupt = pysamp.Callback(lambda bound, step: signal.raise_signal(signal.SIGINT), every=130)
    with pytest.raises(pysamp.RunInterrupted, match="goes on from the checkpoint"):
        pysamp.run(SPRING, generate_context, 200, seed=1, checkpoint=path, callback=interrupt)
    with Checkpoint(path, 0) as checkpoint:
        assert checkpoint.step == 130
    run = pysamp.run(SPRING, generate_context, 200, seed=1, checkpoint=path)
    assert_same(run, pysamp.run(SPRING, generate_context, 200, seed=1))


def test_a_run_that_fails_names_the_last_good_checkpoint(path):
    def generate():
        return toy.Simulation(lambda x: 1e12 * jnp.sum(x**4), [[1.0, 0.0, 0.0]], timestep=1.0)

    with pytest.raises(pysamp.SimulationError, match=r"last good checkpoint is '.*run.ckpt' at step 0"):
        pysamp.run(SPRING, generate, 1000, checkpoint=path)


# ------------------------------------------------------------------------------------------------------ other runs


OTHER_CALLS = {
    "spring": (
        {"method": HarmonicBias(X, kspring=2.0, center=0.5)},
        r"methods\[0\].kspring\[0\]\[0\] is 1.0 there and 2.0",
    ),
    "kind": ({"method": HILLS}, r"methods\[0\].class is HarmonicBias there and Metadynamics"),
    "atom": (
        {"method": HarmonicBias(Component([1], axis=0), kspring=1.0, center=0.5)},
        r"cvs\[0\].atoms\[0\] is 0 there",
    ),
    "seed": ({"seed": 2}, "seed is 1 there and 2"),
    "stride": ({"log_every": 5}, "log_every is 10 there and 5"),
    "replicas": ({"replicas": 2}, "replicas is 1 there and 2"),
    "time step": ({"context_args": {"n": 2, "timestep": 0.005}}, "timestep is 0.01 there and 0.005"),
    "system": ({"context_args": {"n": 3}}, "number of particles is 2 there and 3"),
}


@pytest.mark.parametrize(("change", "text"), OTHER_CALLS.values(), ids=OTHER_CALLS)
def test_a_checkpoint_of_another_run_is_refused(path, change, text):
    call = {"method": SPRING, "seed": 1, "log_every": 10, "context_args": {"n": 2}, "timesteps": 50, "checkpoint": path}
    pysamp.run(call.pop("method"), generate_context, **call)
    call = {"method": SPRING, **call, **change}
    with pytest.raises(pysamp.CheckpointError, match=text):
        pysamp.run(call.pop("method"), generate_context, **call)


def test_a_cv_whose_function_changed_is_noticed(path):
    def run(function):
        method = HarmonicBias(custom(function, atoms=[0]), kspring=1.0, center=0.5)
        return pysamp.run(method, generate_context, 50, seed=1, checkpoint=path)

    run(lambda x: x[0, 0])
    run(lambda y: y[0, 0])
    with pytest.raises(pysamp.CheckpointError, match="Has its function changed"):
        run(lambda x: 2 * x[0, 0])


def test_definitions_are_plain():
    text = json.dumps(definition((HILLS, HarmonicBias(custom(jnp.sin, atoms=[Group([1, 2])]), kspring=1, center=0))))
    assert "0x" not in text  # no addresses: they change from process to process
    assert definition(np.zeros(1000)) != definition(np.ones(1000))


# ------------------------------------------------------------------------------------------------- files that fail


def test_unusable_paths_are_found_before_the_first_step(path):
    path.write_text("something else")
    for name in (path, path / "below"):
        with pytest.raises(pysamp.CheckpointError, match="cannot be written"):
            pysamp.run(SPRING, lambda: pytest.fail("was called"), 10, checkpoint=name)


def test_two_runs_cannot_share_a_checkpoint(path):
    with Checkpoint(path, 0), pytest.raises(pysamp.CheckpointError, match="Another run"):
        pysamp.run(SPRING, generate_context, 10, checkpoint=path)


@pytest.mark.parametrize("damage", ["npz", "log", "format"])
def test_damaged_files_are_named(path, damage):
    pysamp.run(SPRING, generate_context, 100, log_every=1, checkpoint=path)
    if damage == "log":
        os.truncate(path / "0000.log", 100)
    elif damage == "npz":
        os.truncate(path / "0000.npz", 300)
    else:
        with np.load(path / "0000.npz") as stored:
            arrays = dict(stored)
        header = json.loads(str(arrays.pop("header"))) | {"format": 99}
        np.savez(path / "0000.npz", header=np.array(json.dumps(header)), **arrays)
    with pytest.raises(pysamp.CheckpointError, match="format 99" if damage == "format" else "cannot be read"):
        pysamp.run(SPRING, generate_context, 100, log_every=1, checkpoint=path)


@contextlib.contextmanager
def no_room(n_bytes):
    """Files cannot grow beyond ``n_bytes``, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (n_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_found_before_the_first_step(path):
    def stepped(bound, step):
        raise AssertionError

    with no_room(0), pytest.raises(pysamp.CheckpointError, match="could not be written at step 0"):
        pysamp.run(SPRING, generate_context, 100, log_every=1, checkpoint=path, callback=stepped)


@pytest.mark.parametrize("n_bytes", [1000, 3000], ids=["state", "log"])
def test_a_disk_that_fills_up_leaves_the_last_checkpoint(path, n_bytes):
    """The log has 24 bytes a row; the state file about 4000 bytes."""
    kwargs = {"log_every": 1, "seed": 1, "checkpoint": path}
    kwargs["checkpoint_every"] = 20
    with contextlib.ExitStack() as stack:

        def fill(bound, step):
            if step == 70:
                stack.enter_context(no_room(n_bytes))

        with pytest.raises(pysamp.CheckpointError, match=r"at step 80.*checkpoint, at step 60, is intact"):
            pysamp.run(SPRING, generate_context, 200, callback=fill, **kwargs)
    run = pysamp.run(SPRING, generate_context, 200, **kwargs)
    assert_same(run, pysamp.run(SPRING, generate_context, 200, log_every=1, seed=1))


# ------------------------------------------------------------------------------------------------------- real kills


def run_script(*arguments):
    script = Path(__file__).with_name("killed_run.py")
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.Popen([sys.executable, str(script), *map(str, arguments)], env=environment)


def progress(folder):
    """Changes with every checkpoint."""
    with contextlib.suppress(FileNotFoundError):
        return (folder / "0000.npz").stat().st_ino, (folder / "0000.npz").stat().st_mtime_ns
    return None


def kill(process, folder, delay):
    """Kill a process a moment after it has written a checkpoint; False if it ended before."""
    before = progress(folder)
    while progress(folder) == before and process.poll() is None:
        time.sleep(0.001)
    time.sleep(delay)
    alive = process.poll() is None
    process.kill()
    process.wait()
    return alive


@pytest.mark.kill
@pytest.mark.parametrize("n_kills", [2, pytest.param(12, marks=pytest.mark.validation)])
@pytest.mark.parametrize(
    ("engine", "package"),
    [
        pytest.param("toy", "jax", marks=pytest.mark.validation),
        pytest.param("openmm", "openmm", marks=pytest.mark.openmm),
        pytest.param("PythonForce", "openmm", marks=[pytest.mark.openmm, pytest.mark.validation]),
        pytest.param("hoomd", "hoomd", marks=pytest.mark.hoomd),
    ],
)
def test_a_killed_run_equals_one_that_was_not(engine, package, n_kills, tmp_path):
    """Kills fall before, within and after the writing of checkpoints, which takes much of this run's time."""
    pytest.importorskip(package)
    folder = tmp_path / "run.ckpt"
    assert run_script(engine, "", tmp_path / "whole.npz").wait() == 0
    delays = random.Random(n_kills)
    n_killed = sum(
        kill(run_script(engine, folder, tmp_path / "resumed.npz"), folder, delays.uniform(0.0, 0.1))
        for _ in range(n_kills)
    )
    assert n_killed == n_kills, "the run was too short to be killed: let it take more steps"
    assert run_script(engine, folder, tmp_path / "resumed.npz").wait() == 0
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "resumed.npz") as resumed:
        assert set(whole) == set(resumed)
        for name in whole:
            np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name)
