"""Small systems for the tests of the HOOMD-blue backend."""

# pyright: reportMissingImports=false, reportGeneralTypeIssues=false, reportOptionalMemberAccess=false

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

hoomd = pytest.importorskip(
    "hoomd", reason="HOOMD-blue is not installed: conda install -c conda-forge hoomd, or build it"
)
importlib.import_module("hoomd.md")

import pysamp  # noqa: E402
from pysamp.backends._hoomd_device import HoomdDeviceBound  # noqa: E402
from pysamp.backends.view import View  # noqa: E402

DT = 0.005


@pytest.fixture(
    params=["relayed", "spinning", "called", "as on a GPU", pytest.param("on a GPU", marks=pytest.mark.gpu)]
)
def route(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The ways in which HOOMD and the compiled bias take turns."""
    if request.param in ("relayed", "spinning"):
        pytest.importorskip("pysamp.backends._relay", reason="the native extension was not built")
        monkeypatch.setenv("PYSAMP_HOOMD_SPIN", "1" if request.param == "spinning" else "0")
    elif request.param == "called":
        monkeypatch.setenv("PYSAMP_HOOMD_CALLBACK", "1")
    elif request.param == "as on a GPU":
        monkeypatch.setattr(pysamp.backends.hoomd, "route_of", lambda simulation: AsOnGpu)
    else:
        if not hoomd.device.GPU.is_available():
            pytest.skip("HOOMD has no GPU here")
        pytest.importorskip("cupy", reason="CuPy is not installed: pip install 'pysamp[hoomd-cuda]'")
        monkeypatch.setattr(hoomd.device, "CPU", hoomd.device.GPU)
    return request.param


class AsOnGpu(HoomdDeviceBound):
    """The route of GPUs in host memory: the same code but for CuPy and the streams."""

    def _snapshot(self) -> Any:
        return self._simulation.state.cpu_local_snapshot

    def _force_arrays(self) -> Any:
        return self._force.cpu_local_force_arrays

    def _array(self, local: Any) -> Any:
        return local._coerce_to_ndarray()

    def _view(self, local: Any) -> View:
        return View.of_rows(self._array(local))

    def _from_jax(self, array: Any) -> Any:
        return np.asarray(array)


def frame(
    positions: Any,
    box: Sequence[float],
    *,
    masses: Any = 1.0,
    bonds: Sequence[tuple[int, int]] = (),
    images: Any = None,
    kT: float = 1.0,
    velocities: Any = None,
) -> Any:
    """A snapshot with thermal velocities."""
    positions = np.asarray(positions, dtype=float)
    n = len(positions)
    result = hoomd.Snapshot()
    result.configuration.box = list(box)
    result.particles.types = ["A", "anchor"]
    result.particles.N = n
    result.particles.position[:] = positions
    result.particles.mass[:] = masses
    random = np.random.default_rng(7).normal(size=(n, 3)) * np.sqrt(kT / result.particles.mass[:])[:, None]
    if len(box) > 2 and box[2] == 0:
        random[:, 2] = 0.0
    result.particles.velocity[:] = random if velocities is None else velocities
    if images is not None:
        result.particles.image[:] = images
    result.bonds.types = ["bond"]
    result.bonds.N = len(bonds)
    if bonds:
        result.bonds.group[:] = bonds
    return result


def simulation(
    snapshot: Any, methods: Sequence[Any], forces: Sequence[Any] = (), *, dt: float = DT, seed: int = 3
) -> Any:
    """A simulation on one thread of the CPU."""
    result = hoomd.Simulation(device=hoomd.device.CPU(), seed=seed)
    result.create_state_from_snapshot(snapshot)
    result.operations.integrator = hoomd.md.Integrator(dt=dt, methods=list(methods), forces=list(forces))
    return result


def every() -> Any:
    return hoomd.filter.All()


def langevin(kT: Any = 1.0, gamma: float = 1.0) -> Any:
    return hoomd.md.methods.Langevin(filter=every(), kT=kT, default_gamma=gamma)


def newton() -> Any:
    return hoomd.md.methods.ConstantVolume(filter=every())


def nose_hoover(kT: Any = 1.0) -> Any:
    """Deterministic, and with a temperature."""
    thermostat = hoomd.md.methods.thermostats.MTTK(kT=kT, tau=0.5)
    return hoomd.md.methods.ConstantVolume(filter=every(), thermostat=thermostat)


def lennard_jones(r_cut: float = 2.5, epsilon: float = 1.0) -> Any:
    """With anchors taking no part."""
    result = hoomd.md.pair.LJ(nlist=hoomd.md.nlist.Cell(buffer=0.3, exclusions=[]), default_r_cut=r_cut, mode="shift")
    result.params[("A", "A")] = {"epsilon": epsilon, "sigma": 1.0}
    result.params[("A", "anchor")] = {"epsilon": 0.0, "sigma": 1.0}
    result.params[("anchor", "anchor")] = {"epsilon": 0.0, "sigma": 1.0}
    return result


def springs(k: float = 1.0, r0: float = 0.0) -> Any:
    result = hoomd.md.bond.Harmonic()
    result.params["bond"] = {"k": k, "r0": r0}
    return result


def fluid_frame(n_side: int = 4, spacing: float = 1.2, tilts: Sequence[float] = (0.0, 0.0, 0.0), **options: Any) -> Any:
    """A Lennard-Jones fluid on a lattice, a little disturbed."""
    length = n_side * spacing
    xy, xz, yz = tilts
    rows = length * np.array([[1.0, 0.0, 0.0], [xy, 1.0, 0.0], [xz, yz, 1.0]])
    grid = np.stack(np.meshgrid(*[np.arange(n_side)] * 3, indexing="ij"), axis=-1).reshape(-1, 3)
    fractions = (grid + 0.5) / n_side - 0.5
    noise = 0.03 * np.random.default_rng(5).normal(size=fractions.shape)
    return frame(fractions @ rows + noise, [length, length, length, xy, xz, yz], **options)


def fluid(
    methods: Sequence[Any] | None = None, *, extra: Sequence[Any] = (), r_cut: float = 1.6, **options: Any
) -> Any:
    snapshot = fluid_frame(**options)
    return simulation(snapshot, methods or [langevin()], [lennard_jones(r_cut), *extra])


def wells(method: Any, *, n: int = 32, k: float = 1.0, dt: float = 0.05) -> Any:
    """Independent particles of mass 1, each tied by a spring to an anchor that is not integrated.

    Particles 0 .. n - 1 move; the anchor of particle i is particle n + i.
    """
    side = 60.0
    centers = np.linspace(-25.0, 25.0, n)[:, None] * np.array([1.0, 0.0, 0.0])
    random = np.random.default_rng(0).normal(size=(n, 3)) / np.sqrt(k)
    snapshot = frame(
        np.concatenate([centers + random, centers]), [side, side, side, 0, 0, 0], bonds=[(i, n + i) for i in range(n)]
    )
    snapshot.particles.typeid[n:] = 1
    snapshot.particles.velocity[n:] = 0.0
    return simulation(snapshot, [method], [springs(k)], dt=dt)


def movers() -> Any:
    return hoomd.filter.Type(["A"])


def tag_order(simulation: Any, name: str) -> np.ndarray:
    """One of the particle arrays in the order of tags."""
    with simulation.state.cpu_local_snapshot as snapshot:
        particles = snapshot.particles
        return np.array(getattr(particles, name))[np.array(particles.rtag)]


def positions(simulation: Any) -> np.ndarray:
    """Across the borders of the box."""
    snapshot = simulation.state.get_snapshot()
    box = simulation.state.box
    depth = box.Lz or 0.0
    rows = np.array([[box.Lx, 0, 0], [box.xy * box.Ly, box.Ly, 0], [box.xz * depth, box.yz * depth, depth]])
    return np.array(snapshot.particles.position) + np.array(snapshot.particles.image) @ rows
