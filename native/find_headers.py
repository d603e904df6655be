"""Print, for CMake, where the building Python has the headers and libraries that the extension needs.

A semicolon-separated list: include folder of jaxlib; include folder, library folder, that folder seen from
pysamp/backends, and version of OpenMM; CMake folder of nanobind; include folder of NVIDIA's CUDA wheels, if any.
Nothing is imported, so that a broken package is found at run time, by the fallback, and not here.
"""

import importlib.metadata
import importlib.util
import os
import sys
from pathlib import Path


def package(name: str) -> Path:
    """Return the folder of an installed package."""
    spec = importlib.util.find_spec(name)
    if spec is None or not spec.submodule_search_locations:
        sys.exit(f"pysamp's native extension needs the package {name!r} to be compiled; it is not installed here.")
    return Path(next(iter(spec.submodule_search_locations)))


def main() -> None:
    """Find everything and print it."""
    site = package("openmm").parent
    openmm = site / "OpenMM.libs"  # PyPI's wheel brings its headers and libraries
    rpath = "../../OpenMM.libs/lib"
    if not openmm.is_dir():  # conda's package has them at the environment's top
        openmm = Path(sys.prefix)
        rpath = os.path.relpath(openmm / "lib", site / "pysamp" / "backends")
    cuda = next((folder / "include" for folder in sorted(site.glob("nvidia/cu*"), reverse=True)), "")
    found = (
        package("jaxlib") / "include",
        openmm / "include",
        openmm / "lib",
        rpath,
        importlib.metadata.version("openmm"),
        package("nanobind") / "cmake",
        cuda,
    )
    print(";".join(map(str, found)))


if __name__ == "__main__":
    main()
