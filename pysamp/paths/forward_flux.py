"""Forward flux sampling: what is to be done."""

from typing import Any

import equinox as eqx
import numpy as np
from jaxtyping import Float

from .._job import as_count
from ..colvars.base import AbstractCV
from ..errors import InvalidInputError
from ..methods.base import as_cvs
from ..units import as_array, as_float

__all__ = ["ForwardFlux"]


class ForwardFlux(eqx.Module):
    r"""Rate and paths from a basin A to a basin B, by trajectories that climb from interface to interface.

    Choose it for the rate of a rare event, and for the way it goes, where no bias is wanted: it needs no free energy and no
    detailed balance, only dynamics with random numbers (Langevin, say). An order parameter $\lambda$ that orders the
    interfaces $\lambda_0 < \dots < \lambda_n$ between A ($\lambda < \lambda_A \le \lambda_0$) and B ($\lambda \ge \lambda_n$)
    suffices; it need not be the reaction coordinate. The rate is

    $$k_{AB} = \Phi_0 \prod_{i=0}^{n-1} P(\lambda_{i+1} | \lambda_i),$$

    where $\Phi_0$ is the number of times per unit of time that a trajectory in A that comes from below $\lambda_A$ crosses
    $\lambda_0$, and $P(\lambda_{i+1} | \lambda_i)$ the part of trials, begun where such trajectories first crossed
    $\lambda_i$, that reach $\lambda_{i+1}$ before they fall back below $\lambda_A$.

    Give it to :func:`~pysamp.run` in place of a method; that returns a :class:`~pysamp.paths.ForwardFluxRun`, from which
    :func:`~pysamp.analyze` makes a :class:`~pysamp.paths.Rate`. ``timesteps`` is then the number of MD steps, of all
    trajectories together, that must not be exceeded; ``replicas`` how many trajectories are simulated at the same time, which
    is also the number of walkers in the basin.

    Args:
        cv: the order parameter, one CV of one component, without a period.
        interfaces: $\lambda_0$ to $\lambda_n$ [CV unit], rising, or falling if the CV is lower in B. With ``target`` those
            between the first and the last may be left out.
        n_initial: number of crossings of $\lambda_0$ to gather.
        n_trials: number of trials from each interface.
        basin: $\lambda_A$; None for $\lambda_0$. One that lies deeper in A gives fewer crossings, more independent of one
            another.
        target: crossing probability at which to place further interfaces between those that are given, such as 0.3; None
            for those that are given alone. Pilot trials, which the rate does not use, tell where to place them.
        n_pilot: number of pilot trials for each interface.
        n_equilibration: MD steps of each walker before its crossings count.

    Raises:
        InvalidInputError: if the interfaces are not in order, or the CV cannot order them.

    Example:
        >>> import pysamp
        >>> from pysamp.backends import toy
        >>> from pysamp.paths import ForwardFlux
        >>> from pysamp.testing import DoubleWell
        >>> model = DoubleWell(height=4.0)
        >>> def generate_context():
        ...     return toy.Simulation(model, [[-1.0, 0.0, 0.0]], timestep=0.05)
        >>> method = ForwardFlux(model.cvs, interfaces=[-0.7, -0.4, 0.0, 0.7], n_initial=40, n_trials=40)
        >>> result = pysamp.run(method, generate_context, 10**7, replicas=40, seed=1, progress=False)
        >>> rate = pysamp.analyze(result)
        >>> 1e-4 < rate.value < 1e-2
        True

    References:
        Allen, Warren & ten Wolde, Phys. Rev. Lett. 94, 018104 (2005), doi 10.1103/PhysRevLett.94.018104.
        Allen, Valeriani & ten Wolde, J. Phys.: Condens. Matter 21, 463102 (2009), doi 10.1088/0953-8984/21/46/463102.
        Kratzer, Arnold & Allen, J. Chem. Phys. 138, 164112 (2013), doi 10.1063/1.4801866.
    """

    cv: AbstractCV
    interfaces: Float[np.ndarray, " m"]
    basin: Float[np.ndarray, ""]
    n_initial: int
    n_trials: int
    target: float | None
    n_pilot: int
    n_equilibration: int

    def __init__(
        self,
        cv: Any,
        *,
        interfaces: Any,
        n_initial: Any = 100,
        n_trials: Any = 200,
        basin: Any = None,
        target: Any = None,
        n_pilot: Any = 50,
        n_equilibration: Any = 1000,
    ):
        (self.cv, *others) = as_cvs(cv)
        if others or self.cv.n_components != 1:
            raise InvalidInputError(
                f"ForwardFlux orders its interfaces by one CV of one component, got {cv!r}. Make one of several with "
                "pysamp.colvars.custom or by sums and products of CVs."
            )
        self.interfaces = np.atleast_1d(as_array(interfaces))
        self.basin = self.interfaces.reshape(-1)[0] if basin is None else as_float(basin)
        self.basin = np.asarray(self.basin)
        self.n_initial = as_count(n_initial, "n_initial")
        self.n_trials = as_count(n_trials, "n_trials")
        self.n_pilot = as_count(n_pilot, "n_pilot")
        self.target = None if target is None else float(as_float(target))
        self.n_equilibration = (
            int(n_equilibration) if n_equilibration == 0 else as_count(n_equilibration, "n_equilibration")
        )

    def __check_init__(self):
        if self.cv.period is not None:
            raise InvalidInputError(
                f"The CV {self.cv.labels[0]} has the period {self.cv.period:.6g}, so that beyond every interface lies the basin "
                "again. Give an order parameter without a period, such as "
                "custom(lambda x, cell: jnp.cos(cv(x, cell)), atoms=cv.atoms)."
            )
        if self.interfaces.ndim != 1 or len(self.interfaces) < 2 or not np.isfinite(self.interfaces).all():
            raise InvalidInputError(
                f"interfaces must be at least two numbers, the first at the basin and the last at the other; "
                f"got {self.interfaces.tolist()}."
            )
        steps = np.diff(self.interfaces) * self.sign
        if not (steps > 0).all():
            raise InvalidInputError(
                f"interfaces must rise, or fall, from the first to the last; got {self.interfaces.tolist()}."
            )
        if not self.sign * (self.interfaces[0] - self.basin) >= 0:
            raise InvalidInputError(
                f"basin must not lie beyond the first interface, {self.interfaces[0]:.6g}; got {float(self.basin):.6g}."
            )
        if self.target is not None and not 0 < self.target < 1:
            raise InvalidInputError(
                f"target is the probability to get from one interface to the next, between 0 and 1, such as 0.3; "
                f"got {self.target!r}."
            )

    @property
    def sign(self) -> float:
        """1 if the order parameter is the CV, -1 if it is minus the CV."""
        return float(np.sign(self.interfaces[-1] - self.interfaces[0]))
