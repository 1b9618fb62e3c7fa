#!/usr/bin/env bash
# Packs what examples/gpu/run.sh needs besides torch into one file, for a machine without a network:
#   bash examples/gpu/packages.sh packages.tar.xz        # for Python 3.12 on Linux x86-64; PYTHON_VERSION=3.11 for another
# This machine needs a network, and .venv (bash examples/tools/setup_venv.sh test).
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
if [ $# -ne 1 ]; then
    sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
pip=("$root/.venv/bin/python" -m pip --quiet --disable-pip-version-check)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
# what fairseq, this package and the tests import; fairseq imports scikit-learn and scipy with its tasks
needed=(
    ve-fairseq hydra-core omegaconf sacrebleu portalocker tabulate colorama regex bitarray lxml PyYAML tqdm numpy scipy
    scikit-learn joblib threadpoolctl narwhals cloudpickle cffi pycparser packaging typing_extensions sentencepiece
    setuptools pytest pluggy iniconfig Pygments Cython
)
"${pip[@]}" wheel --no-deps --wheel-dir "$work/wheels" -c "$root/constraints.txt" antlr4-python3-runtime
platforms=()
for version in 2014 _2_17 _2_27 _2_28; do
    platforms+=(--platform "manylinux${version}_x86_64")
done
"${pip[@]}" install --target "$work/packages" --no-deps --only-binary=:all: --implementation cp "${platforms[@]}" \
    --python-version "${PYTHON_VERSION:-3.12}" -c "$root/constraints.txt" "${needed[@]}" "$work"/wheels/*.whl
find "$work/packages" -type d \( -name __pycache__ -o -name tests -o -name bin \) -prune -exec rm -rf {} +
rm -rf "$work/packages/fairseq/examples" "$work/packages/Cython/Includes"
XZ_OPT="-6 -T0" tar -C "$work" --sort=name --owner=0 --group=0 -cJf "$1.part" packages
mv "$1.part" "$1"
du -m "$1"
