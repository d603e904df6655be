"""Collective variables: pure functions of particle positions."""

from .base import AbstractCV, Combination, Custom, Group, combine, custom
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
    "AbstractSwitch",
    "Angle",
    "Combination",
    "Component",
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
    "RationalSwitch",
    "SmapSwitch",
    "TanhSwitch",
    "combine",
    "custom",
]
