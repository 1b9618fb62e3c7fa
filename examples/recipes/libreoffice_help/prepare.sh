#!/usr/bin/env bash
# Builds an English-German (or English-French, …) corpus of real prose from LibreOffice's help pages (MPL-2.0), as
# packaged by Debian, and binarizes it for fairseq. Needs no root, only apt's package lists:
#   bash examples/recipes/libreoffice_help/prepare.sh de data/libreoffice_help
# The first argument is the target language, the second the folder to work in.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
target=${1:-de}
work=${2:-$root/data/libreoffice_help}
vocab_size=${VOCAB_SIZE:-6000}

fail() {
    echo "error: $*" >&2
    exit 1
}

for tool in apt-get apt-cache dpkg dpkg-deb; do
    command -v "$tool" >/dev/null || fail "$tool is missing: this recipe needs Debian or a system derived from it"
done
packages=(libreoffice-help-en-us "libreoffice-help-$target")
for package in "${packages[@]}"; do
    apt-cache show "$package" >/dev/null 2>&1 ||
        fail "apt does not know $package: run 'apt-get update' as root once, or choose another language than $target"
done
if ! { command -v fairseq-preprocess && python -P -c 'import mos_fairseq, lxml, sentencepiece'; } >/dev/null 2>&1; then
    bash "$root/examples/tools/setup_venv.sh" quickstart
    export PATH="$root/.venv/bin:$PATH"
fi

mkdir -p "$work/packages"
work=$(cd "$work" && pwd)
cd "$work/packages"
for package in "${packages[@]}"; do
    ls "${package}"_*.deb >/dev/null 2>&1 || apt-get download -qq "$package" 2>/dev/null ||
        fail "apt-get download $package failed: is the network there, and are the package lists up to date?"
    file=$(ls -t "${package}"_*.deb | head -n 1)
    echo "$package $(dpkg-deb --field "$file" Version)"
    dpkg -x "$file" "$work/unpacked"
done

cd "$root"
corpus=$work/en-$target
python examples/recipes/libreoffice_help/extract.py --help-dir "$work/unpacked/usr/share/libreoffice/help" \
    --target "$target" --output "$corpus/text"
python examples/tools/subwords.py --text "$corpus/text" --output "$corpus/spm" --source en --target "$target" \
    --vocab-size "$vocab_size"
rm -rf "$corpus/data-bin"
fairseq-preprocess --source-lang en --target-lang "$target" --joined-dictionary --srcdict "$corpus/spm/dict.txt" \
    --trainpref "$corpus/spm/train" --validpref "$corpus/spm/valid" --testpref "$corpus/spm/test" \
    --destdir "$corpus/data-bin" --workers 1 >"$corpus/preprocess.log" 2>&1 ||
    fail "fairseq-preprocess failed: see $corpus/preprocess.log"
echo "data: $corpus/data-bin"
