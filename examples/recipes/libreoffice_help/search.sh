#!/usr/bin/env bash
# From a supernet of train.sh to models that keep latency budgets on this machine, one core, one sentence at a time:
#   bash examples/recipes/libreoffice_help/search.sh DATA REFERENCE CHECKPOINT OUTPUT_DIR BUDGET_MS…
# Measures 200 subnets (an hour), fits a predictor, searches within each budget, exports the winners and uniform subnets
# about as fast (uniform.py), translates the test set with the exported models, and measures all of them. REFERENCE is the
# raw test file of the target language. Run again, it goes on where it stopped. WORKERS sets the searches' processes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ $# -lt 5 ]; then
    sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
data=$1 reference=$2 checkpoint=$3 output=$4
shift 4
. "$here/../../tools/cpu_env.sh"
if ! command -v mos-search >/dev/null; then
    export PATH="$(cd "$here/../../.." && pwd)/.venv/bin:$PATH" # of setup_venv.sh
fi
mkdir -p "$output"
latencies=$output/latency.jsonl predictor=$output/predictor.json
trained=$(sha256sum "$checkpoint" | cut -c 1-16) # trained again, nothing of the old one may stand
words=$(($(wc -l <"$data/dict.en.txt") + 4)) # fairseq adds four symbols

measure() {
    mos-latency measure --search-space "$here/search_space.yaml" --vocab-size "$words" --share-all-embeddings \
        --threads 1 --output "$latencies" "$@"
}

# Export NAME SUBNET, and translate the test set with it
translate() {
    local folder=$output/$1 wanted
    mkdir -p "$folder"
    wanted="$trained $(cat "$2" 2>/dev/null || true)"
    if [ "$(cat "$folder/done" 2>/dev/null || true)" != "$wanted" ]; then
        mos-export --path "$checkpoint" --subnet "$2" --output "$folder/model.pt" >"$folder/export.log"
        fairseq-generate "$data" --user-dir "$here/../../../mos_fairseq" --task translation --path "$folder/model.pt" \
            --gen-subset test --beam 4 --max-len-a 1.2 --max-len-b 10 --remove-bpe sentencepiece --max-tokens 6000 \
            --required-batch-size-multiple 1 --num-workers 0 --results-path "$folder" >"$folder/generate.log" 2>&1 || {
            tail -n 1 "$folder/generate.log" >&2
            exit 1
        }
        printf '%s' "$wanted" >"$folder/done"
    fi
}

if [ ! -e "$predictor" ]; then
    measure --num-subnets 200 --repeats 20
    mos-latency fit "$latencies" --output "$predictor"
fi
subnets=(largest smallest)
pairs=("largest=$output/largest" "smallest=$output/smallest")
for budget in "$@"; do
    mos-search "$data" --path "$checkpoint" --predictor "$predictor" --constraint "latency_ms<=$budget" \
        --valid-samples 300 --population-size 60 --parents 20 --mutations 25 --crossovers 25 --iterations 5 \
        --workers "${WORKERS:-1}" --output "$output/search-$budget"
    cp "$output/search-$budget/best.yaml" "$output/best-$budget.yaml"
    python "$here/uniform.py" "$predictor" "$budget" "$output/best-$budget.yaml" "$output/uniform-$budget.yaml"
    for name in "best-$budget" "uniform-$budget"; do
        subnets+=("$output/$name.yaml")
        pairs+=("$output/$name.yaml=$output/$name")
    done
done
for subnet in "${subnets[@]}"; do
    translate "$(basename "$subnet" .yaml)" "$subnet"
done
measure --subnet "$(IFS=,; echo "${subnets[*]}")" --repeats 20
python "$here/../../tools/quickstart_report.py" --reference "$reference" --plot "$output/bleu.png" --checkpoint "$checkpoint" \
    --latencies "$latencies" --predictor "$predictor" "${pairs[@]}"
