"""Every public method keeps the contract; exporting one without an entry here fails."""

import inspect
from math import pi

import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer

import pysamp.methods
from pysamp import Grid
from pysamp.colvars import DihedralAngle, Displacement, Distance, Path
from pysamp.methods import (
    ABF,
    ANN,
    CFF,
    FUNN,
    OPES,
    AbstractMethod,
    AdaptivePath,
    Bias,
    ExtendedABF,
    HarmonicBias,
    HarmonicWalls,
    Metadynamics,
    MovingRestraint,
    Multithermal,
    MultiUmbrella,
    OPESExpanded,
    OPESExplore,
    ParallelBiasMetadynamics,
    Ratchet,
    SpectralABF,
    UmbrellaSampling,
    Unbiased,
)
from pysamp.testing import check_method

R, PHI, PSI = Distance([0, 1]), DihedralAngle([0, 1, 2, 3]), DihedralAngle([1, 2, 3, 4])
VECTOR = Displacement([0, 1])
HILLS = {"height": 0.5, "stride": 4}
PATH = Path([R, PHI], [[-0.4, 2.5], [0.0, 3.2], [0.4, 3.6]])
AXES = {"r": ((-0.4,), (0.4,), (16,)), "phi": ((-pi,), (pi,), (40,))}
MIXED = Grid((-0.4, -pi), (0.4, pi), (16, 40), periodic=(False, True))


ENTRIES = {
    "Unbiased": {"": Unbiased([R, PHI])},
    "HarmonicBias": {
        "one": HarmonicBias(R, kspring=10.0, center=0.3),
        "matrix": HarmonicBias([R, PHI], kspring=[[4.0, 1.0], [1.0, 2.0]], center=[0.3, 3.0]),
    },
    "HarmonicWalls": {
        "one": HarmonicWalls(R, lower=-0.1, upper=0.1, kspring=10.0),
        "periodic": HarmonicWalls([R, PHI], lower=[-np.inf, 3.0], upper=[0.1, -3.0 + 2 * pi], kspring=[10.0, 2.0]),
    },
    "Metadynamics": {
        "hills": Metadynamics([R, PHI], sigma=[0.2, 0.3], **HILLS),
        "tempered hills": Metadynamics(VECTOR, sigma=0.2, bias_factor=5, **HILLS),
        "adaptive hills": Metadynamics([R, PHI], sigma=[0.05, 0.1], bias_factor=5, adapt_sigma=6, **HILLS),
        "adaptive grid": Metadynamics(R, sigma=0.06, adapt_sigma=6, grid=Grid(*AXES["r"]), **HILLS),
        "grid": Metadynamics(R, sigma=0.2, grid=Grid(*AXES["r"]), **HILLS),
        "periodic grid": Metadynamics(PHI, sigma=0.3, grid=Grid(*AXES["phi"], periodic=True), **HILLS),
        "tempered grid": Metadynamics([R, PHI], sigma=[0.1, 0.3], bias_factor=5, grid=MIXED, kT=2.0, **HILLS),
    },
    "MovingRestraint": {
        "one": MovingRestraint(R, kspring=10.0, centers=[-0.2, 0.3], steps=[2, 15]),
        "mixed": MovingRestraint(
            [R, PHI], kspring=[9.0, 2.0], centers=[[0.1, 3.0], [0.2, 4.0], [0, 5]], steps=[0, 4, 9]
        ),
    },
    "UmbrellaSampling": {
        "one": UmbrellaSampling(R, centers=[-0.2, 0.3], kspring=10.0),
        "pulled": UmbrellaSampling([R, PHI], centers=[[0.2, 3.0], [0.0, -3.0]], kspring=[4.0, 2.0], pull_steps=9),
    },
    "Ratchet": {"": Ratchet([R, PHI], kspring=3.0, target=[0.3, 3.0])},
    "ABF": {
        "one": ABF(R, grid=Grid(*AXES["r"]), full_samples=3),
        "mixed": ABF([R, PHI], grid=MIXED, full_samples=2),
        "periodic": ABF([PHI, PSI], grid=Grid((-pi, 0.0), (pi, 2 * pi), (8, 9), periodic=True), kT=1.5),
    },
    "OPES": {
        "kernels": OPES([R, PHI], barrier=5.0, sigma=[0.1, 0.3], stride=2),
        "grid": OPES([R, PHI], barrier=5.0, sigma=[0.06, 0.2], stride=2, grid=MIXED, kT=1.5, bias_factor=4),
    },
    "OPESExplore": {"": OPESExplore(R, barrier=5.0, sigma=0.1, stride=2)},
    "AdaptivePath": {
        "one": AdaptivePath(PATH, Metadynamics(PATH["s"], sigma=0.3, **HILLS), stride=5),
        "tube": AdaptivePath(
            PATH,
            [
                Metadynamics(PATH, sigma=[0.3, 0.1], grid=Grid((0.0, -2.0), (4.0, 30.0), (16, 512)), **HILLS),
                HarmonicWalls(PATH["z"], upper=0.1, kspring=2.0),
            ],
            stride=5,
            half_life=50,
        ),
    },
    "OPESExpanded": {
        "temperatures": OPESExpanded(Multithermal(kT=(0.5, 2.0)), stride=1, n_observations=10),
        "umbrellas": OPESExpanded(
            MultiUmbrella(PHI, centers=[-1.0, 0.0, 3.0], sigma=0.8, barrier=3.0), stride=2, n_observations=10, kT=1.5
        ),
        "both": OPESExpanded(
            [
                Multithermal(kT=(0.5, 2.0), n=3),
                MultiUmbrella([R, PHI], centers=[[0.0, 0.0], [0.1, 3.0]], sigma=[0.3, 0.9]),
            ],
            stride=1,
            n_observations=10,
        ),
    },
    "ExtendedABF": {
        "one": ExtendedABF(R, grid=Grid(*AXES["r"]), sigma=0.05, tau=5.0, full_samples=3),
        "mixed with hills": ExtendedABF(
            [R, PHI],
            grid=MIXED,
            sigma=[0.05, 0.2],
            tau=5.0,
            full_samples=2,
            kT=1.5,
            hills=Metadynamics([R, PHI], sigma=[0.1, 0.3], bias_factor=5, grid=MIXED, kT=1.5, **HILLS),
        ),
    },
    "SpectralABF": {
        "one": SpectralABF(R, grid=Grid(*AXES["r"]), full_samples=3, fit_every=4),
        "mixed": SpectralABF([R, PHI], grid=MIXED, full_samples=2, fit_every=5, n_modes=[4, 3], kT=1.5),
    },
    "ParallelBiasMetadynamics": {
        "one": ParallelBiasMetadynamics(R, sigma=0.1, bias_factor=5, grid=Grid(*AXES["r"]), **HILLS),
        "mixed": ParallelBiasMetadynamics([R, PHI], sigma=[0.1, 0.3], bias_factor=5, grid=MIXED, kT=2.0, **HILLS),
    },
    "ANN": {
        # bins so wide that some are visited twice: with one visit each there is nothing to learn
        "one": ANN(R, grid=Grid(-1.0, 1.0, 5), layers=5, train_every=4),
        "mixed": ANN(
            [R, PHI],
            grid=Grid((-0.9, -pi), (0.9, pi), (4, 5), periodic=(False, True)),
            layers=(4, 3),
            train_every=5,
            kT=1.5,
        ),
    },
    "FUNN": {
        "one": FUNN(R, grid=Grid(*AXES["r"]), layers=5, full_samples=3, train_every=8),
        "mixed": FUNN([R, PHI], grid=MIXED, layers=(4, 3), full_samples=2, train_every=7, kT=1.5),
    },
    "CFF": {
        "one": CFF(R, grid=Grid(*AXES["r"]), layers=5, full_samples=3, train_every=8),
        "mixed": CFF([R, PHI], grid=MIXED, layers=(4, 3), full_samples=2, train_every=7, kT=1.5),
    },
}
# Outside of jit, one of each kind, which takes as long as all the rest.
CASES = [
    pytest.param(method, i == 0, id=f"{name}-{which}")
    for name, entries in ENTRIES.items()
    for i, (which, method) in enumerate(entries.items())
]


def test_every_public_method_has_an_entry():
    public = {
        name
        for name in pysamp.methods.__all__
        if inspect.isclass(getattr(pysamp.methods, name)) and issubclass(getattr(pysamp.methods, name), AbstractMethod)
    }
    assert public - {"AbstractMethod", "AbstractStaticBias"} == set(ENTRIES)


@pytest.mark.parametrize(("method", "eager"), CASES)
def test_contract(method, eager):
    check_method(method, n_steps=24, eager=eager)


class _Broken(AbstractMethod):
    """A static bias with one fault."""

    cvs: tuple = (PHI,)

    def init(self, obs):
        return jnp.zeros(1)

    def update(self, state, obs):
        return state

    def bias(self, state, obs):
        return Bias(1.0 - jnp.cos(obs.xi[0]), -jnp.sin(obs.xi))


class _WrongForce(_Broken):
    def bias(self, state, obs):
        return Bias(1.0 - jnp.cos(obs.xi[0]), -1.01 * jnp.sin(obs.xi))


class _NotPeriodic(_Broken):
    def bias(self, state, obs):
        return Bias(jnp.sum(obs.xi**2), -2.0 * obs.xi)


class _Grows(_Broken):
    def update(self, state, obs):
        return jnp.append(state, obs.xi)


class _DependsOnRoom(_Broken):
    def reserve(self, state, n_steps):
        return jnp.zeros(n_steps)

    def bias(self, state, obs):
        return Bias(jnp.cos(obs.xi[0]) * state.size, jnp.sin(obs.xi) * state.size)


class _AsksForJit(_Broken):
    def bias(self, state, obs):
        return Bias(jnp.cos(obs.xi[0]) + (1.0 if isinstance(obs.xi, Tracer) else 1.1), jnp.sin(obs.xi))


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        (_AsksForJit(), "jit changes the energy"),
        (_WrongForce(), "differences of the energy"),
        (_NotPeriodic(), "one period on"),
        (_Grows(), "shape of the state"),
        (_DependsOnRoom(), "room reserved"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, AbstractMethod) else "",
)
def test_broken_methods_are_found(method, fault):
    """The checks themselves: each of these methods has one fault."""
    with pytest.raises(AssertionError, match=fault):
        check_method(method, n_steps=24)
