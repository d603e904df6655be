"""OPESExpanded: free energies and bias against their definitions, the number of temperatures, and bad input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp as scipy_logsumexp

import pysamp
from pysamp.backends import toy
from pysamp.colvars import Component, DihedralAngle
from pysamp.errors import InvalidInputError
from pysamp.methods import HarmonicBias, Multithermal, MultiUmbrella, OPESExpanded

from .trajectories import follow

X, PHI = Component([0], axis=0), DihedralAngle([0, 1, 2, 3])
CENTERS = np.array([-0.5, 0.0, 0.7])
UMBRELLAS = MultiUmbrella(X, centers=CENTERS, sigma=0.4)


def logsumexp(values):
    """Along the first axis, or of a vector."""
    return np.asarray(scipy_logsumexp(values, axis=0))


def taken(method, samples):
    """The state that has taken all samples but the first, at which the run begins."""
    return follow(method, samples)


def potential(method, state, xi, kT=1.0):
    return float(method.potential(state, jnp.asarray(np.atleast_1d(np.asarray(xi, dtype=float))), jnp.asarray(kT)))


def test_free_energies_and_bias_are_those_of_the_definition():
    """Sample by sample, with weights exp(V / kT) of the bias before it; the first ten have none."""
    method = OPESExpanded(UMBRELLAS, stride=1, n_observations=10)
    samples = np.random.default_rng(0).normal(size=(26, 1)) * 0.4
    state = taken(method, samples)
    differences = (samples[1:] - CENTERS) ** 2 / (2 * 0.4**2)
    log_w = np.zeros(25)
    for k in range(10, 25):
        f = -(logsumexp(log_w[:k, None] - differences[:k]) - logsumexp(log_w[:k]))
        log_w[k] = -(logsumexp(f - differences[k]) - np.log(3))
    expected = -(logsumexp(log_w[:, None] - differences) - logsumexp(log_w))
    assert np.abs(log_w[10:]).max() > 0.1
    np.testing.assert_allclose(state.free_energies, expected, rtol=1e-12)
    here = (0.3 - CENTERS) ** 2 / (2 * 0.4**2)
    assert potential(method, state, 0.3) == pytest.approx(-(logsumexp(expected - here) - np.log(3)), rel=1e-12)
    effective = np.exp(2 * logsumexp(log_w) - logsumexp(2 * log_w))
    assert float(method.diagnostics(state)["n_effective"]) == pytest.approx(effective, rel=1e-12)


def test_no_bias_while_it_observes():
    method = OPESExpanded(UMBRELLAS, stride=2, n_observations=10)
    samples = np.random.default_rng(0).normal(size=(40, 1))
    before, after = follow(method, samples[:20]), follow(method, samples[:21])
    assert int(before.counts[0]) == 0
    assert int(after.counts[0]) == 3
    assert potential(method, before, 0.4) == 0.0
    assert abs(potential(method, after, 0.4)) > 1e-3
    np.testing.assert_array_equal(after.samples, samples[2:21:2])  # every second


def test_number_of_temperatures():
    """For a Gaussian energy with the heat capacity C half of the samples count at a ratio of exp(sqrt(ln 2 / C))."""
    energies = np.random.default_rng(1).normal(size=(200, 1)) * 30.0 * 2.0  # kT = 2, C = 900
    expansion = Multithermal(kT=(1.5, 3.0))
    with jax.enable_x64(True):
        count = int(expansion.count(jnp.asarray(energies), jnp.asarray(2.0)))
    expected = 1 + np.ceil(np.log(2.0) / np.sqrt(np.log(2.0) / np.var(energies) * 4.0))
    assert count == expected == 25
    # and so it is: the effective number of samples at the next temperature, by Gaussian integrals
    ratio = 2.0 ** (1 / 24)
    shift = (1.0 / ratio - 1.0) / 2.0
    w = np.exp(-shift * np.random.default_rng(2).normal(size=100_000) * 60.0)
    assert w.sum() ** 2 / (w**2).sum() / len(w) == pytest.approx(0.5, abs=0.03)


def test_more_temperatures_than_there_is_room_for():
    """A heat capacity of some 5000 between kT of 1 and 3; the bias is not made with fewer of them."""
    energies = 100.0 * np.random.default_rng(1).normal(size=(30, 1))
    method = OPESExpanded(Multithermal(kT=(1.0, 3.0)), stride=1, n_observations=20)
    state = taken(method, energies)
    needed = 1 + int(np.ceil(np.log(3.0) * np.sqrt(np.var(energies[1:21]) / np.log(2.0))))
    assert needed > 64
    assert int(state.counts[0]) == needed
    with pytest.raises(InvalidInputError, match=f"needs {needed} states .* room for 64.* n={needed}"):
        method.reserve(state, 1000)
    enough = OPESExpanded(Multithermal(kT=(1.0, 3.0), n=needed), stride=1, n_observations=20)
    state = taken(enough, energies)
    assert enough.reserve(state, 1000) is state


def test_a_run_that_needs_too_many_temperatures_ends():
    """At the next chunk after the steps without bias, and in the analysis of one that had no next chunk."""

    def stiff():
        return toy.Simulation(lambda x: 0.5 * jnp.sum(x**2), np.zeros((300, 3)), timestep=0.3, friction=3.0)

    method = OPESExpanded(Multithermal(kT=(0.2, 5.0)), stride=1, n_observations=20)
    run = pysamp.run(method, stiff, 100, log_every=1, seed=1, progress=False)
    with pytest.raises(InvalidInputError, match="room for 64"):
        pysamp.analysis.expanded_states(run)
    with pytest.raises(InvalidInputError, match="room for 64"):
        pysamp.run(run, stiff, 10, progress=False)


def test_unused_room_changes_nothing():
    """A number of temperatures found, among room for 64, and the same number asked for: the same bias."""
    samples = 1.2 * np.random.default_rng(3).normal(size=(40, 1))
    found = OPESExpanded(Multithermal(kT=(0.3, 4.0)), stride=1, n_observations=20)
    state = taken(found, samples)
    n = int(state.counts[0])
    assert 3 < n < 8
    given = OPESExpanded(Multithermal(kT=(0.3, 4.0), n=n), stride=1, n_observations=20)
    same = taken(given, samples)
    for u in (-1.0, 0.2, 30.0):
        assert potential(found, state, u) == pytest.approx(potential(given, same, u), rel=1e-12)


def test_the_states_of_two_expansions_are_their_product():
    thermal = Multithermal(kT=(0.5, 2.0), n=4)
    method = OPESExpanded([thermal, UMBRELLAS], stride=1, n_observations=10)
    assert method.labels == ("PotentialEnergy", "Component(0).x")
    xi, counts = np.array([3.0, 0.2]), np.array([4, 3])
    with jax.enable_x64(True):
        found = np.asarray(method.differences(jnp.asarray(xi), jnp.asarray(1.0), jnp.asarray(counts)))
    by_hand = (1 / np.geomspace(0.5, 2.0, 4) - 1.0)[:, None] * 3.0 + ((0.2 - CENTERS) ** 2 / 0.32)[None]
    np.testing.assert_allclose(found, by_hand.ravel(), rtol=1e-12)


def test_the_barrier_bounds_the_first_free_energies():
    """Where nothing was seen they would be some hundred kT; within the barrier they are what they are."""
    far = np.array([0.0, 0.3, 8.0])
    samples = 0.2 * np.random.default_rng(4).normal(size=(12, 1))
    states = [
        taken(OPESExpanded(MultiUmbrella(X, centers=far, sigma=0.4, barrier=b), stride=1, n_observations=11), samples)
        for b in (None, 6.0)
    ]
    free, bounded = (np.asarray(state.free_energies) for state in states)
    assert free[2] > 100.0
    assert bounded[2] - bounded.min() == pytest.approx(6.0)
    np.testing.assert_allclose(free[:2], bounded[:2])


def test_periodic_umbrellas_take_the_short_way():
    expansion = MultiUmbrella(PHI, centers=[-3.0, 3.0], sigma=0.5)
    xi = jnp.asarray([3.1])
    found = np.asarray(expansion.differences(xi, jnp.asarray(1.0), jnp.asarray(2)))
    np.testing.assert_allclose(found, [(2 * np.pi - 6.1) ** 2 / 0.5, 0.1**2 / 0.5], rtol=1e-4)


BAD = {
    "expansions such as": lambda: OPESExpanded(HarmonicBias(X, kspring=1.0, center=0.0), stride=1),
    "got an empty list": lambda: OPESExpanded([], stride=1),
    "stride must be a positive whole number": lambda: OPESExpanded(UMBRELLAS, stride=0),
    "n_observations must be 10 or more": lambda: OPESExpanded(UMBRELLAS, stride=1, n_observations=3),
    "kT must be positive": lambda: OPESExpanded(UMBRELLAS, stride=1, kT=-1.0),
    "lowest and the highest": lambda: Multithermal(kT=(2.0, 1.0)),
    "2 temperatures or more": lambda: Multithermal(kT=(1.0, 2.0), n=1),
    r"of shape \(m, 1\); got \(2, 2\)": lambda: MultiUmbrella(X, centers=[[0.0, 1.0], [1.0, 0.0]], sigma=1.0),
    "centers must be finite": lambda: MultiUmbrella(X, centers=[0.0, np.nan], sigma=1.0),
    "sigma must be positive": lambda: MultiUmbrella(X, centers=[0.0, 1.0], sigma=0.0),
    "barrier must be positive": lambda: MultiUmbrella(X, centers=[0.0, 1.0], sigma=1.0, barrier=0.0),
}


@pytest.mark.parametrize("text", BAD)
def test_bad_input_is_named(text):
    with pytest.raises(InvalidInputError, match=text):
        BAD[text]()
