"""Collective variables: pure functions of particle positions."""

from .base import AbstractCV, Combination, Custom, Group, combine, custom
from .geometry import Angle, Component, DihedralAngle, Displacement, Distance

__all__ = [
    "AbstractCV",
    "Angle",
    "Combination",
    "Component",
    "Custom",
    "DihedralAngle",
    "Displacement",
    "Distance",
    "Group",
    "combine",
    "custom",
]
