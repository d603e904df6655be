"""What a collective variable is: groups of particles, the base class, custom CVs and arithmetic between CVs."""

import abc
import inspect
import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ..errors import InvalidInputError
from ..snapshot import Cell
from ..system import System
from ..units import as_array, as_float
from ._neighbors import Neighborhood, NeighborList

__all__ = ["AbstractCV", "Combination", "Custom", "Group", "combine", "custom"]


class Group(eqx.Module):
    """Particles that enter a CV as one point, their weighted centre.

    Before the centre is taken the group is made whole: every particle goes to the image nearest to the particle before
    it in the list. That is right for any molecule listed along its bonds, however large, and for loose particles as
    long as successive ones are closer than half the box.

    Args:
        indices: particle indices, counted from 0, none twice.
        weights: None for the centre of mass (masses from the engine), 1 for the centre of geometry, or one weight for
            each particle.

    Raises:
        InvalidInputError: for an empty group, repeated or negative indices, or weights that do not fit.

    Example:
        >>> from pysamp.colvars import Distance, Group
        >>> Distance([Group([0, 1, 2]), Group([5, 6], weights=1)]).atoms[1].weights
        (1.0, 1.0)
    """

    indices: tuple[int, ...] = eqx.field(static=True)
    weights: tuple[float, ...] | None = eqx.field(static=True)

    def __init__(self, indices: Iterable[int], weights: Any = None):
        self.indices = tuple(_as_index(i) for i in indices)
        if weights is None:
            self.weights = None
        else:
            values = as_array(weights)
            if values.ndim == 0:
                values = np.full(len(self.indices), float(values))
            self.weights = tuple(float(w) for w in values.reshape(-1))

    def __check_init__(self):
        if not self.indices:
            raise InvalidInputError("A Group needs at least one particle, got an empty list.")
        if len(set(self.indices)) != len(self.indices):
            raise InvalidInputError(f"A Group lists a particle twice: {list(self.indices)}.")
        if self.weights is not None:
            if len(self.weights) != len(self.indices):
                raise InvalidInputError(
                    f"A Group of {len(self.indices)} particles needs as many weights, got {len(self.weights)}."
                )
            if not np.isfinite(self.weights).all() or not sum(self.weights) > 0:
                raise InvalidInputError(f"A Group's weights must be finite with a positive sum, got {self.weights}.")

    @property
    def name(self) -> str:
        """Such as ``Group(0, 1, 2)``, or ``Group(0..99, 50 particles)`` where there are many."""
        if len(self.indices) <= 4:
            return f"Group({', '.join(map(str, self.indices))})"
        return f"Group({self.indices[0]}..{self.indices[-1]}, {len(self.indices)} particles)"


class Energy(eqx.Module):
    """The engine's potential energy E as a point of a CV, at (E, 0, 0) [energy]; it stands among the CV's ``atoms``."""

    @property
    def name(self) -> str:
        """In the names of CVs."""
        return "energy"


type_of_points = tuple[int | Group | Energy, ...]


def _as_index(value: Any) -> int:
    try:
        index = None if isinstance(value, bool) else operator.index(value)
    except TypeError:
        index = None
    if index is None:
        raise InvalidInputError(
            f"A particle is named by its index, an integer counted from 0; got {value!r}. A centre of several "
            "particles is Group([...])."
        )
    if index < 0:
        raise InvalidInputError(f"Particle indices count from 0 upwards; got {index}.")
    return index


def as_points(atoms: Any) -> type_of_points:
    """Turn a list of indices and groups into the points of a CV.

    Raises:
        InvalidInputError: if an item is neither an index nor a Group, or the same item is listed twice.
    """
    if isinstance(atoms, str | bytes) or not isinstance(atoms, Iterable):
        raise InvalidInputError(f"atoms must be a list of indices or Groups, got {atoms!r}.")
    points = tuple(item if isinstance(item, Group) else _as_index(item) for item in atoms)
    if len(set(points)) != len(points):
        raise InvalidInputError(f"atoms lists the same particle or group twice: {list(points)}.")
    return points


def check_number_of_points(cv: "AbstractCV", expected: int, what: str) -> None:
    """Raise InvalidInputError unless ``cv`` has ``expected`` points; ``what`` names them in the text."""
    if len(cv.atoms) != expected:
        raise InvalidInputError(
            f"{type(cv).__name__} needs {expected} atoms or groups ({what}), got {len(cv.atoms)}: {list(cv.atoms)}."
        )


class AbstractCV(eqx.Module):
    """Base class of collective variables (CVs).

    A CV is a pure function of the positions of its own points, in the order of ``atoms``. It never indexes the system
    and never differentiates: the sampler does both.

    A subclass declares a field ``atoms = eqx.field(converter=as_points, static=True)`` and ``__call__``. Its class
    attributes say what the value is, and :func:`~pysamp.testing.check_cv` holds it to them:

    Attributes:
        atoms: its points, each an index or a Group.
        period: None, or the period of the value (one for all components). Values that differ by a multiple are the
        same. unit: dimension of the value: ``length``, ``angle``, ``1``, ...
        component_names: names of the components of a vector-valued CV; empty for a scalar.
        invariances: what leaves the value as it is: ``translation`` and ``rotation`` of all points together (and of the
            box), ``image`` (any point replaced by a periodic image of it), ``permutation`` (of the points).
    """

    atoms: eqx.AbstractVar[type_of_points]
    period: ClassVar[float | None] = None
    unit: ClassVar[str] = "1"
    component_names: ClassVar[tuple[str, ...]] = ()
    invariances: ClassVar[frozenset[str]] = frozenset()

    __array_ufunc__ = None  # NumPy scalars and arrays leave the arithmetic to this class

    @abc.abstractmethod
    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, "..."]:
        """The value at point positions ``x`` [length]: a scalar, or a vector with one entry per component."""

    @property
    def neighborhoods(self) -> tuple[Neighborhood, ...]:
        """Pairs of points for which a run keeps neighbour lists; with any, ``__call__`` takes them as a third argument."""
        return ()

    def resolved(self, system: System) -> "AbstractCV":
        """This CV with what it takes from the engine, such as masses, filled in; called once before the first step."""
        del system
        return self

    @property
    def n_components(self) -> int:
        """Number of numbers that the CV returns."""
        return max(1, len(self.component_names))

    @property
    def name(self) -> str:
        """A short label for logs and plots, such as ``DihedralAngle(4, 6, 8, 14)``."""
        return f"{type(self).__name__}({_names(self.atoms)})"

    @property
    def labels(self) -> tuple[str, ...]:
        """One label for each component."""
        if not self.component_names:
            return (self.name,)
        return tuple(f"{self.name}.{component}" for component in self.component_names)

    def __getitem__(self, component: Any) -> "Combination":
        """One component of a vector-valued CV by its name, such as ``Displacement([0, 5])["z"]``."""
        if component not in self.component_names:
            its = f"its components are {', '.join(self.component_names)}" if self.component_names else "it is a scalar"
            raise InvalidInputError(f"{self.name} has no component {component!r}; {its}.")
        function = _Part(self.component_names.index(component))
        return Combination(function, (self,), period=self.period, unit=self.unit, label=f"{self.name}.{component}")

    def __add__(self, other: Any) -> "Combination":
        return _add(self, other)

    def __radd__(self, other: Any) -> "Combination":
        return _add(self, other)

    def __sub__(self, other: Any) -> "Combination":
        return _add(self, -other if isinstance(other, AbstractCV) else -as_array(other))

    def __rsub__(self, other: Any) -> "Combination":
        return _add(-self, other)

    def __neg__(self) -> "Combination":
        return _scale(self, -1.0)

    def __mul__(self, other: Any) -> "Combination":
        return _pair(operator.mul, self, other, "*") if isinstance(other, AbstractCV) else _scale(self, other)

    def __rmul__(self, other: Any) -> "Combination":
        return _scale(self, other)

    def __truediv__(self, other: Any) -> "Combination":
        if isinstance(other, AbstractCV):
            return _pair(operator.truediv, self, other, "/")
        with np.errstate(divide="ignore"):
            return _scale(self, 1.0 / as_float(other))

    def __rtruediv__(self, other: Any) -> "Combination":
        inverse = _reciprocal(self)
        return inverse if as_float(other) == 1 else _scale(inverse, other)


def evaluated(cv: AbstractCV, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList]) -> Any:
    """The value of a CV, with the neighbour lists of a run if there are any."""
    return cv(x, cell, lists) if lists else cv(x, cell)  # type: ignore[call-arg]


class _Function(eqx.Module):
    """Any callable as a pytree: the arrays in it (weights of a neural network) are leaves, all the rest is static."""

    arrays: Any
    rest: Any = eqx.field(static=True)

    def __init__(self, function: Callable):
        self.arrays, self.rest = eqx.partition(function, lambda leaf: isinstance(leaf, jax.Array | np.ndarray))

    def __call__(self, *arguments: Any) -> Any:
        return eqx.combine(self.arrays, self.rest)(*arguments)

    @property
    def name(self) -> str:
        name = getattr(self.rest, "__name__", type(self.rest).__name__).strip("_")
        return "custom" if name == "<lambda>" else name


def _as_function(function: Any) -> _Function:
    return function if isinstance(function, _Function) else _Function(function)


def _as_period(value: Any) -> float | None:
    if value is None:
        return None
    period = float(as_float(value))
    if not 0 < period < np.inf:
        raise InvalidInputError(f"A period must be positive and finite, got {period}; without one give period=None.")
    return period


class Custom(AbstractCV):
    """A CV made of a user's own function; build it with :func:`~pysamp.colvars.custom`."""

    function: _Function = eqx.field(converter=_as_function)
    atoms: type_of_points = eqx.field(converter=as_points, static=True)
    period: float | None = eqx.field(converter=_as_period, static=True, default=None, kw_only=True)
    component_names: tuple[str, ...] = eqx.field(static=True, default=(), kw_only=True)
    takes_cell: bool = eqx.field(static=True, default=True, kw_only=True)

    def __check_init__(self):
        if not self.atoms:
            raise InvalidInputError("custom needs the atoms whose positions the function gets, got an empty list.")

    def __call__(self, x: Float[Array, "k 3"], cell: Cell) -> Float[Array, "..."]:
        """The user's function at the positions of the points."""
        return self.function(x, cell) if self.takes_cell else self.function(x)

    @property
    def name(self) -> str:
        """Name of the function, and its points."""
        return f"{self.function.name}({_names(self.atoms)})"


def custom(
    function: Any,
    *,
    atoms: Any,
    period: Any = None,
    components: Sequence[str] = (),
) -> Custom:
    """Make a collective variable of any JAX function of positions.

    Args:
        function: ``function(x, cell)`` or ``function(x)``; ``x`` has shape ``(k, 3)`` [length], the points in the
            order of ``atoms``. Use ``cell.displacement(a, b)`` for vectors between points. It returns a scalar, or a
            vector with one entry for each name in ``components``. An Equinox module (a neural network) will do as well.
        atoms: indices, or Groups whose centres are handed over.
        period: the period of the value, if it has one.
        components: names of the components of a vector-valued function.

    Returns:
        A CV like any other. Its derivatives come from JAX, so the function must have finite ones: ``jnp.linalg.norm``,
        for instance, has none at zero.

    Raises:
        InvalidInputError: if ``function`` cannot be called with one or two positional arguments, or atoms or period are
            wrong.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp.colvars import custom
        >>> end_to_end = custom(lambda x, cell: jnp.linalg.norm(cell.displacement(x[0], x[1])), atoms=[0, 9])
        >>> end_to_end.atoms
        (0, 9)
    """
    if not callable(function):
        raise InvalidInputError(f"custom needs a function of positions, got {function!r}.")
    if isinstance(components, str):
        raise InvalidInputError(f"components must be a list of names, got {components!r}; write [{components!r}].")
    takes_cell = _takes_cell(function)
    return Custom(function, atoms, period=period, component_names=tuple(components), takes_cell=takes_cell)


def _takes_cell(function: Callable) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # builtins and some compiled functions hide theirs
        return True
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    missing = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    n_required = sum(p.default is p.empty for p in positional)
    variadic = any(p.kind is p.VAR_POSITIONAL for p in parameters)
    if n_required > 2 or missing or not (positional or variadic):
        raise InvalidInputError(
            f"custom needs a function of (x) or (x, cell), got one of ({', '.join(p.name for p in parameters)}). Fix "
            "its other arguments first, with functools.partial or a lambda."
        )
    return n_required == 2 or (variadic and not n_required) or any(p.name == "cell" for p in positional[1:2])


class AbstractComposite(AbstractCV):
    """Base class of CVs that are functions of other CVs.

    Attributes:
        cvs: the other CVs.
    """

    cvs: eqx.AbstractVar[tuple[AbstractCV, ...]]

    @property
    def atoms(self) -> type_of_points:
        """The points of all parts, one part after the other."""
        return tuple(point for cv in self.cvs for point in cv.atoms)

    @property
    def invariances(self) -> frozenset[str]:
        """What leaves every part as it is; only a single part still has its own points to permute."""
        common = frozenset.intersection(*(cv.invariances for cv in self.cvs))
        return common if len(self.cvs) == 1 else common - {"permutation"}

    @property
    def neighborhoods(self) -> tuple[Neighborhood, ...]:
        """Those of all parts."""
        starts = np.cumsum([0, *(len(cv.atoms) for cv in self.cvs)]).tolist()
        return tuple(
            pairs.shifted(start) for cv, start in zip(self.cvs, starts, strict=False) for pairs in cv.neighborhoods
        )

    def parts(
        self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList] = ()
    ) -> list[Float[Array, "..."]]:
        """Values of the other CVs, whose points follow one another in ``x``, and so do their neighbour lists.

        Raises:
            InvalidInputError: unless there are as many points as in all of them together.
        """
        if len(x) != len(self.atoms):
            raise InvalidInputError(f"{self.name} needs the positions of its {len(self.atoms)} points, got {len(x)}.")
        values, start, first = [], 0, 0
        for cv in self.cvs:
            end, last = start + len(cv.atoms), first + len(cv.neighborhoods)
            values.append(evaluated(cv, x[start:end], cell, lists[first:last]))
            start, first = end, last
        return values

    def resolved(self, system: System) -> "AbstractComposite":
        """The same function of resolved parts."""
        return eqx.tree_at(lambda cv: cv.cvs, self, tuple(cv.resolved(system) for cv in self.cvs))


def features(values: Sequence[Float[Array, "..."]]) -> Float[Array, " n"]:
    """Values of several CVs, scalars and vectors, one after the other."""
    return jnp.concatenate([jnp.reshape(value, -1) for value in values])


def difference(xi: Float[Array, "*#b n"], reference: Float[Array, "*#b n"], cvs: Sequence[AbstractCV]) -> Array:
    """``xi - reference``, the nearest image in components of periodic CVs."""
    result = xi - reference
    periods = np.array([cv.period or np.inf for cv in cvs for _ in range(cv.n_components)])
    if not np.isfinite(periods).any():
        return result
    shape = np.broadcast_to(periods, result.shape)
    lengths = jnp.asarray(np.where(np.isfinite(shape), shape, 0.0), dtype=result.dtype)
    return result - lengths * jnp.round(jax.lax.stop_gradient(result) / jnp.asarray(shape, dtype=result.dtype))


class Combination(AbstractComposite):
    """A function of other CVs; build it with ``+ - * /`` or :func:`~pysamp.colvars.combine`."""

    function: _Function
    cvs: tuple[AbstractCV, ...]
    period: float | None = eqx.field(static=True)
    component_names: tuple[str, ...] = eqx.field(static=True)
    unit: str = eqx.field(static=True)
    label: str | None = eqx.field(static=True)

    def __init__(
        self,
        function: Callable,
        cvs: Sequence[AbstractCV],
        *,
        period: Any = None,
        component_names: Sequence[str] = (),
        unit: str = "1",
        label: str | None = None,
    ):
        self.function = _as_function(function)
        self.cvs = tuple(cvs)
        self.period = _as_period(period)
        self.component_names = tuple(component_names)
        self.unit = unit
        self.label = label

    def __call__(self, x: Float[Array, "k 3"], cell: Cell, lists: Sequence[NeighborList] = ()) -> Float[Array, "..."]:
        """The function at the values of the parts."""
        return self.function(*self.parts(x, cell, lists))

    @property
    def name(self) -> str:
        """Such as ``cos(DihedralAngle(4, 6, 8, 14))`` or ``(Distance(0, 1) - Distance(1, 2))``."""
        return self.label or f"{self.function.name}({', '.join(cv.name for cv in self.cvs)})"


def combine(function: Any, cvs: Any, *, period: Any = None, components: Sequence[str] = ()) -> Combination:
    """A CV that is a function of other CVs.

    Args:
        function: JAX function of as many arguments as there are CVs: scalars, and vectors for vector-valued CVs.
        cvs: list of the CVs.
        period: period of the result, if it has one. It cannot be guessed from the parts.
        components: names of the components, if the function returns a vector.

    Raises:
        InvalidInputError: if the function cannot be called, or something in the list is not a CV.

    Example:
        >>> import jax.numpy as jnp
        >>> from pysamp.colvars import DihedralAngle, combine
        >>> phi = DihedralAngle([4, 6, 8, 14])
        >>> combine(jnp.cos, [phi]).name
        'cos(DihedralAngle(4, 6, 8, 14))'
    """
    if not callable(function):
        raise InvalidInputError(f"combine needs a function of the values of CVs, got {function!r}.")
    return Combination(function, as_parts(cvs, "combine"), period=period, component_names=components)


def as_parts(cvs: Any, what: str) -> tuple[AbstractCV, ...]:
    """The CVs that a function of CVs is made of.

    Raises:
        InvalidInputError: if something in the list is not a CV, or it is empty.
    """
    if not isinstance(cvs, list | tuple):
        raise InvalidInputError(f"{what} needs a list of CVs, got {cvs!r}; for a single one write [cv].")
    wrong = [cv for cv in cvs if not isinstance(cv, AbstractCV)]
    if wrong or not cvs:
        raise InvalidInputError(
            f"{what} needs CVs such as [Distance([0, 1]), Distance([2, 3])], got {wrong[0] if wrong else []!r}."
        )
    return tuple(cvs)


class _Part(eqx.Module):
    """One entry of a vector."""

    place: int = eqx.field(static=True)

    def __call__(self, value: Float[Array, " n"]) -> Float[Array, ""]:
        return value[self.place]


class _Affine(eqx.Module):
    """Sum of values times factors, plus an offset; the nearest image to zero if it is periodic."""

    factors: Float[np.ndarray, " n"]
    offset: Float[np.ndarray, "..."]
    period: float | None = eqx.field(static=True, default=None, kw_only=True)

    def __call__(self, *values: Float[Array, "..."]) -> Float[Array, "..."]:
        dtype = jnp.result_type(*values)  # the parameters follow the positions' precision
        factors, offset = (jnp.asarray(p).astype(dtype) for p in (self.factors, self.offset))
        result = sum((factors[i] * value for i, value in enumerate(values)), offset)
        if self.period is None:
            return result
        return result - self.period * jnp.round(jax.lax.stop_gradient(result) / self.period)


def _names(points: type_of_points) -> str:
    names = [str(point) if isinstance(point, int) else point.name for point in points]
    if len(names) > 8:
        names = [*names[:3], "...", names[-1], f"{len(names)} points"]
    return ", ".join(names)


def _combination(
    function: Callable, cvs: tuple[AbstractCV, ...], label: str, unit: str, period: float | None = None
) -> Combination:
    """What arithmetic returns; components go with components of the same names, and a scalar with anything."""
    names = {cv.component_names for cv in cvs if cv.component_names}
    if len(names) > 1:
        raise InvalidInputError(
            f"{' and '.join(cv.name for cv in cvs)} have different components; use combine(function, cvs, "
            "components=[...])."
        )
    components = names.pop() if names else ()
    return Combination(function, cvs, period=period, component_names=components, unit=unit, label=label)


def _refuse_periodic(cvs: Sequence[AbstractCV]) -> None:
    for cv in cvs:
        if cv.period is not None:
            raise InvalidInputError(
                f"{cv.name} has the period {cv.period:g}, so a product or quotient with it jumps. Use "
                "combine(function, cvs) with a function that respects the period, such as a cosine."
            )


def _add(cv: AbstractCV, other: Any) -> Combination:
    if not isinstance(other, AbstractCV):
        offset = as_array(other)
        if offset.shape not in {(), (len(cv.component_names),)}:
            raise InvalidInputError(
                f"{cv.name} cannot be shifted by an array of shape {offset.shape}; give one number."
            )
        function = _Affine(np.ones(1), offset, period=cv.period)
        shift = f"{'-' if offset < 0 else '+'} {abs(float(offset)):g}" if offset.ndim == 0 else f"+ {offset.tolist()}"
        label = f"({cv.name} {shift})"
        return _combination(function, (cv,), label, cv.unit, cv.period)
    if cv.period != other.period:
        raise InvalidInputError(
            f"The sum of {cv.name} (period {cv.period}) and {other.name} (period {other.period}) has no period of its "
            "own; use combine(function, cvs, period=...) with a function that respects both, such as a cosine."
        )
    function = _Affine(np.ones(2), np.zeros(()), period=cv.period)
    unit = cv.unit if cv.unit == other.unit else "1"
    label = f"({cv.name} + {other.name})".replace("+ -1*", "- ")
    return _combination(function, (cv, other), label, unit, cv.period)


def _scale(cv: AbstractCV, factor: Any) -> Combination:
    value = as_float(factor)
    if not np.isfinite(value) or value == 0:
        raise InvalidInputError(f"{cv.name} can be multiplied by any finite number except zero, got {float(value)}.")
    period = None if cv.period is None else abs(float(value)) * cv.period
    function = _Affine(np.reshape(value, (1,)), np.zeros(()))
    return _combination(function, (cv,), f"{float(value):g}*{cv.name}", cv.unit, period)


def _pair(function: Callable, a: AbstractCV, b: AbstractCV, symbol: str) -> Combination:
    _refuse_periodic([a, b])
    return _combination(function, (a, b), f"{a.name}{symbol}{b.name}", f"{a.unit}{symbol}{b.unit}")


def _reciprocal(cv: AbstractCV) -> Combination:
    _refuse_periodic([cv])
    return _combination(jnp.reciprocal, (cv,), f"1/{cv.name}", f"1/{cv.unit}")
