"""Values, gradients and virials against those of an independent program, where its numbers are at hand."""

import itertools
import json
import math
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp._compile import jit_in_haste
from pysamp.colvars import (
    ERMSD,
    RMSD,
    Acylindricity,
    AlphaBetaSimilarity,
    AlphaRMSD,
    Angle,
    AntiparallelBetaRMSD,
    Asphericity,
    Component,
    DihedralAngle,
    DihedralCorrelation,
    Displacement,
    Distance,
    DistanceFromLine,
    DistanceFromPlane,
    DistanceRMSD,
    EigenvectorProjection,
    Group,
    ParallelBetaRMSD,
    PositionOnAxis,
    PrincipalMoments,
    ProjectedDistance,
    PuckeringAmplitude,
    PuckeringCoordinates,
    PuckeringPhase,
    PuckeringTheta,
    RadiusOfGyration,
    RelativeShapeAnisotropy,
    RMSDPath,
    SugarPuckering,
    SugarPuckeringPhase,
    VectorAngle,
    combine,
    custom,
)
from pysamp.methods import Unbiased
from pysamp.methods.base import periodic_difference
from pysamp.sampler import Particles, Sampler
from pysamp.snapshot import Cell
from pysamp.system import System
from pysamp.testing import tolerances

from . import reference_boxes, reference_pairs

FILE = Path(__file__).parents[4] / "shared" / "data" / "cv_reference.json"
DATA = json.loads(FILE.read_text()) if FILE.exists() else {"entries": []}


def points(parameters):
    """Sites as indices and groups; None where one is a mean of angles, as which pysamp has no centre: groups are made whole."""
    result = []
    for site in parameters["sites"]:
        weights = site.get("weights", "equal")
        if weights == "phases":
            return None
        if len(site["atoms"]) == 1 and "weights" not in site:
            result.append(site["atoms"][0])
        else:
            result.append(Group(site["atoms"], weights={"equal": 1, "mass": None}.get(str(weights), weights)))
    return result


def distance(p):
    return Distance(points(p))


def angle(p):
    sites = points(p) or []
    return Angle(sites) if len(sites) == 3 else VectorAngle([sites[1], sites[0], sites[2], sites[3]])


def position(p):
    """Of the image nearest to the origin, it is a user's own."""
    site, components = points(p), ["x", "y", "z"]
    if p["pbc"]:
        return custom(lambda x, cell: cell.displacement(jnp.zeros(3), x[0]), atoms=site, components=components)
    return combine(lambda *c: jnp.stack(c), [Component(site, axis=k) for k in range(3)], components=components)


MAKE = {
    "distance": distance,
    "distance_vector": lambda p: Displacement(points(p)),
    "angle": angle,
    "dihedral": lambda p: DihedralAngle(points(p)),
    "cos_dihedral": lambda p: combine(jnp.cos, [DihedralAngle(points(p))]),
    "position": position,
}


def stacked(*cvs):
    """Several scalars in one vector."""
    return combine(lambda *values: jnp.stack(values), list(cvs), components=[f"c{i}" for i in range(len(cvs))])


MAKE |= {
    "alphabeta": lambda p: AlphaBetaSimilarity(
        p["torsions"], reference=p["references"], coefficients=p["coefficients"]
    ),
    "axis_projection": lambda p: stacked(PositionOnAxis(points(p)), DistanceFromLine(points(p))),
    "dihcor": lambda p: DihedralCorrelation(p["torsion_pairs"]),
    "distance_projected": lambda p: ProjectedDistance(points(p), axes=p["axes"]),
    "plane_distance": lambda p: DistanceFromPlane(points(p)),
}
MAKE |= reference_pairs.MAKE | reference_boxes.MAKE


def gyration(p):
    """PLUMED's names: its lengths are roots of ours, and its TRACE has a factor of twice the total weight."""
    atoms, weights = p["atoms"], 1 if p["weights"] == "equal" else None
    moments = PrincipalMoments(atoms, weights=weights)

    def root_of_sum(*places):
        return combine(lambda values: jnp.sqrt(sum(values[i] for i in places)), [moments])

    return {
        "RADIUS": lambda: RadiusOfGyration(atoms, weights=weights),
        "TRACE": lambda: 2 * len(atoms) * combine(jnp.sum, [moments]),
        "GTPC_1": lambda: root_of_sum(0),
        "GTPC_2": lambda: root_of_sum(1),
        "GTPC_3": lambda: root_of_sum(2),
        "RGYR_1": lambda: root_of_sum(0, 1),
        "RGYR_2": lambda: root_of_sum(0, 2),
        "RGYR_3": lambda: root_of_sum(1, 2),
        "ASPHERICITY": lambda: combine(jnp.sqrt, [Asphericity(atoms, weights=weights)]),
        "ACYLINDRICITY": lambda: combine(jnp.sqrt, [Acylindricity(atoms, weights=weights)]),
        "KAPPA2": lambda: RelativeShapeAnisotropy(atoms, weights=weights),
    }[p["type"]]()


def squared(cv, p):
    return combine(jnp.square, [cv]) if p["squared"] else cv


def rmsd(p, part=slice(None)):
    r = DATA["references"][p["reference"]]
    weights = {"weights": r["displace_weights"][part], "fit_weights": r["align_weights"][part]}
    if r["displace_weights"] == r["align_weights"]:
        weights["fit_weights"] = "same"
    return RMSD(r["atoms"][part], r["positions"][part], **weights, align=p["type"] == "OPTIMAL")


def drmsd(p, part=slice(None)):
    r = DATA["references"][p["reference"]]
    cv = DistanceRMSD(
        r["atoms"][part], r["positions"][part], lower=p.get("lower") or 0.0, upper=p.get("upper") or np.inf
    )
    rounded = np.vectorize(lambda d: float(f"{d:.6g}"))(cv.distances)  # as PLUMED holds them
    cv = eqx.tree_at(lambda cv: cv.distances, cv, rounded)
    if p["type"] == "INTER-DRMSD":
        domain = [i for i, atoms in enumerate(r["domains"]) for _ in atoms]
        counted = (cv.pair_weights > 0) & np.not_equal.outer(domain, domain)
        cv = eqx.tree_at(lambda cv: cv.pair_weights, cv, counted / counted.sum())
    return cv


def multi_rmsd(p):
    ends = np.cumsum([0] + [len(atoms) for atoms in DATA["references"][p["reference"]]["domains"]])
    of_part = drmsd if p["type"] == "DRMSD" else rmsd
    parts = [of_part(p, slice(a, b)) for a, b in itertools.pairwise(ends)]
    return combine(lambda *values: jnp.sqrt(sum(value**2 for value in values)), parts)


def pca_projection(p):
    r = DATA["references"][p["reference"]]
    projections = EigenvectorProjection(r["atoms"], r["positions"], r["vectors"])
    residual = combine(jnp.square, [RMSD(r["atoms"], r["positions"])])
    return combine(lambda p, r: jnp.append(p, r), [projections, residual], components=["0", "1", "residual"])


def path(p):
    r = DATA["references"][p["reference"]]
    return RMSDPath(r["atoms"], r["positions"], lam=p["lam"], values=r.get("property"))


def puckering6(p):
    """PLUMED's qx is the sine, and its phase counts from 0 to 2 pi."""
    xyz, amplitude, theta = (kind(p["atoms"]) for kind in (PuckeringCoordinates, PuckeringAmplitude, PuckeringTheta))
    phase = combine(lambda phase: jnp.mod(phase, 2 * math.pi), [PuckeringPhase(p["atoms"])])
    return stacked(xyz["y"], xyz["x"], xyz["z"], amplitude, theta, phase)


def puckering5(p):
    xy = SugarPuckering(p["atoms"])
    return stacked(xy["x"], xy["y"], combine(jnp.linalg.norm, [xy]), SugarPuckeringPhase(p["atoms"]))


def secondary_structure(p):
    """The residues of all segments, in order; 24 of them are the three chains of the sheet."""
    kind = {"alpharmsd": AlphaRMSD, "antibetarmsd": AntiparallelBetaRMSD, "parabetarmsd": ParallelBetaRMSD}
    residues = sorted({tuple(s[i : i + 5]) for s in p["segments"] for i in range(0, 30, 5)})
    chains = [residues[i : i + 8] for i in range(0, 24, 8)] if len(residues) == 24 else [residues]
    s = p["switch"]
    metric = {"DRMSD": "drmsd", "OPTIMAL": "rmsd"}[p["type"]]
    return kind[p["reference"]](chains, r0=s["r0"], n=s["n"], m=s["m"], metric=metric)


MAKE |= {
    "drmsd": lambda p: squared(drmsd(p), p),
    "ermsd": lambda p: ERMSD(p["bases"], DATA["references"][p["reference"]]["positions"], cutoff=p["cutoff"]),
    "gyration": gyration,
    "multi_rmsd": lambda p: squared(multi_rmsd(p), p),
    "path": path,
    "pca_projection": pca_projection,
    "property_map": path,
    "puckering5": puckering5,
    "puckering6": puckering6,
    "rmsd": lambda p: squared(rmsd(p), p),
    "secondary_structure": secondary_structure,
}


def is_ours(entry):
    """Whether pysamp has all centres that an entry refers to."""
    return "sites" not in entry["parameters"] or points(entry["parameters"]) is not None


def make(entry):
    """The CV of an entry."""
    return MAKE[entry["cv"]](entry["parameters"] | {"charges": DATA["systems"][entry["system"]]["charges"]})


def is_long(entry):
    """Whether it takes long to compile, and differs from another one in the box, a parameter or what is averaged only."""
    return "steinhardt" in entry["cv"] and entry["id"] != "steinhardt-fluid_tri-1"


CASES = [entry for entry in DATA["entries"] if is_ours(entry)]


@pytest.mark.skipif(not DATA["entries"], reason="the reference data are not there")
def test_nothing_is_left_out():
    """Every kind of CV, and all entries but those with a centre that pysamp does not have."""
    assert {entry["cv"] for entry in CASES} == set(MAKE) == set(DATA["families"])
    left_out = [entry for entry in DATA["entries"] if not is_ours(entry)]
    assert all("phases" in str(entry["parameters"]["sites"]) for entry in left_out)
    assert len(left_out) <= 2


@pytest.mark.parametrize(
    "entry",
    [pytest.param(entry, id=entry["id"], marks=[pytest.mark.validation] if is_long(entry) else []) for entry in CASES],
)
def test_values_gradients_virials(entry):
    cv = make(entry)
    system = DATA["systems"][entry["system"]]
    frames = {frame["frame"]: frame for frame in system["frames"]}
    with jax.enable_x64(True):
        boxes = [frame["box"] if entry["parameters"].get("pbc", True) else None for frame in frames.values()]
        cell = Cell.of(boxes[0])
        masses = np.array(system["masses"])
        facts = {"periodic": cell.box is not None, "orthorhombic": cell.orthorhombic, "reduction": cell.reduction}
        sampler = Sampler.build(Unbiased([cv]), System(masses=masses, timestep=1.0, kT=1.0, **facts))
        atoms = list(sampler.atoms)

        def xi(strain, x, box):
            stretch = jnp.eye(3) + strain
            value = sampler.xi(Particles(x @ stretch, None if box is None else box @ stretch))
            return value, value

        evaluate = jit_in_haste(jax.jacrev(xi, argnums=(0, 1), has_aux=True))
        for result in entry["results"]:
            frame = frames[result["frame"]]
            positions = np.array(frame["positions"])
            box = None if cell.box is None else np.array(frame["box"])
            (strain, gradient), value = evaluate(np.zeros((3, 3)), positions[atoms], box)
            expected = np.atleast_1d(result["value"])
            difference = periodic_difference(value, expected, sampler.methods[0].periods)
            tolerance = entry.get("relative_tolerance") or tolerances.REFERENCE_VALUE
            assert np.abs(difference).max() <= tolerance * np.abs(expected).max()

            if "gradient" in result:
                ours = np.zeros((len(value), *positions.shape))
                ours[:, atoms] = gradient
                theirs = np.zeros_like(ours)
                theirs[:, entry["atoms"]] = np.array(result["gradient"]).reshape(len(value), -1, 3)
                assert np.abs(ours - theirs).max() <= tolerances.REFERENCE_GRADIENT * np.abs(theirs).max()
            if "virial" in result:
                theirs = np.array(result["virial"]).reshape(strain.shape)
                largest = max(np.abs(theirs).max(), 1e-6)  # that of fractional coordinates is zero
                assert np.abs(-strain - theirs).max() <= tolerances.REFERENCE_GRADIENT * largest
