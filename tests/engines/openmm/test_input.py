"""What cannot work is refused before step 0, with what to do instead."""

import warnings

import pytest

import pysamp
from pysamp.backends import openmm as backend
from pysamp.backends import openmm_host
from pysamp.backends.openmm_host import NativeBound, load_native
from pysamp.backends.openmm_python_force import PythonForceBound
from pysamp.colvars import Distance
from pysamp.methods import HarmonicBias, Metadynamics

BIAS = HarmonicBias(Distance([0, 1]), kspring=1.0, center=0.3)


def test_no_positions(systems, route):
    context = systems.openmm.Context(
        systems.dimer_system(), systems.langevin(), systems.openmm.Platform.getPlatformByName("Reference")
    )
    with pytest.raises(pysamp.InvalidInputError, match="setPositions"):
        pysamp.bind(route(context), BIAS)


@pytest.mark.parametrize(
    ("name", "remedy"),
    [("VariableLangevinIntegrator", "LangevinMiddleIntegrator"), ("VariableVerletIntegrator", "VerletIntegrator")],
)
def test_variable_steps(systems, route, name, remedy):
    args = (300.0, 1.0, 1e-3) if "Langevin" in name else (1e-3,)
    context = systems.dimer(getattr(systems.openmm, name)(*args))
    with pytest.raises(pysamp.UnsupportedError, match=rf"such as {remedy}\("):
        pysamp.bind(route(context), BIAS)


def test_ring_polymers(systems):
    with pytest.raises(pysamp.UnsupportedError, match="RPMD"):
        pysamp.describe(systems.dimer(systems.openmm.RPMDIntegrator(4, 300.0, 1.0, 0.001), velocities=False))


def test_atoms_out_of_range(systems, route):
    with pytest.raises(pysamp.InvalidInputError, match="particle 2, but the system has 2"):
        pysamp.bind(route(systems.dimer()), HarmonicBias(Distance([0, 2]), kspring=1.0, center=0.3))


def test_unknown_temperature(systems, route):
    method = Metadynamics(Distance([0, 1]), height=1.0, sigma=0.1, stride=5, bias_factor=5.0)
    with pytest.raises(pysamp.InvalidInputError, match="kT="):
        pysamp.bind(route(systems.dimer(systems.openmm.VerletIntegrator(0.001))), method)


@pytest.mark.parametrize(
    "make",
    [
        lambda s: s.langevin(),
        lambda s: s.openmm.LangevinIntegrator(300.0, 1.0, 0.001),
        lambda s: s.openmm.BrownianIntegrator(300.0, 1.0, 0.001),
        lambda s: s.openmm.NoseHooverIntegrator(300.0, 1.0, 0.001),
        lambda s: s.openmm.MTSLangevinIntegrator(
            300 * s.unit.kelvin, 1 / s.unit.picosecond, 1 * s.unit.femtosecond, [(0, 1)]
        ),
    ],
)
def test_temperature_of_the_integrator(systems, make):
    assert pysamp.describe(systems.dimer(make(systems))).kT == pytest.approx(300.0 * systems.KB, rel=1e-6)


def test_temperature_of_a_thermostat(systems):
    context = systems.gas(systems.openmm.VerletIntegrator(0.001), extra=[systems.openmm.AndersenThermostat(250.0, 1.0)])
    assert pysamp.describe(context).kT == pytest.approx(250.0 * systems.KB)
    context.setParameter("AndersenTemperature", 350.0)
    assert pysamp.describe(context).kT == pytest.approx(350.0 * systems.KB)


@pytest.mark.parametrize("n_steps", [-1])
def test_negative_steps(systems, route, n_steps):
    with pysamp.bind(route(systems.dimer()), BIAS) as bound, pytest.raises(pysamp.InvalidInputError, match="negative"):
        bound.run(n_steps)


def test_no_steps(systems, route):
    with pysamp.bind(route(systems.dimer()), BIAS) as bound:
        assert bound.run(0, log_every=5).shape == (1, 0, 3)
        assert int(bound.states[0].step) == 0


def test_another_version_of_openmm(systems, monkeypatch):
    """Falls back to PythonForce, and says so once."""
    native, _ = load_native()
    monkeypatch.setattr(native, "openmm_version", "7.0")
    check_fallback(systems, "built for OpenMM 7.0 and this is 8")


def test_another_copy_of_openmm(systems, monkeypatch):
    native, _ = load_native()
    monkeypatch.setattr(native, "library_address", lambda: 64)
    check_fallback(systems, "another copy of OpenMM")


def test_no_extension(systems, monkeypatch):
    def fail(name):
        raise ImportError(f"No module named {name!r}")

    monkeypatch.setattr(openmm_host.importlib, "import_module", fail)
    check_fallback(systems, "extension is not there")


def check_fallback(systems, message):
    backend._WARNED.clear()
    with pytest.warns(pysamp.PysampWarning, match=message) as record:
        for _ in range(2):
            with pysamp.bind(systems.dimer(), BIAS) as bound:
                assert isinstance(bound, PythonForceBound)
                assert bound.run(3, log_every=1).shape == (1, 3, 3)
    assert len(record) == 1


def test_the_native_route_is_there(systems):
    """Or else most of these tests tested nothing."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for platform in ("Reference", "CPU"):
            with pysamp.bind(systems.dimer(platform=platform), BIAS) as bound:
                assert isinstance(bound, NativeBound)
