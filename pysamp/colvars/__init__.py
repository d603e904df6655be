"""Collective variables: pure functions of particle positions."""

from .base import (
    AbstractCV,
    Combination,
    Custom,
    Group,
    combine,
    custom,
)
from .contacts import AbstractContacts, ContactMap, ContactMapDistance, ContactSum, NativeContacts
from .coordination import CoordinationNumber, HydrogenBonds, MinimumDistance
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
from .switching import (
    AbstractSwitch,
    CosineSwitch,
    CubicSwitch,
    ExponentialSwitch,
    FermiSwitch,
    GaussianSwitch,
    RationalSwitch,
    SmapSwitch,
    TanhSwitch,
)
from .torsions import AlphaBetaSimilarity, DihedralCorrelation

__all__ = [
    "AbstractCV",
    "AbstractContacts",
    "AbstractSwitch",
    "AlphaBetaSimilarity",
    "Angle",
    "AzimuthalAngle",
    "Combination",
    "Component",
    "ContactMap",
    "ContactMapDistance",
    "ContactSum",
    "CoordinationNumber",
    "CosineSwitch",
    "CubicSwitch",
    "Custom",
    "DihedralAngle",
    "DihedralCorrelation",
    "Displacement",
    "Distance",
    "DistanceFromLine",
    "DistanceFromPlane",
    "ExponentialSwitch",
    "FermiSwitch",
    "GaussianSwitch",
    "Group",
    "HydrogenBonds",
    "MinimumDistance",
    "NativeContacts",
    "PolarAngle",
    "PositionOnAxis",
    "ProjectedDistance",
    "RationalSwitch",
    "SmapSwitch",
    "TanhSwitch",
    "VectorAngle",
    "combine",
    "custom",
]
