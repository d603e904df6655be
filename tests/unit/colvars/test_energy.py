"""The engine's potential energy as a CV, on the toy backend."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp

import pysamp
from pysamp import InvalidInputError, Particles, Sampler, System, UnsupportedError
from pysamp.backends import toy
from pysamp.colvars import Distance, Group, PotentialEnergy, combine
from pysamp.methods import ABF, HarmonicBias, Metadynamics, Unbiased
from pysamp.testing import check_backend

U = PotentialEnergy()


def potential(x):
    return 0.5 * jnp.sum(x**2) + 0.1 * jnp.sum(x**4)


def simulation(seed=1, **options):
    positions = np.random.default_rng(seed).normal(size=(4, 3))
    options = {"masses": [1.0, 2.0, 3.0, 4.0], "timestep": 0.05} | options
    return toy.Simulation(potential, positions, seed=seed, **options)


CASES = {
    "alone": [U],
    "beside another": [Distance([0, Group([2, 3])]), U],
    "combinations": [2.0 * U * Distance([0, 1]), combine(lambda u: jnp.log(u), [U])],
}


def test_contract_of_the_backend():
    """Its force comparison expects slope times the engine's own forces on all particles."""
    check_backend(simulation, CASES["beside another"])


@pytest.mark.parametrize("cvs", CASES.values(), ids=CASES)
def test_forces_are_differences_of_the_total_energy(cvs):
    method = HarmonicBias(cvs, kspring=2.0, center=[1.5] * len(cvs))
    with pysamp.bind(simulation(), method) as bound:
        x, forces = np.array(bound.arrays["positions"][0]), np.array(bound.arrays["forces"][0])
        sampler, state, box = bound.sampler, bound.states[0], None

        @jax.jit
        def total(x):
            return (
                potential(x)
                + sampler.evaluate(state, Particles(x[: len(sampler.atoms)], box, None, potential(x))).energy
            )

        atoms = list(sampler.atoms)  # the first ones, in this order in all cases but one
        order = [*atoms, *(i for i in range(4) if i not in atoms)]
        with jax.enable_x64(True):
            expected = -np.asarray(jax.jit(jax.grad(total))(jnp.asarray(x[order])))
            step = 1e-5 * np.random.default_rng(3).normal(size=x.shape)
            slope = (total(x[order] + step) - total(x[order] - step)) / 2
    assert np.abs(expected).max() > 5.0
    assert -float(slope) == pytest.approx(np.vdot(forces[order], step), rel=1e-6)
    np.testing.assert_allclose(forces[order], expected, rtol=1e-9, atol=1e-9)


def test_distribution_under_a_bias_on_the_energy():
    """Mean and spread of U under 1/2 k (U - c)^2 for six harmonic degrees of freedom: p(U) ~ U^2 exp(-U - V(U)).

    Four of 128 replicas' standard errors: a right code fails once in 16 000 seeds. Without the scaled forces, the mean is 3
    instead of 5.3; with the bias force turned round, further away still.
    """
    kspring, center, n = 0.5, 6.5, 128
    u = np.linspace(1e-6, 40.0, 20001)
    log_p = 2 * np.log(u) - u - 0.5 * kspring * (u - center) ** 2
    p = np.exp(log_p - logsumexp(log_p))
    mean = p @ u
    expected = np.array([mean, p @ (u - mean) ** 2])

    def generate(replica):
        x = np.random.default_rng(replica).normal(size=(2, 3)) * np.sqrt(2.0)
        return toy.Simulation(lambda x: 0.5 * jnp.sum(x**2), x, timestep=0.1)

    run = pysamp.run(
        HarmonicBias(U, kspring=kspring, center=center),
        generate,
        2000,
        context_args=[{"replica": r} for r in range(n)],
        replicas=n,
        log_every=5,
        seed=5,
        progress=False,
    )
    values = run.log.xi.values[:, 80:, 0]
    found = np.stack([values.mean(axis=1), ((values - mean) ** 2).mean(axis=1)])
    error = found.std(axis=1, ddof=1) / np.sqrt(n)
    assert (error < [0.03, 0.06]).all()
    # the leapfrog's step of 0.1 under a bias as stiff as this one moves the mean by about 0.005
    assert (np.abs(found.mean(axis=1) - expected) < 4 * error + 0.01).all(), (found.mean(axis=1), expected, error)
    assert mean > 5.0  # the bias does hold it where it is rare


def test_a_resumed_run_is_the_uninterrupted_one(tmp_path):
    """Bit for bit, with hills on the energy."""
    method = Metadynamics([U, Distance([0, 1])], height=0.3, sigma=[1.0, 0.2], stride=10)
    options = {"log_every": 10, "seed": 4, "progress": False}
    whole = pysamp.run(method, simulation, 200, **options)
    pysamp.run(method, simulation, 100, checkpoint=tmp_path / "c", **options)
    resumed = pysamp.run(method, simulation, 200, checkpoint=tmp_path / "c", **options)
    np.testing.assert_array_equal(whole.log.xi, resumed.log.xi)
    np.testing.assert_array_equal(whole.snapshots[0].positions, resumed.snapshots[0].positions)
    energy = float(potential(np.asarray(whole.snapshots[0].positions)))
    assert float(whole.snapshots[0].energy) == pytest.approx(energy, rel=1e-6)

    pysamp.save(whole, tmp_path / "run.nc")
    loaded = pysamp.load(tmp_path / "run.nc")
    assert loaded.methods[0].labels == ("PotentialEnergy", "Distance(0, 1)")
    onward = [pysamp.run(start, simulation, 50, progress=False) for start in (whole, loaded)]
    np.testing.assert_array_equal(onward[0].log.xi, onward[1].log.xi)


def test_engines_that_do_not_hand_it_over_are_named():
    system = System(masses=np.ones(3), timestep=1.0, kT=1.0)
    with pytest.raises(UnsupportedError, match="PotentialEnergy takes the engine's potential energy.*OpenMM"):
        Sampler.build(Unbiased([Distance([0, 1]), 2 * U]), system)


def test_methods_with_momenta_are_refused():
    method = ABF(U, grid=pysamp.Grid(0.0, 10.0, 10))
    with pytest.raises(UnsupportedError, match="ABF needs the momentum of PotentialEnergy.*ExtendedABF"):
        pysamp.run(method, simulation, 1, progress=False)


def test_abf_on_another_cv_beside_it():
    """The momenta are those of the particles, whatever else there is."""
    method = ABF(Distance([0, 1]), grid=pysamp.Grid(0.0, 5.0, 10), full_samples=2)
    both = pysamp.run([method, Unbiased(U)], simulation, 50, log_every=1, seed=1, progress=False)
    alone = pysamp.run(method, simulation, 50, log_every=1, seed=1, progress=False)
    np.testing.assert_allclose(both.log.xi.values[..., :1], alone.log.xi.values, rtol=1e-10)


def test_snapshots_without_energy_are_named():
    with pysamp.bind(simulation(), Unbiased(Distance([0, 1]))) as bound:
        (snapshot,) = bound.snapshots()
    with pysamp.bind(simulation(), Unbiased(U)) as bound, pytest.raises(InvalidInputError, match="give energy="):
        bound.sampler.xi(bound.sampler.particles(snapshot))
