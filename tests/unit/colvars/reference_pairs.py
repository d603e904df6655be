"""CVs of pairs and neighbours as the reference data describe them."""

import jax.numpy as jnp

from pysamp.colvars import (
    AveragedSteinhardtQ,
    ContactMap,
    ContactMapDistance,
    ContactSum,
    CoordinationNumber,
    CosineSwitch,
    CubicSwitch,
    EnvironmentSimilarity,
    ExponentialSwitch,
    FCCOrder,
    FermiSwitch,
    GaussianSwitch,
    LocalSteinhardtQ,
    MinimumDistance,
    PairEntropy,
    RationalSwitch,
    SimpleCubicOrder,
    SmapSwitch,
    SteinhardtQ,
    TanhSwitch,
    TetrahedralOrder,
    combine,
)


def switch(p):
    cut = {"cutoff": p["d_max"], "stretch": p["stretch"]}
    r0, d0 = p.get("r0"), p.get("d0", 0.0)
    match p["kind"]:
        case "rational":
            return RationalSwitch(r0, d0=d0, n=p["n"], m=p["m"], **cut)
        case "exp":
            return ExponentialSwitch(r0, d0=d0, **cut)
        case "gaussian":
            return GaussianSwitch(r0, d0=d0, **cut)
        case "tanh":
            return TanhSwitch(r0, d0=d0, **cut)
        case "smap":
            return SmapSwitch(r0, d0=d0, a=p["a"], b=p["b"], **cut)
        case "cosinus":
            return CosineSwitch(r0, d0=d0, **cut)
        case "cubic":
            return CubicSwitch(p["d_max"] - d0, d0=d0)
        case "q":
            return FermiSwitch(p["lam"] * p["ref"], beta=p["beta"], **cut)
        case "custom" if p["func"] == "1/(1+x^4)":
            return RationalSwitch(r0, d0=d0, n=4, m=8, **cut)
    raise ValueError(p)


def contact_map(p):
    kind = {"each": ContactMap, "sum": ContactSum, "distance": ContactMapDistance}[p["output"]]
    more = {} if p["references"] is None else {"reference": p["references"]}
    return kind(p["pairs"], switch=[switch(s) for s in p["switches"]], weights=p["weights"], **more)


def of_particles(kind, p, neighbors, **options):
    """The mean over particles, or the values of some as components."""
    options["switch"] = switch(p["switch"])
    if p["output"] == "mean":
        return kind(p["centers"], **options)
    each = [kind([center], neighbors, **options) for center in p["centers"]]
    return combine(lambda *values: jnp.stack(values), each, components=[f"atom{i}" for i in p["centers"]])


def steinhardt(p):
    """PLUMED's have no factor of 4 pi / (2 l + 1)."""
    return of_particles(SteinhardtQ, p, p.get("neighbors"), l=p["l"], normalized=False)


MAKE = {
    "averaged_steinhardt": lambda p: AveragedSteinhardtQ(
        p["centers"], l=p["l"], switch=switch(p["switch"]), normalized=False
    ),
    "contact_map": contact_map,
    "coordination": lambda p: CoordinationNumber(p["a"], p["b"], switch=switch(p["switch"])),
    "coordination_pairs": lambda p: ContactSum(list(zip(p["a"], p["b"], strict=True)), switch=switch(p["switch"])),
    "environment_similarity": lambda p: EnvironmentSimilarity(
        p["centers"], environments=p["environment"], sigma=p["sigma"]
    ),
    "fccubic": lambda p: of_particles(FCCOrder, p, range(125)),
    "local_steinhardt": lambda p: LocalSteinhardtQ(p["centers"], l=p["l"], switch=switch(p["switch"])),
    "pair_entropy": lambda p: PairEntropy(p["centers"], r_max=p["r_max"], sigma=p["sigma"], n_bins=p["bins"]),
    "simple_cubic": lambda p: of_particles(SimpleCubicOrder, p, range(125)),
    "soft_minimum_distance": lambda p: MinimumDistance(p["a"], p["b"], beta=p["beta"]),
    "steinhardt": steinhardt,
    "tetrahedral": lambda p: of_particles(TetrahedralOrder, p, range(125), normalized=False),
}
