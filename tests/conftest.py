"""Strict JAX, strict types, programs compiled in haste and once only, and the test of JAX itself before all others."""

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

HERE = Path(__file__).parent
HASTY = [HERE / "unit", HERE / "contract", HERE / "engines" / "jaxmd"]
MANY_MAPS = 30_000
MANY_BYTES = 1 << 30


def _wants_gpu(config: pytest.Config) -> bool:
    expression = str(config.getoption("markexpr", ""))
    return "gpu" in expression and "not gpu" not in expression


def pytest_configure(config: pytest.Config) -> None:
    if not _wants_gpu(config):
        os.environ["JAX_PLATFORMS"] = "cpu"  # before JAX is imported, and for the processes that tests start

    # What one worker, or a process that a test starts, has compiled is there for the others, and for the next run.
    compiled = config.rootpath / ".pytest_cache" / "jax"
    if not hasattr(config, "workerinput") and sum(p.stat().st_size for p in compiled.glob("*")) > MANY_BYTES:
        shutil.rmtree(compiled)
    os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(compiled))
    os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

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


@pytest.fixture(scope="module", autouse=True)
def compile_in_haste(request: pytest.FixtureRequest) -> Iterator[None]:
    """Most programs take longer to compile than to run. Not in modules marked ``optimized``; engines run what users run."""
    from jax._src import compiler

    from pysamp._compile import options_in_haste

    usual, in_haste = compiler.get_compile_options, options_in_haste()

    def get_compile_options(*args: Any, env_options_overrides: Any = None, **options: Any) -> Any:
        return usual(*args, env_options_overrides=in_haste | (env_options_overrides or {}), **options)

    is_optimized = request.node.get_closest_marker("optimized") is not None
    is_hasty = not is_optimized and any(folder in request.path.parents for folder in HASTY)
    with pytest.MonkeyPatch.context() as patch:
        if is_hasty:
            patch.setattr(compiler, "get_compile_options", get_compile_options)
        yield


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    # A JAX that computes wrong numbers makes every other result worthless.
    items.sort(key=lambda item: item.path.name != "test_00_jax.py")
