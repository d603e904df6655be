# Sourced by ./quickstart and ./run-tests. `setup EXTRA...` makes the virtual environment, with the locked versions of
# pysamp's dependencies and of those extras, and sets $venv. It does next to nothing when all is there already.
# PYTHON: the interpreter to begin with (default python3). PYSAMP_VENV: where the environment goes (default .venv).

uv_version=0.13.8

setup() {
    venv="${PYSAMP_VENV:-$PWD/.venv}"
    if ! [ -x "$venv/bin/uv" ]; then
        python="${PYTHON:-python3}"
        if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "pysamp needs Python 3.11 or later, and '$python' is not. Type: PYTHON=python3.11 $0" >&2
            return 1
        fi
        echo "Making the environment $venv ..."
        "$python" -m venv "$venv" || {
            echo "'$python -m venv' failed. On Debian and Ubuntu: apt-get install python3-venv" >&2
            return 1
        }
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
    fi
    extras=""
    for extra in "$@"; do extras="$extras --extra $extra"; done
    # --inexact: leave what you installed there yourself, and uv.
    env -u VIRTUAL_ENV UV_PROJECT_ENVIRONMENT="$venv" UV_PYTHON_DOWNLOADS=never \
        "$venv/bin/uv" sync --quiet --frozen --inexact --python "$venv/bin/python" $extras
}

# True where the native extension is installed.
has_native() {
    "$venv/bin/python" -c '
import importlib.util, sys
sys.exit(importlib.util.find_spec("pysamp.backends._openmm_native") is None)'
}

# True where there is a C++ compiler to build it with.
has_compiler() {
    for compiler in "${CXX:-}" c++ g++ clang++; do
        if [ -n "$compiler" ] && command -v "$compiler" >/dev/null; then return 0; fi
    done
    return 1
}

native_help="To see why, and after installing a compiler: PYSAMP_REQUIRE_NATIVE=1 $0"
