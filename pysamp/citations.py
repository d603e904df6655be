"""What to cite: collected from the docstrings of the methods and CVs that a run used."""

import inspect
from collections.abc import Iterator
from typing import Any

from .colvars.base import AbstractComposite, AbstractCV
from .errors import InvalidInputError
from .methods.adaptive_path import AdaptivePath
from .methods.base import AbstractMethod
from .results import Run

__all__ = ["citation"]

_SOFTWARE = {
    "pysamp": "The pysamp developers, pysamp: enhanced sampling for molecular dynamics in JAX (2026).",
    "jax": "Bradbury et al., JAX: composable transformations of Python+NumPy programs (2018), https://github.com/jax-ml/jax.",
    "openmm": "Eastman et al., J. Phys. Chem. B 128, 109 (2024), doi 10.1021/acs.jpcb.3c06662.",
}


def citation(used: Any) -> str:
    """References to cite for a method, a CV, a list of them, or a whole run.

    They stand under "References:" in the docstrings of the classes, so that those of other packages take part.

    Args:
        used: a method, a CV, a :class:`~pysamp.Run`, or a list of them.

    Returns:
        One paragraph for each class that has references, and one for the software.

    Raises:
        InvalidInputError: for anything else.

    Example:
        >>> import pysamp
        >>> from pysamp.colvars import Distance
        >>> from pysamp.methods import HarmonicBias
        >>> print(pysamp.citation(HarmonicBias(Distance([0, 1]), kspring=1.0, center=1.0)))
        HarmonicBias: Torrie & Valleau, J. Comput. Phys. 23, 187 (1977), doi 10.1016/0021-9991(77)90121-8.
        <BLANKLINE>
        pysamp: The pysamp developers, pysamp: enhanced sampling for molecular dynamics in JAX (2026).
        <BLANKLINE>
        jax: Bradbury et al., JAX: composable transformations of Python+NumPy programs (2018), https://github.com/jax-ml/jax.
    """
    texts = dict(_collect(used))
    texts |= {name: _SOFTWARE[name] for name in ("pysamp", "jax")}
    engines = {run.attributes.get("engine") for run in _as_list(used) if isinstance(run, Run)}
    texts |= {name: text for name, text in _SOFTWARE.items() if name in engines}
    return "\n\n".join(f"{name}: {text}" for name, text in texts.items())


def _as_list(used: Any) -> list[Any]:
    return list(used) if isinstance(used, list | tuple) else [used]


def _collect(used: Any) -> Iterator[tuple[str, str]]:
    for item in _as_list(used):
        if isinstance(item, Run):
            yield from _collect(item.methods)
        elif isinstance(item, AbstractMethod | AbstractCV):
            text = _references(type(item))
            if text:
                yield type(item).__name__, text
            if isinstance(item, AdaptivePath):
                yield from _collect([item.path, *item.methods])
            elif isinstance(item, AbstractMethod | AbstractComposite):
                yield from _collect(item.cvs)
        else:
            raise InvalidInputError(f"citation takes a method, a CV, a Run, or a list of them; got {item!r}.")


def _references(kind: type) -> str:
    """The section "References:" of a docstring, in one line."""
    lines = iter((inspect.getdoc(kind) or "").splitlines())
    for line in lines:
        if line.strip() == "References:":
            break
    section = []
    for line in lines:
        if line and not line.startswith(" "):
            break
        section.append(line.strip())
    return " ".join(line for line in section if line)
