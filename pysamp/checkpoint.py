"""Checkpoints: what a run writes while it runs, so that a process killed at any moment loses nothing older than the last.

A checkpoint is a folder. Each simulation in it has two files: ``<replica>.log``, to which rows of the log are appended, and
``<replica>.npz``, which is replaced as a whole: states, snapshots, and how many rows of the log belong to them. Rows beyond
those were written after the last replacement and are dropped when a run resumes.
"""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from ._serial import each_from_arrays, each_to_arrays
from .errors import CheckpointError
from .sampler import SamplerState
from .snapshot import Snapshot

try:
    import fcntl
except ImportError:  # not on Windows, where two runs can write to one checkpoint
    fcntl = None

__all__ = ["Checkpoint", "Lock", "check_fingerprint", "definition", "digest", "replace_file"]

_FORMAT = 1


class Checkpoint:
    """The two files of one simulation; a context manager that holds a lock on them.

    Args:
        folder: the folder, made if it does not exist.
        replica: number of the simulation's first replica.

    Attributes:
        step: the step of the last checkpoint, or None if there is none.
        header: what was stored with it.

    Raises:
        CheckpointError: if the folder cannot be used, or holds something else.
    """

    def __init__(self, folder: Path, replica: int):
        self._folder = folder
        self._state_path = folder / f"{replica:04d}.npz"
        self._log_path = folder / f"{replica:04d}.log"
        self.header: Mapping[str, Any] = {}
        self.step: int | None = None
        self._n_bytes = 0
        self._log = _open_locked(folder, self._log_path)
        try:
            self._read_header()
        except BaseException:
            self._log.close()
            raise

    def check(self, fingerprint: Mapping[str, Any]) -> None:
        """Compare the run that wrote the checkpoint with the one that wants to go on with it.

        Raises:
            CheckpointError: if they differ, naming what does.
        """
        check_fingerprint(self._folder, self.header["fingerprint"], fingerprint)

    def read(
        self, state: SamplerState, snapshot: Snapshot
    ) -> tuple[list[SamplerState], list[Snapshot], Float[np.ndarray, "replica rows width"]]:
        """States, snapshots and log of the last checkpoint; the arguments say how they are built."""
        n_replicas, width = self.header["n_replicas"], self.header["width"]
        try:
            with open(self._state_path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                stored = dict(arrays)
            rows = np.fromfile(self._log_path, dtype="<f8", count=self._n_bytes // 8)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise self._damaged(error) from error
        groups: dict[str, list[dict[str, np.ndarray]]] = {
            kind: [{} for _ in range(n_replicas)] for kind in ("states", "snapshots")
        }
        for place, array in stored.items():
            if place != "header":
                kind, replica, name = place.split(".", 2)
                groups[kind][int(replica)][name] = array
        states, snapshots = each_from_arrays(state, groups["states"]), each_from_arrays(snapshot, groups["snapshots"])
        return states, snapshots, rows.reshape(-1, n_replicas, width).swapaxes(0, 1).astype(np.float64)

    def write(
        self,
        states: Sequence[SamplerState],
        snapshots: Sequence[Snapshot],
        rows: Sequence[Float[np.ndarray, "replica _ width"]],
        header: Mapping[str, Any],
    ) -> None:
        """Replace the checkpoint.

        Args:
            states: one per replica.
            snapshots: one per replica.
            rows: the log since the last checkpoint.
            header: ``fingerprint``, ``width`` and whatever else the run wants to find again.

        Raises:
            CheckpointError: if it cannot be written. The one before stays as it was.
        """
        step = int(states[0].step)
        new = b"".join(np.ascontiguousarray(r.swapaxes(0, 1), dtype="<f8").tobytes() for r in rows)
        header = {
            **header,
            "format": _FORMAT,
            "step": step,
            "n_replicas": len(states),
            "n_bytes": self._n_bytes + len(new),
        }
        arrays = {}
        for kind, trees in (("states", states), ("snapshots", snapshots)):
            for r, own in enumerate(each_to_arrays(trees)):
                arrays |= {f"{kind}.{r}.{name}": array for name, array in own.items()}
        try:
            self._log.truncate(self._n_bytes)
            self._log.write(new)
            self._log.flush()
            os.fsync(self._log.fileno())
            replace_file(self._state_path, lambda file: np.savez(file, header=np.array(json.dumps(header)), **arrays))
        except OSError as error:
            kept = f"The last checkpoint, at step {self.step}, is intact. " if self.step is not None else ""
            raise CheckpointError(
                f"The checkpoint {str(self._folder)!r} could not be written at step {step}: {error}. {kept}Make room on the "
                "disk and start the same call again."
            ) from error
        self.header, self.step, self._n_bytes = header, step, header["n_bytes"]

    def close(self) -> None:
        """Close the files and release the lock."""
        try:
            self._log.close()
        except OSError:  # a full disk: what could not be flushed does not belong to a checkpoint
            self._log.raw.close()

    def __enter__(self) -> "Checkpoint":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _read_header(self) -> None:
        if not self._state_path.exists():
            return
        try:
            with open(self._state_path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                header = json.loads(str(arrays["header"]))
            too_short = self._log_path.stat().st_size < header["n_bytes"]
        except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
            raise self._damaged(error) from error
        if header["format"] != _FORMAT:
            raise CheckpointError(
                f"The checkpoint {str(self._folder)!r} has the format {header['format']}, and this version of pysamp writes "
                f"and reads {_FORMAT}. Go on with the version that wrote it, or give another checkpoint=..."
            )
        if too_short:
            raise self._damaged(f"{self._log_path.name} is shorter than it was")
        self.header, self.step, self._n_bytes = header, header["step"], header["n_bytes"]

    def _damaged(self, why: Any) -> CheckpointError:
        return CheckpointError(
            f"The checkpoint {str(self._folder)!r} cannot be read: {why}. Restore its files from a copy, or delete the folder "
            "to begin anew."
        )


class Lock:
    """The right to write to a folder, which one run at a time can have.

    Args:
        folder: the folder, made if it does not exist.

    Raises:
        CheckpointError: if another run has it, or the folder cannot be written.
    """

    def __init__(self, folder: Path):
        self._file = _open_locked(folder, folder / "lock")

    def close(self) -> None:
        """Release it."""
        self._file.close()


def _open_locked(folder: Path, path: Path) -> io.BufferedWriter:
    """A file of a checkpoint, to append to, with a lock on it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = open(path, "ab")  # noqa: SIM115 (closed by close)
    except OSError as error:
        raise CheckpointError(
            f"The checkpoint folder {str(folder)!r} cannot be written: {error}. Give checkpoint=... the name of a folder "
            "that may be made or written."
        ) from error
    if fcntl is None:
        return file
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        file.close()
        raise CheckpointError(
            f"Another run is writing to the checkpoint {str(folder)!r}. Wait for it, or give this one another checkpoint=..."
        ) from error
    except OSError:  # a file system without locks
        pass
    return file


def check_fingerprint(folder: Path, theirs: Mapping[str, Any], ours: Mapping[str, Any]) -> None:
    """Compare the run that wrote a checkpoint with the one that wants to go on with it.

    Raises:
        CheckpointError: if they differ, naming what does.
    """
    found = list(_differences(theirs, json.loads(json.dumps(ours))))
    if found:
        name, there, here = found[0]
        more = f" ({len(found) - 1} more differences: {', '.join(f[0] for f in found[1:6])})" if found[1:] else ""
        raise CheckpointError(
            f"The checkpoint {str(folder)!r} belongs to another run: {name} is {there} there and {here} in this "
            f"call{more}. To go on with it, make the call that wrote it; for a new run, give another checkpoint=... or "
            "delete that folder."
        )


def replace_file(path: Path, write: Callable[[io.BufferedWriter], Any]) -> None:
    """Write a file so that it is there as a whole or not at all, whenever the process or the machine dies."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def definition(value: Any) -> Any:
    """What an object is made of, as plain lists and dictionaries that JSON can hold and that two runs can compare.

    Large arrays are represented by a hash, functions by their names.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        array = np.asarray(value)
        return array.tolist() if array.size <= 64 else f"{list(array.shape)} #{digest({'': array})}"
    if isinstance(value, list | tuple):
        return [definition(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): definition(item) for key, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: definition(getattr(value, field.name)) for field in fields(value)}
        return {"class": type(value).__qualname__, **parts}
    return getattr(value, "__qualname__", type(value).__qualname__)


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """A short hash of named arrays."""
    result = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        result.update(f"{name} {array.dtype} {array.shape} ".encode())
        result.update(np.ascontiguousarray(array).tobytes())
    return result.hexdigest()[:16]


def _differences(theirs: Any, ours: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Where two definitions differ; what only the checkpoint has is left out at the top, where None was given."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        for key in [*theirs, *(key for key in ours if key not in theirs)]:
            if name or key in ours:
                yield from _differences(
                    theirs.get(key, "absent"), ours.get(key, "absent"), f"{name}.{key}" if name else key
                )
    elif isinstance(theirs, list) and isinstance(ours, list) and len(theirs) == len(ours):
        for i, (a, b) in enumerate(zip(theirs, ours, strict=True)):
            yield from _differences(a, b, f"{name}[{i}]")
    elif theirs != ours and json.dumps(theirs) != json.dumps(ours):  # the second for NaN
        yield name, theirs, ours
