"""Expanded ensembles on the toy backend: any temperature of the range, free energies of states, errors."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

import pysamp
from pysamp import InvalidInputError
from pysamp.analysis import expanded_states, jackknife_error, reweight, sample_weights
from pysamp.backends import toy
from pysamp.colvars import Component, PotentialEnergy
from pysamp.methods import HarmonicBias, Multithermal, MultiUmbrella, OPESExpanded, Unbiased

X = Component([0], axis=0)


def harmonic():
    """Six degrees of freedom, kT = 1."""
    return toy.Simulation(lambda x: 0.5 * jnp.sum(x**2), np.ones((2, 3)), timestep=0.1, friction=1.0)


@pytest.fixture(scope="module")
def thermal():
    method = OPESExpanded(Multithermal(kT=(0.5, 2.0)), stride=20)
    options = {"replicas": 16, "log_every": 10, "seed": 3, "progress": False}
    return pysamp.run([method, Unbiased(X)], harmonic, 12_000, **options)


@pytest.mark.parametrize("kT", [0.5, 0.8, 1.0, 1.5, 2.0])
def test_mean_energy_at_any_temperature(thermal, kT):
    """3 kT, for six harmonic degrees of freedom, within 4 stated errors, all below 4 %: without the factor of the temperature
    it is 3 everywhere, and without the bias's weight some 3.3.
    """
    weights = sample_weights(thermal, kT=kT)
    energies = thermal.log.xi.values[..., 0]
    mean = float((weights.weight.values * energies).sum())
    error = float(jackknife_error((weights.replicates.values * energies[None]).sum(axis=(1, 2))))
    assert error < 0.04 * 3 * kT
    assert abs(mean - 3 * kT) < 4 * error + 0.01 * kT  # the leapfrog's own error at this step is below that


def test_free_energies_of_the_temperatures(thermal):
    """-ln Z(kT) / Z(1) = -3 ln kT, within 4 stated errors; and the difference of two with an error from the replicates."""
    states = expanded_states(thermal)
    assert states.kT.values[[0, -1]] == pytest.approx([0.5, 2.0])
    exact = -3.0 * np.log(states.kT.values)
    assert (states.stderr.values < 0.05).all()
    assert (np.abs(states.free_energy.values - exact) < 4 * states.stderr.values + 0.01).all()
    assert (states.effective_samples.values > 100).all()
    for (
        state
    ) in thermal.states:  # each replica has found its own number of temperatures, and nearly the same free energies
        found = np.asarray(state.methods[0].free_energies)
        assert np.abs(found[np.isfinite(found)][[0, -1]] - exact[[0, -1]]).max() < 0.3


def test_free_energy_of_another_cv_at_another_temperature(thermal):
    """F(x) = x^2 / 2 at every temperature, and its errors grow away from where samples are."""
    grid = pysamp.Grid(-2.0, 2.0, 8)
    for kT in (0.5, 2.0):
        fes = reweight(thermal, X.name, grid=grid, kT=kT)
        assert fes.kT == kT
        edges = np.linspace(-2.0, 2.0, 9)
        fine = np.linspace(edges[:-1], edges[1:], 101).T
        exact = -kT * np.log(np.exp(-0.5 * fine**2 / kT).mean(axis=1))
        difference = (fes.values - fes.values[3]) - (exact - exact[3])
        assert (np.abs(difference) < 4 * np.hypot(fes.stderr, fes.stderr[3]) + 0.01).all()
    assert pysamp.analyze(thermal).labels == ("PotentialEnergy",)


def test_other_temperatures_from_any_run_that_logged_the_energy():
    """A static bias and an observer of the energy, reweighted to kT = 1.2; without the energy there is an error that says so."""
    options = {"replicas": 8, "log_every": 10, "seed": 3, "progress": False}
    bias = HarmonicBias(X, kspring=1.0, center=0.5)
    run = pysamp.run([bias, Unbiased(PotentialEnergy())], harmonic, 8000, **options)
    weights = sample_weights(run, kT=1.2)
    values = run.log.xi.values[..., 1]
    mean = float((weights.weight.values * values).sum())
    error = float(jackknife_error((weights.replicates.values * values[None]).sum(axis=(1, 2))))
    assert error < 0.15
    assert abs(mean - 3.6) < 4 * error
    alone = pysamp.run(bias, harmonic, 500, **options)
    with pytest.raises(InvalidInputError, match="need the potential energy in the log"):
        sample_weights(alone, kT=1.2)


def test_umbrellas_along_a_cv():
    """F = x^2 / 2 from -3 to 3, where F is 4.5 kT and an unbiased run has three samples in a thousand."""
    method = OPESExpanded(
        MultiUmbrella(X, centers=np.linspace(-3.0, 3.0, 13), sigma=0.5, barrier=8.0), stride=20, n_observations=20
    )
    run = pysamp.run(method, harmonic, 12_000, replicas=16, log_every=10, seed=5, progress=False)
    xi = run.log.xi.values[:, 200:, 0]
    places = norm(0.8 * np.linspace(-3.0, 3.0, 13), np.sqrt(0.2))  # of each umbrella, in the spring
    assert np.mean(np.abs(xi) > 2.0) == pytest.approx(np.mean(2 * places.sf(2.0)), abs=0.04)
    fes = pysamp.analyze(run, grid=pysamp.Grid(-3.0, 3.0, 12))
    assert fes.labels == (X.name,)
    edges = np.linspace(-3.0, 3.0, 13)
    fine = np.linspace(edges[:-1], edges[1:], 101).T
    exact = -np.log(np.exp(-0.5 * fine**2).mean(axis=1))
    difference = (fes.values - fes.values[6]) - (exact - exact[6])
    error = np.hypot(fes.stderr, fes.stderr[6])
    assert (error < 0.2).all()
    assert (np.abs(difference) < 4 * error).all()
    states = expanded_states(run)
    expected = 0.5 * states[X.name].values ** 2 / 1.25 - np.log(np.sqrt(0.25 / 1.25))
    assert (np.abs(states.free_energy.values - expected) < 4 * states.stderr.values).all()


def test_what_is_too_short_is_said():
    method = OPESExpanded(Multithermal(kT=(0.5, 2.0)), stride=20)
    run = pysamp.run(method, harmonic, 500, log_every=10, seed=1, progress=False)
    with pytest.raises(InvalidInputError, match="no bias yet, which begins after 2000 steps"):
        pysamp.analyze(run)
    run = pysamp.run(run, harmonic, 1700, progress=False)
    with pytest.raises(InvalidInputError, match="19 logged samples with a bias are too few"):
        expanded_states(run)
    with pytest.raises(InvalidInputError, match="only OPESExpanded has states"):
        expanded_states(pysamp.run(Unbiased(X), harmonic, 10, log_every=1, progress=False))
