#!/usr/bin/env bash
# All subnets become classifiers at once, and none is fine-tuned alone; run.sh comes first, with the same settings:
#   bash examples/recipes/bert_debian/classifiers.sh WORK_DIR [SEED…]
# The largest subnet that run.sh fine-tuned teaches a supernet of classifiers (sentence_prediction_mos), which starts from
# run.sh's supernet: one random subnet an update learns from the labels and from the teacher, half and half. mos-search
# finds classifiers within BUDGETS by their loss on VALID_SAMPLES validation examples. They are exported and scored, as
# are the subnets that run.sh found by masked words (masked-best-…, masked-uniform-…).
# TUNE_EPOCHS=4: the winners also learn on alone from the teacher, for so many epochs. ALONE_EPOCHS="4 16": for comparison,
# the uniform subnets of run.sh learn alone from it, without the supernet of classifiers.
# The supernet trains for CLASSIFIER_EPOCHS, by default four times as long as run.sh fine-tunes one subnet; all other settings, SMALL=1
# included, are run.sh's. So are rows and table. Run again with the same settings, it goes on where it stopped.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/settings.sh"
seeded_study "$@"
epochs=${CLASSIFIER_EPOCHS:-$((4 * epochs))}
keep_settings classifiers "SPACE=${SPACE:-space.yaml} CLASSIFIER_EPOCHS=$epochs LR=$lr PRECISION=${PRECISION:-fp32} \
VALID_SAMPLES=$samples POPULATION=$population ITERATIONS=$iterations"
for seed in "${seeds[@]}"; do
    for routing in "${routings[@]}"; do
        for task in "${tasks[@]}"; do
            for count in "${examples[@]}"; do
                teacher=$work/tuned/$task-$count-supernet-largest-$routing-$seed/checkpoint_last.pt
                if [ ! -e "$teacher" ]; then
                    echo "error: $teacher is missing: run.sh makes it, with the same settings" >&2
                    exit 1
                fi
            done
        done
    done
done
prepare_data

# learn STEP EPOCHS SAVE_DIR START OPTION…: trains classifiers from a supernet, the ones that the options choose
learn() {
    train_classifiers "${@:1:4}" --task sentence_prediction_mos --search-space "$space" --arch roberta_mos \
        --mos-routing "$routing" --criterion distillation_mos --teacher "$teacher" --distillation-weight 0.5 \
        --distillation-temperature 2 "${@:5}"
}

# keep SUPERNET KIND SUBNET: exports a classifier, for score.py
keep() {
    local to=$work/tuned/$task-$count-classifiers-$2-$routing-$seed
    mkdir -p "$to"
    step "export-classifiers-$2-$name" mos-export --path "$1" --subnet "$3" --output "$to/checkpoint_last.pt"
    exported+=("$to/checkpoint_last.pt")
}

# one KIND EPOCHS SUPERNET SUBNET: trains one subnet alone from the supernet's weights, and keeps it
one() {
    cp "$4" "$folder/$1.yaml"
    learn "$1-$name" "$2" "$folder/$1" "$3" --subnet-sampling fixed --subnet "$folder/$1.yaml"
    keep "$folder/$1/checkpoint_last.pt" "$1" "$folder/$1.yaml"
}

# classifiers ROUTING TASK COUNT SEED: the supernet of one task, its searches and its scores
classifiers() {
    local routing=$1 task=$2 count=$3 seed=$4 name=$2-$3-$1-$4 data=$work/data/$2-$3
    local run=$work/$routing-$seed teacher=$work/tuned/$task-$count-supernet-largest-$routing-$seed/checkpoint_last.pt
    local folder=$run/$task-$count
    mkdir -p "$folder"
    local masked=$run/checkpoints/checkpoint_last.pt supernet=$folder/checkpoints/checkpoint_last.pt budget kind
    learn "classifiers-$name" "$epochs" "$folder/checkpoints" "$masked" --subnet-sampling random --cost-strata 8
    cp "$work/largest.yaml" "$folder/largest.yaml"
    local subnets=("$folder/largest.yaml")
    for budget in "${budgets[@]}"; do
        step "search-$budget-$name" mos-search "$prepared/data-bin/$task" --path "$supernet" --valid-samples "$samples" \
            --population-size "$population" --iterations "$iterations" --parents $((population / 3)) \
            --mutations $((population / 2)) --crossovers $((population / 2)) \
            --constraint "params_without_embeddings<=$budget%" --seed "$seed" --output "$folder/search-$budget"
        take_found "$folder/search-$budget" "$folder" "$budget"
        for kind in best uniform; do
            cp "$run/$kind-$budget.yaml" "$folder/masked-$kind-$budget.yaml"
            subnets+=("$folder/$kind-$budget.yaml" "$folder/masked-$kind-$budget.yaml")
        done
    done
    local exported=() subnet alone
    for subnet in "${subnets[@]}"; do
        keep "$supernet" "$(basename "$subnet" .yaml)" "$subnet"
    done
    for budget in "${budgets[@]}"; do
        for alone in ${TUNE_EPOCHS:-}; do
            one "tuned-$alone-best-$budget" "$alone" "$supernet" "$folder/best-$budget.yaml"
        done
        for alone in ${ALONE_EPOCHS:-}; do
            one "alone-$alone-uniform-$budget" "$alone" "$masked" "$run/uniform-$budget.yaml"
        done
    done
    local list
    subnets=("$folder"/*.yaml) # those of an earlier run with other settings, too
    list=$(IFS=, && echo "${subnets[*]}")
    mos-cost --search-space "$space" --subnet "$list" --json --src-len 128 --vocab-size "$words" >"$folder/costs.jsonl"
    mos-latency measure --search-space "$space" --subnet "$list" --src-len 128 --vocab-size "$words" --threads 1 \
        --repeats 5 --output "$folder/latency.jsonl" >"$folder/latency.log" 2>&1 || { # only those that the file lacks
        tail -n 1 "$folder/latency.log" >&2
        exit 1
    }
    python "$here/score.py" "$data" "${exported[@]}"
}

for seed in "${seeds[@]}"; do
    for routing in "${routings[@]}"; do
        for task in "${tasks[@]}"; do
            for count in "${examples[@]}"; do
                classifiers "$routing" "$task" "$count" "$seed"
            done
        done
    done
done
python "$here/accuracies.py" "$work"
