"""Every public CV keeps the contract; exporting one without an entry here fails."""

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import pysamp.colvars
from pysamp.colvars import (
    AbstractCV,
    AlphaBetaSimilarity,
    Angle,
    AzimuthalAngle,
    Component,
    ContactMap,
    ContactMapDistance,
    ContactSum,
    CoordinationNumber,
    CubicSwitch,
    DihedralAngle,
    DihedralCorrelation,
    Displacement,
    Distance,
    DistanceFromLine,
    DistanceFromPlane,
    Group,
    HydrogenBonds,
    MinimumDistance,
    NativeContacts,
    PolarAngle,
    PositionOnAxis,
    ProjectedDistance,
    RationalSwitch,
    SmapSwitch,
    VectorAngle,
    combine,
    custom,
)
from pysamp.snapshot import Snapshot
from pysamp.testing import check_cv

NEAR = RationalSwitch(0.7, d0=0.2, cutoff=1.6)
GROUPS = [Group([0, 1, 2]), Group([3, 4], weights=1), Group([5, 6, 7], weights=[1.0, 2.0, 0.5]), Group([8, 9, 10])]

ENTRIES = {
    "AlphaBetaSimilarity": [
        AlphaBetaSimilarity(
            [[0, 3, 4, 9], [3, 4, 9, 11], GROUPS], reference=[0.3, -1.0, 2.0], coefficients=[1.0, 2.0, 0.5]
        )
    ],
    "Angle": [Angle([0, 4, 7]), Angle(GROUPS[:3])],
    "AzimuthalAngle": [AzimuthalAngle([0, 5]), AzimuthalAngle(GROUPS[:2], axis=0)],
    "Combination": [
        Distance([0, 5]) - 2 * Distance([3, 7]),
        combine(jnp.cos, [DihedralAngle([0, 3, 4, 9])]),
        DihedralAngle([0, 3, 4, 9]) + DihedralAngle(GROUPS),
        Displacement([1, 2]) * Distance([1, 3]),
        Displacement([1, 2])["y"],
    ],
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
    "DihedralAngle": [DihedralAngle([0, 3, 4, 9]), DihedralAngle(GROUPS)],
    "DihedralCorrelation": [DihedralCorrelation([([0, 3, 4, 9], [3, 4, 9, 11]), (GROUPS, [2, 1, 0, 8])])],
    "Displacement": [Displacement([0, 5]), Displacement(GROUPS[:2])],
    "Distance": [Distance([0, 5]), Distance(GROUPS[:2])],
    "DistanceFromLine": [DistanceFromLine([0, 4, 7]), DistanceFromLine(GROUPS[:2], direction=(1, -2, 2))],
    "DistanceFromPlane": [DistanceFromPlane([0, 4, 7, 9]), DistanceFromPlane(GROUPS)],
    "HydrogenBonds": [
        HydrogenBonds([(0, 1), (0, 2), (3, 4)], [0, 3, 5, 8], distance=NEAR),
        HydrogenBonds([(0, 1), (5, 4)], [3, 9, 8], distance=NEAR, angle=None),
    ],
    "MinimumDistance": [MinimumDistance([0, 1, 2], [5, GROUPS[3]], beta=5.0)],
    "NativeContacts": [NativeContacts([(0, 5), (GROUPS[1], 8)], reference=[0.4, 0.7], beta=3.0)],
    "PolarAngle": [PolarAngle([0, 5]), PolarAngle(GROUPS[:2], axis=1)],
    "PositionOnAxis": [PositionOnAxis([0, 4, 7]), PositionOnAxis(GROUPS[:2], direction=(1, -2, 2))],
    "ProjectedDistance": [ProjectedDistance([0, 5], axes=(0, 1)), ProjectedDistance(GROUPS[:2], axes=[2])],
    "VectorAngle": [VectorAngle([0, 3, 4, 9]), VectorAngle(GROUPS)],
}

BOXES = {
    "no box": None,
    "orthorhombic": np.diag([1.4, 1.7, 2.1]),
    "triclinic": np.array([[1.5, 0.0, 0.0], [0.7, 1.4, 0.0], [-0.65, 0.6, 1.35]]),
}


def snapshot(box, seed=3):
    rng = np.random.default_rng(seed)
    return Snapshot(rng.normal(size=(12, 3)), None, rng.uniform(1.0, 16.0, 12), box)


def test_every_public_cv_has_an_entry():
    public = {
        name
        for name in pysamp.colvars.__all__
        if inspect.isclass(getattr(pysamp.colvars, name)) and issubclass(getattr(pysamp.colvars, name), AbstractCV)
    }
    assert public - {"AbstractCV"} == set(ENTRIES)


# Every class in every kind of box, every further entry in the most general one.
CASES = [(entries[0], box) for entries in ENTRIES.values() for box in BOXES]
CASES += [(cv, "triclinic") for entries in ENTRIES.values() for cv in entries[1:]]


@pytest.mark.parametrize(("cv", "box"), CASES, ids=[f"{cv.name[:50]}-{box}" for cv, box in CASES])
def test_contract(cv, box):
    check_cv(cv, snapshot(BOXES[box]))


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
