"""The compiled loop: one function per step, for whatever sampler, and without crashing XLA."""

import os
import re
import subprocess
import sys
from math import pi
from pathlib import Path

import jax
import numpy as np
import pytest

import pysamp
from pysamp import loop
from pysamp.backends.openmm_host import HostEngine
from pysamp.colvars import DihedralAngle
from pysamp.methods import ABF, HarmonicBias, Metadynamics

PHI, PSI = DihedralAngle([4, 6, 8, 14]), DihedralAngle([6, 8, 14, 16])
GRID = pysamp.Grid((-pi, -pi), (pi, pi), (40, 40), periodic=True)
HILLS = {"height": 1.2, "sigma": 0.35, "stride": 500, "bias_factor": 10}
METHODS = {
    "harmonic": HarmonicBias([PHI, PSI], kspring=10.0, center=[-1.0, 1.0]),
    "metadynamics on a grid": Metadynamics([PHI, PSI], grid=GRID, **HILLS),
    "ABF": ABF([PHI, PSI], grid=GRID),
}


def compiled_text(bound) -> str:
    with jax.enable_x64(True):
        engine = HostEngine(
            address=jax.device_put(np.int64(0)),
            n_atoms=len(bound.sampler.atoms),
            periodic=bound.system.periodic,
            velocities=bound.sampler.needs_velocities,
        )
        parts = bound._loop
        lowered = loop._run_loop.lower(
            parts.sampler, parts.state, engine, parts.log, np.int64(10), batched=False, fuse=True
        )
        return lowered.compile().as_text() or ""


def found(pattern: str, text: str) -> str:
    """The pattern's group in the text."""
    match = re.search(pattern, text)
    assert match, f"{pattern} is not in:\n{text[:2000]}"
    return match.group(1)


@pytest.mark.parametrize("name", METHODS)
def test_a_step_is_one_function(systems, name):
    """In the loop's body: the call of the one function, the call of the engine, copies of single numbers, nothing else."""
    if loop.set_xla_metadata is None:
        pytest.fail(
            "This JAX has no xla_metadata: steps are correct, but several times slower on CPU. See pysamp/loop.py."
        )
    with pysamp.bind(systems.alanine(), METHODS[name]) as bound:
        text = compiled_text(bound)
    start = text.index("\nENTRY")
    for _ in range(2):  # turns until something is due, in a loop of what is due
        body = found(r"while\(.*body=%([\w.\-]+)", text[start : text.index("\n}", start)])
        start = text.index(f"\n%{body} (")
    lines = text[start : text.index("\n}", start)].splitlines()[2:]
    operations = [found(r"= .*? ([a-z\-]+)\(", line) for line in lines]
    free = ("parameter", "get-tuple-element", "tuple", "constant", "bitcast", "copy")
    assert sorted(o for o in operations if o not in free) == ["call", "custom-call"], operations
    copied = [found(r"= \w+\[(.*?)\]", line) for line in lines if " copy(" in line]
    assert set(copied) <= {"", "2"}, copied  # counters and the like; never a grid
    (call,) = (line for line in lines if " call(" in line)
    assert 'xla_cpu_small_call="true"' in call
    assert sum('xla_cpu_small_call="true"' in line and " call(" in line for line in text.splitlines()) == 1
    assert not re.search(r"custom_call_target=\"(?!pysamp)", text)


@pytest.mark.parametrize("which", [(), pytest.param(("--all",), marks=pytest.mark.validation)])
def test_unusual_samplers(which):
    script = Path(__file__).with_name("unusual_samplers.py")
    result = subprocess.run(
        [sys.executable, str(script), *which],
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
