"""Force-biasing using neural networks: adaptive biasing force with a network for the free energy."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ._network import SCALE, Network, train
from .network_force import AbstractNetworkForce, slope_residuals

__all__ = ["FUNN"]


class FUNN(AbstractNetworkForce):
    r"""Force-biasing using neural networks: cancels a mean force that a small network has learned.

    Force samples are collected in the bins of a grid as in :class:`ABF`. Every ``train_every`` steps a network for the free
    energy $A_\theta(\xi)$ is trained so that its slopes meet the average forces $\langle F \rangle_b$,

    $$\min_\theta \sum_b \sum_d w_b \left( L_d \frac{\partial A_\theta}{\partial \xi_d}(\xi_b) - T_{bd} \right)^2
      + \lambda |\theta - \theta_0|^2, \qquad
      w_b = s_b + \tfrac{1}{10} (1 - s_b), \qquad w_b T_{bd} = -s_b L_d \langle F_d \rangle_b,$$

    where $s_b = \min(1, N_b / N_\mathrm{full})$ is the share that a bin has of the samples that it should have, and $L_d$ the
    length of an axis: what is missing counts a little, as no force. This is the ramp of :class:`ABF`, and the network extends
    into places not visited yet. The weight decay $\lambda$, towards the random first weights, is what the evidence
    of the data says (Bayesian regularisation). Each training takes five steps of Levenberg and Marquardt from the last
    parameters. Periodic CVs go in as cosine and sine.

    In the paper the network gives the force, one output for each CV, which for several CVs is not the gradient of anything.
    Here its one output is the energy, and the bias $V = -A_\theta$ conservative. It is tabulated at the bins' edges and
    interpolated by cubic convolution: the force is the exact gradient of the energy, and what a step costs does not depend on
    the size of the network. Outside a non-periodic axis the bias is that of the nearest point on its boundary, and nothing is
    sampled. Bins of fine grids are joined to at most 1000 cells for the training.

    Choose it as :class:`SpectralABF`, where the free energy has sharp features in few places: a network puts its nodes
    where they are needed, and does not ring. The free energy that ``analyze`` gives is that of the samples in the bins, which
    no network can falsify.

    Args:
        cvs: collective variables, one or a list; periodic and non-periodic ones mix.
        grid: the bins.
        layers: number of nodes in each hidden layer, one number or several.
        train_every: steps between trainings.
        full_samples: samples in a bin from which on its average counts fully.
        kT: thermal energy [energy], only needed if the engine's integrator has none.

    Raises:
        InvalidInputError: if the grid does not fit the CVs, or numbers are not positive.

    Example:
        >>> import math
        >>> import pysamp
        >>> from pysamp.colvars import DihedralAngle
        >>> from pysamp.methods import FUNN
        >>> grid = pysamp.Grid(-math.pi, math.pi, 50, periodic=True)
        >>> FUNN(DihedralAngle([4, 6, 8, 14]), grid=grid).layers
        (24,)

    References:
        Guo, Sevgen, Sidky, Whitmer, Hubbell & de Pablo, J. Chem. Phys. 148, 134108 (2018), doi 10.1063/1.5020733.
        Regularisation: MacKay, Neural Comput. 4, 415 (1992), doi 10.1162/neco.1992.4.3.415.
    """

    __init__ = AbstractNetworkForce.__init__

    def first_fit(self) -> Float[np.ndarray, " k"]:
        """Parameters of a network that is zero."""
        return Network(self.grid, self.layers).initial()

    def fitted(
        self, sums: Float[Array, "bins blocks n_plus_1"], fit: Float[Array, " k"], kT: Float[Array | np.ndarray, ""]
    ) -> tuple[Float[Array, " k"], Float[Array, " nodes"]]:
        """The network trained a little more, and the bias at the nodes."""
        network = Network(self.grid, self.layers)
        scale = SCALE * jnp.asarray(kT)
        slopes = slope_residuals(network, jnp.sum(sums, axis=1), self.full_samples, scale)
        fit = train(slopes, fit, network.initial())
        table = -scale * network.at_nodes(fit[:-1])
        return fit, table - jnp.mean(table)
