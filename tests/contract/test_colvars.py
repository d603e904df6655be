"""Every public CV keeps the contract; exporting one without an entry here fails."""
# pyright: reportCallIssue=false

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.core import Tracer

import pysamp.colvars
from pysamp.colvars import (
    ERMSD,
    RMSD,
    AbstractCV,
    Acylindricity,
    AlphaBetaSimilarity,
    AlphaRMSD,
    Angle,
    AntiparallelBetaRMSD,
    Asphericity,
    AveragedSteinhardtQ,
    AzimuthalAngle,
    CellAngle,
    CellLength,
    Component,
    ContactMap,
    ContactMapDistance,
    ContactSum,
    CoordinationNumber,
    CubicSwitch,
    Density,
    DihedralAngle,
    DihedralCorrelation,
    Dipole,
    DipoleMoment,
    Displacement,
    Distance,
    DistanceFromLine,
    DistanceFromPlane,
    DistanceRMSD,
    EigenvectorProjection,
    EnvironmentSimilarity,
    EulerAngle,
    FCCOrder,
    GlobalSteinhardtQ,
    Group,
    HydrogenBonds,
    Learned,
    LinearProjection,
    LocalSteinhardtQ,
    MinimumDistance,
    NativeContacts,
    Orientation,
    PairEntropy,
    ParallelBetaRMSD,
    Path,
    PolarAngle,
    PositionOnAxis,
    PotentialEnergy,
    PrincipalMoments,
    PrincipalMomentsOfInertia,
    ProjectedDistance,
    PuckeringAmplitude,
    PuckeringCoordinates,
    PuckeringPhase,
    PuckeringTheta,
    RadialDistribution,
    RadiusOfGyration,
    RationalSwitch,
    RelativeShapeAnisotropy,
    RMSDPath,
    RotationAngle,
    SimpleCubicOrder,
    SmapSwitch,
    SpinAngle,
    SteinhardtQ,
    SugarPuckering,
    SugarPuckeringPhase,
    Tetrahedrality,
    TetrahedralOrder,
    TiltAngle,
    VectorAngle,
    Volume,
    combine,
    custom,
)
from pysamp.snapshot import Snapshot
from pysamp.testing import check_cv

NEAR = RationalSwitch(0.7, d0=0.2, cutoff=1.6)
GROUPS = [Group([0, 1, 2]), Group([3, 4], weights=1), Group([5, 6, 7], weights=[1.0, 2.0, 0.5]), Group([8, 9, 10])]

ATOMS = [0, 3, 4, 9, 11, 2]
REFERENCES = np.random.default_rng(7).normal(size=(3, 6, 3))
SYMMETRIC = np.concatenate([REFERENCES[0, :2], -REFERENCES[0, :2]])
RESIDUES = [list(range(5 * i, 5 * i + 5)) for i in range(6)]

ENTRIES = {
    "Acylindricity": [Acylindricity(ATOMS), Acylindricity(GROUPS, weights=[1, 2, 3, 4])],
    "AlphaBetaSimilarity": [
        AlphaBetaSimilarity(
            [[0, 3, 4, 9], [3, 4, 9, 11], GROUPS], reference=[0.3, -1.0, 2.0], coefficients=[1.0, 2.0, 0.5]
        )
    ],
    "AlphaRMSD": [AlphaRMSD(RESIDUES, r0=1.0), AlphaRMSD(RESIDUES, r0=1.5, n=6, metric="rmsd", nm=2.0)],
    "Angle": [Angle([0, 4, 7]), Angle(GROUPS[:3])],
    "AntiparallelBetaRMSD": [
        AntiparallelBetaRMSD([RESIDUES[:3], RESIDUES[3:]], r0=1.0),
        AntiparallelBetaRMSD([RESIDUES[:3], RESIDUES[3:]], r0=1.0, metric="rmsd"),
    ],
    "Asphericity": [Asphericity(ATOMS)],
    "AveragedSteinhardtQ": [
        AveragedSteinhardtQ(range(6), l=4, switch=CubicSwitch(0.9, d0=0.5)),
        AveragedSteinhardtQ(GROUPS, l=3, switch=NEAR, normalized=False, above=CubicSwitch(0.6)),
    ],
    "AzimuthalAngle": [AzimuthalAngle([0, 5]), AzimuthalAngle(GROUPS[:2], axis=0)],
    "Combination": [
        Distance([0, 5]) - 2 * Distance([3, 7]),
        combine(jnp.cos, [DihedralAngle([0, 3, 4, 9])]),
        DihedralAngle([0, 3, 4, 9]) + DihedralAngle(GROUPS),
        Displacement([1, 2]) * Distance([1, 3]),
        Displacement([1, 2])["y"],
    ],
    "CellAngle": [CellAngle("beta"), CellAngle("gamma")],
    "CellLength": [CellLength("c")],
    "Component": [Component([4], axis=1), Component([GROUPS[0]], axis=2), Component([2, GROUPS[1]], axis=0)],
    "ContactMap": [ContactMap([(0, 5), (0, 8), (9, 1)], switch=NEAR, weights=[1.0, 2.0, 0.5])],
    "ContactMapDistance": [
        ContactMapDistance([(0, 5), (GROUPS[1], 8)], switch=NEAR, reference=[0.3, 0.9], weights=[1.0, 2.0])
    ],
    "ContactSum": [
        ContactSum([(0, 5), (GROUPS[1], 8)], switch=NEAR),
        ContactSum([(0, 5), (0, 8), (9, 1)], switch=[NEAR, SmapSwitch(0.9, a=3, b=2), NEAR]),
    ],
    "CoordinationNumber": [
        CoordinationNumber(range(12), switch=NEAR),
        CoordinationNumber([0, 1, 2], [2, 5, 6, 7], switch=CubicSwitch(0.9, d0=0.3)),
        CoordinationNumber(GROUPS[:2], [GROUPS[2], 8, 9], switch=RationalSwitch(1.0)),
    ],
    "Custom": [
        custom(lambda x, cell: jnp.sum(cell.displacement(x[:-1], x[1:]) ** 2), atoms=[0, 3, 8]),
        custom(lambda x: x[0, :2], atoms=[GROUPS[2]], components=["x", "y"]),
    ],
    "Density": [Density()],
    "DihedralAngle": [DihedralAngle([0, 3, 4, 9]), DihedralAngle(GROUPS)],
    "DihedralCorrelation": [DihedralCorrelation([([0, 3, 4, 9], [3, 4, 9, 11]), (GROUPS, [2, 1, 0, 8])])],
    "Dipole": [Dipole([0, 3, 4], [0.5, -1.0, 0.8])],
    "DipoleMoment": [DipoleMoment([0, *GROUPS[1:3]], [0.5, -1.0, 0.5])],
    "Displacement": [Displacement([0, 5]), Displacement(GROUPS[:2])],
    "Distance": [Distance([0, 5]), Distance(GROUPS[:2])],
    "DistanceFromLine": [DistanceFromLine([0, 4, 7]), DistanceFromLine(GROUPS[:2], direction=(1, -2, 2))],
    "DistanceFromPlane": [DistanceFromPlane([0, 4, 7, 9]), DistanceFromPlane(GROUPS)],
    "DistanceRMSD": [DistanceRMSD(ATOMS, REFERENCES[0], lower=0.5)],
    "ERMSD": [ERMSD([[0, 1, 2], [5, 6, 7], [10, 3, 4]], REFERENCES.reshape(-1, 3)[:9], cutoff=5.0)],
    "EigenvectorProjection": [
        EigenvectorProjection(ATOMS, REFERENCES[0], REFERENCES[1:]),
        EigenvectorProjection(GROUPS, REFERENCES[0, :4], REFERENCES[1, :4], fit_weights=None),
    ],
    "EnvironmentSimilarity": [
        EnvironmentSimilarity(range(5), environments=REFERENCES[0, :3], sigma=0.4),
        EnvironmentSimilarity(
            [0, GROUPS[0]], [0, 4, GROUPS[2]], environments=[SYMMETRIC, -0.7 * SYMMETRIC[:2]], sigma=0.5, lam=9.0
        ),
        EnvironmentSimilarity(range(5), environments=SYMMETRIC, sigma=0.4, above=CubicSwitch(0.5)),
    ],
    "EulerAngle": [EulerAngle(ATOMS, REFERENCES[0], angle=angle) for angle in ("roll", "pitch", "yaw")],
    "FCCOrder": [
        FCCOrder(range(6), switch=NEAR),
        FCCOrder([0, GROUPS[0]], [0, 4, 5, GROUPS[2]], switch=NEAR, alpha=27, above=CubicSwitch(1.0)),
    ],
    "GlobalSteinhardtQ": [
        GlobalSteinhardtQ(range(6), l=4, switch=NEAR),
        GlobalSteinhardtQ([0, 1], [1, 2, 5, 6], l=3, switch=NEAR, normalized=False),
    ],
    "Learned": [
        Learned(
            [DihedralAngle([0, 3, 4, 9]), Distance([0, 5])],
            lambda f: jnp.tanh(f) @ jnp.array([0.3, -0.2, 1.0], f.dtype),
        ),
        Learned([Displacement([0, 5])], lambda f: f[:2] ** 2, components=["a", "b"], mean=[1.0, 2.0, 3.0], scale=0.5),
    ],
    "LinearProjection": [
        LinearProjection([DihedralAngle([0, 3, 4, 9]), Displacement([0, 5])], REFERENCES.reshape(-1)[:10].reshape(2, 5))
    ],
    "LocalSteinhardtQ": [
        LocalSteinhardtQ(range(6), l=4, switch=NEAR),
        LocalSteinhardtQ(GROUPS, l=3, switch=NEAR, above=CubicSwitch(1.0)),
    ],
    "Orientation": [Orientation(ATOMS, REFERENCES[0]), Orientation(GROUPS, REFERENCES[0, :4], weights=None)],
    "PairEntropy": [
        PairEntropy(range(5), r_max=0.9, sigma=0.15, density=3.0),
        PairEntropy([0, GROUPS[0]], [0, 4, GROUPS[2]], r_max=0.9, sigma=0.15),
    ],
    "ParallelBetaRMSD": [ParallelBetaRMSD([RESIDUES[:3], RESIDUES[3:]], r0=1.0)],
    "Path": [
        Path([Distance([0, 5]), DihedralAngle([0, 3, 4, 9])], [[0.5, -3.0], [1.0, 3.0], [2.0, 2.0]], scales=[1.0, 2.0]),
        Path([PrincipalMoments(ATOMS), Distance([0, 5])], REFERENCES[0, :, [0, 1, 2, 0]].T, lam=0.5, values=range(6)),
    ],
    "HydrogenBonds": [
        HydrogenBonds([(0, 1), (0, 2), (3, 4)], [0, 3, 5, 8], distance=NEAR),
        HydrogenBonds([(0, 1), (5, 4)], [3, 9, 8], distance=NEAR, angle=None),
    ],
    "MinimumDistance": [MinimumDistance([0, 1, 2], [5, GROUPS[3]], beta=5.0)],
    "NativeContacts": [NativeContacts([(0, 5), (GROUPS[1], 8)], reference=[0.4, 0.7], beta=3.0)],
    "PolarAngle": [PolarAngle([0, 5]), PolarAngle(GROUPS[:2], axis=1)],
    "PositionOnAxis": [PositionOnAxis([0, 4, 7]), PositionOnAxis(GROUPS[:2], direction=(1, -2, 2))],
    "PotentialEnergy": [PotentialEnergy(), PotentialEnergy() * Distance([0, 5])],
    "PrincipalMoments": [PrincipalMoments(ATOMS, weights=1)],
    "PrincipalMomentsOfInertia": [PrincipalMomentsOfInertia(ATOMS)],
    "ProjectedDistance": [ProjectedDistance([0, 5], axes=(0, 1)), ProjectedDistance(GROUPS[:2], axes=[2])],
    "PuckeringAmplitude": [PuckeringAmplitude(ATOMS)],
    "PuckeringCoordinates": [PuckeringCoordinates(ATOMS[:5]), PuckeringCoordinates(ATOMS)],
    "PuckeringPhase": [PuckeringPhase(ATOMS[:5]), PuckeringPhase(ATOMS)],
    "PuckeringTheta": [PuckeringTheta(ATOMS)],
    "RMSD": [
        RMSD(ATOMS, REFERENCES[0]),
        RMSD(ATOMS, REFERENCES, weights=None),
        RMSD(ATOMS, REFERENCES[0], weights=None, fit_weights=[1, 2, 3, 4, 0, 0]),
        RMSD(GROUPS, REFERENCES[0, :4], align=False),
    ],
    "RMSDPath": [RMSDPath(ATOMS, REFERENCES)],
    "RadialDistribution": [
        RadialDistribution(range(5), r_max=1.2, n_bins=4, density=3.0),
        RadialDistribution([0, GROUPS[0]], [0, 4, GROUPS[2]], r_max=0.9, n_bins=3, sigma=0.1),
    ],
    "RadiusOfGyration": [RadiusOfGyration(ATOMS), RadiusOfGyration([*GROUPS, 11])],
    "RelativeShapeAnisotropy": [RelativeShapeAnisotropy(ATOMS)],
    "RotationAngle": [RotationAngle(ATOMS, REFERENCES[0])],
    "SimpleCubicOrder": [
        SimpleCubicOrder(range(6), switch=NEAR),
        SimpleCubicOrder([0, GROUPS[0]], [0, 4, 5, GROUPS[2]], switch=NEAR, above=CubicSwitch(1.0)),
    ],
    "SpinAngle": [SpinAngle(ATOMS, REFERENCES[0], axis=(1, -2, 2))],
    "SteinhardtQ": [
        SteinhardtQ(range(6), l=6, switch=NEAR),
        SteinhardtQ([0, 1, GROUPS[0]], [1, 4, 5, 6, GROUPS[2]], l=3, switch=NEAR, normalized=False),
        SteinhardtQ(range(6), l=4, switch=NEAR, above=CubicSwitch(1.0, d0=0.2)),
    ],
    "SugarPuckering": [SugarPuckering(ATOMS[:5])],
    "SugarPuckeringPhase": [SugarPuckeringPhase(ATOMS[:5])],
    "Tetrahedrality": [
        Tetrahedrality(range(6), switch=NEAR),
        Tetrahedrality([0, GROUPS[0]], [0, 4, 5, GROUPS[2]], switch=NEAR, above=CubicSwitch(1.0)),
    ],
    "TetrahedralOrder": [
        TetrahedralOrder(range(6), switch=NEAR),
        TetrahedralOrder([0, GROUPS[0]], [0, 4, 5, GROUPS[2]], switch=NEAR, normalized=False, above=CubicSwitch(1.0)),
    ],
    "TiltAngle": [TiltAngle(ATOMS, REFERENCES[0], axis=(1, -2, 2))],
    "Volume": [Volume()],
    "VectorAngle": [VectorAngle([0, 3, 4, 9]), VectorAngle(GROUPS)],
}

BOXES = {
    "no box": None,
    "orthorhombic": np.diag([1.4, 1.7, 2.1]),
    "triclinic": np.array([[1.5, 0.0, 0.0], [0.7, 1.4, 0.0], [-0.65, 0.6, 1.35]]),
}


def snapshot(box, seed=3):
    rng = np.random.default_rng(seed)
    return Snapshot(rng.normal(size=(30, 3)), None, rng.uniform(1.0, 16.0, 30), box)


def test_every_public_cv_has_an_entry():
    public = {
        name
        for name in pysamp.colvars.__all__
        if inspect.isclass(getattr(pysamp.colvars, name)) and issubclass(getattr(pysamp.colvars, name), AbstractCV)
    }
    assert public - {"AbstractContacts", "AbstractCV"} == set(ENTRIES)


# Each kind of CV in the most general box; in the others, and outside of jit, one CV of each kind of code by default, and all of
# them with -m validation, as further options of CVs.
EVERYWHERE = {"Angle", "Combination", "CoordinationNumber", "DihedralAngle", "Distance", "RMSD"}
OF_THE_BOX = {"CellAngle", "CellLength", "Density", "Volume"}
CASES = [
    pytest.param(
        entries[0],
        box,
        box != "triclinic" or name in EVERYWHERE,
        id=f"{entries[0].name[:50]}-{box}",
        marks=[] if box == "triclinic" or name in EVERYWHERE else pytest.mark.validation,
    )
    for name, entries in ENTRIES.items()
    for box in BOXES
    if not (name in OF_THE_BOX and box == "no box")
]
CASES += [
    pytest.param(cv, "triclinic", False, id=f"{cv.name[:50]}-triclinic", marks=pytest.mark.validation)
    for entries in ENTRIES.values()
    for cv in entries[1:]
]


@pytest.mark.parametrize(("cv", "box", "eager"), CASES)
def test_contract(cv, box, eager):
    check_cv(cv, snapshot(BOXES[box]), eager=eager)


BROKEN = {
    "gradient": lambda x, cell: jax.lax.stop_gradient(x[0, 0]) + x[1, 0],
    "float32": lambda x, cell: x[0, 0] * (1.1 if x.dtype == jnp.float32 else 1.0),
    "(?s)gradient of.*coinciding": lambda x, cell: jnp.linalg.norm(cell.displacement(x[0], x[1])),
    "strain derivative": lambda x, cell: (
        jnp.sum(cell.displacement(x[0], x[1]) ** 2) / jax.lax.stop_gradient(jnp.trace(cell.box))
    ),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_broken_cvs_are_found(fault):
    """The checks themselves: each of these CVs has one fault."""
    with pytest.raises(AssertionError, match=fault):
        check_cv(custom(BROKEN[fault], atoms=[0, 1]), snapshot(BOXES["triclinic"]))


def test_a_value_that_differs_outside_of_jit_is_found():
    cv = custom(lambda x, cell: x[0, 0] * (1.0 if isinstance(x, Tracer) else 1.1), atoms=[0])
    with pytest.raises(AssertionError, match="changes under jit"):
        check_cv(cv, snapshot(BOXES["triclinic"]))


@pytest.mark.parametrize("invariance", ["translation", "rotation", "image", "permutation"])
def test_false_claims_are_found(invariance):
    class Claim(AbstractCV):
        atoms: tuple[int, ...] = (0, 1)

        @property
        def invariances(self):
            return frozenset({invariance})

        def __call__(self, x, cell):
            return x[0, 0] + 2 * x[1, 2]

    with pytest.raises(AssertionError, match="not invariant"):
        check_cv(Claim(), snapshot(BOXES["triclinic"]))
