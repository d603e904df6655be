"""Importing pysamp changes nothing but sys.modules, and every public name is documented."""

import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

# Runs in a fresh interpreter. JAX is imported first: what it does is its own business.
PROBE = """
import json, os, sys
import jax

written = []

def watch(event, args):
    if event == "open":
        path, mode, flags = args
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and path != os.devnull:
            written.append(str(path))
    elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link"):
        written.append(event + " " + str(args[0]))

environment, x64 = dict(os.environ), jax.config.jax_enable_x64
sys.addaudithook(watch)
import pysamp
json.dump({
    "environment": sorted(set(environment.items()) ^ set(os.environ.items())),
    "x64": [x64, jax.config.jax_enable_x64],
    "modules": sorted(set(sys.modules) & {"openmm", "hoomd", "lammps", "matplotlib", "pymbar"}),
    "written": written,
}, sys.stdout)
"""

# Each package with an __all__, and the page that documents it.
PAGES = {
    "pysamp": "pysamp.md",
    "pysamp.colvars": "colvars.md",
    "pysamp.methods": "methods.md",
    "pysamp.paths": "paths.md",
    "pysamp.backends": "backends.md",
    "pysamp.analysis": "analysis.md",
    "pysamp.differentiable": "differentiable.md",
    "pysamp.testing": "testing.md",
}


@pytest.fixture(scope="module")
def effects(tmp_path_factory):
    home = tmp_path_factory.mktemp("home")
    environment = {**os.environ, "HOME": str(home), "PYTHONPATH": str(ROOT)}
    environment.pop("JAX_ENABLE_X64", None)
    # -B: Python's own bytecode files are not what is asked about.
    command = [sys.executable, "-B", "-W", "error", "-c", PROBE]
    done = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return {**json.loads(done.stdout), "left": [str(path) for path in home.rglob("*")]}


def test_import_leaves_the_environment(effects):
    assert effects["environment"] == []


def test_import_leaves_the_default_precision(effects):
    assert effects["x64"] == [False, False]


def test_import_loads_no_engine_and_no_plotting(effects):
    assert effects["modules"] == []


def test_import_touches_no_files(effects):
    assert effects["written"] == []
    assert effects["left"] == []


@pytest.mark.parametrize("name", PAGES)
def test_public_names_are_the_documented_ones(name):
    """A name is public if and only if it is in an ``__all__`` and on that package's API page."""
    page = ROOT / "docs" / "api" / PAGES[name]
    directive = r"^\.\. auto(?:class|data|exception|function|module)::\s+(?:[\w.]+\.)?(\w+)"
    documented = re.findall(directive, page.read_text(), re.MULTILINE)
    assert sorted(documented) == sorted(importlib.import_module(name).__all__)
