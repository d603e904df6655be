"""Installation where there is no compiler."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.validation  # gets what a build needs from a package registry
def test_without_a_compiler_the_wheel_is_pure_python(tmp_path):
    """It would fail if a native build that fails were an error, as it is with PYSAMP_REQUIRE_NATIVE."""
    uv = Path(sys.executable).with_name("uv")
    if not uv.exists():
        pytest.skip("uv is not installed")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name in ("python3", "git", "env", "sh", "uname", "cmake", "ninja"):
        found = shutil.which(name)
        if found:
            (tools / name).symlink_to(found)
    missing = {name: str(tmp_path / "missing") for name in ("CC", "CXX")}
    kept = {name: value for name, value in os.environ.items() if name != "PYSAMP_REQUIRE_NATIVE"}
    subprocess.run(
        [str(uv), "build", "--wheel", "--build-constraint", "constraints.txt", "--out-dir", str(tmp_path), "."],
        cwd=ROOT,
        env=kept | missing | {"PATH": str(tools)},
        check=True,
        capture_output=True,
        timeout=600,
    )
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
