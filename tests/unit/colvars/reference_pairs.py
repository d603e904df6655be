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
    FermiSwitch,
    GaussianSwitch,
    LocalSteinhardtQ,
    MinimumDistance,
    PairEntropy,
    RationalSwitch,
    SmapSwitch,
    SteinhardtQ,
    TanhSwitch,
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


def steinhardt(p):
    """PLUMED's have no factor of 4 pi / (2 l + 1)."""
    options = {"l": p["l"], "switch": switch(p["switch"]), "normalized": False}
    if p["output"] == "mean":
        return SteinhardtQ(p["centers"], **options)
    each = [SteinhardtQ([center], p["neighbors"], **options) for center in p["centers"]]
    return combine(lambda *values: jnp.stack(values), each, components=[f"atom{i}" for i in p["centers"]])


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
    "local_steinhardt": lambda p: LocalSteinhardtQ(p["centers"], l=p["l"], switch=switch(p["switch"])),
    "pair_entropy": lambda p: PairEntropy(p["centers"], r_max=p["r_max"], sigma=p["sigma"], n_bins=p["bins"]),
    "soft_minimum_distance": lambda p: MinimumDistance(p["a"], p["b"], beta=p["beta"]),
    "steinhardt": steinhardt,
}
