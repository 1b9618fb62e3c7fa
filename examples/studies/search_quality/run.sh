#!/usr/bin/env bash
# How good are the searches? On the quickstart's corpus, so run that first:
#   bash examples/studies/search_quality/run.sh [WORK_DIR]
# Trains a supernet of 1,512 subnets, judges them all, and says which rank evolution's choice has; then compares
# evolution and nsga2 with random draws on the quickstart's supernet, at the same number of judged subnets. Costs are
# FLOPs, so that the figures are the same everywhere. Run again, it goes on where it stopped.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
quickstart=$root/runs/quickstart
work=${1:-$root/runs/search_quality}
data=$quickstart/data-bin
if [ ! -e "$quickstart/done/train" ]; then
    echo "error: $quickstart holds no finished training: run examples/quickstart.sh first" >&2
    exit 1
fi
export PATH="$root/.venv/bin:$PATH"
. "$here/../../tools/cpu_env.sh"
mkdir -p "$work"
work=$(cd "$work" && pwd)
cost=flops_without_output_projection
judge=(--valid-samples 100 --cost "$cost")
seeds=(1 2 3)

# Search CHECKPOINT NAME OPTIONS…: unless it is done already
search() {
    local checkpoint=$1 name=$2
    shift 2
    if [ ! -e "$results/$name/search.json" ]; then
        mos-search "$data" --path "$checkpoint" --cache "$results/judged" --output "$results/$name" "${judge[@]}" "$@" \
            >"$results/$name.log" 2>&1 || {
            tail -n 1 "$results/$name.log" >&2
            exit 1
        }
    fi
}

if [ ! -e "$work/trained" ]; then
    fairseq-train "$data" --user-dir "$root/mos_fairseq" --task translation_mos --search-space "$here/space.yaml" \
        --arch transformer_mos --share-all-embeddings --mos-routing neuron --num-experts 2 --dropout 0.1 \
        --subnet-sampling sandwich --num-random-subnets 1 --valid-subnets largest,smallest \
        --criterion label_smoothed_cross_entropy_mos --label-smoothing 0.1 --optimizer adam --adam-betas '(0.9, 0.98)' \
        --lr 2e-3 --lr-scheduler inverse_sqrt --warmup-updates 100 --max-tokens 2048 --max-epoch 1 --seed 1 \
        --num-workers 0 --no-epoch-checkpoints --save-dir "$work/checkpoints" >"$work/train.log" 2>&1
    touch "$work/trained"
fi
little=$work/checkpoints/checkpoint_last.pt tiny=$quickstart/checkpoints/checkpoint_best.pt
results=$work/results-$(cat "$little" "$tiny" | sha256sum | cut -c 1-12) # trained again, others than before
mkdir -p "$results"
search "$little" all --algorithm random --num-subnets 1512
mapfile -t little_budgets < <(python "$here/compare.py" budgets "$here/space.yaml")
mapfile -t tiny_budgets < <(python "$here/compare.py" budgets tiny)
small=(--population-size 30 --parents 10 --mutations 15 --crossovers 15 --iterations 4)
medium=(--population-size 60 --parents 20 --mutations 20 --crossovers 20 --iterations 6)
for seed in "${seeds[@]}"; do
    for i in 0 1 2; do
        search "$little" "little-evolution-$i-$seed" "${small[@]}" --constraint "$cost<=${little_budgets[$i]}" --seed "$seed"
        limit=(--constraint "$cost<=${tiny_budgets[$i]}" --seed "$seed")
        search "$tiny" "tiny-evolution-$i-$seed" "${medium[@]}" "${limit[@]}"
        count=$(python "$here/compare.py" judged "$results/tiny-evolution-$i-$seed")
        search "$tiny" "tiny-random-$i-$seed" --algorithm random --num-subnets "$count" "${limit[@]}"
    done
    search "$tiny" "tiny-nsga2-front-$seed" --algorithm nsga2 --population-size 30 --iterations 10 --seed "$seed"
    count=$(python "$here/compare.py" judged "$results/tiny-nsga2-front-$seed")
    search "$tiny" "tiny-random-front-$seed" --algorithm random --num-subnets "$count" --seed "$seed"
done
python "$here/compare.py" report "$results"
