"""A traced function, cut in two where it asks for something that is to be computed elsewhere.

An integrator written as one function from state to state evaluates the force somewhere in its middle. To give it a force that
depends on a state of its own, the function is traced, and its operations are sorted into those that the question needs and
all others: what comes before the question, and what comes after.
"""

from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal, Primitive, jaxpr_as_fun
from jax.interpreters import partial_eval
from jaxtyping import PyTree

from .errors import UnsupportedError

__all__ = ["Cut", "Traced", "with_common_branches"]

_CALLS = (
    "pjit",
    "jit",
    "closed_call",
    "core_call",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vjp_call_jaxpr",
    "checkpoint",
)


class _Part:
    """Operations in their order, and which variables they begin and end with; compared by identity, so static under jit."""

    def __init__(self, jaxpr: Any, equations: Sequence[Any], inputs: Sequence[Any], outputs: Sequence[Any]):
        inputs, debug = list(inputs), jaxpr.debug_info.with_unknown_names()
        new = jaxpr.replace(constvars=[], invars=inputs, outvars=list(outputs), eqns=list(equations), debug_info=debug)
        self._function = jaxpr_as_fun(ClosedJaxpr(new, ()))

    def __call__(self, values: Sequence[Any]) -> list[Any]:
        return list(self._function(*values))


class Traced(eqx.Module):
    """A function of trees of arrays, traced once, with the precision that JAX had then, and called with any."""

    constants: list[Any]
    part: _Part = eqx.field(static=True)
    structure: Any = eqx.field(static=True)

    @classmethod
    def of(cls, function: Callable, *args: PyTree) -> "Traced":
        """Trace ``function(*args)``; the arguments may be shapes."""
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        jaxpr = closed.jaxpr
        part = _Part(jaxpr, jaxpr.eqns, [*jaxpr.constvars, *jaxpr.invars], jaxpr.outvars)
        return cls(list(closed.consts), part, jax.tree.structure(shapes))

    def __call__(self, *args: PyTree) -> PyTree:
        """What the function returns."""
        return self.structure.unflatten(self.part([*self.constants, *jax.tree.leaves(args)]))


class Cut(eqx.Module):
    """A function of trees of arrays, cut at a marker.

    Attributes:
        constants: arrays that the function holds; leaves, so that they are not compiled in.
        n_notes: how often ``note`` was called before the marker.
        asks_again: whether a call begins with the question of the one before.
    """

    constants: list[Any]
    first: _Part = eqx.field(static=True)
    second: _Part = eqx.field(static=True)
    structure: Any = eqx.field(static=True)
    n_notes: int = eqx.field(static=True)
    asks_again: bool = eqx.field(static=True)

    @classmethod
    def of(cls, function: Callable, marker: Primitive, note: Primitive, *args: PyTree) -> "Cut":
        """Trace ``function(*args)`` and cut it at its last use of ``marker``.

        Args:
            function: of trees of arrays.
            marker: a primitive with several results. Before the last use there may be one more, with no ``note`` before it:
                the question of the call before, asked again.
            note: a primitive that returns its argument; the argument of its last use before the marker is kept.
            args: arrays, or their shapes.

        Raises:
            UnsupportedError: if the marker is used more often, not at all, or within a loop or branch.
        """
        closed, shapes = jax.make_jaxpr(function, return_shape=True)(*args)
        closed = inlined(closed, lambda equation: equation.primitive in (marker, note))
        jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars), instantiate=True)
        equations = jaxpr.eqns
        places = [i for i, equation in enumerate(equations) if equation.primitive is marker]
        needed = [_needed(equations[: place + 1]) for place in places]
        moves = [any(equations[i].primitive is note for i in before) for before in needed]
        hidden = any(_contains(e, lambda i: i.primitive is marker) for e in equations if e.primitive is not marker)
        if hidden or moves not in ([False], [True], [False, True]):
            n = f"{len(places)} times" if places and not hidden else "within a loop or branch, or not at all"
            raise UnsupportedError(
                f"The integrator evaluates the force {n} in a step. Exactly one evaluation is wanted, at which the methods "
                "see the step. Use one such as jax_md.simulate.nvt_langevin, and do one step per call."
            )
        noted_of: dict[Any, Any] = {}

        def without_notes(variable: Any) -> Any:
            return variable if isinstance(variable, Literal) else noted_of.get(variable, variable)

        asked, first, second, notes = [], [], [], []
        for i, e in enumerate(equations):
            e = e.replace(invars=[without_notes(v) for v in e.invars])
            if e.primitive is note:
                noted_of[e.outvars[0]] = e.invars[0]
                notes += [e.invars[0]] if i in needed[-1] else []
            elif i in places:
                asked.append(e)
            else:
                (first if i in needed[-1] else second).append(e)
        *again, equation = asked
        outputs = [without_notes(v) for v in jaxpr.outvars]
        inputs = [*jaxpr.constvars, *jaxpr.invars]
        previous = list(again[0].outvars) if again else []
        made = {*previous, *(v for e in first for v in e.outvars)}
        used = [v for e in second for v in e.invars] + outputs
        carried = list(dict.fromkeys(v for v in used if not isinstance(v, Literal) and v in made))
        return cls(
            constants=list(closed.consts),
            first=_Part(jaxpr, first, [*inputs, *previous], [*equation.invars, *notes[-1:], *carried]),
            second=_Part(jaxpr, second, [*inputs, *carried, *equation.outvars], outputs),
            structure=(jax.tree.structure(shapes), len(equation.invars)),
            n_notes=len(notes),
            asks_again=bool(again),
        )

    def before(self, args: tuple, previous: Sequence[Any]) -> tuple[list[Any], Any, list[Any]]:
        """What the marker is given, what was noted last (or None), and what ``after`` needs of what was computed.

        Args:
            args: of the function.
            previous: what the marker returned in the call before.
        """
        n = self.structure[1]
        values = self.first([*self.constants, *jax.tree.leaves(args), *(previous if self.asks_again else [])])
        noted = values[n] if self.n_notes else None
        return values[:n], noted, values[n + bool(self.n_notes) :]

    def after(self, args: tuple, carried: Sequence[Any], answer: Sequence[Any]) -> PyTree:
        """What the function returns when the marker returns ``answer``."""
        values = self.second([*self.constants, *jax.tree.leaves(args), *carried, *answer])
        return jax.tree.unflatten(self.structure[0], values)


def _needed(equations: Sequence[Any]) -> set[int]:
    """Which of some operations the last one needs."""
    needed, wanted = set(), set(_variables(equations[-1]))
    for i in range(len(equations) - 2, -1, -1):
        if wanted.intersection(equations[i].outvars):
            needed.add(i)
            wanted.update(_variables(equations[i]))
    return needed


def _variables(equation: Any) -> list[Any]:
    return [v for v in equation.invars if not isinstance(v, Literal)]


def inlined(closed: ClosedJaxpr, wanted: Callable[[Any], bool]) -> ClosedJaxpr:
    """The same, with calls dissolved that contain operations which are ``wanted``."""

    def evaluate(jaxpr: Any, constants: Sequence[Any], values: Sequence[Any]) -> list[Any]:
        environment = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*constants, *values], strict=True))
        for equation in jaxpr.eqns:
            arguments = [_read(environment, v) for v in equation.invars]
            inner = _called(equation)
            if inner is not None and _contains(equation, wanted):
                results = evaluate(inner.jaxpr, inner.consts, arguments)
            else:
                results = _bound(equation, arguments, jaxpr)
            environment.update(zip(equation.outvars, results, strict=True))
        return [_read(environment, v) for v in jaxpr.outvars]

    return jax.make_jaxpr(lambda *flat: evaluate(closed.jaxpr, closed.consts, flat))(*closed.in_avals)


def with_common_branches(function: Callable, *args: PyTree) -> PyTree:
    """``vmap`` of a function with branches, in which all take the second branch as soon as one does.

    A branch under ``vmap`` computes both sides at every call. That is no loss where they are cheap; here they are not.

    Args:
        function: its branches have two sides, of which the second is right for everyone, only more work.
        args: trees of arrays with the batch on their first axis.
    """
    leaves, structure = jax.tree.flatten(args)
    one = [jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype) for leaf in leaves]
    closed, shapes = jax.make_jaxpr(lambda *flat: function(*structure.unflatten(flat)), return_shape=True)(*one)
    closed = inlined(closed, lambda equation: equation.primitive.name == "cond")
    size = leaves[0].shape[0]
    environment: dict[Any, tuple[Any, int | None]] = {}
    environment.update(zip(closed.jaxpr.constvars, [(value, None) for value in closed.consts], strict=True))
    environment.update(zip(closed.jaxpr.invars, [(leaf, 0) for leaf in leaves], strict=True))

    def read(variable: Any) -> tuple[Any, int | None]:
        return (variable.val, None) if isinstance(variable, Literal) else environment[variable]

    for equation in closed.jaxpr.eqns:
        values, axes = [read(v)[0] for v in equation.invars], tuple(read(v)[1] for v in equation.invars)
        if all(axis is None for axis in axes):
            results, axis = _bound(equation, values, closed.jaxpr), None
        elif equation.primitive.name == "cond" and axes[0] == 0:
            results, axis = _common_cond(equation, values, axes, size), 0
        else:
            results, axis = jax.vmap(lambda *v, e=equation: tuple(_bound(e, v, closed.jaxpr)), in_axes=axes)(*values), 0
        environment.update(zip(equation.outvars, [(result, axis) for result in results], strict=True))
    outputs = [
        jnp.broadcast_to(value[None], (size, *value.shape)) if axis is None else value
        for value, axis in map(read, closed.jaxpr.outvars)
    ]
    return jax.tree.unflatten(jax.tree.structure(shapes), outputs)


def _common_cond(equation: Any, values: Sequence[Any], axes: Sequence[Any], size: int) -> Sequence[Any]:
    branches = [
        lambda *operands, b=branch: jax.vmap(
            lambda *v: tuple(jaxpr_as_fun(b)(*v)),
            in_axes=tuple(axes[1:]),
            axis_size=size,
        )(*operands)
        for branch in equation.params["branches"]
    ]
    return jax.lax.cond(jnp.any(values[0] != 0), branches[1], branches[0], *values[1:])


def _bound(equation: Any, values: Sequence[Any], jaxpr: Any) -> list[Any]:
    """The results of one operation."""
    given = {v: value for v, value in zip(equation.invars, values, strict=True) if not isinstance(v, Literal)}
    return _Part(jaxpr, [equation], list(given), equation.outvars)(list(given.values()))


def _read(environment: dict, variable: Any) -> Any:
    return variable.val if isinstance(variable, Literal) else environment[variable]


def _called(equation: Any) -> ClosedJaxpr | None:
    """What a call calls, where it is one that may be dissolved."""
    if equation.primitive.name not in _CALLS:
        return None
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        inner = equation.params.get(name)
        if inner is not None:
            return inner if hasattr(inner, "consts") else ClosedJaxpr(inner, ())
    return None


def _contains(equation: Any, wanted: Callable[[Any], bool]) -> bool:
    if wanted(equation):
        return True
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns") and any(_contains(e, wanted) for e in inner.eqns):
                return True
    return False
