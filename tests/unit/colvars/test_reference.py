"""Values, gradients and virials against those of an independent program, where its numbers are at hand."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.colvars import (
    AlphaBetaSimilarity,
    Angle,
    Component,
    DihedralAngle,
    DihedralCorrelation,
    Displacement,
    Distance,
    DistanceFromLine,
    DistanceFromPlane,
    Group,
    PositionOnAxis,
    ProjectedDistance,
    VectorAngle,
    combine,
)
from pysamp.methods import Unbiased
from pysamp.methods.base import periodic_difference
from pysamp.sampler import Particles, Sampler
from pysamp.snapshot import Cell
from pysamp.system import System
from pysamp.testing import tolerances

from . import reference_pairs

FILE = Path(__file__).parents[4] / "shared" / "data" / "cv_reference.json"
DATA = json.loads(FILE.read_text()) if FILE.exists() else {"entries": []}


def points(parameters):
    """Sites as indices and groups; None where a site is of a kind that pysamp does not have."""
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
    sites = points(p)
    return Angle(sites) if len(sites) == 3 else VectorAngle([sites[1], sites[0], sites[2], sites[3]])


def position(p):
    site = points(p)
    return None if p["pbc"] else combine(lambda *c: jnp.stack(c), [Component(site, axis=k) for k in range(3)],
                                         components=["x", "y", "z"])  # fmt: skip


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
MAKE |= reference_pairs.MAKE


def make(entry):
    """The CV of an entry, or None where it is not among ours."""
    parameters = entry["parameters"]
    if entry["cv"] not in MAKE or ("sites" in parameters and points(parameters) is None):
        return None
    return MAKE[entry["cv"]](parameters)


CASES = [(entry, cv) for entry in DATA["entries"] if (cv := make(entry)) is not None]


@pytest.mark.skipif(not DATA["entries"], reason="the reference data are not there")
def test_there_is_something_to_compare():
    assert {entry["cv"] for entry, _ in CASES} == set(MAKE)


@pytest.mark.parametrize(("entry", "cv"), CASES, ids=[entry["id"] for entry, _ in CASES])
def test_values_gradients_virials(entry, cv):
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

        evaluate = jax.jit(jax.jacrev(xi, argnums=(0, 1), has_aux=True))
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
                assert np.abs(-strain - theirs).max() <= tolerances.REFERENCE_GRADIENT * np.abs(theirs).max()
