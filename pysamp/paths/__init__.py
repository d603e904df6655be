"""Path methods: rates and mechanisms of rare events, and paths through the space of collective variables."""

from . import _files, flux_run  # noqa: F401 (they register how results are stored, and overloads of run)
from .flux_result import ForwardFluxRun, Interface, Rate, committor
from .forward_flux import ForwardFlux
from .string_method import AbstractString, MeanForceString, SwarmString
from .string_run import PathFreeEnergy, StringRun

__all__ = [
    "AbstractString",
    "ForwardFlux",
    "ForwardFluxRun",
    "Interface",
    "MeanForceString",
    "PathFreeEnergy",
    "Rate",
    "StringRun",
    "SwarmString",
    "committor",
]
