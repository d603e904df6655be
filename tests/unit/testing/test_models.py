import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.errors import InvalidInputError
from pysamp.grids import Grid
from pysamp.snapshot import Cell
from pysamp.testing import DoubleWell, Harmonic, MuellerBrown, PeriodicPotential

MODELS = [Harmonic(), Harmonic(kspring=4.0, center=0.5), DoubleWell(), MuellerBrown(), PeriodicPotential()]


@pytest.fixture(autouse=True)
def _float64():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize(
    ("point", "energy"),
    [
        ((-0.55822, 1.44173), -146.6995),
        ((0.62350, 0.02804), -108.1667),
        ((-0.05001, 0.46669), -80.7678),
        ((-0.82200, 0.62431), -40.6648),
        ((0.21249, 0.29299), -72.2489),
    ],
)
def test_stationary_points_of_mueller_brown(point, energy):
    model, q = MuellerBrown(), jnp.asarray(point)
    assert model.energy(q) == pytest.approx(energy, abs=1e-4)
    assert np.abs(jax.grad(model.energy)(q)).max() < 0.05


def test_free_energy_of_scaled_mueller_brown():
    model = MuellerBrown(scale=0.15, wall=1000.0)
    assert model.free_energy_difference((-9.0, 0.0), (0.0, 9.0)) == pytest.approx(5.7126, abs=1e-4)
    grid = Grid(-1.5, 1.2, 2700)
    (x,), f = grid.centers, model.free_energy(grid)
    assert x[f.argmin()] == pytest.approx(-0.559, abs=1e-3)
    right = x > 0.3
    assert f[right].min() == pytest.approx(5.916, abs=1e-3)
    assert x[right][f[right].argmin()] == pytest.approx(0.614, abs=1e-3)
    between = (x > -0.5) & (x < 0.6)
    assert f[between].max() == pytest.approx(9.680, abs=1e-3)
    assert x[between][f[between].argmax()] == pytest.approx(0.117, abs=1e-3)


def test_springs_differ_by_the_logarithm_of_their_constants():
    wide, narrow = Harmonic(kspring=1.0), Harmonic(kspring=4.0)
    everything = (-100.0, 100.0)
    both = [m._marginal([np.linspace(*everything, 200_001)], 2.0) for m in (wide, narrow)]
    free = [-2.0 * np.log(np.exp(-f / 2.0).sum() * 1e-3) for f in both]
    assert free[1] - free[0] == pytest.approx(0.5 * 2.0 * math.log(4.0), rel=1e-9)
    assert wide.free_energy_difference(everything, (0.0, 100.0)) == pytest.approx(math.log(2.0), rel=1e-6)


def test_marginal_of_a_periodic_model_does_not_count_its_edge_twice():
    model = PeriodicPotential(height=0.0, coupling=0.0)
    np.testing.assert_allclose(model.free_energy(Grid(-math.pi, math.pi, 8, periodic=True)), 0.0, atol=1e-12)
    model = PeriodicPotential()
    exact = [np.log(np.mean(np.exp(-np.asarray(model.energy(jnp.stack(jnp.meshgrid(
        jnp.array([x]), jnp.arange(4000) * 2 * math.pi / 4000), -1)))))) for x in (0.5, 2.0)]  # fmt: skip
    f = model._marginal([np.array([0.5, 2.0])], 1.0)
    assert f[1] - f[0] == pytest.approx(exact[0] - exact[1], rel=1e-9)


@pytest.mark.parametrize("model", MODELS)
def test_potential_of_all_particles(model):
    x = np.random.default_rng(0).normal(size=(3, 3))
    d = model.n_dims
    expected = sum(float(model.energy(jnp.asarray(q[:d]))) + 0.5 * (q[d:] ** 2).sum() for q in x)
    assert model(jnp.asarray(x)) == pytest.approx(expected, rel=1e-12)
    hash(model)  # the toy backend compiles it in


def test_cvs_of_a_periodic_model_know_their_period():
    x = jnp.array([[4.0, -4.0, 0.0]])
    values = [cv(x, Cell()) for cv in PeriodicPotential().cvs]
    np.testing.assert_allclose(values, [4.0 - 2 * math.pi, 2 * math.pi - 4.0])
    assert [cv.period for cv in PeriodicPotential().cvs] == [2 * math.pi] * 2


def test_grid_with_too_many_axes_is_refused():
    with pytest.raises(InvalidInputError):
        Harmonic().free_energy(Grid((0.0, 0.0), (1.0, 1.0), (2, 2)))
