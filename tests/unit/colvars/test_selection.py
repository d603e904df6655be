"""The same peptide as a topology of each package."""

import pytest

from pysamp.colvars import AlphaRMSD, DihedralAngle, backbone, backbone_dihedrals, select
from pysamp.errors import InvalidInputError

ATOMS = {  # ACE, ALA, GLY, NME, and a water in a chain of its own
    "ACE": ["HH31", "CH3", "HH32", "HH33", "C", "O"],
    "ALA": ["N", "H", "CA", "HA", "CB", "HB1", "HB2", "HB3", "C", "O"],
    "GLY": ["N", "H", "CA", "HA2", "HA3", "C", "O"],
    "NME": ["N", "H", "CH3"],
    "HOH": ["O", "H1", "H2"],
}
FIRST = {"ACE": 0, "ALA": 6, "GLY": 16, "NME": 23, "HOH": 26}


def index(residue, atom):
    return FIRST[residue] + ATOMS[residue].index(atom)


PEPTIDE_BONDS = [("ACE", "ALA"), ("ALA", "GLY"), ("GLY", "NME")]


def openmm_topology(bonds=PEPTIDE_BONDS):
    app = pytest.importorskip("openmm.app")
    topology = app.Topology()
    chains = [topology.addChain(), topology.addChain()]
    atoms = []
    for name, names in ATOMS.items():
        residue = topology.addResidue(name, chains[name == "HOH"])
        atoms += [topology.addAtom(atom, app.Element.getBySymbol(atom[0]), residue) for atom in names]
    for a, b in bonds:
        topology.addBond(atoms[index(a, "C")], atoms[index(b, "N")])
    return topology


def mdtraj_topology(bonds=PEPTIDE_BONDS):
    mdtraj = pytest.importorskip("mdtraj")
    topology = mdtraj.Topology()
    chains = [topology.add_chain(), topology.add_chain()]
    for number, (name, names) in enumerate(ATOMS.items()):
        residue = topology.add_residue(name, chains[name == "HOH"], resSeq=number + 1)
        for atom in names:
            topology.add_atom(atom, mdtraj.element.get_by_symbol(atom[0]), residue)
    for a, b in bonds:
        topology.add_bond(topology.atom(index(a, "C")), topology.atom(index(b, "N")))
    return topology


def mdanalysis_universe(bonds=PEPTIDE_BONDS):
    mda = pytest.importorskip("MDAnalysis")
    residues = [number for number, names in enumerate(ATOMS.values()) for _ in names]
    universe = mda.Universe.empty(
        29, n_residues=5, atom_resindex=residues, residue_segindex=[0, 0, 0, 0, 1], n_segments=2, trajectory=True
    )
    universe.add_TopologyAttr("names", [atom for names in ATOMS.values() for atom in names])
    universe.add_TopologyAttr("resnames", list(ATOMS))
    universe.add_TopologyAttr("resids", [1, 2, 3, 4, 5])
    if bonds:
        universe.add_TopologyAttr("bonds", [(index(a, "C"), index(b, "N")) for a, b in bonds])
    return universe


MAKE = [openmm_topology, mdtraj_topology, mdanalysis_universe]


@pytest.mark.parametrize("make", MAKE)
@pytest.mark.parametrize("bonds", [PEPTIDE_BONDS, []])
def test_backbone_dihedrals(make, bonds):
    alanine, glycine = backbone_dihedrals(make(bonds))
    assert (alanine.residue, glycine.residue, glycine.chain) == ("ALA2", "GLY3", 0)
    assert alanine.phi == [index("ACE", "C"), index("ALA", "N"), index("ALA", "CA"), index("ALA", "C")]
    assert alanine.psi == [index("ALA", "N"), index("ALA", "CA"), index("ALA", "C"), index("GLY", "N")]
    assert alanine.omega == [index("ACE", "CH3"), index("ACE", "C"), index("ALA", "N"), index("ALA", "CA")]
    assert glycine.phi == [index("ALA", "C"), index("GLY", "N"), index("GLY", "CA"), index("GLY", "C")]
    assert glycine.psi == [index("GLY", "N"), index("GLY", "CA"), index("GLY", "C"), index("NME", "N")]
    assert DihedralAngle(alanine.phi).atoms == (4, 6, 8, 14)  # as everyone writes them for alanine dipeptide


@pytest.mark.parametrize("make", MAKE)
def test_a_missing_bond_ends_the_chain(make):
    alanine, glycine = backbone_dihedrals(make([("ACE", "ALA"), ("GLY", "NME")]))
    assert alanine.psi is None
    assert glycine.phi is None
    assert glycine.omega is None
    assert [len(chain) for chain in backbone(make([("ACE", "ALA"), ("GLY", "NME")]))] == [1, 1]


@pytest.mark.parametrize("make", MAKE)
def test_backbone(make):
    ((alanine, glycine),) = backbone(make())
    assert alanine == [index("ALA", name) for name in ("N", "CA", "CB", "C", "O")]
    assert glycine == [index("GLY", name) for name in ("N", "CA", "HA3", "C", "O")]  # pro-S: where an L-residue has CB
    with pytest.raises(InvalidInputError, match="too short"):
        AlphaRMSD([[alanine, glycine]])


@pytest.mark.parametrize(
    ("make", "expression"),
    [
        (openmm_topology, "name CA and resname ALA GLY"),
        (mdtraj_topology, "name CA and resname ALA GLY"),
        (mdanalysis_universe, "name CA and resname ALA GLY"),
    ],
)
def test_selections(make, expression):
    pytest.importorskip("mdtraj")
    topology = make()
    assert select(topology, expression) == [index("ALA", "CA"), index("GLY", "CA")]
    with pytest.raises(InvalidInputError, match="no particle"):
        select(topology, "name XX")
    with pytest.raises(InvalidInputError, match="cannot be read"):
        select(topology, "name (")


def test_what_has_a_topology_will_do():
    class Simulation:
        topology = openmm_topology()

    assert len(backbone_dihedrals(Simulation())) == 2


@pytest.mark.parametrize("function", [backbone, backbone_dihedrals, lambda topology: select(topology, "all")])
def test_no_topology(function):
    with pytest.raises(InvalidInputError, match="simulation.topology"):
        function("protein.pdb")
