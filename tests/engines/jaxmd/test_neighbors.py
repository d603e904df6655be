"""Neighbour lists that become too short on the way, alone and in several replicas."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax_md import energy, partition, simulate, space

import pysamp
from pysamp import bind
from pysamp.backends import jaxmd
from pysamp.colvars import Distance
from pysamp.methods import Metadynamics

SIDE, N = 8.0, 27
DISPLACEMENT, SHIFT = space.periodic(SIDE, wrapped=False)
FORMATS = {"dense": partition.Dense, "sparse": partition.OrderedSparse}
INTEGRATOR = partial(simulate.nvt_langevin, dt=0.005, kT=0.5, gamma=1.0)


def functions(form, multiplier):
    return energy.lennard_jones_neighbor_list(
        DISPLACEMENT,
        SIDE,
        r_onset=1.4,  # its default lies beyond this cutoff, and then pairs count for as long as a list has them
        r_cutoff=1.8,
        dr_threshold=0.2,
        capacity_multiplier=multiplier,
        format=FORMATS[form],
        disable_cell_list=True,
    )


ROOM: Any
TIGHT: Any
ROOM, TIGHT = ({form: functions(form, multiplier) for form in FORMATS} for multiplier in (3.0, 1.0))


def gas(form="dense", room=False, seed=0):
    """A dilute crystal that collapses: every particle gets more neighbours than the list was made for."""
    neighbor_fn, energy_fn = (ROOM if room else TIGHT)[form]
    lattice = 1.5 * np.stack(np.meshgrid(*[np.arange(3.0)] * 3), axis=-1).reshape(-1, 3)
    x = jnp.asarray(lattice + np.random.default_rng(seed).normal(scale=0.05, size=(N, 3)))
    init, _ = INTEGRATOR(energy_fn, SHIFT)
    state = init(jax.random.PRNGKey(seed), x, neighbor=neighbor_fn.allocate(x))
    return jaxmd.Simulation(energy_fn, state, shift_fn=SHIFT, integrator=INTEGRATOR, box=SIDE, neighbor_fn=neighbor_fn)


METHOD = Metadynamics(Distance([0, 13]), height=0.1, sigma=0.2, stride=10)


def ran(simulation, chunks=(200,), grown=None):
    with bind(simulation, METHOD) as bound:
        capacity = bound._engine.neighbors[0].shape
        for n in chunks:
            bound.run(n)
        if grown is not None:
            grown.append(bound._engine.neighbors[0].shape > capacity)
        return np.asarray(bound.snapshots()[0].positions), bound.states[0]


@pytest.mark.parametrize("form", [pytest.param("dense", marks=pytest.mark.validation), "sparse"])
def test_nothing_is_lost_when_a_list_overflows(form):
    """The same trajectory, step count and hills as with room from the start, to what reordered sums change in 200 steps."""
    grown = []
    expected, _ = ran(gas(form, room=True))
    found, state = ran(gas(form), grown=grown)
    assert grown == [True]
    assert int(state.step) == 200
    assert int(state.methods[0].n_hills) == 19
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-7)


def test_where_the_chunks_end_changes_nothing():
    whole, _ = ran(gas())
    parts, _ = ran(gas(), chunks=(13, 87, 100))
    assert np.array_equal(whole, parts)


def test_resumed_after_growth(tmp_path):
    """Through a checkpoint whose list is longer than that of a new simulation, bit for bit."""
    options = {"log_every": 10, "seed": 3, "progress": False}
    whole = pysamp.run(METHOD, gas, 200, **options)
    pysamp.run(METHOD, gas, 150, checkpoint=tmp_path / "run", **options)
    resumed = pysamp.run(METHOD, gas, 200, checkpoint=tmp_path / "run", **options)
    assert np.array_equal(whole.snapshots[0].positions, resumed.snapshots[0].positions)
    assert whole.log.equals(resumed.log)


@pytest.mark.validation  # a minute of compilation
def test_replicas_do_what_they_do_alone():
    """Lists are renewed together, and their sums in another order: equal to what that changes in 100 steps."""
    options = {"log_every": 10, "seed": 3, "progress": False}
    together = pysamp.run(METHOD, gas, 100, replicas=3, **options)
    alone = [
        pysamp.run(METHOD, gas, 100, replicas=3, executor=_Inline(), **options).snapshots[r].positions for r in range(1)
    ]
    np.testing.assert_allclose(together.snapshots[0].positions, alone[0], rtol=0, atol=1e-9)


class _Inline:
    """An executor that does at once what it is given."""

    def submit(self, function, *args):
        from concurrent.futures import Future

        future = Future()
        future.set_result(function(*args))
        return future
