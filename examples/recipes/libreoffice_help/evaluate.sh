#!/usr/bin/env bash
# Test BLEU of five subnets of a supernet trained by train.sh, as a table:
#   bash examples/recipes/libreoffice_help/evaluate.sh DATA REFERENCE CHECKPOINT OUTPUT_DIR
# REFERENCE is the raw test file of the target language; more options go to fairseq-generate.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ $# -lt 4 ]; then
    sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
data=$1 reference=$2 checkpoint=$3 output=$4
shift 4
. "$here/../../tools/cpu_env.sh"
if ! command -v fairseq-train >/dev/null; then
    export PATH="$(cd "$here/../../.." && pwd)/.venv/bin:$PATH" # of setup_venv.sh
fi

pairs=()
for subnet in largest "$here"/subnets/r{1,2,3}.yaml smallest; do
    name=$(basename "$subnet" .yaml)
    mkdir -p "$output/$name"
    fairseq-generate "$data" --user-dir "$here/../../../mos_fairseq" --task translation_mos --subnet "$subnet" \
        --path "$checkpoint" --gen-subset test --beam 4 --max-len-a 1.2 --max-len-b 10 --remove-bpe sentencepiece \
        --max-tokens 6000 --num-workers 0 \
        --results-path "$output/$name" "$@" >"$output/$name/generate.log" 2>&1 || {
        tail -n 1 "$output/$name/generate.log" >&2
        exit 1
    }
    pairs+=("$name=$output/$name")
done
python "$here/../../tools/quickstart_report.py" --reference "$reference" --plot "$output/bleu.png" "${pairs[@]}"
