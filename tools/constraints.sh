#!/usr/bin/env bash
# Renew constraints.txt, the versions that ./quickstart and ./run-tests install, after a change of dependencies.
# With --upgrade all of them, with --upgrade-package NAME that one.
set -euo pipefail
cd "$(dirname "$0")/.."
# Beside pyproject.toml's own: what the native extension is built with, and uv itself.
printf '%s\n' cmake nanobind ninja scikit-build-core uv |
    "${UV:-.venv/bin/uv}" pip compile pyproject.toml - --quiet --universal --python-version 3.11 --all-extras \
        --no-emit-package pysamp --no-emit-index-url --no-emit-find-links --no-annotate \
        --custom-compile-command tools/constraints.sh --output-file constraints.txt "$@" >/dev/null
