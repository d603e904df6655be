"""The examples in docstrings run, and the code on the pages is that of the present interface."""

import ast
import doctest
import importlib
import importlib.util
import pkgutil
import re
from pathlib import Path

import pytest

import pysamp
import pysamp.analysis
import pysamp.colvars
import pysamp.methods
import pysamp.testing

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    "README.md",
    *sorted(str(page.relative_to(ROOT)) for page in (ROOT / "docs").glob("**/*.md") if "_build" not in str(page)),
]


def modules_without_engines():
    names = [name for _, name, _ in pkgutil.walk_packages(pysamp.__path__, "pysamp.")]
    return sorted(
        name for name in names if not re.search(r"openmm|hoomd|lammps|jaxmd|_native|_device|_cuda|_opencl", name)
    )


def examples(name):
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [test for test in finder.find(importlib.import_module(name)) if test.examples]


@pytest.mark.parametrize("name", modules_without_engines())
def test_docstring_examples_run(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # some write files
    for test in examples(name):
        if "plot(" in (test.docstring or ""):
            pytest.importorskip("matplotlib").use("Agg")
        runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS, verbose=False)
        report = []
        runner.run(test, out=report.append)
        assert not runner.failures, "".join(report)


def code_blocks(page):
    return re.findall(r"^```python\n(.*?)^```", (ROOT / page).read_text(), flags=re.DOTALL | re.MULTILINE)


@pytest.mark.parametrize("page", PAGES)
def test_code_on_pages_compiles_and_imports_what_exists(page):
    for block in code_blocks(page):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("pysamp"):
                module = importlib.import_module(node.module or "")
                missing = [alias.name for alias in node.names if not hasattr(module, alias.name)]
                assert not missing, f"{page} imports {missing} from {node.module}"
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "pysamp":
                assert node.attr in pysamp.__all__, f"{page} uses pysamp.{node.attr}"


def stand_in(kT=0.1, timestep=0.02):
    """A simulation of as many particles as the pages' molecule has, at once at equilibrium."""
    import jax.numpy as jnp
    import numpy as np

    from pysamp.backends import toy

    start = np.random.default_rng(0).normal(size=(22, 3))
    return toy.Simulation(lambda x: 0.5 * jnp.sum((x - start) ** 2), start, kT=kT, timestep=timestep)


def test_the_tour_is_true(tmp_path, monkeypatch):
    """The tour's code, one block after the other; the simulation is a cheap stand-in with as many particles."""
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.chdir(tmp_path)
    names = {"generate_context": stand_in}
    for block in code_blocks("docs/tour.md"):
        if "openmm" in block:
            compile(block, "tour", "exec")
            continue
        exec(block.replace("500_000", "5_000").replace("stride=500", "stride=50"), names)
    assert (tmp_path / "run.nc").exists()


def test_the_gallery_shows_every_cv():
    import inspect

    from pysamp.colvars import AbstractCV

    page = (ROOT / "docs/colvars.md").read_text()
    shown = set(re.findall(r"`~pysamp\.colvars\.(\w+)`", page))
    classes = {name: getattr(pysamp.colvars, name) for name in pysamp.colvars.__all__}
    public = {name for name, kind in classes.items() if inspect.isclass(kind) and issubclass(kind, AbstractCV)}
    assert shown == public - {"AbstractCV", "AbstractContacts"}


@pytest.mark.parametrize("page", ["abf", "adaptive_path", "choosing", "opes", "steered", "umbrella_sampling"])
def test_examples_of_methods_run(page):
    """With a hundredth of the steps, and hills as much more often."""
    pytest.importorskip("matplotlib").use("Agg")
    names = {"generate_context": lambda: stand_in(kT=2.5, timestep=0.05)}
    for block in code_blocks(f"docs/methods/{page}.md"):
        shorter = re.sub(r"\b\d+(?:_\d{3})+\b", lambda match: str(int(match[0]) // 100), block)
        exec(shorter.replace("stride=500", "stride=5").replace("log_every=100", "log_every=5"), names)
