"""Collective variables: pure functions of particle positions."""

from .base import (
    AbstractCV,
    Combination,
    Custom,
    Group,
    combine,
    custom,
)
from .box import CellAngle, CellLength, Density, Volume
from .contacts import AbstractContacts, ContactMap, ContactMapDistance, ContactSum, NativeContacts
from .coordination import CoordinationNumber, HydrogenBonds, MinimumDistance
from .cubic import FCCOrder, SimpleCubicOrder, TetrahedralOrder
from .dipole import Dipole, DipoleMoment
from .energy import PotentialEnergy
from .environments import EnvironmentSimilarity
from .geometry import Angle, Component, DihedralAngle, Displacement, Distance
from .learned import Learned, load_weights, save_weights
from .linear import LinearProjection, pca, tica
from .nucleic import ERMSD
from .order import AveragedSteinhardtQ, GlobalSteinhardtQ, LocalSteinhardtQ, SteinhardtQ, Tetrahedrality
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
from .radial import PairEntropy, RadialDistribution
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
from .selection import BackboneDihedrals, backbone, backbone_dihedrals, select
from .shape import (
    Acylindricity,
    Asphericity,
    PrincipalMoments,
    PrincipalMomentsOfInertia,
    RadiusOfGyration,
    RelativeShapeAnisotropy,
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
    "ERMSD",
    "RMSD",
    "AbstractCV",
    "AbstractContacts",
    "AbstractSwitch",
    "Acylindricity",
    "AlphaBetaSimilarity",
    "AlphaRMSD",
    "Angle",
    "AntiparallelBetaRMSD",
    "Asphericity",
    "AveragedSteinhardtQ",
    "AzimuthalAngle",
    "BackboneDihedrals",
    "CellAngle",
    "CellLength",
    "Combination",
    "Component",
    "ContactMap",
    "ContactMapDistance",
    "ContactSum",
    "CoordinationNumber",
    "CosineSwitch",
    "CubicSwitch",
    "Custom",
    "Density",
    "DihedralAngle",
    "DihedralCorrelation",
    "Dipole",
    "DipoleMoment",
    "Displacement",
    "Distance",
    "DistanceFromLine",
    "DistanceFromPlane",
    "DistanceRMSD",
    "EigenvectorProjection",
    "EnvironmentSimilarity",
    "EulerAngle",
    "ExponentialSwitch",
    "FCCOrder",
    "FermiSwitch",
    "GaussianSwitch",
    "GlobalSteinhardtQ",
    "Group",
    "HydrogenBonds",
    "Learned",
    "LinearProjection",
    "LocalSteinhardtQ",
    "MinimumDistance",
    "NativeContacts",
    "Orientation",
    "PairEntropy",
    "ParallelBetaRMSD",
    "Path",
    "PolarAngle",
    "PositionOnAxis",
    "PotentialEnergy",
    "PrincipalMoments",
    "PrincipalMomentsOfInertia",
    "ProjectedDistance",
    "PuckeringAmplitude",
    "PuckeringCoordinates",
    "PuckeringPhase",
    "PuckeringTheta",
    "RMSDPath",
    "RadialDistribution",
    "RadiusOfGyration",
    "RationalSwitch",
    "RelativeShapeAnisotropy",
    "RotationAngle",
    "SimpleCubicOrder",
    "SmapSwitch",
    "SpinAngle",
    "SteinhardtQ",
    "SugarPuckering",
    "SugarPuckeringPhase",
    "TanhSwitch",
    "TetrahedralOrder",
    "Tetrahedrality",
    "TiltAngle",
    "VectorAngle",
    "Volume",
    "backbone",
    "backbone_dihedrals",
    "combine",
    "custom",
    "load_weights",
    "pca",
    "save_weights",
    "select",
    "tica",
]
