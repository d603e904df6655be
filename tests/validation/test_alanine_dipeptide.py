"""Methods against each other on a molecule, whose free energy nobody knows exactly."""

import numpy as np
import pytest

pytest.importorskip("openmm")
from alanine_methods import METHODS, compare, rms_difference


@pytest.mark.openmm
@pytest.mark.validation
def test_methods_agree():
    """Within three standard errors of the difference of two; surfaces within 1 kJ/mol. False alarms: 0.3 % a pair."""
    surfaces = compare(list(METHODS), replicas=8, steps=2_000_000)
    first, *others = surfaces.values()
    for other in others:
        (a, error_a), (b, error_b) = first.difference, other.difference
        assert abs(a - b) < 3 * np.hypot(error_a, error_b)
        assert rms_difference(first.fes, other.fes) < 1.0
    for surface in surfaces.values():
        values, errors = np.array(surface.of_replicas).T
        if len(values) == 1:  # windows
            continue
        assert 0.4 < np.sqrt(np.mean(errors**2)) / values.std(ddof=1) < 2.5, (
            "stated errors against the replicas' spread"
        )
