#!/usr/bin/env bash
# From nothing to a translation model that meets a latency budget on this machine, on a CPU, in about 13 minutes on two
# slow cores:
#   bash examples/quickstart.sh
# It installs into .venv, generates its own corpus, trains a supernet, measures subnets and learns to predict latency,
# searches the best subnet within a budget, exports it, fine-tunes it, translates with it and with subnets that need no
# search, and prints a table and the path of a plot. Run again, it skips the steps that are done and resumes what was
# interrupted; with other settings, it keeps what the old ones made in a folder old-1 (old-2, …) beside the new.
# MOS_QUICKSTART_DIR names another work folder than runs/quickstart, PYTHON another interpreter than python3.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

# fairseq drops the last batch, the longest sentences, where its size is no multiple of this (8 by default)
batching=(--required-batch-size-multiple 1)
# The corpus: sentence pairs, seed, size of the joint SentencePiece vocabulary
train_pairs=20000 valid_pairs=500 test_pairs=500 corpus_seed=1 vocab_size=2000
# The supernet
supernet=(
    --task translation_mos --search-space tiny --arch transformer_mos --share-all-embeddings
    --mos-routing neuron --num-experts 2 --dropout 0.1
)
# The training run: examples/studies/sampling compares sampling rules
training=(
    --subnet-sampling random --num-random-subnets 1 --cost-strata 8 --valid-subnets largest,smallest
    --criterion label_smoothed_cross_entropy_mos --label-smoothing 0.1
    --optimizer adam_fused --adam-betas '(0.9, 0.98)'
    --lr 3e-3 --lr-scheduler polynomial_decay --warmup-updates 300 --total-num-update 2600 --max-update 2600
    --max-tokens 1024 "${batching[@]}" --seed 1
)
# What is measured, as the test set is translated below: one sentence of 20 tokens at a time, on one core
beam=4
latency=(--search-space tiny --share-all-embeddings --beam $beam --src-len 20 --tgt-len 20 --threads 1 --iterations 5)
latency_subnets=(--num-subnets 50 --repeats 2)
# The search: the best subnet within this part of the way from the smallest's latency to the largest's
budget_part=0.8
searching=(--population-size 40 --parents 12 --mutations 12 --crossovers 12 --iterations 4 --seed 1)
# A tenth of the supernet's updates, for the best subnet alone
finetune_updates=260
# How the test set is translated
generation=(--beam $beam --max-len-a 1.2 --max-len-b 10 --remove-bpe sentencepiece --max-tokens 8000 "${batching[@]}")

work=${MOS_QUICKSTART_DIR:-$root/runs/quickstart}
mkdir -p "$work/done"
work=$(cd "$work" && pwd)
cd "$root"
current="start"
trap 'if [ $? -ne 0 ]; then echo "error: the quickstart stopped at: $current (its logs are in $work)" >&2; fi' EXIT

# step NAME 'PARAMETERS' 'OUTCOME' COMMAND…: runs the command unless it is done already with these parameters, on the
# outcome of the same steps before it: history says all of that. OUTCOME names what it makes in the work folder.
history=""
step() {
    local name=$1 parameters=$2 outcome=$3
    shift 3
    current=$name
    history+="$name: $parameters"$'\n'
    if has_stamp "$name"; then
        echo "== $name: done already"
        return
    fi
    echo "== $name"
    # what was begun with the same parameters goes on
    if ! has_stamp "$name.started"; then
        # shellcheck disable=SC2086
        keep_aside $outcome
        stamp "$name.started"
    fi
    rm -f "$work/done/$name"
    "$@"
    stamp "$name"
}

has_stamp() {
    [ "$(cat "$work/done/$1" 2>/dev/null || true)" = "${history%$'\n'}" ]
}

stamp() {
    printf '%s' "$history" >"$work/done/$1.tmp"
    mv "$work/done/$1.tmp" "$work/done/$1"
}

# keep_aside PATH…: moves what another run made, with other settings or of other code, into a folder of its own
old=""
keep_aside() {
    local path
    for path in "$@"; do
        [ -e "$work/$path" ] || continue
        if [ -z "$old" ]; then
            local number=1
            while [ -e "$work/old-$number" ]; do number=$((number + 1)); done
            old=$work/old-$number
            echo "settings or code have changed: what was made before them is kept in $old"
        fi
        mkdir -p "$(dirname "$old/$path")"
        mv "$work/$path" "$old/$path"
        echo "kept aside: $path"
    done
}

quote_log() {
    tail -n 1 "$1" >&2
    return 1
}

make_corpus() {
    python examples/tools/embedded_corpus.py --output "$work/text" --seed "$corpus_seed" \
        --train "$train_pairs" --valid "$valid_pairs" --test "$test_pairs"
}

make_subwords() {
    python examples/tools/subwords.py --text "$work/text" --output "$work/spm" --vocab-size "$vocab_size"
}

binarize() {
    rm -rf "$work/data-bin" # of a run that was interrupted here
    fairseq-preprocess --source-lang en --target-lang de --joined-dictionary --srcdict "$work/spm/dict.txt" \
        --trainpref "$work/spm/train" --validpref "$work/spm/valid" --testpref "$work/spm/test" \
        --destdir "$work/data-bin" --workers 1 >"$work/preprocess.log" 2>&1 || quote_log "$work/preprocess.log"
}

train() {
    local command=(
        fairseq-train "$work/data-bin" --user-dir mos_fairseq "${supernet[@]}" "${training[@]}"
        --num-workers 0 --no-epoch-checkpoints --save-dir "$work/checkpoints"
    )
    if [ -t 2 ]; then
        "${command[@]}" --log-format tqdm --log-file "$work/train.log"
    else # only the lines that show progress; train.log has them all
        "${command[@]}" --log-format simple --log-interval 50 2>&1 | tee -a "$work/train.log" |
            { grep --line-buffered -E 'train_inner|valid on|[Ee]rror' || true; } # a finished run prints none of these
    fi
}

# Measure OPTIONS…: into latency.jsonl, which is continued; the dictionary adds four symbols to its file
measure() {
    local words
    words=$(($(wc -l <"$work/data-bin/dict.en.txt") + 4))
    mos-latency measure "${latency[@]}" --vocab-size "$words" --output "$work/latency.jsonl" "$@"
}

measure_some() {
    measure "${latency_subnets[@]}"
}

fit() {
    mos-latency fit "$work/latency.jsonl" --output "$work/predictor.json"
}

find_best() {
    local budget
    budget=$(mos-latency predict "$work/predictor.json" --subnet smallest,largest |
        LC_ALL=C awk -v part="$budget_part" '{ms[NR] = $2} END {printf "%.2f", ms[1] + part * (ms[2] - ms[1])}')
    mos-search "$work/data-bin" --path "$work/checkpoints/checkpoint_best.pt" --predictor "$work/predictor.json" \
        --constraint "latency_ms<=$budget" "${searching[@]}" --output "$work/search"
    echo "$budget" >"$work/search/budget"
}

export_best() {
    mos-export --path "$work/checkpoints/checkpoint_best.pt" --subnet "$work/search/best.yaml" --output "$work/best.pt"
}

finetune_best() {
    mos-finetune "$work/data-bin" --path "$work/checkpoints/checkpoint_best.pt" --subnet "$work/search/best.yaml" \
        --updates "$finetune_updates" --beam $beam --max-len-a 1.2 --max-len-b 10 --remove-bpe sentencepiece \
        --output "$work/finetuned"
}

# All that translate, on this machine: what the predictor said of the best one is put to the test
measure_all() {
    measure --subnet "smallest,largest,$work/search/best.yaml,$work/search/uniform.yaml" --repeats 5
}

# Translate NAME OPTIONS…: the test set, into translations/NAME
translate() {
    local folder=$work/translations/$1
    shift
    mkdir -p "$folder"
    fairseq-generate "$work/data-bin" --user-dir mos_fairseq --gen-subset test "${generation[@]}" --num-workers 0 \
        "$@" --results-path "$folder" >"$folder/generate.log" 2>&1 || quote_log "$folder/generate.log"
}

# what the outcome of the first and of the longest step depends on, besides the parameters
generator=$(cat examples/tools/embedded_corpus.py examples/tools/embedded_lexicon.py | sha256sum | cut -c 1-12)
package=$(find mos_fairseq -name '*.py' -o -name '*.yaml' | LC_ALL=C sort | xargs cat | sha256sum | cut -c 1-12)

current="install"
echo "== install"
bash examples/tools/setup_venv.sh quickstart # does nothing where nothing has changed
export PATH="$root/.venv/bin:$PATH"
. examples/tools/cpu_env.sh

step "corpus" "$train_pairs $valid_pairs $test_pairs $corpus_seed $generator" text make_corpus
step "subwords" "$vocab_size" spm make_subwords
step "binarize" "" "data-bin preprocess.log" binarize
step "train" "${supernet[*]} ${training[*]} $package" "checkpoints train.log" train
trained=$history
step "latency" "${latency[*]} ${latency_subnets[*]}" latency.jsonl measure_some
step "predictor" "" predictor.json fit
step "search" "$budget_part ${searching[*]}" "search bleu.png" find_best
step "export" "" best.pt export_best
step "finetune" "$finetune_updates" finetuned finetune_best
step "measure-best" "" "" measure_all
step "translate-best" "${generation[*]}" translations/best \
    translate best --task translation --path "$work/best.pt"
step "translate-finetuned" "" translations/finetuned \
    translate finetuned --task translation --path "$work/finetuned/finetuned.pt"
# subnets of the supernet as it is
inherited() {
    translate "$1" --task translation_mos --subnet "$2" --path "$work/checkpoints/checkpoint_best.pt"
}
step "translate-uniform" "" translations/uniform inherited uniform "$work/search/uniform.yaml"
for subnet in smallest largest; do
    history=$trained
    step "translate-$subnet" "${generation[*]}" "translations/$subnet" inherited "$subnet" "$subnet"
done

current="report"
report=(python examples/tools/quickstart_report.py --reference "$work/text/test.de" --plot "$work/bleu.png"
    --checkpoint "$work/checkpoints/checkpoint_best.pt" --latencies "$work/latency.jsonl" --predictor "$work/predictor.json"
    --budget "$(cat "$work/search/budget")" --search "$work/search/search.json")
for subnet in smallest search/uniform.yaml search/best.yaml finetuned/finetuned.yaml largest; do
    name=$(basename "$subnet" .yaml)
    [ "$name" = "$subnet" ] || subnet=$work/$subnet
    report+=("$subnet=$work/translations/$name")
done
"${report[@]}"
echo "front of the search: $work/search/front.html"
