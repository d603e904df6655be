"""Two collective variables of one's own, biased in OpenMM: a function of positions, and a neural network.

    python examples/own_collective_variables.py [--steps 1000000] [--output results]

1. The distance of the hydrogen bond that closes the seven-membered ring of alanine dipeptide, written as a function, sampled in
   umbrella windows.
2. A network that was trained to tell two conformations apart by the backbone's four torsions. Metadynamics along its output,
   reweighted to the torsion phi.
"""

import argparse
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from alanine_dipeptide import generate_context
from jax.flatten_util import ravel_pytree
from scipy.optimize import minimize

import pysamp
from pysamp.analysis import overlap, reweight, umbrella_integration
from pysamp.colvars import DihedralAngle, Learned, custom
from pysamp.methods import Metadynamics, MovingRestraint, UmbrellaSampling, Unbiased

PHI = DihedralAngle([4, 6, 8, 14])
TORSIONS = [DihedralAngle([1, 4, 6, 8]), PHI, DihedralAngle([6, 8, 14, 16]), DihedralAngle([8, 14, 16, 18])]


def hydrogen_bond(x: jax.Array, cell: pysamp.Cell) -> jax.Array:
    """Distance between the oxygen of one end and the hydrogen of the other."""
    return jnp.linalg.norm(cell.displacement(x[0], x[1]))


def windows(n_steps: int) -> pysamp.Run:
    """Umbrella sampling along a function of positions."""
    bond = custom(hydrogen_bond, atoms=[5, 17])
    method = UmbrellaSampling(bond, centers=np.linspace(0.18, 0.64, 14), kspring=3000.0, pull_steps=5000)
    return pysamp.run(method, generate_context, max(n_steps // 10, 20_000), log_every=20, seed=1)


def conformations(n_steps: int) -> list[np.ndarray]:
    """Torsions in two conformations: phi about -80 and about +60 degrees."""
    samples = []
    for target in (-1.4, 1.1):
        pull = MovingRestraint(
            PHI, kspring=[[200.0], [200.0], [0.0]], centers=[-1.4, target, target], steps=[0, 10_000, 11_000]
        )
        run = pysamp.run([pull, Unbiased(TORSIONS)], generate_context, 15_000 + n_steps, log_every=50, seed=2)
        samples.append(run.log.xi.values[0, 300:, 1:])
    return samples


def train(first: np.ndarray, second: np.ndarray) -> Learned:
    """A network whose output is the logarithm of the odds of the second conformation (logistic regression).

    A network in a CV sees the cosine and sine of periodic CVs, which have no jump; so does the training.
    """
    torsions = np.concatenate([first, second])
    features = jnp.asarray(np.stack([np.cos(torsions), np.sin(torsions)], axis=-1).reshape(len(torsions), -1))
    sign = jnp.asarray(np.repeat([-1.0, 1.0], [len(first), len(second)]))
    network = eqx.nn.MLP(8, "scalar", width_size=8, depth=1, activation=jnp.tanh, key=jax.random.key(1))
    start, rebuild = ravel_pytree(eqx.filter(network, eqx.is_array))

    def built(parameters):
        return eqx.combine(rebuild(parameters), network)

    @jax.jit
    def loss(parameters):
        odds = jax.vmap(built(parameters))(features)
        return jnp.mean(jax.nn.softplus(-sign * odds)) + 0.01 * jnp.sum(parameters**2) / 2

    found = minimize(jax.value_and_grad(loss), start, jac=True, method="L-BFGS-B", options={"maxiter": 500})
    return Learned(TORSIONS, built(jnp.asarray(found.x, start.dtype)))


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--steps", type=int, default=2_000_000)
    parser.add_argument("--output", type=Path, default=Path("results"))
    arguments = parser.parse_args()
    arguments.output.mkdir(parents=True, exist_ok=True)
    mpl.use("Agg")
    import matplotlib.pyplot as plt

    _, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
    run = windows(arguments.steps)
    fes, smooth = pysamp.analyze(run), umbrella_integration(run)
    fes.plot(left)
    smooth.plot(left)
    left.set(xlabel="O ... H distance [nm]", title="a function of positions")
    value, error = fes.difference(lambda d: d < 0.3, lambda d: d > 0.3)
    print(f"F(open) - F(ring closed) = {value:.2f} +- {error:.2f} kJ/mol by WHAM")
    value, error = smooth.difference(lambda d: d < 0.3, lambda d: d > 0.3)
    print(f"                           {value:.2f} +- {error:.2f} kJ/mol by umbrella integration")
    print(f"least overlap of neighbouring windows: {np.diag(overlap(run), 1).min():.2f}")

    cv = train(*conformations(arguments.steps // 10))
    metadynamics = Metadynamics(cv, height=1.0, sigma=0.2, stride=250, bias_factor=10)
    run = pysamp.run([metadynamics, Unbiased(PHI)], generate_context, arguments.steps, log_every=50, replicas=4, seed=3)
    fes = reweight(run, PHI.labels[0])
    fes.plot(right)
    right.set(xlabel="phi [rad]", title="metadynamics along a network, reweighted")
    value, error = fes.difference(lambda phi: phi < 0, lambda phi: (phi > 0) & (phi < 2.2))
    print(f"F(0 < phi < 2.2) - F(phi < 0) = {value:.2f} +- {error:.2f} kJ/mol, from metadynamics along the network")
    left.figure.savefig(arguments.output / "own_collective_variables.png", dpi=150)
    print(f"written: {arguments.output / 'own_collective_variables.png'}")


if __name__ == "__main__":
    main()
