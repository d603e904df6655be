"""Sphinx configuration. Warnings are fatal: sphinx-build -W --keep-going docs docs/_build/html."""

import re
import textwrap
from importlib.metadata import version as installed_version

project = "pysamp"
author = "The pysamp developers"
copyright = "2026, The pysamp developers"
version = release = installed_version("pysamp")

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinxcontrib.bibtex",
]
exclude_patterns = ["_build", ".jupyter_cache"]

# Pages are text; those with {code-cell} blocks are run, once per change, and an exception fails the build.
myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300

autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True  # a property that is also listed under "Attributes:" is described once
napoleon_use_rtype = False
napoleon_attr_annotations = False  # jaxtyping's "*shape" would be taken for emphasis

bibtex_bibfiles = ["references.bib"]
bibtex_reference_style = "author_year"

html_theme = "furo"
html_title = "pysamp"


def _dollars_to_math(app, what, name, obj, options, lines):
    """Docstrings have their equations between dollar signs, as the pages do; Sphinx wants roles and directives."""

    def block(match):
        equation = textwrap.dedent(match["equation"]).strip().replace("\n", "\n" + match["indent"] + "   ")
        return f"{match['indent']}.. math:: {equation}\n"

    text = re.sub(r"^(?P<indent> *)\$\$(?P<equation>.+?)\$\$", block, "\n".join(lines), flags=re.DOTALL | re.MULTILINE)
    text = re.sub(r"\$([^$]+?)\$", r":math:`\1`", text)
    lines[:] = text.split("\n")


def setup(app):
    """Before napoleon, which has the priority 500."""
    app.connect("autodoc-process-docstring", _dollars_to_math, priority=400)
