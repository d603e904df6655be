"""A method learns once when it is due, whatever else asks for forces, and its step is still one function."""

import math

import jax
import pytest

import pysamp
from pysamp.colvars import Distance

from ...unit.test_learn import Learner, check


@pytest.mark.parametrize("barostat", [0, 3])
def test_openmm(route, systems, barostat):
    """With a barostat, whose trial moves come between; in parts that do not end where something is due."""
    method = Learner((Distance([0, 1]),))
    with pysamp.bind(route(systems.gas(barostat=barostat)), method) as bound:
        for n in (10, 11, 4, 3):
            bound.run(n)
        (state,) = bound.states
        check(state.methods[0], 28)


def test_the_step_is_still_one_function(systems, monkeypatch):
    """The factorisation is outside the function that XLA compiles the step into: nothing falls back to a list of kernels."""
    found = []
    jax.clear_caches()  # so that the step is traced again
    original = pysamp.loop._can_be_one_function

    def can_be_one_function(jaxpr, largest_product):
        result = original(jaxpr, largest_product)
        if largest_product == math.inf:  # the step
            found.append(result)
        return result

    monkeypatch.setattr(pysamp.loop, "_can_be_one_function", can_be_one_function)
    with pysamp.bind(systems.gas(), Learner((Distance([0, 1]),))) as bound:
        bound.run(8)
    assert found
    assert all(found)
