"""Hydrogen bonds and native contacts, which the reference data lack, against the distances and angles of MDTraj."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from pysamp._compile import jit_in_haste
from pysamp.colvars import CubicSwitch, HydrogenBonds, NativeContacts
from pysamp.snapshot import Cell

SINGLE = 1e-5  # MDTraj computes in float32
BOX = np.array([[2.0, 0.0, 0.0], [0.6, 1.9, 0.0], [-0.5, 0.7, 1.8]])
REACH = CubicSwitch(0.25, d0=0.25)


def trajectory(x, box):
    mdtraj = pytest.importorskip("mdtraj")
    topology = mdtraj.Topology()
    residue = topology.add_residue("X", topology.add_chain())
    for _ in x:
        topology.add_atom("X", mdtraj.element.oxygen, residue)
    result = mdtraj.Trajectory(x[None].astype(np.float32), topology)
    if box is not None:
        result.unitcell_vectors = box[None]
    return mdtraj, result


@pytest.mark.parametrize("n", [20, 70])
@pytest.mark.parametrize("box", [None, BOX], ids=["no box", "triclinic"])
def test_hydrogen_bonds(n, box):
    """Of n molecules with two hydrogens each; the pairs of 70 are found through a neighbour list."""
    rng = np.random.default_rng(n)
    oxygens = (rng.uniform(size=(n, 3)) @ BOX).astype(np.float32)
    arms = rng.normal(size=(2, n, 3))
    hydrogens = (oxygens + 0.1 * arms / np.linalg.norm(arms, axis=-1, keepdims=True)).astype(np.float32)
    x = np.concatenate([oxygens, *hydrogens]).astype(np.float64)
    triples = [(k * n + d, d, a) for k in (1, 2) for d in range(n) for a in range(n) if a != d]

    mdtraj, molecules = trajectory(x, box)
    r = mdtraj.compute_distances(molecules, [triple[1:] for triple in triples])[0].astype(float)
    theta = mdtraj.compute_angles(molecules, triples)[0].astype(float)
    y = np.clip((r - 0.25) / 0.25, 0, 1)
    distance = (1 - y) ** 2 * (1 + 2 * y)
    expected = (distance / (1 + np.exp(20 * (theta - np.pi / 6)))).sum()
    assert expected > 1

    donors = [(d, k * n + d) for k in (1, 2) for d in range(n)]
    cell = Cell() if box is None else Cell.of(box)
    for angle, value in (({}, expected), ({"angle": None}, distance.sum())):
        bonds = HydrogenBonds(donors, range(n), distance=REACH, **angle)
        assert bool(bonds.neighborhoods) == (n == 70)
        ours = jit_in_haste(bonds)(jnp.asarray(x[list(bonds.atoms)]), cell)
        assert float(ours) == pytest.approx(value, rel=SINGLE)


@pytest.mark.parametrize("box", [None, BOX], ids=["no box", "triclinic"])
def test_native_contacts(box):
    """Q as Best, Hummer and Eaton define it, and the contacts that a structure has."""
    rng = np.random.default_rng(7)
    native = (rng.uniform(size=(30, 3)) @ BOX).astype(np.float32).astype(np.float64)
    moved = (native + rng.normal(scale=0.2, size=native.shape)).astype(np.float32).astype(np.float64)
    mdtraj, before = trajectory(native, box)
    _, after = trajectory(moved, box)
    pairs = np.array([(i, j) for i, j in itertools.combinations(range(30), 2) if j - i >= 4])
    r0, r = (mdtraj.compute_distances(t, pairs)[0].astype(float) for t in (before, after))
    near = r0 < 0.6
    expected = (1 / (1 + np.exp(20 * (r[near] - 1.8 * r0[near])))).mean()
    assert 0.1 < expected < 0.9

    cell = Cell() if box is None else Cell.of(box)
    q = NativeContacts(pairs[near].tolist(), reference=r0[near], beta=20)
    assert float(q(jnp.asarray(moved[list(q.atoms)]), cell)) == pytest.approx(expected, rel=SINGLE)
    if box is None:
        q = NativeContacts.of_structure(native, range(30), residues=range(30), cutoff=0.6, beta=20)
        assert len(q.reference) == near.sum()
        assert float(q(jnp.asarray(moved[list(q.atoms)]), cell)) == pytest.approx(expected, rel=SINGLE)
