"""Combined force-frequency sampling: a network that learns from forces and from how often places are visited."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._frequency import energy_residuals, with_sweep
from ._network import SCALE, Network, train
from .network_force import AbstractNetworkForce, slope_residuals

__all__ = ["CFF"]


class CFF(AbstractNetworkForce):
    r"""Combined force-frequency sampling: a network learns the free energy from average forces and from a histogram.

    Everything is as in :class:`FUNN`, but that the network is trained on two kinds of data at once: its slopes meet the average
    forces, and its values the free energy that the histogram gives, each in units of 10 kT,

    $$\min_\theta \sum_b \sum_d w_b \left( L_d \frac{\partial A_\theta}{\partial \xi_d}(\xi_b) - T_{bd} \right)^2
      + \sum_b u_b \left( A_\theta(\xi_b) - kT \ln \frac{D_b}{N_b} \right)^2 + \lambda |\theta - \theta_0|^2.$$

    $N_b$ counts the samples of all sweeps between trainings, and $D_b = \sum_k n_k e^{f_k - V_k(\xi_b) / kT}$ undoes their
    biases: $n_k$ samples under the bias $V_k$, whose constant $f_k$ follows when its sweep ends from what the earlier ones say
    (one pass of WHAM). The highest free energy in a place that was visited is the zero, which places not yet visited are
    taken to have, with little weight $u_b$. In the paper the unbiased histogram is a sum of reweighted ones.

    Choose it over :class:`FUNN` where forces are noisy, as of CVs of light atoms: frequencies tell the depth of a place
    before the average force has settled. The free energy that ``analyze`` gives is that of the forces alone.

    Args:
        cvs: collective variables, one or a list; periodic and non-periodic ones mix.
        grid: the bins.
        layers: number of nodes in each hidden layer, one number or several.
        train_every: steps between trainings.
        full_samples: samples in a bin from which on its average force counts fully.
        kT: thermal energy [energy], only needed if the engine's integrator has none.

    Raises:
        InvalidInputError: if the grid does not fit the CVs, or numbers are not positive.

    Example:
        >>> import math
        >>> import pysamp
        >>> from pysamp.colvars import DihedralAngle
        >>> from pysamp.methods import CFF
        >>> grid = pysamp.Grid(-math.pi, math.pi, 50, periodic=True)
        >>> CFF(DihedralAngle([4, 6, 8, 14]), grid=grid, layers=(12, 8)).layers
        (12, 8)

    References:
        Sevgen, Guo, Sidky, Whitmer & de Pablo, J. Chem. Theory Comput. 16, 1448 (2020), doi 10.1021/acs.jctc.9b00883.
        One pass of WHAM: Kumar et al., J. Comput. Chem. 13, 1011 (1992), doi 10.1002/jcc.540130812.
    """

    __init__ = AbstractNetworkForce.__init__

    def first_fit(self) -> dict[str, Float[np.ndarray, " _"]]:
        """Parameters of a network that is zero, and no samples."""
        empty = np.zeros(self.grid.size)
        return {"network": Network(self.grid, self.layers).initial(), "counted": empty, "denominators": empty}

    def fitted(
        self,
        sums: Float[Array, "bins blocks n_plus_1"],
        fit: dict[str, Float[Array, " _"]],
        kT: Float[Array | np.ndarray, ""],
    ) -> tuple[dict[str, Float[Array, " _"]], Float[Array, " nodes"]]:
        """The network trained a little more, and the bias at the nodes."""
        network = Network(self.grid, self.layers)
        scale = SCALE * jnp.asarray(kT)
        total, parameters = jnp.sum(sums, axis=1), fit["network"]
        counts = total[:, -1]
        reduced_bias = -SCALE * network.at_bins(parameters[:-1])
        new = jnp.sum(counts - fit["counted"])
        denominators = with_sweep(counts, fit["denominators"], reduced_bias, new)
        slopes = slope_residuals(network, total, self.full_samples, scale)
        values = energy_residuals(network, counts, denominators, SCALE)
        parameters = train(lambda theta: jnp.append(slopes(theta), values(theta)), parameters, network.initial())
        fit = {"network": parameters, "counted": counts, "denominators": denominators}
        return fit, -scale * network.at_nodes(parameters[:-1])
