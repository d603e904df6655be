"""Path methods that are killed and started again."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest


def start(script, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    return subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name(script)), *map(str, arguments)], env=environment
    )


def written(folder):
    """Changes with every checkpoint."""
    files = sorted(folder.glob("*.npz")) if folder.exists() else []
    return [(file.name, file.stat().st_mtime_ns) for file in files if file.exists()]


def kill(process, folder, delay):
    """Kill a process a moment after it has written something; False if it ended before."""
    before = written(folder)
    while written(folder) == before and process.poll() is None:
        time.sleep(0.001)
    time.sleep(delay)
    alive = process.poll() is None
    process.kill()
    process.wait()
    return alive


@pytest.mark.kill
@pytest.mark.parametrize("n_kills", [1, pytest.param(10, marks=pytest.mark.validation)])
@pytest.mark.parametrize("engine", ["toy", pytest.param("openmm", marks=[pytest.mark.openmm, pytest.mark.validation])])
@pytest.mark.parametrize("script", ["killed_flux.py", pytest.param("killed_string.py", marks=pytest.mark.validation)])
def test_killed_equals_one_that_was_not(script, engine, n_kills, tmp_path):
    if engine == "openmm":
        pytest.importorskip("openmm")
    folder = tmp_path / "path.ckpt"
    assert start(script, engine, "", tmp_path / "whole.npz").wait() == 0
    delays = random.Random(n_kills)
    n_killed = sum(
        kill(start(script, engine, folder, tmp_path / "resumed.npz"), folder, delays.uniform(0.0, 0.1))
        for _ in range(n_kills)
    )
    assert n_killed == n_kills, "the run was too short to be killed: let it do more"
    assert start(script, engine, folder, tmp_path / "resumed.npz").wait() == 0
    with np.load(tmp_path / "whole.npz") as whole, np.load(tmp_path / "resumed.npz") as resumed:
        assert set(whole) == set(resumed)
        for name in whole:
            np.testing.assert_array_equal(whole[name], resumed[name], err_msg=name)
