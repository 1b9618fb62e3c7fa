#!/usr/bin/env bash
# Makes .venv below the repository and installs mos_fairseq into it, editable, with the extra named by the argument
# (default: quickstart). Run again, it installs only what changed. PYTHON names the interpreter to start from.
#   PYTHON=python3.12 bash examples/tools/setup_venv.sh test
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
extra=${1:-quickstart}
python=${PYTHON:-python3}
stamp=$root/.venv/installed-$extra
wanted=$(cat "$root/setup.py" "$root/constraints.txt" "${BASH_SOURCE[0]}" | sha256sum | cut -d ' ' -f 1)

if [ -n "${PYTHON:-}" ] && [ -x "$root/.venv/bin/python" ]; then
    version='import sys; print(sys.version_info[:2])'
    if [ "$("$python" -c "$version")" != "$("$root/.venv/bin/python" -c "$version")" ]; then
        echo "error: .venv is of another Python than PYTHON=$python: remove .venv first" >&2
        exit 1
    fi
fi
if ! "$root/.venv/bin/python" -m pip --version >/dev/null 2>&1; then # missing, or half made
    if ! "$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "error: $python is not a Python >= 3.11 with venv (on Debian: apt install python3-venv)" >&2
        exit 1
    fi
    "$python" -m venv "$root/.venv"
fi
if [ "$(cat "$stamp" 2>/dev/null || true)" != "$wanted" ]; then
    cd "$root"
    # torch first: a fairseq without a wheel compiles against it
    .venv/bin/python -m pip install --quiet -c constraints.txt setuptools wheel numpy Cython torch
    .venv/bin/python -m pip install --quiet -c constraints.txt --no-build-isolation -e ".[$extra]"
    echo "$wanted" >"$stamp"
fi
