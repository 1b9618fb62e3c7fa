#!/usr/bin/env bash
# Installs what the tests need into .venv, where that is missing or out of date, then runs them; arguments go to pytest.
#   bash tests/run.sh                    # everything, on all cores
#   bash tests/run.sh -m 'not slow'      # the inner loop
#   bash tests/run.sh -n 0 tests/cli/test_gap.py --pdb
#   PYTHON=python3.12 bash tests/run.sh -k compat
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
bash examples/tools/setup_venv.sh test
# the browser for the search's page: on Debian, root installs it; elsewhere that one test says what it lacks
if ! command -v chromium >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium; } >/dev/null 2>&1 ||
        echo "chromium could not be installed: its test is skipped" >&2
fi
# one thread: the tests' tensors are small, and several test processes would fight over the cores
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# its bytecode kept, as is Python's default: otherwise each of the many processes compiles the package again
unset PYTHONDONTWRITEBYTECODE
# the commands that tests start are those of .venv
export PATH="$PWD/.venv/bin:$PATH"
# a file's tests stay in one process, which makes its fixtures once; -n and --dist among the arguments win
exec .venv/bin/python -m pytest -q -n logical --dist loadfile --no-loadscope-reorder "$@"
