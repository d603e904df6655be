"""When to stop, and what a run would have said earlier."""

import numpy as np
import pytest

import pysamp
from pysamp import Converged, Grid
from pysamp.analysis import convergence, r_hat
from pysamp.backends import toy
from pysamp.errors import InvalidInputError, UnsupportedError
from pysamp.methods import ABF, Metadynamics, MovingRestraint, UmbrellaSampling
from pysamp.testing import DoubleWell

WELL = DoubleWell(height=3.0, tilt=0.5)
GRID = Grid(-2.0, 2.0, 40)
LEFT, RIGHT = (lambda x: x < 0), (lambda x: x > 0)
HILLS = Metadynamics(WELL.cvs, height=0.3, sigma=0.2, stride=50, bias_factor=6, grid=GRID)
OPTIONS = {"seed": 4, "progress": False, "log_every": 10}


def simulation():
    return toy.Simulation(WELL, [[-1.0, 0.0, 0.0]], timestep=0.05, friction=2.0)


def difference(run):
    return pysamp.analyze(run).difference(LEFT, RIGHT)


def test_a_run_stops_when_its_error_is_small_enough():
    rule = Converged(stderr=0.2, between=(LEFT, RIGHT))
    run = pysamp.run(HILLS, simulation, 2_000_000, until=rule, **OPTIONS)
    assert run.attributes["until"] == "reached"
    assert run.attributes["timesteps"] < 1_000_000
    assert difference(run)[1] <= 0.2
    shorter = pysamp.run(HILLS, simulation, run.attributes["timesteps"], **OPTIONS)
    np.testing.assert_array_equal(shorter.log.xi, run.log.xi)  # as if it had been asked for that many steps
    longer = pysamp.run(run, simulation, 4_000_000, until=Converged(stderr=0.1, between=(LEFT, RIGHT)), progress=False)
    assert difference(longer)[1] <= 0.1


def test_a_criterion_that_never_holds(caplog):
    seen = []
    run = pysamp.run(HILLS, simulation, 20_000, until=lambda run: seen.append(run.attributes["timesteps"]), **OPTIONS)
    assert seen[0] == 1000
    assert seen[-1] == run.attributes["timesteps"] == 20_000
    assert (np.diff(seen[:-1]) / seen[:-2]).max() < 0.26
    assert run.attributes["until"] == "not reached"
    assert "does not hold" in caplog.text


def test_with_a_checkpoint_it_goes_on_where_it_was(tmp_path):
    """Stopped by an error in the criterion, as by a kill: the same call goes on, and nothing is done twice."""
    seen = []

    def fails(run):
        seen.append(run.attributes["timesteps"])
        if seen[-1] > 3000 and len(seen) < 10:
            raise KeyError("died")
        return seen[-1] > 5000

    arguments = {"checkpoint": tmp_path / "check", "until": fails, **OPTIONS}
    with pytest.raises(KeyError, match="died"):
        pysamp.run(HILLS, simulation, 20_000, **arguments)
    seen += [0] * 10
    run = pysamp.run(HILLS, simulation, 20_000, **arguments)
    assert seen[-2] > 3000
    plain = pysamp.run(HILLS, simulation, run.attributes["timesteps"], **OPTIONS)
    np.testing.assert_array_equal(plain.log.xi, run.log.xi)


def test_the_error_of_low_bins():
    run = pysamp.run(HILLS, simulation, 200_000, **OPTIONS)
    fes = pysamp.analyze(run)
    strict, lax = (Converged(stderr=1.0, below=below).error(fes) for below in (None, 2.0))
    assert lax == fes.stderr[fes.values <= 2.0].max()
    assert strict >= lax
    assert Converged(stderr=lax * 1.01, below=2.0)(run)
    assert not Converged(stderr=lax * 0.99, below=2.0)(run)


@pytest.mark.parametrize(
    "method",
    [HILLS, ABF(WELL.cvs, grid=GRID), UmbrellaSampling(WELL.cvs, centers=np.linspace(-1.5, 1.5, 7), kspring=15.0)],
    ids=lambda method: type(method).__name__,
)
def test_the_difference_against_time(method):
    """The last point is the whole run; a point in the middle is what a run of that length says."""
    run = pysamp.run(method, simulation, 65_536, **OPTIONS)
    found = convergence(run, LEFT, RIGHT, n_points=4, grid=GRID)
    assert found.step.values.tolist() == [16380, 32770, 49150, 65540]
    assert found.difference[-1] == pysamp.analyze(run, grid=GRID).difference(LEFT, RIGHT)[0]
    if method is HILLS:
        half = pysamp.run(method, simulation, 32_770, **OPTIONS)
        assert found.difference[1] == pytest.approx(pysamp.analyze(half, grid=GRID).difference(LEFT, RIGHT)[0])


def test_parts_too_short_for_an_estimate_are_nan():
    run = pysamp.run(HILLS, simulation, 4000, **OPTIONS)
    found = convergence(run, LEFT, RIGHT, n_points=4, grid=GRID)
    assert np.isnan(found.difference[:2]).all()


def test_what_cannot_be_cut_says_so():
    method = MovingRestraint(WELL.cvs, kspring=10.0, centers=[-1.0, 1.0], steps=[0, 50])
    run = pysamp.run(method, simulation, 60, replicas=2, **OPTIONS)
    with pytest.raises(UnsupportedError, match="MovingRestraint"):
        convergence(run, LEFT, RIGHT)


def test_replicas_that_agree_and_others():
    rng = np.random.default_rng(1)
    same = rng.normal(size=(4, 2000))
    assert r_hat(same) == pytest.approx(1.0, abs=0.01)
    assert r_hat(same + np.arange(4.0)[:, None]) > 1.3
    assert r_hat(same + np.linspace(0, 3, 2000)) > 1.2  # a drift that all share shows in the halves
    assert r_hat(np.ones((2, 10))) == 1.0
    assert r_hat(np.arange(2.0)[:, None] * np.ones((2, 10))) == np.inf


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Converged(stderr=0.0), "stderr must be positive"),
        (lambda: Converged(stderr=0.1, between=LEFT), "two regions"),
        (lambda: r_hat([1.0, 2.0]), "four or more"),
        (lambda: pysamp.run(HILLS, simulation, 100, until=0.5, progress=False), "until must be"),
    ],
)
def test_bad_input(make, text):
    with pytest.raises(InvalidInputError, match=text):
        make()
