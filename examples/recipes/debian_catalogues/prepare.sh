#!/usr/bin/env bash
# Builds an English-German (or English-French, …) corpus from the gettext catalogues of Debian packages, and binarizes
# it for fairseq. Needs no root, only apt's package lists:
#   bash examples/recipes/debian_catalogues/prepare.sh de data/debian_catalogues
# The first argument is the target language, the second the folder to work in. packages.txt names the packages and
# their versions; where apt offers others by now, ANY_VERSION=1 takes those. A killed run goes on where it stopped.
set -euo pipefail
export LC_ALL=C.UTF-8 # the order of sort and of globs
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
target=${1:-de}
work=${2:-$root/data/debian_catalogues}
vocab_size=${VOCAB_SIZE:-16000}

fail() {
    echo "error: $*" >&2
    exit 1
}

[[ $target =~ ^[a-z]{2,3}$ ]] || fail "target language $target: allowed are codes such as de or fr"
[[ ${ANY_VERSION:-0} =~ ^[01]$ ]] || fail "ANY_VERSION=$ANY_VERSION: allowed are 0 and 1"
for tool in apt-get apt-cache dpkg-deb; do
    command -v "$tool" >/dev/null || fail "$tool is missing: this recipe needs Debian or a system derived from it"
done
if ! { command -v fairseq-preprocess && python -P -c 'import mos_fairseq, sentencepiece'; } >/dev/null 2>&1; then
    bash "$root/examples/tools/setup_venv.sh" quickstart
    export PATH="$root/.venv/bin:$PATH"
fi

corpus=$work/en-$target
mkdir -p "$work/packages/partial" "$corpus"
work=$(cd "$work" && pwd)
corpus=$(cd "$corpus" && pwd)
catalogues=$corpus/catalogues

# "name version" a line; %l in a name is the target language
grep -v '^#' "$here/packages.txt" | sed "s/%l/$target/" | sort >"$corpus/pinned"
downloaded() { # name version: sets file to that in packages/, named as apt-get does
    local files=("$work/packages/$1_${2//:/%3a}_"*.deb)
    file=${files[0]}
    [[ -f $file ]]
}
cut -d ' ' -f 1 "$corpus/pinned" | xargs apt-cache madison 2>/dev/null |
    awk -F ' *[|] *' '{ sub(/^ */, "", $1); print $1, $2 }' >"$corpus/offered"
: >"$corpus/chosen"
changed=()
while read -r name version; do
    if ! downloaded "$name" "$version" && ! grep -qxF "$name $version" "$corpus/offered"; then
        other=$(awk -v name="$name" '$1 == name { print $2; exit }' "$corpus/offered")
        changed+=("$name $version (offered: ${other:-none})")
        version=$other
    fi
    [[ -z $version ]] || echo "$name $version" >>"$corpus/chosen"
done <"$corpus/pinned"
if ((${#changed[@]})); then
    list=$(printf '%s; ' "${changed[@]}")
    [[ ${ANY_VERSION:-0} == 1 ]] || fail "apt offers ${#changed[@]} packages no longer, or never did, in the version" \
        "of packages.txt; ANY_VERSION=1 takes what it offers, another corpus: ${list%; }"
    echo "other than packages.txt: ${list%; }"
fi

missing=()
while read -r name version; do
    downloaded "$name" "$version" || missing+=("$name=$version")
done <"$corpus/chosen"
if ((${#missing[@]})); then
    echo "downloading ${#missing[@]} packages to $work/packages"
    # what is complete moves out of partial/ forty packages at a time; apt-get itself resumes the rest
    printf '%s\n' "${missing[@]}" | (cd "$work/packages/partial" && xargs -n 40 sh -c \
        'apt-get download -qq "$@" 2>../apt.log && for p; do mv -- "${p%%=*}_"*.deb ..; done' sh) ||
        fail "apt-get download failed: is the network there? See $work/packages/apt.log"
fi

mkdir -p "$catalogues"
: >"$corpus/packages.tsv.tmp"
while read -r name version; do
    downloaded "$name" "$version"
    if [[ ! -d $catalogues/${name}_$version ]]; then
        rm -rf "$catalogues/.new"
        mkdir "$catalogues/.new"
        # tar's status tells only that a package has no catalogue of this language
        dpkg-deb --fsys-tarfile "$file" | { tar -x -C "$catalogues/.new" --wildcards "*[/-]${target}[/._]*mo" 2>/dev/null ||
            cat >/dev/null; }
        mv "$catalogues/.new" "$catalogues/${name}_$version"
    fi
    printf '%s\t%s\t%s\n' "$name" "$version" "$(sha256sum <"$file" | cut -d ' ' -f 1)" >>"$corpus/packages.tsv.tmp"
done <"$corpus/chosen"
mv "$corpus/packages.tsv.tmp" "$corpus/packages.tsv"
for folder in "$catalogues"/*; do # of packages that packages.txt names no longer
    folder=${folder##*/}
    grep -qxF "${folder%_*} ${folder##*_}" "$corpus/chosen" || rm -rf "${catalogues:?}/$folder"
done
echo "$(wc -l <"$corpus/packages.tsv") packages, ${#changed[@]} of them other than pinned: $corpus/packages.tsv"

cd "$root"
python examples/recipes/debian_catalogues/extract.py --catalogues "$catalogues" --target "$target" \
    --output "$corpus/text" | tee "$corpus/extract.log"
python examples/tools/subwords.py --text "$corpus/text" --output "$corpus/spm" --source en --target "$target" \
    --vocab-size "$vocab_size"
rm -rf "$corpus/data-bin"
fairseq-preprocess --source-lang en --target-lang "$target" --joined-dictionary --srcdict "$corpus/spm/dict.txt" \
    --trainpref "$corpus/spm/train" --validpref "$corpus/spm/valid" --testpref "$corpus/spm/test" \
    --destdir "$corpus/data-bin" --workers 1 >"$corpus/preprocess.log" 2>&1 ||
    fail "fairseq-preprocess failed: see $corpus/preprocess.log"
(cd "$corpus" && sha256sum text/* | tee text.sha256)
echo "data: $corpus/data-bin"
