"""Reporters, callbacks, step count and time."""

import io

import numpy as np
import pytest
from openmm import XmlSerializer, app, unit

import pysamp
from pysamp.backends.openmm import PythonForceRoute
from pysamp.colvars import DihedralAngle
from pysamp.methods import HarmonicBias

BIAS = HarmonicBias(DihedralAngle([4, 6, 8, 14]), kspring=50.0, center=1.0)


class Recorder:
    """Notes the steps at which it is called, and what it is given."""

    def __init__(self, interval, form):
        self.interval, self.form = interval, form
        self.steps, self.states = [], []

    def describeNextReport(self, simulation):  # noqa: N802 - OpenMM's name
        steps = self.interval - simulation.currentStep % self.interval
        if self.form == "tuple":
            return (steps, True, False, True, True)
        return {
            "steps": steps,
            "periodic": False,
            "include": ["positions", "velocities", "energy", "integratorParameters"],
        }

    def report(self, simulation, state):
        self.steps.append(simulation.currentStep)
        self.states.append(state)


def test_reporters_run_at_their_steps(systems, route):
    simulation = systems.alanine()
    text = io.StringIO()
    first, second = Recorder(7, "tuple"), Recorder(10, "dict")
    simulation.reporters += [app.StateDataReporter(text, 20, step=True, time=True, potentialEnergy=True), first, second]
    seen = []
    pysamp.run(
        BIAS,
        lambda: route(simulation),
        60,
        log_every=5,
        callback=pysamp.Callback(lambda bound, step: seen.append((step, bound.snapshots()[0].step)), every=9),
        progress=False,
    )
    assert first.steps == [*range(7, 61, 7)]
    assert second.steps == [*range(10, 61, 10)]
    assert seen == [(step, step) for step in range(9, 61, 9)]
    rows = [line.split(",") for line in text.getvalue().splitlines()[1:]]
    assert [int(row[0]) for row in rows] == [20, 40, 60]
    np.testing.assert_allclose([float(row[1]) for row in rows], [0.04, 0.08, 0.12])
    assert float(rows[0][2]) == pytest.approx(second.states[1].getPotentialEnergy()._value)  # both with the bias
    assert first.states[0].getForces() is not None
    assert "IntegratorParameters" in XmlSerializer.serialize(second.states[0])
    assert simulation.currentStep == 60
    assert simulation.context.getTime().value_in_unit(unit.picosecond) == pytest.approx(0.12)


def test_reported_energy_contains_the_bias(systems, route):
    simulation = systems.alanine()
    recorder = Recorder(5, "dict")
    simulation.reporters.append(recorder)
    with pysamp.bind(route(simulation), BIAS) as bound:
        assert bound.steps_until_report(100) == 5
        bound.run(5)
        bound.report()
        bound.report()  # nothing is due any more
        biased = systems.energy(simulation.context)
    assert recorder.steps == [5]
    assert recorder.states[0].getPotentialEnergy()._value == pytest.approx(biased, rel=1e-12)
    assert biased - systems.energy(simulation.context) > 1.0


def test_a_context_has_no_reporters(systems):
    with pysamp.bind(systems.dimer(), pysamp.methods.Unbiased(pysamp.colvars.Distance([0, 1]))) as bound:
        assert bound.steps_until_report(17) == 17
        bound.report()


@pytest.mark.parametrize("n_rows", [1024, 1025])
def test_a_chunk_holds_as_many_rows_as_it_says(systems, n_rows):
    method = pysamp.methods.Unbiased(pysamp.colvars.Distance([0, 1]))
    with pysamp.bind(systems.dimer(), method) as bound:
        if n_rows > 1024:
            with pytest.raises(pysamp.InvalidInputError, match="1024 rows"):
                bound.run(n_rows, log_every=1)
        else:
            assert bound.run(n_rows, log_every=1).shape[1] == n_rows
            assert bound.run(2 * n_rows, log_every=2)[0, :, 0].tolist() == [*range(1024, 3072, 2)]


def test_a_result_tells_where_it_comes_from(systems, route):
    attributes = pysamp.run(BIAS, lambda: route(systems.alanine()), 10, progress=False).attributes
    assert attributes["engine"] == "openmm"
    assert attributes["engine_version"] == systems.openmm.Platform.getOpenMMVersion()
    assert attributes["platform"] == "Reference"
    assert attributes["route"] == ("PythonForce" if route is PythonForceRoute else "native")
    assert attributes["energy_unit"] == "kJ/mol"
