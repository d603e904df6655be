"""Free energy along an adaptive path, by the estimators of the biases that acted on it."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from ..api import analyze
from ..grids import Grid
from ..methods.adaptive_path import AdaptivePath, on_path
from ..results import Run
from .free_energy import FreeEnergy
from .sampling import place_of

__all__: list[str] = []


@analyze.dispatch
def _analyze_adaptive_path(
    method: AdaptivePath, run: Run, /, *, grid: Grid | None = None, discard: float | None = None
) -> FreeEnergy:
    """The run as its biases saw it: CVs are the progress and the distance from the path as it was at the time."""
    place = place_of(run, method)
    kinds = [type(m).__name__ for m in run.methods]
    name = kinds[place] if kinds.count(kinds[place]) == 1 else f"{kinds[place]}[{place}]"
    along = np.stack([run.log[f"{name}.{component}"].values for component in "sz"], axis=-1)
    with jax.enable_x64(True):

        def seen(progress: jax.Array) -> jax.Array:
            return jnp.concatenate([jnp.reshape(on_path(cv, progress), -1) for m in method.methods for cv in m.cvs])

        xi = np.asarray(jax.vmap(jax.vmap(seen))(jnp.asarray(along)))
    log = run.log.drop_dims(["cv", "method"]).assign(xi=(("replica", "sample", "cv"), xi))
    states = [eqx.tree_at(lambda s: s.methods, state, state.methods[place].methods) for state in run.states]
    return analyze(replace(run, methods=method.methods, states=states, log=log), grid=grid, discard=discard)
