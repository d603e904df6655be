"""Enhanced sampling and free energies on the memory of the simulation engine you already use."""

from . import analysis, backends, colvars, methods, paths  # noqa: F401
from .analysis import Converged, FreeEnergy
from .api import analyze, bind, describe
from .citations import citation
from .errors import (
    CheckpointError,
    InvalidInputError,
    PysampError,
    PysampWarning,
    RunInterrupted,
    SimulationError,
    UnsupportedError,
)
from .files import load, save
from .grids import Grid
from .results import Run
from .run import Callback, run
from .sampler import BiasForces, Particles, Sampler, SamplerState
from .snapshot import Cell, Snapshot
from .system import System

__all__ = [
    "BiasForces",
    "Callback",
    "Cell",
    "CheckpointError",
    "Converged",
    "FreeEnergy",
    "Grid",
    "InvalidInputError",
    "Particles",
    "PysampError",
    "PysampWarning",
    "Run",
    "RunInterrupted",
    "Sampler",
    "SamplerState",
    "SimulationError",
    "Snapshot",
    "System",
    "UnsupportedError",
    "analyze",
    "bind",
    "citation",
    "describe",
    "load",
    "run",
    "save",
]

__version__ = "0.1.0"
