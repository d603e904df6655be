# Sourced by ./quickstart and ./run-tests. `setup EXTRA,EXTRA...` makes the virtual environment, with the versions in
# constraints.txt of pysamp's dependencies and of those extras, and sets $venv. The extension is built against the same
# versions. It does next to nothing when all is there already, and builds again after a change in native/.
# PYTHON: the interpreter to begin with (default python3). PYSAMP_VENV: where the environment goes (default .venv).

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
        "$venv/bin/python" -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
    fi
    # uv builds an editable package again at every call; so only where something that matters has changed.
    sources="$(find pyproject.toml constraints.txt native -type f -print | LC_ALL=C sort | tr '\n' '\0' | xargs -0 cksum)"
    wanted="$PWD CXX=${CXX:-} CUDA=${PYSAMP_CUDA:-} REQUIRE=${PYSAMP_REQUIRE_NATIVE:-} $sources"
    stamp="$venv/pysamp-$1.stamp"
    if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        rm -f "$venv"/pysamp-*.stamp
        env -u VIRTUAL_ENV "$venv/bin/uv" pip install --quiet --python "$venv/bin/python" \
            --constraint constraints.txt --build-constraint constraints.txt --editable ".[$1]" || return 1
        printf '%s\n' "$wanted" >"$stamp"
    fi
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
