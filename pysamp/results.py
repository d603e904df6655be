"""What a run leaves behind."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import xarray as xr

from .errors import InvalidInputError
from .methods.base import AbstractMethod
from .sampler import SamplerState
from .snapshot import Snapshot

__all__ = ["Run"]


@dataclass(frozen=True, eq=False)
class Run:
    """Result of :func:`~pysamp.run`: where every replica ended, and what was logged on the way.

    Attributes:
        methods: the methods whose biases were added.
        states: the sampler's state, one per replica, from which a run goes on exactly.
        snapshots: the whole system at the end, one per replica.
        log: ``xi`` (replica, sample, cv), ``bias_energy`` (replica, sample) summed over methods, the methods' own energies
            ``method_energy`` (replica, sample, method) and diagnostics, with the coordinates ``step`` and ``time`` (sample)
            and the CVs' labels.
        kT: thermal energy [energy].
        timestep: [time].
        attributes: versions, seed, engine and platform: the provenance. ``energy_unit`` names the unit of energy.
    """

    methods: tuple[AbstractMethod, ...]
    states: Sequence[SamplerState]
    snapshots: Sequence[Snapshot]
    log: xr.Dataset
    kT: float
    timestep: float
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def n_replicas(self) -> int:
        """Number of replicas."""
        return len(self.states)

    @property
    def walkers(self) -> int:
        """How many replicas built one bias together, ``shared=True``; 0 if each has its own."""
        return int(self.attributes.get("walkers", 0))

    @property
    def energy_unit(self) -> str:
        """Name of the engine's unit of energy, or ``energy`` where the engine does not say."""
        return str(self.attributes.get("energy_unit", "energy"))

    def replica(self, index: int) -> "Run":
        """One replica as a run of its own, to analyse it alone or to go on with it.

        Raises:
            InvalidInputError: if there is none with this index.
        """
        if not 0 <= index < self.n_replicas:
            raise InvalidInputError(f"This run has the replicas 0 to {self.n_replicas - 1}, but {index} was asked for.")
        return replace(
            self,
            states=[self.states[index]],
            snapshots=list(self.snapshots[index : index + 1]),
            log=self.log.isel(replica=[index]),
        )
