"""Snapshots of one system as plain arrays."""

from collections.abc import Sequence

import equinox as eqx
import numpy as np
from jaxtyping import Float

from ..snapshot import Snapshot

__all__ = ["Frames"]


class Frames(eqx.Module):
    """Positions, velocities and box of several snapshots.

    Attributes:
        positions: [length].
        velocities: [length/time], or None.
        boxes: box vectors as rows [length], or None.
    """

    positions: Float[np.ndarray, "m n 3"]
    velocities: Float[np.ndarray, "m n 3"] | None
    boxes: Float[np.ndarray, "m 3 3"] | None

    @classmethod
    def of(cls, snapshots: Sequence[Snapshot], like: Snapshot) -> "Frames":
        """Stack snapshots; ``like`` gives the shapes where there is none."""

        def stack(name: str) -> np.ndarray | None:
            first = getattr(like, name)
            if first is None:
                return None
            arrays = [np.asarray(getattr(snapshot, name)) for snapshot in snapshots]
            return np.array(arrays) if arrays else np.zeros((0, *np.shape(first)), dtype=np.asarray(first).dtype)

        positions = stack("positions")
        assert positions is not None
        return cls(positions, stack("velocities"), stack("box"))

    def __len__(self) -> int:
        return len(self.positions)

    def snapshot(self, index: int, masses: Float[np.ndarray, " n"]) -> Snapshot:
        """One of them."""
        parts = (None if a is None else np.array(a[index]) for a in (self.velocities, self.boxes))
        velocities, box = parts
        return Snapshot(np.array(self.positions[index]), velocities, masses, box)
