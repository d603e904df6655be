"""What the tests of all engines have in common: a mark with the engine's name, and the systems beside them."""

from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(item.path.relative_to(HERE).parts[0])


@pytest.fixture
def systems(request: pytest.FixtureRequest) -> Any:
    """The conftest.py beside the test, whose functions build systems."""
    return request.config.pluginmanager.get_plugin(str(request.path.with_name("conftest.py")))
