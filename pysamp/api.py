"""The generic functions of the package; engines and methods register their overloads beside the types that own them."""

from collections.abc import Callable
from typing import Any, Protocol, cast, runtime_checkable

from plum import Dispatcher

__all__ = ["analyze", "bind", "describe", "run", "sample_weights"]


@runtime_checkable
class Generic(Protocol):
    """A generic function: call it, or register an overload with ``@function.dispatch``."""

    dispatch: Callable

    def __call__(self, *args: Any, **options: Any) -> Any:
        """Call the overload for the types of the arguments."""


def _generic(declaration: Callable) -> Generic:
    """Declare a generic function by its signature and docstring."""
    return cast(Generic, _dispatcher.abstract(declaration))


_dispatcher = Dispatcher()


@_generic
def run(
    methods: Any,
    generate_context: Any,
    timesteps: Any,
    *,
    context_args: Any = None,
    replicas: Any = 1,
    shared: bool = False,
    executor: Any = None,
    callback: Any = None,
    log_every: Any = None,
    checkpoint: Any = None,
    checkpoint_every: Any = None,
    until: Any = None,
    progress: bool = True,
    seed: Any = None,
):
    """Run a simulation under the bias of one or more methods.

    ``run(result, generate_context, timesteps, ...)`` goes on exactly where an earlier result ended, with its replicas,
    random numbers and, unless another is given, stride of the log; what it returns holds both. It takes no ``replicas`` and
    no ``seed``.

    Ctrl-C ends a run after the steps under way: the checkpoint, if any, is written, and
    :class:`~pysamp.RunInterrupted` raised, which carries the result so far. A second Ctrl-C stops at once.

    Args:
        methods: a method or a list of methods, whose biases add up, or the :class:`~pysamp.Run` to go on from.
        generate_context: function that returns a new simulation: an ``openmm.app.Simulation``, an ``openmm.Context``, a
            ``pysamp.backends.jaxmd.Simulation``, a ``pysamp.backends.toy.Simulation``. Called once for each replica, in the
            process that runs it.
        timesteps: MD steps of each replica.
        context_args: keyword arguments for ``generate_context``: a dictionary, or a list with one for each replica.
        replicas: number of independent copies, which differ in their random numbers; for a method with windows, copies of
            all its windows. An engine that can runs them together, as long as the simulations differ only in positions and
            velocities.
        shared: whether the replicas are walkers that build one bias together, in one program: all see it, and what each adds
            is there for the others in the next step, always in the same order. For methods whose state can be shared
            (:class:`~pysamp.methods.Metadynamics`, :class:`~pysamp.methods.ABF`, biases that do not change), and engines that
            run replicas together.
        executor: any ``concurrent.futures.Executor`` that is to run the replicas; None for this process, one after the
            other. ``callback`` then runs, and ``checkpoint`` is written, where the replica is.
        callback: ``function(bound, step)``, called whenever the number of steps done is a multiple of ``log_every``; or
            ``pysamp.Callback(function, every=...)``; see :class:`~pysamp.Callback`. After a resumption, steps beyond the
            checkpoint are shown to it again.
        log_every: steps between samples of the log; None for 2000 to 5000 samples.
        checkpoint: name of a folder. If the process dies, the same call made again goes on from what is there, bit for bit
            where the engine is deterministic; with more ``timesteps``, a finished run goes on too. Each call needs a folder
            of its own.
        checkpoint_every: steps between checkpoints; None for about one a minute.
        until: :class:`~pysamp.Converged`, or any function of the run so far that returns a bool: the run ends when it is true, or
            after ``timesteps`` at the latest. It is asked after a twentieth of them, and then whenever a quarter more is
            done; ``generate_context`` is called anew each time. ``attributes["until"]`` of the result says whether it held.
        progress: whether to show a progress bar, on a terminal or in a notebook.
        seed: of all random numbers of methods and engine. With None the engine keeps its own, unless there are several
            replicas, and the seed that was drawn is in ``attributes`` of the result.

    Returns:
        A :class:`~pysamp.Run`.

    Raises:
        InvalidInputError: before the first step, if arguments, methods and simulation do not fit.
        UnsupportedError: if ``generate_context`` returns something that no backend knows.
        CheckpointError: if the checkpoint belongs to another run or cannot be written.
        SimulationError: if the simulation fails; the text names the CV and the last good checkpoint.
        RunInterrupted: after Ctrl-C.

    Example:
        >>> import jax.numpy as jnp
        >>> import pysamp
        >>> from pysamp.backends import toy
        >>> from pysamp.colvars import Component
        >>> from pysamp.methods import HarmonicBias
        >>> def generate_context():
        ...     return toy.Simulation(lambda x: 0.5 * jnp.sum(x**2), [[0.0, 0.0, 0.0]])
        >>> method = HarmonicBias(Component([0], axis=0), kspring=1.0, center=0.5)
        >>> result = pysamp.run(method, generate_context, 1000, log_every=10, seed=1, progress=False)
        >>> result = pysamp.run(result, generate_context, 1000, progress=False)
        >>> result.log.sizes["sample"], int(result.log.step[-1])
        (200, 1990)
    """


@_generic
def describe(simulation: Any, /):
    """What a sampler must know of a simulation, as a :class:`~pysamp.System`.

    Args:
        simulation: what a user's ``generate_context`` returns.

    Raises:
        UnsupportedError: if no backend knows the engine, or the integrator cannot be biased.
    """


@_generic
def bind(simulation: Any, sampler: Any, /):
    """Tie a sampler to a simulation of an engine.

    Args:
        simulation: what a user's ``generate_context`` returns: ``openmm.app.Simulation``, ``openmm.Context``,
            ``pysamp.backends.toy.Simulation``, ...
        sampler: a :class:`~pysamp.Sampler`, or a method or tuple of methods from which one is built.
        seed: for the engine's own random numbers, where it has any; one for each replica of several that run together. None
            leaves them as they are.

    Returns:
        A :class:`~pysamp.backends.Bound`, a context manager that gives the simulation back as it was found.

    Raises:
        UnsupportedError: if no backend knows the engine, or the engine cannot do what the methods need.
        InvalidInputError: if methods and simulation do not fit.
    """


@_generic
def analyze(run: Any, /):
    """Free energy of a run, with standard errors.

    Args:
        run: a :class:`~pysamp.Run`, or a list of runs to be analysed together (windows of umbrella sampling).

    Returns:
        A :class:`~pysamp.FreeEnergy`.
    """


@_generic
def sample_weights(run: Any, /):
    """Weight of each logged sample in the unbiased ensemble, with which any logged quantity is reweighted.

    For biases that do not change (umbrella windows among them) it is exact, as in MBAR. For methods that adapt, samples at the
    same CVs are told apart by nothing, whatever the bias was: a sample's weight is the probability of its bin, as
    :func:`~pysamp.analyze` finds it, over the number of samples there.

    Args:
        run: a :class:`~pysamp.Run`.
        discard: fraction left out at the beginning; None for a tenth.
        kT: thermal energy of the ensemble that is wanted [energy]; None for the simulation's. Others need
            :class:`~pysamp.colvars.PotentialEnergy` in the log, and samples at the energies of that temperature.

    Returns:
        An xarray Dataset with ``weight` (replica, sample), 0 for samples left out, with the sum 1; and ``replicates`` (block,
        replica, sample), the same with one block of data left out in turn, for errors.

    Raises:
        InvalidInputError: if there are too few samples.

    Example:
        >>> weights = pysamp.analysis.sample_weights(run)  # doctest: +SKIP
        >>> float((weights.weight * run.log.xi.sel(cv="Distance(0, 1)")).sum())  # an unbiased average  # doctest: +SKIP
    """


@_generic
def stack(first: Any, others: Any, /):
    """Several simulations as one that runs them together, or None where the engine runs one at a time."""
