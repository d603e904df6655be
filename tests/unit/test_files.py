"""Saving and loading runs."""

import math
import subprocess
import sys
import textwrap
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import xarray as xr

import pysamp
from pysamp.backends import toy
from pysamp.colvars import Component, Group, custom
from pysamp.methods import ABF, HarmonicWalls, Metadynamics


def generate_context():
    return toy.Simulation(lambda x: 0.5 * jnp.sum(x**2), np.eye(3), timestep=0.05)


def a_run(methods, **options):
    return pysamp.run(methods, generate_context, 400, log_every=50, progress=False, seed=3, **options)


METHODS = [
    Metadynamics(Component([0], axis=0), height=0.2, sigma=0.2, stride=50, bias_factor=5, grid=pysamp.Grid(-5, 5, 100)),
    HarmonicWalls(Component([Group([0, 1]), 2], axis=1), upper=2.0, kspring=3.0),
    ABF(Component([1], axis=0), grid=pysamp.Grid(-3, 3, 12)),
]


def test_a_loaded_run_is_the_saved_one(tmp_path):
    run = a_run(METHODS, replicas=2)
    pysamp.save(run, tmp_path / "run.nc")
    loaded = pysamp.load(tmp_path / "run.nc")
    xr.testing.assert_equal(loaded.log, run.log)
    for mine, theirs in zip(
        jax.tree.leaves((run.methods, run.states, run.snapshots)),
        jax.tree.leaves((loaded.methods, loaded.states, loaded.snapshots)),
        strict=True,
    ):
        np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))
    assert loaded.methods[0].labels == run.methods[0].labels
    method: Any = loaded.methods[0]
    assert method.grid.periodic == (False,)
    assert (loaded.kT, loaded.timestep) == (run.kT, run.timestep)
    assert loaded.attributes["seed"] == 3


def test_a_loaded_run_goes_on_like_the_original(tmp_path):
    run = a_run(METHODS)
    pysamp.save(run, tmp_path / "run.nc")
    longer = pysamp.run(run, generate_context, 200, progress=False)
    again = pysamp.run(pysamp.load(tmp_path / "run.nc"), generate_context, 200, progress=False)
    np.testing.assert_array_equal(longer.log.xi.values, again.log.xi.values)
    np.testing.assert_array_equal(longer.states[0].methods[0].heights, again.states[0].methods[0].heights)


def test_a_custom_cv_comes_back_without_its_function(tmp_path):
    angle = custom(lambda x: jnp.arctan2(x[0, 1], x[0, 0]), atoms=[0], period=2 * math.pi)
    grid = pysamp.Grid(-math.pi, math.pi, 50, periodic=True)
    method = Metadynamics(angle, height=0.1, sigma=0.3, stride=50, grid=grid)
    run = a_run(method)
    pysamp.save(run, tmp_path / "run.nc")
    loaded = pysamp.load(tmp_path / "run.nc")
    assert loaded.methods[0].labels == method.labels
    assert loaded.methods[0].periods == (2 * math.pi,)
    with pytest.raises(pysamp.CheckpointError, match="method="):
        pysamp.run(loaded, generate_context, 10, progress=False)
    given = pysamp.load(tmp_path / "run.nc", method=method)
    assert int(pysamp.run(given, generate_context, 10, progress=False).states[0].step) == 410


def test_a_full_disk_leaves_the_old_file(tmp_path):
    """In a process of its own, whose files may not grow beyond 20 kB."""
    script = textwrap.dedent(
        """
        import resource, signal, sys
        sys.path.insert(0, sys.argv[2])
        import test_files, pysamp
        run = test_files.a_run(test_files.METHODS)
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
        try:
            pysamp.save(run, sys.argv[1])
        except pysamp.CheckpointError as error:
            print("refused:", error)
        """
    )
    path = tmp_path / "run.nc"
    path.write_bytes(b"older")
    folder = str(__import__("pathlib").Path(__file__).parent)
    done = subprocess.run(
        [sys.executable, "-c", script, str(path), folder], capture_output=True, text=True, check=True, timeout=300
    )
    assert "refused:" in done.stdout
    assert "intact" in done.stdout
    assert path.read_bytes() == b"older"
    assert [p.name for p in tmp_path.iterdir()] == ["run.nc"]


def test_what_is_not_a_run_is_refused(tmp_path):
    with pytest.raises(pysamp.InvalidInputError, match=r"pysamp\.run"):
        pysamp.save({"log": 1}, tmp_path / "run.nc")
    with pytest.raises(pysamp.CheckpointError, match=r"nowhere\.nc"):
        pysamp.load(tmp_path / "nowhere.nc")
    (tmp_path / "text.nc").write_text("not netCDF")
    with pytest.raises(pysamp.CheckpointError, match="cannot be read"):
        pysamp.load(tmp_path / "text.nc")
    with pytest.raises(pysamp.CheckpointError, match="could not be written"):
        pysamp.save(a_run(METHODS[1]), tmp_path / "no" / "folder" / "run.nc")
