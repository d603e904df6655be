"""Sampling methods: pure functions in the space of collective variables."""

from .abf import ABF
from .adaptive_path import AdaptivePath
from .ann import ANN
from .base import AbstractMethod, AbstractStaticBias, Bias, Observation
from .cff import CFF
from .expansions import AbstractExpansion, Multithermal, MultiUmbrella
from .extended_abf import ExtendedABF
from .funn import FUNN
from .harmonic import HarmonicBias
from .metadynamics import Metadynamics
from .opes import OPES, OPESExplore
from .opes_expanded import OPESExpanded
from .parallel_bias import ParallelBiasMetadynamics
from .spectral_abf import SpectralABF
from .steered import MovingRestraint, Ratchet
from .umbrella import UmbrellaSampling
from .unbiased import Unbiased
from .walls import HarmonicWalls

__all__ = [
    "ABF",
    "ANN",
    "CFF",
    "FUNN",
    "OPES",
    "AbstractExpansion",
    "AbstractMethod",
    "AbstractStaticBias",
    "AdaptivePath",
    "Bias",
    "ExtendedABF",
    "HarmonicBias",
    "HarmonicWalls",
    "Metadynamics",
    "MovingRestraint",
    "MultiUmbrella",
    "Multithermal",
    "OPESExpanded",
    "OPESExplore",
    "Observation",
    "ParallelBiasMetadynamics",
    "Ratchet",
    "SpectralABF",
    "UmbrellaSampling",
    "Unbiased",
]
