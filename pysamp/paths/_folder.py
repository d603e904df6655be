"""The checkpoint of a path method: a folder with one file for each part that is done, and one for the part under way."""

import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ..checkpoint import Lock, check_fingerprint, replace_file
from ..errors import CheckpointError

__all__ = ["Folder", "NoFolder"]

_FORMAT = 1


class NoFolder:
    """In the place of a folder where no checkpoint is wanted."""

    def open(self, fingerprint: Mapping[str, Any], defaults: Mapping[str, Any]) -> Mapping[str, Any]:
        """The run's own definition."""
        return {**fingerprint, **defaults}

    def read(self, name: str) -> dict[str, np.ndarray] | None:
        """Nothing."""
        del name

    def write(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Nothing is kept."""

    def remove(self, name: str) -> None:
        """Nothing is there."""

    def close(self) -> None:
        """Nothing is open."""

    def __enter__(self) -> "NoFolder":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()


class Folder(NoFolder):
    """A folder of files that are each there as a whole or not at all; a context manager that holds a lock on it.

    Args:
        folder: the folder, made if it does not exist.

    Raises:
        CheckpointError: if the folder cannot be used, or holds something else.
    """

    def __init__(self, folder: Path):
        self._folder = folder
        self._header = folder / "header.json"
        if list(folder.glob("0000.npz")):
            raise CheckpointError(
                f"The checkpoint {str(folder)!r} is one of another kind of run. Give another checkpoint=..."
            )
        self._lock = Lock(folder)

    def open(self, fingerprint: Mapping[str, Any], defaults: Mapping[str, Any]) -> Mapping[str, Any]:
        """Compare the run that wrote the folder with the one that goes on with it, or begin.

        Args:
            fingerprint: what must agree.
            defaults: what the user left open, to be taken from the folder if there is something.

        Returns:
            The definition of the run.
        """
        if not self._header.exists():
            definition = {"format": _FORMAT, **fingerprint, **defaults}
            self._replace(self._header, lambda file: file.write(json.dumps(definition).encode()))
            return definition
        try:
            found = json.loads(self._header.read_text())
        except (OSError, ValueError) as error:
            raise self._damaged(error) from error
        check_fingerprint(self._folder, found, {"format": _FORMAT, **fingerprint})
        return found

    def read(self, name: str) -> dict[str, np.ndarray] | None:
        """The arrays of a part, None if it has not been written.

        Raises:
            CheckpointError: if the file is damaged.
        """
        path = self._folder / f"{name}.npz"
        if not path.exists():
            return None
        try:
            with open(path, "rb") as file, np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
        except (OSError, ValueError, zipfile.BadZipFile) as error:
            raise self._damaged(error) from error

    def write(self, name: str, arrays: Mapping[str, np.ndarray]) -> None:
        """Write the arrays of a part.

        Raises:
            CheckpointError: if they cannot be written.
        """
        self._replace(self._folder / f"{name}.npz", lambda file: np.savez(file, allow_pickle=False, **arrays))

    def remove(self, name: str) -> None:
        """Remove a part that is no longer wanted."""
        (self._folder / f"{name}.npz").unlink(missing_ok=True)

    def close(self) -> None:
        """Release the lock."""
        self._lock.close()

    def _replace(self, path: Path, write: Any) -> None:
        try:
            replace_file(path, write)
        except OSError as error:
            raise CheckpointError(
                f"The checkpoint {str(self._folder)!r} could not be written: {error}. What was written before is intact. Make "
                f"room on the disk and start the same call again."
            ) from error

    def _damaged(self, why: Any) -> CheckpointError:
        return CheckpointError(
            f"The checkpoint {os.fspath(self._folder)!r} cannot be read: {why}. Restore its files from a copy, or delete the "
            "folder to begin anew."
        )
