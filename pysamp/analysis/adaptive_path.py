"""Adaptive paths, analysed as their biases saw them: along the path as it was at the time."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr

from ..api import analyze, sample_weights
from ..grids import Grid
from ..methods.adaptive_path import AdaptivePath, on_path
from ..results import Run
from .free_energy import FreeEnergy
from .sampling import check_logged, place_of

__all__: list[str] = []


def _along_the_path(method: AdaptivePath, run: Run) -> Run:
    """The run with the biases along the path as its methods, and what they saw as its CVs."""
    check_logged(run)
    place = place_of(run, method)
    kinds = [type(m).__name__ for m in run.methods]
    name = kinds[place] if kinds.count(kinds[place]) == 1 else f"{kinds[place]}[{place}]"
    along = np.stack([run.log[f"{name}.{component}"].values for component in "sz"], axis=-1)
    energies = np.stack([run.log[f"{name}.{i}.energy"].values for i in range(len(method.methods))], axis=-1)
    with jax.enable_x64(True):

        def seen(progress: jax.Array) -> jax.Array:
            return jnp.concatenate([jnp.reshape(on_path(cv, progress), -1) for m in method.methods for cv in m.cvs])

        xi = np.asarray(jax.jit(jax.vmap(jax.vmap(seen)))(jnp.asarray(along)))
    labels = [label for m in method.methods for label in m.labels]
    log = run.log.drop_dims(["cv", "method"]).assign(
        xi=(("replica", "sample", "cv"), xi), method_energy=(("replica", "sample", "method"), energies)
    )
    log = log.assign_coords(cv=labels, method=[type(m).__name__ for m in method.methods])
    states = [eqx.tree_at(lambda s: s.methods, state, state.methods[place].methods) for state in run.states]
    return replace(run, methods=method.methods, states=states, log=log)


@analyze.dispatch
def _analyze_adaptive_path(
    method: AdaptivePath, run: Run, /, *, grid: Grid | None = None, discard: float | None = None
) -> FreeEnergy:
    """Free energy along the path, by the estimator of the first bias that adapts."""
    return analyze(_along_the_path(method, run), grid=grid, discard=discard)


@sample_weights.dispatch
def _weights_adaptive_path(method: AdaptivePath, run: Run, /, *, discard: float | None = None) -> xr.Dataset:
    """Those of the biases along the path."""
    return sample_weights(_along_the_path(method, run), discard=discard)
