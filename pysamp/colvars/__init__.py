"""Collective variables: pure functions of particle positions."""

from .base import AbstractCV, Combination, Custom, Group, combine, custom
from .geometry import Angle, Component, DihedralAngle, Displacement, Distance
from .projections import (
    AzimuthalAngle,
    DistanceFromLine,
    DistanceFromPlane,
    PolarAngle,
    PositionOnAxis,
    ProjectedDistance,
    VectorAngle,
)
from .torsions import AlphaBetaSimilarity, DihedralCorrelation

__all__ = [
    "AbstractCV",
    "AlphaBetaSimilarity",
    "Angle",
    "AzimuthalAngle",
    "Combination",
    "Component",
    "Custom",
    "DihedralAngle",
    "DihedralCorrelation",
    "Displacement",
    "Distance",
    "DistanceFromLine",
    "DistanceFromPlane",
    "Group",
    "PolarAngle",
    "PositionOnAxis",
    "ProjectedDistance",
    "VectorAngle",
    "combine",
    "custom",
]
