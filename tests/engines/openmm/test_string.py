"""String methods on OpenMM."""

import numpy as np
import pytest

import pysamp
from pysamp.colvars import Distance
from pysamp.paths import MeanForceString, SwarmString

R = Distance([0, 1])
KT = 0.00831446261815324 * 300  # kJ/mol
LINE = {"path": [0.4, 0.6], "n_images": 7, "kspring": 20_000.0, "fixed_ends": True}
MEAN_FORCE = MeanForceString(R, n_steps=400, n_equilibration=100, **LINE)
SWARM = SwarmString(R, n_steps=100, n_equilibration=50, n_swarm=4, n_release=10, **LINE)


def well(systems):
    """Two particles in a double well of their distance, with minima at 0.4 and 0.6 nm and a barrier of 3 kT between them."""
    system = systems.openmm.System()
    bond = systems.openmm.CustomBondForce("h * (((r - 0.5) / 0.1)^2 - 1)^2")
    bond.addGlobalParameter("h", 3 * KT)
    bond.addBond(0, 1, [])
    for _ in range(2):
        system.addParticle(10.0)
    system.addForce(bond)
    context = systems.context(system, systems.langevin(0.004, friction=5.0), [[0, 0, 0], [0.4, 0, 0]])
    context.setVelocitiesToTemperature(300.0, 1)
    return context


def test_free_energy_along_a_distance(systems):
    """Of its mean force, -U' + 2 kT / r, within 4 standard errors and what seven images leave out of the integral."""
    run = pysamp.run(MEAN_FORCE, lambda: well(systems), 8 * 7 * 500, seed=1, progress=False)
    fes = pysamp.analyze(run, discard=0.2)
    r = fes.path[:, 0]
    exact = 3 * KT * (((r - 0.5) / 0.1) ** 2 - 1) ** 2 - 2 * KT * np.log(r)
    np.testing.assert_allclose(r[[0, -1]], [0.4, 0.6])
    assert (fes.stderr[1:] < 0.5 * KT).all()
    assert (np.abs(fes.values - (exact - exact[0])) < 4 * fes.stderr + 0.25 * KT).all()


@pytest.mark.parametrize("method", [MEAN_FORCE, SWARM])
def test_a_string_goes_on_where_it_ended(systems, method, tmp_path):
    """In two parts, the state of OpenMM's random numbers not among them: iteration by iteration it has seeds of its own."""
    n_steps = 4 * 7 * 500
    options = {"seed": 1, "progress": False}
    whole = pysamp.run(method, lambda: well(systems), n_steps, **options)
    pysamp.run(method, lambda: well(systems), n_steps // 2, checkpoint=tmp_path / "c", **options)
    resumed = pysamp.run(method, lambda: well(systems), n_steps, checkpoint=tmp_path / "c", **options)
    np.testing.assert_array_equal(resumed.paths, whole.paths)
    np.testing.assert_array_equal(resumed.gradients, whole.gradients)
    assert np.isfinite(whole.gradients).all()
    assert len(whole.gradients) > 2  # iterations
