"""COLVAR and HILLS, the text files of PLUMED: written for its tools and those of others, and read from runs with it."""

import math
import os
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Float

from ..checkpoint import replace_file
from ..errors import InvalidInputError, PysampWarning
from ..methods.metadynamics import Metadynamics
from ..results import Run
from .metadynamics import hills
from .sampling import check_logged, place_of

__all__ = ["read_colvar", "read_hills", "write_colvar", "write_hills"]

_RESERVED = ("time", "height", "biasf", "bias")  # columns of the formats' own
_PI = re.compile(r"([+-]?)(?:([0-9.]+)\*)?pi(?:/([0-9.]+))?")


def write_colvar(run: Run, path: str | os.PathLike, replica: int = 0) -> None:
    """Write the log of one replica as a COLVAR file.

    The columns are ``time``, the CVs, ``bias`` (the energy of all methods), ``<method>.bias`` for each of them, and their
    diagnostics. Numbers are written with all their digits and as they are: lengths, energies and times in the engine's units,
    which the file does not name; PLUMED's own are nm, kJ/mol and ps, as OpenMM's are. Labels become words, so that
    ``DihedralAngle(4, 6, 8, 14)`` is the column ``DihedralAngle_4_6_8_14``. A periodic CV has the range from -P/2 to P/2, or
    from 0 to P if all its values lie there and some beyond P/2.

    Args:
        run: the run.
        path: of the file; an existing one is replaced.
        replica: which replica.

    Raises:
        InvalidInputError: if there is no such replica, or it logged nothing.

    Example:
        >>> pysamp.analysis.write_colvar(run, "COLVAR")  # doctest: +SKIP
    """
    log = run.replica(replica).log.isel(replica=0)
    check_logged(run)
    names = _as_words(run.log["cv"].values)
    columns = {"time": log["time"].values}
    columns.update(zip(names, log["xi"].values.T, strict=True))
    columns["bias"] = log["bias_energy"].values
    for method, energy in zip(log["method"].values, log["method_energy"].values.T, strict=True):
        columns[_unique(f"{method}.bias", columns)] = energy
    for name, variable in log.data_vars.items():
        if name not in {"xi", "bias_energy", "method_energy"}:
            columns[_unique(str(name), columns)] = variable.values
    bounds = _bounds(names, [period for method in run.methods for period in method.periods], log["xi"].values)
    _write(path, columns, bounds)


def read_colvar(path: str | os.PathLike) -> xr.Dataset:
    r"""Read a COLVAR file.

    A file to which several runs have appended is read as the one run that they make. Headers may repeat; where the time goes
    back, as it does when a run went on from a checkpoint older than the last line, the rows from that time on are replaced.
    Blank lines and comments are passed over, and so is a last line that was cut off while it was written, with a warning.

    Args:
        path: of the file.

    Returns:
        One variable over ``sample`` for each column, with the coordinate ``time``. Those of periodic variables have the
        attributes ``lower``, ``upper`` and ``period``; other constants of the header are attributes of the dataset.

    Raises:
        InvalidInputError: where the file is not of this format; it names the line.

    Example:
        >>> from pathlib import Path
        >>> from pysamp.analysis import read_colvar
        >>> text = "#! FIELDS time phi\n#! SET min_phi -pi\n#! SET max_phi pi\n 0.0 -1.5\n 0.2 nan\n"
        >>> _ = Path("COLVAR").write_text(text)
        >>> colvar = read_colvar("COLVAR")
        >>> colvar.phi.values.tolist(), round(colvar.phi.period, 2)
        ([-1.5, nan], 6.28)
    """
    table = _read(path, same_time_is_restart=True)
    variables = {
        name: ("sample", values, _range_of(table, name)) for name, values in table.columns.items() if name != "time"
    }
    ranges = {f"{end}_{name}" for name in variables for end in ("min", "max")}
    others = {name: value for name, value in table.constants.items() if name not in ranges}
    return xr.Dataset(variables, {"time": ("sample", table.columns["time"])}, others)


def write_hills(run: Run, path: str | os.PathLike, replica: int = 0) -> None:
    r"""Write the hills of one replica as a HILLS file, to sum them with other tools or go on with PLUMED.

    The columns are ``time``, the centres, the widths ``sigma_...``, ``height`` and ``biasf``, the bias factor (1 for standard
    metadynamics), in the engine's units as they are; see :func:`write_colvar` for labels and periods. By PLUMED's convention
    the heights of a well-tempered run are multiplied by $\gamma / (\gamma - 1)$, so that minus the sum of the hills in the
    file is the free energy; those in ``run`` sum to the bias.

    The hills are written as what they are, ``kerneltype gaussian``: neither cut nor stretched. PLUMED takes each to be 0 beyond
    3.5 sigma, and depending on version and ``kerneltype`` stretches what is left so that it ends without a step. Its sum is
    therefore lower than the bias of the run, by up to 0.2 % of the height for every hill that covers a place. And a run with a
    grid felt hills interpolated on it.

    Args:
        run: a run whose methods include :class:`~pysamp.methods.Metadynamics`; the first one counts.
        path: of the file; an existing one is replaced.
        replica: which replica.

    Raises:
        InvalidInputError: if there is no such replica, or it has no hills.

    Example:
        >>> pysamp.analysis.write_hills(run, "HILLS")  # doctest: +SKIP
    """
    one = run.replica(replica)
    found = hills(one).isel(replica=0)
    method = next(m for m in run.methods if isinstance(m, Metadynamics))
    place = place_of(run, method)
    start = sum(m.n_cvs for m in run.methods[:place])
    names = _as_words(run.log["cv"].values)[start : start + method.n_cvs]
    gamma = 1.0 if method.bias_factor is None else float(method.bias_factor)
    n_hills, centers = found.sizes["hill"], found["center"].values
    if n_hills == 0:
        raise InvalidInputError(f"There are no hills yet: run for more than stride={int(method.stride)} steps.")
    columns = {"time": found["step"].values * run.timestep}
    columns.update(zip(names, centers.T, strict=True))
    columns.update({f"sigma_{name}": sigma for name, sigma in zip(names, found["sigma"].values.T, strict=True)})
    columns["height"] = found["height"].values * _rescaling(np.asarray(gamma))
    columns["biasf"] = np.full(n_hills, gamma)
    constants = {"multivariate": "false", "kerneltype": "gaussian"}
    _write(path, columns, {**constants, **_bounds(names, method.periods, centers)})


def read_hills(path: str | os.PathLike) -> xr.Dataset:
    r"""Read a HILLS file.

    Heights are those that were deposited, whose sum is the bias: where ``biasf`` is above 1 the heights in the file are divided
    by $\gamma / (\gamma - 1)$. Restarts are treated as by :func:`read_colvar`, but rows of the same time under one header stay,
    since walkers that share a file write such. PLUMED's Gaussians are cut at 3.5 sigma and may be stretched, as
    ``attrs["kerneltype"]`` says: with $d = (\xi - c)^2 / 2 \sigma^2 < 6.25$ a stretched one is
    $h\,(e^{-d} - e^{-6.25}) / (1 - e^{-6.25})$.

    Args:
        path: of the file.

    Returns:
        ``center`` and ``sigma`` (hill, cv), ``height`` and ``bias_factor`` (hill), with the coordinates ``time`` (hill), ``cv``,
        and ``cv_lower`` and ``cv_upper``, the range of periodic variables, else nan.

    Raises:
        InvalidInputError: where the file is not of this format, or its hills are tilted (``multivariate``); it names the line.

    Example:
        >>> from pathlib import Path
        >>> from pysamp.analysis import read_hills
        >>> text = "#! FIELDS time r sigma_r height biasf\n#! SET multivariate false\n 1.0 0.3 0.02 1.25 5\n"
        >>> _ = Path("HILLS").write_text(text)
        >>> read_hills("HILLS").height.values
        array([1.])
    """
    table = _read(path, same_time_is_restart=False)
    if str(table.constants.get("multivariate", "false")).lower() != "false":
        raise InvalidInputError(
            f"{table.place}: the hills are tilted (multivariate {table.constants['multivariate']}), and only those with one "
            "sigma for each variable can be read."
        )
    columns = table.columns
    names = [name for name in columns if f"sigma_{name}" in columns]
    missing = {"height", "biasf"} - set(columns)
    if missing or not names:
        raise InvalidInputError(
            f"{table.place}: the columns of a HILLS file are time, the variables, a sigma_<variable> for each, height and biasf; "
            f"this one has {', '.join(columns)}."
        )
    ranges = [_range_of(table, name) for name in names]
    return xr.Dataset(
        {
            "center": (("hill", "cv"), np.stack([columns[name] for name in names], axis=1)),
            "sigma": (("hill", "cv"), np.stack([columns[f"sigma_{name}"] for name in names], axis=1)),
            "height": ("hill", columns["height"] / _rescaling(columns["biasf"])),
            "bias_factor": ("hill", columns["biasf"]),
        },
        {
            "time": ("hill", columns["time"]),
            "cv": names,
            "cv_lower": ("cv", [r.get("lower", math.nan) for r in ranges]),
            "cv_upper": ("cv", [r.get("upper", math.nan) for r in ranges]),
        },
        {"kerneltype": str(table.constants.get("kerneltype", "gaussian"))},
    )


def _rescaling(gamma: Float[np.ndarray, "*n"]) -> Float[np.ndarray, "*n"]:
    """What heights are multiplied by in the file."""
    tempered = gamma > 1.0
    return np.where(tempered, gamma / np.where(tempered, gamma - 1.0, 1.0), 1.0)


def _as_words(labels: Iterable[Any]) -> list[str]:
    """A word for each label, all different; so a CV has the same name in both files."""
    words: list[str] = []
    for label in labels:
        words.append(_unique(str(label), [*_RESERVED, *words]))
    return words


def _unique(label: str, taken: Sequence[str] | dict) -> str:
    """The label as one word that is not taken."""
    word = re.sub(r"[^0-9A-Za-z.]+", "_", label).strip("_").replace("_.", ".") or "cv"
    number, result = 1, word
    while result in taken:
        number += 1
        result = f"{word}_{number}"
    return result


def _bounds(
    names: Sequence[str], periods: Sequence[float | None], values: Float[np.ndarray, "samples n"]
) -> dict[str, str]:
    result = {}
    for name, period, xi in zip(names, periods, values.T, strict=True):
        if period is None:
            continue
        half = 0.5 * period
        from_zero = xi.min() >= 0.0 and half < xi.max() <= period
        lower, upper = (0.0, period) if from_zero else (-half, half)
        result[f"min_{name}"], result[f"max_{name}"] = _as_text(lower), _as_text(upper)
    return result


def _as_text(value: float) -> str:
    return "pi" if value == math.pi else "-pi" if value == -math.pi else repr(float(value))


def _write(path: str | os.PathLike, columns: dict[str, np.ndarray], constants: dict[str, str]) -> None:
    lines = [f"#! FIELDS {' '.join(columns)}", *(f"#! SET {name} {value}" for name, value in constants.items())]
    table = np.stack([np.asarray(values, dtype=np.float64) for values in columns.values()], axis=1)
    lines += [" " + " ".join(map(repr, row)) for row in table.tolist()]
    replace_file(Path(path), lambda file: file.write(("\n".join(lines) + "\n").encode()))


@dataclass
class _Table:
    """What a file holds.

    Attributes:
        place: file and line of the header.
        columns: by their names.
        constants: of the header, in words.
    """

    place: str
    columns: dict[str, np.ndarray] = field(default_factory=dict)
    constants: dict[str, str] = field(default_factory=dict)


def _read(path: str | os.PathLike, *, same_time_is_restart: bool) -> _Table:
    """Rows as one run would have written them."""
    fields: list[str] = []
    place = str(path)
    constants: dict[str, str] = {}
    rows: list[list[float]] = []
    time, new_header = 0, False
    for number, words, is_cut in _lines(path):
        here = f"{path}, line {number}"
        if words[0] == "#!":
            if words[1:2] == ["FIELDS"]:
                _check_fields(here, words[2:], fields)
                fields, place, time, new_header = words[2:], here, words[2:].index("time"), True
            elif words[1:2] == ["SET"] and len(words) == 4:
                constants[words[2]] = words[3]
            else:
                raise InvalidInputError(
                    f"{here}: expected '#! FIELDS ...' or '#! SET name value', got {' '.join(words)!r}."
                )
            continue
        if not fields:
            raise InvalidInputError(
                f"{here}: numbers come before a header; the first line must be '#! FIELDS time ...'."
            )
        if len(words) != len(fields):
            if is_cut and len(words) < len(fields):
                warnings.warn(f"{here}: the last line was cut off and is left out.", PysampWarning, stacklevel=3)
                break
            raise InvalidInputError(f"{here}: expected {len(fields)} numbers ({', '.join(fields)}), got {len(words)}.")
        row = [_as_number(here, name, word) for name, word in zip(fields, words, strict=True)]
        if math.isnan(row[time]):
            raise InvalidInputError(f"{here}: the time is not a number.")
        again = same_time_is_restart or new_header
        while rows and (rows[-1][time] > row[time] or (again and rows[-1][time] == row[time])):
            rows.pop()
            again = True  # the time has gone back: what has the same time is from before the restart
        rows.append(row)
        new_header = False
    if not fields:
        raise InvalidInputError(f"{path}: no header; the first line must be '#! FIELDS time ...'.")
    table = np.array(rows, dtype=np.float64).reshape(len(rows), len(fields))
    return _Table(place, dict(zip(fields, table.T.copy(), strict=True)), constants)


def _lines(path: str | os.PathLike) -> Iterator[tuple[int, list[str], bool]]:
    """Number, words and whether the end of the line is missing, of each line that says something."""
    with open(path, encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, start=1):
            if not line.lstrip().startswith("#!"):
                line, _, comment = line.partition("#")
                is_cut = not comment and not line.endswith("\n")
            else:
                is_cut = False
            words = line.split()
            if words:
                yield number, words, is_cut


def _check_fields(here: str, fields: list[str], before: list[str]) -> None:
    if "time" not in fields or len(set(fields)) < len(fields):
        raise InvalidInputError(f"{here}: the columns must have different names and one be the time, got {fields}.")
    if before and fields != before:
        raise InvalidInputError(
            f"{here}: the columns change here from {', '.join(before)} to {', '.join(fields)}; split the file at this line."
        )


def _as_number(here: str, name: str, word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise InvalidInputError(f"{here}: {name} must be a number, got {word!r}.") from None


def _range_of(table: _Table, name: str) -> dict[str, float]:
    """Bounds and period of a variable, if it has some."""
    texts = [table.constants.get(f"{end}_{name}") for end in ("min", "max")]
    if texts[0] is None or texts[1] is None:
        return {}
    lower, upper = (_as_bound(table.place, name, text) for text in texts if text is not None)
    return {"lower": lower, "upper": upper, "period": upper - lower}


def _as_bound(place: str, name: str, text: str) -> float:
    """A number, which may be a multiple of pi."""
    match = _PI.fullmatch(text)
    if match is None:
        return _as_number(place, f"the bound of {name}", text)
    sign, factor, divisor = match.groups()
    return (-1.0 if sign == "-" else 1.0) * float(factor or 1.0) * math.pi / float(divisor or 1.0)
