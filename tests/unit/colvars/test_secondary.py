"""Contents of secondary structure against the definition, piece by piece."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from pysamp.colvars import AlphaRMSD, AntiparallelBetaRMSD, ParallelBetaRMSD
from pysamp.colvars._ideal import ALPHA_HELIX, ANTIPARALLEL_STRANDS, PARALLEL_STRANDS
from pysamp.errors import InvalidInputError
from pysamp.snapshot import Cell


def residues(n, first=0):
    return [list(range(5 * i, 5 * i + 5)) for i in range(first, first + n)]


def drmsd(x, ideal):
    i, j = np.triu_indices(30, k=1)
    ours, theirs = (np.linalg.norm(a[i] - a[j], axis=1) for a in (x, ideal))
    return np.sqrt(np.mean((ours - theirs)[theirs > 0.17] ** 2))


def count(pieces, ideals, r0, n=8, m=12):
    y = np.array([min(drmsd(piece, ideal) for ideal in ideals) for piece in pieces]) / r0
    return np.sum((1 - y**n) / (1 - y**m))


def run(x, start, length):
    return x[5 * start : 5 * (start + length)]


def test_ideal_pieces_count_one():
    for kind, ideal in (
        (AlphaRMSD, ALPHA_HELIX),
        (AntiparallelBetaRMSD, ANTIPARALLEL_STRANDS),
        *((ParallelBetaRMSD, ideal) for ideal in PARALLEL_STRANDS),
    ):
        chains = residues(6) if kind is AlphaRMSD else [residues(3, 3), residues(3)]  # the later chain comes first
        x = ideal if kind is AlphaRMSD else np.concatenate([ideal[15:], ideal[:15]])
        if kind is not AlphaRMSD:
            chains = [residues(3), residues(3, 3)]
        for metric in ("drmsd", "rmsd"):
            assert kind(chains, metric=metric)(jnp.asarray(x), Cell()) == pytest.approx(1.0, abs=1e-12)
        assert kind(chains)(-jnp.asarray(x), Cell()) == pytest.approx(1.0)  # distances do not see the mirror image
        assert kind(chains, metric="rmsd")(-jnp.asarray(x), Cell()) < 0.9


def test_against_the_definition():
    """Three chains of 9, 4 and 5 residues, near enough to the ideal ones that every piece counts differently."""
    x = np.random.default_rng(0).normal(scale=0.4, size=(18 * 5, 3))
    chains = [residues(9), residues(4, 9), residues(5, 13)]
    starts = [[0, 9], [9, 13], [13, 18]]
    helices = [run(x, i, 6) for a, b in starts for i in range(a, b - 5)]
    assert AlphaRMSD(chains, r0=0.5)(jnp.asarray(x), Cell()) == pytest.approx(
        count(helices, [ALPHA_HELIX], 0.5), rel=1e-10
    )

    for kind, ideals, apart in (
        (AntiparallelBetaRMSD, [ANTIPARALLEL_STRANDS], 5),
        (ParallelBetaRMSD, PARALLEL_STRANDS, 6),
    ):
        within = [(i, j) for a, b in starts for i in range(a, b - 2) for j in range(i + apart, b - 2)]
        between = [
            (i, j)
            for (a, b), (c, d) in itertools.combinations(starts, 2)
            for i in range(c, d - 2)
            for j in range(a, b - 2)
        ]
        pairs = [np.concatenate([run(x, i, 3), run(x, j, 3)]) for i, j in within + between]
        expected = count(pairs, ideals, 0.6, 6, 10)
        assert kind(chains, r0=0.6, n=6, m=10)(jnp.asarray(x), Cell()) == pytest.approx(expected, rel=1e-10)


def test_switching_function_at_its_radius():
    """At d = r0 it is 0/0 as written: n/m."""
    x = np.random.default_rng(1).normal(scale=0.4, size=(30, 3))
    cv = AlphaRMSD(residues(6), r0=drmsd(x, ALPHA_HELIX))
    assert cv(jnp.asarray(x), Cell()) == pytest.approx(8 / 12)


def test_other_units_of_length():
    x = np.random.default_rng(2).normal(scale=0.4, size=(30, 3))
    nm = AlphaRMSD(residues(6), r0=0.3)(jnp.asarray(x), Cell())
    assert AlphaRMSD(residues(6), r0=3.0, nm=10.0)(jnp.asarray(10 * x), Cell()) == pytest.approx(nm)


@pytest.mark.parametrize(
    "make",
    [
        lambda: AlphaRMSD(residues(5)),
        lambda: AlphaRMSD([residues(3), residues(3, 3)]),
        lambda: AntiparallelBetaRMSD(residues(7)),
        lambda: ParallelBetaRMSD(residues(8)),
        lambda: AlphaRMSD([[0, 1, 2, 3]] * 6),
        lambda: AlphaRMSD([0, 1, 2, 3, 4]),
        lambda: AlphaRMSD([]),
        lambda: AlphaRMSD(residues(6), n=12, m=8),
        lambda: AlphaRMSD(residues(6), metric="OPTIMAL"),
        lambda: AlphaRMSD(residues(6), r0=0.0),
    ],
)
def test_wrong_arguments(make):
    with pytest.raises(InvalidInputError):
        make()
