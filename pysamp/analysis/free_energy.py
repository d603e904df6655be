"""Free energies on a grid, with errors that hold for differences too."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from ..errors import InvalidInputError
from ..grids import Grid
from .errors import jackknife_error

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["FreeEnergy"]

type_of_region = Callable[..., Any] | np.ndarray


@dataclass(frozen=True, eq=False)
class FreeEnergy:
    r"""Free energy $F(\xi) = -kT \ln p(\xi)$ at the centres of a grid's bins, with standard errors.

    Errors come from the jackknife: the estimate is made again with one block of time (or one replica) left out at a
    time. These ``replicates`` are kept, so that every number derived from the surface has an error of its own, with the
    correlations between bins in it: take :meth:`difference` for the free energy between two states rather than two values.

    Every standard error here is the half-width of a 68.3 % confidence interval. It knows of noise, not of places that the
    simulation never reached.

    Attributes:
        values: F [energy]; 0 at its minimum, nan where nothing was sampled.
        stderr: standard error of $-kT \ln p$ with p normalised over the grid [energy]: of F relative to the whole
            (in which the deepest basin weighs most), not relative to one bin. inf where one block holds all the samples.
        grid: the grid.
        replicates: $-kT \ln p$ with each block left out in turn [energy].
        kT: thermal energy [energy].
        labels: label of each axis.
        unit: name of the unit of energy.
        mean_force: $-\partial F / \partial \xi$ in each bin [energy / CV unit] where the method measures it, else None.
        mean_force_stderr: its standard error.
    """

    values: Float[np.ndarray, "*shape"]
    stderr: Float[np.ndarray, "*shape"]
    grid: Grid
    replicates: Float[np.ndarray, "m *shape"]
    kT: float
    labels: tuple[str, ...]
    unit: str = "energy"
    mean_force: Float[np.ndarray, "*shape n"] | None = None
    mean_force_stderr: Float[np.ndarray, "*shape n"] | None = None

    @classmethod
    def from_probabilities(
        cls,
        p: Float[np.ndarray, "*shape"],
        replicates: Float[np.ndarray, "m *shape"],
        grid: Grid,
        *,
        kT: float,
        labels: Sequence[str],
        unit: str = "energy",
        mean_force: Float[np.ndarray, "*shape n"] | None = None,
        mean_force_stderr: Float[np.ndarray, "*shape n"] | None = None,
    ) -> "FreeEnergy":
        """From the probabilities of the bins and their leave-one-out estimates; they need not be normalised.

        Args:
            p: weight of each bin, 0 where nothing was sampled.
            replicates: the same with one block left out in turn.
            grid: the grid.
            kT: thermal energy [energy].
            labels: label of each axis.
            unit: name of the unit of energy.
            mean_force: see the class.
            mean_force_stderr: see the class.
        """
        values = _free_energy(p, kT)
        left_out = np.stack([_free_energy(replicate, kT) for replicate in replicates])
        stderr = np.where(np.isfinite(values), jackknife_error(left_out), np.nan)
        return cls(
            values - np.nanmin(values),
            stderr,
            grid,
            left_out,
            kT,
            tuple(labels),
            unit,
            mean_force,
            mean_force_stderr,
        )

    def difference(self, first: type_of_region, second: type_of_region) -> tuple[float, float]:
        r"""F(second) - F(first) of two regions, $-kT \ln (P_\mathrm{second} / P_\mathrm{first})$, and its standard error.

        Args:
            first: a function of the CVs that says which bins belong to the region, called with one array per axis, or a
                boolean array of the grid's shape.
            second: the same for the other region.

        Returns:
            Value and standard error [energy].

        Raises:
            InvalidInputError: for a region that has another shape, or no sampled bin.

        Example:
            >>> fes.difference(lambda phi, psi: phi < 0, lambda phi, psi: phi > 0)  # doctest: +SKIP
            (8.52, 0.31)
        """
        masks = [self._mask(region) for region in (first, second)]
        value, *replicates = (
            -self.kT * np.log(_weight(energies[masks[1]], self.kT) / _weight(energies[masks[0]], self.kT))
            for energies in (self.values, *self.replicates)
        )
        return float(value), float(jackknife_error(np.array(replicates)))

    def marginal(self, axes: int | Sequence[int]) -> "FreeEnergy":
        """Free energy of some of the CVs, the others integrated out.

        Args:
            axes: index of the axis to keep, or of several.

        Raises:
            InvalidInputError: if there is no such axis, or one is named twice.
        """
        keep = tuple(int(axis) for axis in np.atleast_1d(np.asarray(axes)))
        n = self.grid.n_dims
        if not keep or len(set(keep)) != len(keep) or not all(0 <= axis < n for axis in keep):
            raise InvalidInputError(f"marginal needs different axes between 0 and {n - 1}, got {axes!r}.")
        others = tuple(axis for axis in range(n) if axis not in keep)
        order = np.argsort(np.argsort(keep))
        p, *replicates = (
            np.transpose(np.sum(weights_of(energies, self.kT), axis=others), order)
            for energies in (self.values, *self.replicates)
        )
        grid = Grid(
            self.grid.lower[list(keep)],
            self.grid.upper[list(keep)],
            tuple(self.grid.shape[axis] for axis in keep),
            tuple(self.grid.periodic[axis] for axis in keep),
        )
        labels = tuple(self.labels[axis] for axis in keep)
        return FreeEnergy.from_probabilities(p, np.stack(replicates), grid, kT=self.kT, labels=labels, unit=self.unit)

    def to_xarray(self) -> xr.Dataset:
        """``free_energy``, ``stderr``, ``replicates`` (and ``mean_force``) with the bins' centres as coordinates."""
        dims = unique_names(self.labels)
        data: dict[str, Any] = {
            "free_energy": (dims, self.values, {"units": self.unit}),
            "stderr": (dims, self.stderr, {"units": self.unit}),
            "replicates": (("block", *dims), self.replicates, {"units": self.unit}),
        }
        coords: dict[str, Any] = dict(zip(dims, self.grid.centers, strict=True))
        if self.mean_force is not None:
            data["mean_force"] = ((*dims, "cv"), self.mean_force)
            data["mean_force_stderr"] = ((*dims, "cv"), self.mean_force_stderr)
            coords["cv"] = list(dims)
        return xr.Dataset(data, coords, {"kT": self.kT})

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draw F: a line with a band of one standard error in 1-D, a map with contours in 2-D. Needs Matplotlib.

        Args:
            ax: where to draw; None for a new figure.

        Returns:
            The axes.

        Raises:
            InvalidInputError: for more than two CVs; take :meth:`marginal` first.
        """
        from .plots import plot_free_energy

        return plot_free_energy(self, ax)

    def _mask(self, region: type_of_region) -> Bool[np.ndarray, "..."]:
        points = self.grid.points
        mask = np.asarray(region(*np.moveaxis(points, -1, 0)) if callable(region) else region)
        if mask.dtype != bool or mask.shape != self.grid.shape:
            raise InvalidInputError(
                f"A region is a boolean array of the grid's shape {self.grid.shape}, or a function of {self.grid.n_dims} "
                f"CVs that returns one, such as lambda {', '.join('xyz'[: self.grid.n_dims])}: x < 0; got "
                f"{mask.dtype}{list(mask.shape)}."
            )
        if not np.isfinite(self.values[mask]).any():
            raise InvalidInputError("A region has no sampled bin: run longer, or choose it larger.")
        return mask


def unique_names(labels: Sequence[str]) -> tuple[str, ...]:
    """The labels, numbered where they repeat."""
    return tuple(label if labels.count(label) == 1 else f"{label}[{i}]" for i, label in enumerate(labels))


def _free_energy(p: Float[np.ndarray, "*shape"], kT: float) -> Float[np.ndarray, "*shape"]:
    """-kT ln of normalised probabilities; nan for none."""
    positive = p > 0
    normalised = np.where(positive, p, 1.0) / np.sum(p)
    return np.where(positive, -kT * np.log(normalised), np.nan)


def weights_of(energies: Float[np.ndarray, "*shape"], kT: float) -> Float[np.ndarray, "*shape"]:
    """Boltzmann factors, 1 at the minimum and 0 where the energy is not finite."""
    finite = np.isfinite(energies)
    return np.where(finite, np.exp(-(np.where(finite, energies, np.inf) - np.nanmin(energies)) / kT), 0.0)


def _weight(energies: Float[np.ndarray, " n"], kT: float) -> float:
    """Sum of Boltzmann factors of the sampled bins; nan if there is none."""
    energies = energies[np.isfinite(energies)]
    return float(np.sum(np.exp(-energies / kT))) if energies.size else np.nan
