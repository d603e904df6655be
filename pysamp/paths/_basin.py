"""Walkers in the basin, which cross the first interface again and again."""

from collections.abc import Callable, Sequence
from typing import NoReturn

import numpy as np

from .._serial import from_arrays, to_arrays
from ..errors import InvalidInputError
from ..snapshot import Snapshot
from ._crossing import CROSSED, REACHED_TARGET, crossing_state
from ._frames import Frames
from ._progress import OutOfStepsError
from ._segments import Beginning, Done, Segment, seed_of
from .forward_flux import ForwardFlux

__all__ = ["Walkers"]

_FIRST_SLICE = 100  # MD steps of each walker; later ones are as long as seems to be needed
_MAX_ESCAPES = 20  # of a walker in its equilibration
_UNLIMITED = 2**62


class Walkers:
    """Walkers that all go on for the same time, until they have crossed often enough together.

    For the same time, not for the same number of crossings: crossings come in bursts, and a number of them counted from any time
    on has too few of the short waits within a burst.

    Args:
        method: what is to be done.
        beginning: where each walker begins.
        do: does segments.
        seed: of the run.
        n_walkers: how many there are.

    Attributes:
        clock: MD steps of each walker that count.
        points: where the first interface was crossed.
        owners: which walker did.
        times: when, on its clock.
    """

    def __init__(
        self,
        method: ForwardFlux,
        beginning: Beginning,
        do: Callable[[Sequence[Segment]], list[Done]],
        seed: int,
        n_walkers: int,
    ):
        self._method, self._beginning, self._do, self._seed = method, beginning, do, seed
        self.clock = np.zeros(n_walkers, dtype=np.int64)
        self.points: list[Snapshot] = []
        self.owners: list[int] = []
        self.times: list[int] = []
        self._walkers = [beginning.snapshots[0]] * n_walkers
        self._in_basin = np.zeros(n_walkers, dtype=bool)
        self._visited = np.zeros(n_walkers, dtype=bool)  # the basin, since the walker last began
        self._warm_up = np.full(n_walkers, method.n_equilibration)  # steps still to do that do not count
        self._escapes = np.zeros(n_walkers, dtype=np.int64)  # while warming up
        self._end = _FIRST_SLICE  # of the slice of time, on the walkers' clocks
        self._n_turns = 0

    def turn(self) -> bool:
        """Each walker goes on to its next crossing or the end of the slice; whether there is more to do."""
        left = self._end - self.clock
        active = np.flatnonzero(left > 0)
        if not active.size:
            if len(self.points) >= self._method.n_initial:
                return False
            self._end += self._next_slice()
            return True
        levels = self._method.sign * self._method.interfaces
        segments = [
            Segment(
                self._walkers[w],
                crossing_state(
                    basin=self._method.sign * float(self._method.basin),
                    interface=levels[0],
                    target=levels[-1],
                    is_trial=False,
                    in_basin=bool(self._in_basin[w]),
                    limit=int(self._warm_up[w] or left[w]),
                ),
                seed_of(self._seed, 0, self._n_turns, int(w)),
                _UNLIMITED,
            )
            for w in active
        ]
        try:
            ends = self._do(segments)
        except OutOfStepsError as error:
            if not self.points:  # all that is known of the flux is for how long there was none
                self.clock[active] += error.n_steps // len(active)
            raise
        for w, end in zip(active.tolist(), ends, strict=True):
            self._note(w, end)
        self._n_turns += 1
        return True

    def _note(self, w: int, end: Done) -> None:
        outcome, n_steps = int(end.state.outcome), int(end.state.n_steps)
        self._walkers[w], self._in_basin[w] = end.snapshot, end.state.in_basin
        self._visited[w] |= outcome == CROSSED or bool(end.state.in_basin)
        if self._warm_up[w]:
            self._warm_up[w] -= n_steps
            if outcome == REACHED_TARGET:
                self._escapes[w] += 1
                if self._escapes[w] > _MAX_ESCAPES:
                    self._complain(f"left it {_MAX_ESCAPES} times while it was equilibrated", end)
            elif not self._warm_up[w] and not self._visited[w]:
                self._complain(f"did not come into it in {self._method.n_equilibration} steps", end)
        else:
            self.clock[w] += n_steps
            if outcome == CROSSED:
                self.points.append(end.snapshot)
                self.owners.append(w)
                self.times.append(int(self.clock[w]))
        if outcome == REACHED_TARGET:  # it belongs to the other side now: another one begins
            self._walkers[w] = self._beginning.snapshots[0]
            self._in_basin[w] = self._visited[w] = False
            self._warm_up[w] = self._method.n_equilibration

    def _complain(self, what: str, end: Done) -> NoReturn:
        method = self._method
        raise InvalidInputError(
            f"The basin begins at {float(method.basin):.6g}, and a walker {what}: {method.cv.labels[0]} was "
            f"{float(end.xi[0]):.6g} then. Let generate_context begin in the basin, check the order of the interfaces, or "
            "choose another n_equilibration."
        )

    def _next_slice(self) -> int:
        elapsed, n = int(self.clock[0]), len(self.points)
        wanted = 1.1 * (self._method.n_initial - n) * elapsed / n if n else np.inf
        return int(np.clip(wanted, 100, 3 * elapsed))

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it, for the checkpoint."""
        like = self._beginning.snapshots[0]
        result = {
            "clock": self.clock,
            "owners": np.array(self.owners, dtype=np.int64),
            "times": np.array(self.times, dtype=np.int64),
            "in_basin": self._in_basin,
            "visited": self._visited,
            "warm_up": self._warm_up,
            "escapes": self._escapes,
            "end": np.asarray(self._end),
            "n_turns": np.asarray(self._n_turns),
        }
        result |= to_arrays(Frames.of(self.points, like), "points.")
        return result | to_arrays(Frames.of(self._walkers, like), "walkers.")

    def take(self, stored: dict[str, np.ndarray]) -> None:
        """Go on from what ``arrays`` returned."""
        like = self._beginning.snapshots[0]
        masses = np.asarray(self._beginning.system.masses)
        points, walkers = (from_arrays(Frames.of([], like), stored, f"{name}.") for name in ("points", "walkers"))
        self.points = [points.snapshot(i, masses) for i in range(len(points))]
        self._walkers = [walkers.snapshot(i, masses) for i in range(len(walkers))]
        self.clock, self._in_basin, self._visited = (stored[name] for name in ("clock", "in_basin", "visited"))
        self._warm_up, self._escapes = stored["warm_up"], stored["escapes"]
        self.owners, self.times = stored["owners"].tolist(), stored["times"].tolist()
        self._end, self._n_turns = int(stored["end"]), int(stored["n_turns"])
