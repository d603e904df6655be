"""Collective variables: pure functions of particle positions."""

from .base import AbstractCV, Combination, Custom, Group, combine, custom
from .geometry import Angle, Component, DihedralAngle, Displacement, Distance
from .nucleic import ERMSD
from .orientation import EulerAngle, Orientation, RotationAngle, SpinAngle, TiltAngle
from .paths import Path, RMSDPath
from .projections import (
    AzimuthalAngle,
    DistanceFromLine,
    DistanceFromPlane,
    PolarAngle,
    PositionOnAxis,
    ProjectedDistance,
    VectorAngle,
)
from .rings import (
    PuckeringAmplitude,
    PuckeringCoordinates,
    PuckeringPhase,
    PuckeringTheta,
    SugarPuckering,
    SugarPuckeringPhase,
)
from .rmsd import RMSD, DistanceRMSD, EigenvectorProjection
from .secondary import AlphaRMSD, AntiparallelBetaRMSD, ParallelBetaRMSD
from .shape import (
    Acylindricity,
    Asphericity,
    PrincipalMoments,
    PrincipalMomentsOfInertia,
    RadiusOfGyration,
    RelativeShapeAnisotropy,
)
from .torsions import AlphaBetaSimilarity, DihedralCorrelation

__all__ = [
    "ERMSD",
    "RMSD",
    "AbstractCV",
    "Acylindricity",
    "AlphaBetaSimilarity",
    "AlphaRMSD",
    "Angle",
    "AntiparallelBetaRMSD",
    "Asphericity",
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
    "DistanceRMSD",
    "EigenvectorProjection",
    "EulerAngle",
    "Group",
    "Orientation",
    "ParallelBetaRMSD",
    "Path",
    "PolarAngle",
    "PositionOnAxis",
    "PrincipalMoments",
    "PrincipalMomentsOfInertia",
    "ProjectedDistance",
    "PuckeringAmplitude",
    "PuckeringCoordinates",
    "PuckeringPhase",
    "PuckeringTheta",
    "RMSDPath",
    "RadiusOfGyration",
    "RelativeShapeAnisotropy",
    "RotationAngle",
    "SpinAngle",
    "SugarPuckering",
    "SugarPuckeringPhase",
    "TiltAngle",
    "VectorAngle",
    "combine",
    "custom",
]
