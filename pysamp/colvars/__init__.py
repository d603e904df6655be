"""Collective variables: pure functions of particle positions."""

from .base import AbstractCV, Combination, Custom, Group, combine, custom
from .contacts import AbstractContacts, ContactMap, ContactMapDistance, ContactSum, NativeContacts
from .coordination import CoordinationNumber, HydrogenBonds, MinimumDistance
from .geometry import Angle, Component, DihedralAngle, Displacement, Distance
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

__all__ = [
    "AbstractCV",
    "AbstractContacts",
    "AbstractSwitch",
    "Angle",
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
    "Displacement",
    "Distance",
    "ExponentialSwitch",
    "FermiSwitch",
    "GaussianSwitch",
    "Group",
    "HydrogenBonds",
    "MinimumDistance",
    "NativeContacts",
    "RationalSwitch",
    "SmapSwitch",
    "TanhSwitch",
    "combine",
    "custom",
]
