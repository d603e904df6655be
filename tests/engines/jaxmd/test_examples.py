"""Short versions of the examples, and the example in the docstring."""

import doctest
import importlib.util
from pathlib import Path

import jax
import pytest

from pysamp.backends import jaxmd

pytestmark = pytest.mark.validation  # tens of seconds of compilation each

EXAMPLES = Path(__file__).parents[3] / "examples"


def loaded(name):
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_dimer():
    with jax.enable_x64(False):
        run, free_energy = loaded("jaxmd_dimer").main(["--steps", "1800", "--walkers", "8"])
    assert run.walkers == 8
    assert int(run.states[0].methods[0].n_hills) == 64
    assert free_energy.values.shape == (90,)


def test_parameter_is_learned():
    """The spring has to become shorter than the target, since the bias pulls it: k l + b c = (k + b) x, l = 1.55."""
    with jax.enable_x64(False):
        length = loaded("jaxmd_learn_parameter").main(["--iterations", "12", "--steps", "200"])
    assert abs(length - 1.55) < 0.1


def test_docstring():
    with jax.enable_x64(False):
        for test in doctest.DocTestFinder(exclude_empty=True).find(jaxmd):
            assert not doctest.DocTestRunner().run(test).failed
