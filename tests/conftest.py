"""Strict JAX, strict types, and the test of JAX itself before all others."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

MANY_MAPS = 30_000


def _wants_gpu(config: pytest.Config) -> bool:
    expression = str(config.getoption("markexpr", ""))
    return "gpu" in expression and "not gpu" not in expression


def pytest_configure(config: pytest.Config) -> None:
    if not _wants_gpu(config):
        os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX is imported, and for the processes that tests start

    # Shapes and types of every annotated function of the package are checked at each call. Before pysamp is imported.
    if os.environ.get("PYSAMP_TYPECHECK", "1") != "0":
        from jaxtyping import install_import_hook

        install_import_hook("pysamp", "beartype.beartype")

    import jax

    jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="module", autouse=True)
def forget_compiled() -> Iterator[None]:
    """Each compiled program keeps some parts of memory mapped, of which a process may have 65530 on Linux; then XLA crashes."""
    yield
    maps = Path("/proc/self/maps")
    if maps.exists() and maps.read_bytes().count(b"\n") > MANY_MAPS:
        import jax

        jax.clear_caches()


@pytest.fixture(scope="module")
def compile_in_haste() -> Iterator[None]:
    """For modules whose programs take longer to compile than to run: ``pytestmark = pytest.mark.usefixtures(...)``."""
    import jax

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # A JAX that computes wrong numbers makes every other result worthless.
    items.sort(key=lambda item: item.path.name != "test_00_jax.py")
