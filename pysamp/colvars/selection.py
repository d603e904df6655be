"""Indices of particles from the topologies of engines and analysis packages.

A topology is one of OpenMM (``app.Topology``, or anything that has one: ``Simulation``, ``Modeller``, ``PDBFile``), MDTraj
(``Topology`` or ``Trajectory``) or MDAnalysis (``Universe`` or ``AtomGroup``).
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import InvalidInputError, UnsupportedError

__all__ = ["BackboneDihedrals", "backbone", "backbone_dihedrals", "select"]


class BackboneDihedrals(NamedTuple):
    """Backbone torsions of one residue, four indices each in bond order; None where a neighbour is missing.

    Attributes:
        residue: its name and number, such as ``ALA2``.
        chain: number of its chain, counted from 0.
        phi: C of the residue before, N, CA, C.
        psi: N, CA, C, N of the residue after.
        omega: CA and C of the residue before, N, CA: the peptide bond before the residue.
    """

    residue: str
    chain: int
    phi: list[int] | None
    psi: list[int] | None
    omega: list[int] | None


class _Residue(NamedTuple):
    label: str
    name: str
    chain: int
    atoms: Mapping[str, int]


def select(topology: Any, expression: str) -> list[int]:
    """Indices of the particles that a selection names, for a Group or a CV.

    OpenMM's and MDTraj's topologies take MDTraj's language, MDAnalysis' universes and groups its own.

    Args:
        topology: see above.
        expression: such as ``"name CA and resid 1 to 5"`` (MDTraj, residues counted from 0) or ``"name CA and resid 2-6"``
            (MDAnalysis).

    Raises:
        InvalidInputError: if the expression cannot be read or selects nothing, or there is no topology.
        UnsupportedError: if MDTraj is needed and not installed.

    Example:
        >>> import mdtraj
        >>> from pysamp.colvars import Group, select
        >>> topology = mdtraj.Topology()
        >>> residue = topology.add_residue("HOH", topology.add_chain())
        >>> for name, element in (("O", "O"), ("H1", "H"), ("H2", "H")):
        ...     _ = topology.add_atom(name, mdtraj.element.get_by_symbol(element), residue)
        >>> Group(select(topology, "element H")).indices
        (1, 2)
    """
    library, topology = _library(topology)
    if library == "openmm":
        topology = _mdtraj().Topology.from_openmm(topology)
    try:
        indices = topology.select_atoms(expression).indices if library == "MDAnalysis" else topology.select(expression)
    except Exception as error:  # each package has its own kinds
        raise InvalidInputError(f"The selection {expression!r} cannot be read: {error}") from error
    if not len(indices):
        raise InvalidInputError(f"The selection {expression!r} names no particle.")
    return [int(i) for i in indices]


def backbone_dihedrals(topology: Any) -> list[BackboneDihedrals]:
    """Backbone torsions phi, psi and omega of all residues of all proteins.

    Args:
        topology: see above. Where it has bonds, successive residues of a chain must be bonded to be neighbours.

    Returns:
        One entry for each residue with N, CA and C. Caps such as ACE and NME count as neighbours.

    Raises:
        InvalidInputError: if there is no such residue, or no topology.

    Example:
        >>> from openmm import app
        >>> from pysamp.colvars import DihedralAngle, backbone_dihedrals
        >>> topology = app.Topology()
        >>> chain = topology.addChain()
        >>> for name in ("ALA", "GLY"):
        ...     residue = topology.addResidue(name, chain)
        ...     for atom in ("N", "CA", "C", "O"):
        ...         _ = topology.addAtom(atom, app.element.carbon, residue)
        >>> first, second = backbone_dihedrals(topology)
        >>> second.residue, second.phi, second.psi
        ('GLY2', [2, 4, 5, 6], None)
        >>> DihedralAngle(first.psi).atoms
        (0, 1, 2, 4)
    """
    residues = list(_residues(topology))
    bonds = _bonds(topology)
    result = []
    for before, residue, after in zip([None, *residues], residues, [*residues[1:], None], strict=False):
        n, ca, c = (residue.atoms.get(name) for name in ("N", "CA", "C"))
        if n is None or ca is None or c is None:
            continue
        before_c = _neighbour(before, residue, bonds)
        after_n = None if _neighbour(residue, after, bonds) is None or after is None else after.atoms["N"]
        before_ca = None if before_c is None or before is None else before.atoms.get("CA", before.atoms.get("CH3"))
        result.append(
            BackboneDihedrals(
                residue=residue.label,
                chain=residue.chain,
                phi=None if before_c is None else [before_c, n, ca, c],
                psi=None if after_n is None else [n, ca, c, after_n],
                omega=None if before_c is None or before_ca is None else [before_ca, before_c, n, ca],
            )
        )
    if not result:
        raise InvalidInputError("No residue of the topology has the atoms N, CA and C.")
    return result


def backbone(topology: Any) -> list[list[list[int]]]:
    """Atoms N, CA, CB, C, O of all residues of all proteins, chain by chain, for the contents of secondary structure.

    In glycine the hydrogen in the place of CB is taken (HA3, the second one). A residue without one of the five atoms ends a
    chain, and so does a missing peptide bond where the topology has bonds.

    Args:
        topology: see above.

    Returns:
        Lists of chains of residues of five indices, for :class:`~pysamp.colvars.AlphaRMSD` and the like.

    Raises:
        InvalidInputError: if there is no such residue, or no topology.

    Example:
        >>> from openmm import app
        >>> from pysamp.colvars import backbone
        >>> topology = app.Topology()
        >>> residue = topology.addResidue("ALA", topology.addChain())
        >>> for atom in ("N", "CA", "C", "O", "CB"):
        ...     _ = topology.addAtom(atom, app.element.carbon, residue)
        >>> backbone(topology)
        [[[0, 1, 4, 2, 3]]]
    """
    bonds = _bonds(topology)
    chains: list[list[list[int]]] = [[]]
    last = None
    for residue in _residues(topology):
        five = [residue.atoms.get(name) for name in ("N", "CA", _beta(residue), "C", "O")]
        if None in five:
            last = None
            continue
        if last is None or _neighbour(last, residue, bonds) is None:
            chains.append([])
        chains[-1].append([i for i in five if i is not None])
        last = residue
    chains = [chain for chain in chains if chain]
    if not chains:
        raise InvalidInputError("No residue of the topology has the atoms N, CA, CB, C and O.")
    return chains


def _beta(residue: _Residue) -> str:
    if residue.name != "GLY":
        return "CB"
    return next((name for name in ("HA3", "2HA", "HA2") if name in residue.atoms), "CB")


def _neighbour(before: _Residue | None, after: _Residue | None, bonds: set[frozenset[int]]) -> int | None:
    """Index of the C that is bonded to the N of the residue after, or None."""
    if before is None or after is None or before.chain != after.chain:
        return None
    c, n = before.atoms.get("C"), after.atoms.get("N")
    if c is None or n is None or (bonds and frozenset((c, n)) not in bonds):
        return None
    return c


def _library(topology: Any) -> tuple[str, Any]:
    """Name of the package that a topology is of, and the topology itself."""
    for candidate in (topology, getattr(topology, "topology", None)):
        name = type(candidate).__module__.partition(".")[0]
        if name == "MDAnalysis" or (name in ("openmm", "mdtraj") and type(candidate).__name__ == "Topology"):
            return name, candidate
    raise InvalidInputError(
        f"Expected a topology of OpenMM, MDTraj or MDAnalysis, such as simulation.topology, got {type(topology).__name__}."
    )


def _mdtraj() -> Any:
    try:
        import mdtraj
    except ImportError as error:
        raise UnsupportedError(
            "Selections on OpenMM's topologies need MDTraj: pip install pysamp[selection]. Without it, list the indices."
        ) from error
    return mdtraj


def _residues(topology: Any) -> Iterator[_Residue]:
    """All residues, in order."""
    library, topology = _library(topology)
    if library == "MDAnalysis":
        for number, segment in enumerate(topology.segments):
            for residue in segment.residues:
                atoms = dict(zip(residue.atoms.names.tolist(), residue.atoms.indices.tolist(), strict=True))
                yield _Residue(f"{residue.resname}{residue.resid}", residue.resname, number, atoms)
        return
    called = library == "openmm"  # what is a method there is a property in MDTraj
    for number, chain in enumerate(topology.chains() if called else topology.chains):
        for residue in chain.residues() if called else chain.residues:
            atoms = {atom.name: atom.index for atom in (residue.atoms() if called else residue.atoms)}
            serial = residue.id if called else residue.resSeq
            yield _Residue(f"{residue.name}{serial}", residue.name, number, atoms)


def _bonds(topology: Any) -> set[frozenset[int]]:
    """Pairs of bonded particles; empty where the topology has none."""
    library, topology = _library(topology)
    if library == "MDAnalysis":
        return {frozenset(pair) for pair in topology.bonds.indices.tolist()} if _has_bonds(topology) else set()
    pairs: Sequence[Any] = list(topology.bonds() if library == "openmm" else topology.bonds)
    return {frozenset((a.index, b.index)) for a, b in pairs}


def _has_bonds(group: Any) -> bool:
    try:
        return len(group.bonds) > 0
    except AttributeError:  # MDAnalysis' error for what a file does not have
        return False
