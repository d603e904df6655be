"""Every method on phi and psi of alanine dipeptide: it runs, acts, and its result knows the basin that was simulated."""

from math import pi

import numpy as np
import pytest

import pysamp
from pysamp.colvars import DihedralAngle, Distance, Path
from pysamp.methods import (
    ABF,
    ANN,
    CFF,
    FUNN,
    OPES,
    AdaptivePath,
    ExtendedABF,
    HarmonicBias,
    HarmonicWalls,
    Metadynamics,
    MovingRestraint,
    MultiUmbrella,
    OPESExpanded,
    OPESExplore,
    ParallelBiasMetadynamics,
    Ratchet,
    SpectralABF,
    UmbrellaSampling,
    Unbiased,
)
from pysamp.paths import ForwardFlux, MeanForceString, SwarmString

pytestmark = pytest.mark.validation

CVS = [DihedralAngle([4, 6, 8, 14]), DihedralAngle([6, 8, 14, 16])]
GRID = pysamp.Grid((-pi, -pi), (pi, pi), (40, 40), periodic=True)
N_STEPS = 20_000
HILLS = {"height": 1.2, "sigma": 0.35, "stride": 50, "bias_factor": 10}
KERNELS = {"barrier": 40.0, "sigma": 0.35, "stride": 50}
LINE = Path(CVS, [[-1.4 - 0.12 * i, 1.0 + 0.15 * i] for i in range(11)])
ON_LINE = Metadynamics(LINE["s"], height=1.2, sigma=0.7, stride=50, bias_factor=10, grid=pysamp.Grid(-2.0, 14.0, 160))

FREE_ENERGY = {
    "Metadynamics": Metadynamics(CVS, grid=GRID, **HILLS),
    "Metadynamics without grid": Metadynamics(CVS, **HILLS),
    "ParallelBiasMetadynamics": ParallelBiasMetadynamics(CVS, grid=GRID, **HILLS),
    "ABF": ABF(CVS, grid=GRID, full_samples=20),
    "SpectralABF": SpectralABF(CVS, grid=GRID, full_samples=20),
    "ANN": ANN(CVS, grid=GRID, train_every=1_000),
    "FUNN": FUNN(CVS, grid=GRID, train_every=5_000),
    "CFF": CFF(CVS, grid=GRID, train_every=5_000),
    "ExtendedABF": ExtendedABF(CVS, grid=GRID, sigma=0.1, tau=0.2),
    "ExtendedABF with hills": ExtendedABF(
        CVS, grid=GRID, sigma=0.1, tau=0.2, hills=Metadynamics(CVS, grid=GRID, **HILLS)
    ),
    "OPES": OPES(CVS, grid=GRID, **KERNELS),
    "OPES without grid": OPES(CVS, **KERNELS),
    "OPESExplore": OPESExplore(CVS, grid=GRID, **KERNELS),
    "UmbrellaSampling": UmbrellaSampling(CVS, centers=[[-1.4, 1.0], [-1.7, 1.5], [-2.0, 2.0]], kspring=50.0),
}
OTHERS = {
    "AdaptivePath": AdaptivePath(LINE, ON_LINE, stride=50),
    "OPESExpanded, umbrellas": OPESExpanded(
        MultiUmbrella(CVS, centers=[[a, b] for a in (-2.5, -1.5) for b in (1.0, 2.0, 3.0)], sigma=0.7, barrier=30.0),
        stride=50,
    ),
    "HarmonicBias": HarmonicBias(CVS, kspring=50.0, center=[-1.4, 1.2]),
    "HarmonicWalls": HarmonicWalls(CVS, lower=[-2.0, 0.0], upper=[-0.5, 2.0], kspring=50.0),
    "MovingRestraint": MovingRestraint(CVS, kspring=50.0, centers=[[-1.4, 1.2], [-2.4, 2.8]], steps=[0, N_STEPS]),
    "Ratchet": Ratchet(CVS, kspring=5.0, target=[1.0, -1.0]),
    "Unbiased": Unbiased(CVS),
}


def simulate(systems, method):
    return pysamp.run(method, systems.alanine, N_STEPS, log_every=20, seed=1, progress=False)


@pytest.mark.parametrize("name", FREE_ENERGY)
def test_free_energy(systems, name):
    """40 ps that begin in the basin of phi < 0, which has the deepest minimum: it is found, 10 kJ/mol or more below phi = 0."""
    run = simulate(systems, FREE_ENERGY[name])
    assert np.isfinite(run.log.bias_energy).all()
    assert np.ptp(run.log.bias_energy.values) > 1.0 or name == "ABF"  # which has none
    fes = pysamp.analyze(run, grid=GRID) if name == "UmbrellaSampling" else pysamp.analyze(run)
    values = np.where(np.isfinite(fes.values), fes.values, np.inf)
    phi, along = fes.grid.centers[0], values.reshape(len(values), -1).min(axis=1)
    assert phi[np.argmin(along)] < -0.5
    assert along.min() + 10.0 < along[np.abs(phi) < 0.2].min()


@pytest.mark.parametrize("name", OTHERS)
def test_others(systems, name):
    run = simulate(systems, OTHERS[name])
    assert np.isfinite(run.log.bias_energy).all()
    phi = run.log.xi.values[0, :, 0]
    if name == "HarmonicWalls":
        assert ((phi > -2.8) & (phi < 0.3)).all()
    if name == "HarmonicBias":
        assert np.std(phi) < 0.35  # sqrt(kT / k) = 0.22 by the spring alone
    if name == "MovingRestraint":
        assert abs(phi[-50:].mean() + 2.4) < 0.4


def test_forward_flux(systems):
    """From the conformer with the internal hydrogen bond to the extended one, along the distance of its two atoms."""
    distance = Distance([5, 17])
    method = ForwardFlux(distance, interfaces=[0.24, 0.28, 0.34, 0.40], n_initial=20, n_trials=30, n_equilibration=500)
    rate = pysamp.analyze(pysamp.run(method, systems.alanine, 10**6, seed=1, progress=False))
    assert 0.0 < rate.stderr < rate.value


LINES = {"path": [[-1.4, 1.0], [-2.5, 2.7]], "n_images": 5, "kspring": 300.0}


@pytest.mark.parametrize(
    "method",
    [
        MeanForceString(CVS, n_steps=200, n_equilibration=50, **LINES),
        SwarmString(CVS, n_steps=50, n_equilibration=50, n_swarm=5, n_release=10, **LINES),
    ],
    ids=["mean force", "swarms"],
)
def test_strings(systems, method):
    fes = pysamp.analyze(pysamp.run(method, systems.alanine, 50_000, seed=1, progress=False))
    assert np.isfinite(fes.path).all()
    assert np.isfinite(fes.values).all()
    assert np.ptp(fes.values) < 30.0  # along the floor of one valley
