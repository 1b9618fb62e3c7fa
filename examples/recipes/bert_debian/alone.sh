#!/usr/bin/env bash
# Classifiers out of a supernet beside the same architectures trained alone, all from the encoder's weights:
#   bash examples/recipes/bert_debian/alone.sh WORK_DIR [SEED…]
# Eight architectures span the space's costs evenly. For each routing, a supernet of classifiers (sentence_prediction_mos)
# starts from the encoder and trains one random subnet an update, by the labels, for CLASSIFIER_EPOCHS, four times EPOCHS by
# default; the architectures are scored with what they inherit. Cut out of the encoder, each also trains alone for EPOCHS,
# with the same rule and rate. run.sh need not run before.
# PARTS=supernets or PARTS=alone trains those only. PARTS=tuned: architectures go on from what they inherit as those that
# train alone do. PARTS=taught: they also learn from the largest that trained alone, half and half. PARTS=masked: run.sh's
# supernets on masked words give their weights; their loss is that of VALID_SAMPLES test texts, and they go on as in "tuned".
# ARCHITECTURES="a02 a04": of the eight, these train alone or go on.
# PRECISION=bf16 trains with --bf16. Latencies are measured at the beginning, when the machine had better be idle.
# WORK_DIR/rows.jsonl has a row for each architecture, and alone.md tells bias, MAE, spread and Kendall's tau. Run again with
# the same settings, it goes on where it stopped. Other settings, SMALL=1 included, are run.sh's.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/settings.sh"
read -ra parts <<<"${PARTS:-supernets alone}"
if [ ${#parts[@]} -eq 0 ]; then
    echo "error: PARTS is empty: allowed are supernets, alone, tuned, taught and masked" >&2
    exit 1
fi
for part in "${parts[@]}"; do
    case $part in
    supernets | alone | tuned | taught | masked) ;;
    *) echo "error: PARTS has $part: allowed are supernets, alone, tuned, taught and masked" >&2 && exit 1 ;;
    esac
done
names=(a01 a02 a03 a04 a05 a06 a07 a08)
read -ra chosen <<<"${ARCHITECTURES-${names[*]}}"
for name in "${chosen[@]-}"; do
    if [[ " ${names[*]} " != *" $name "* ]]; then
        echo "error: ARCHITECTURES has $name: allowed are a01 to a08" >&2
        exit 1
    fi
done
if [ -n "${ARCHITECTURES:-}" ] && [ "${parts[*]}" = supernets ]; then
    echo "error: ARCHITECTURES is $ARCHITECTURES: PARTS=supernets scores all of them" >&2
    exit 1
fi
seeded_study "$@"
classifier_epochs=${CLASSIFIER_EPOCHS:-$((4 * epochs))}
keep_settings alone "SPACE=${SPACE:-space.yaml} TEST_EXAMPLES=$test_examples EPOCHS=$epochs CLASSIFIER_EPOCHS=$classifier_epochs LR=$lr \
PRECISION=${PRECISION:-fp32}"
if [[ " ${parts[*]} " = *" masked "* ]]; then
    keep_masked_settings
fi
prepare_data
take_examples
architectures=$work/architectures
files=("${names[@]/#/$architectures/}")
files=("${files[@]/%/.yaml}")
list=$(IFS=, && echo "${files[*]}")

# choose_architectures: and counts their costs
choose_architectures() {
    python "$root/examples/studies/sampling/architectures.py" "$space" 8 "$architectures" || return 1
    mos-cost --search-space "$space" --subnet "$list" --json --src-len 128 --vocab-size "$words" \
        >"$architectures/costs.jsonl"
}
step architectures choose_architectures
step latency mos-latency measure --search-space "$space" --subnet "$list" --src-len 128 --vocab-size "$words" --threads 1 \
    --repeats 5 --output "$architectures/latency.jsonl"
grep "machine was busy" "$work/latency.log" || true

# take SOURCE NAME ROUTING SUPERNET: takes an architecture out of a supernet of classifiers
take() {
    local to=$work/tuned/$task-$count-$1-$2-$3-$seed
    mkdir -p "$to"
    step "export-${to##*/}" mos-export --path "$4" --subnet "$architectures/$2.yaml" --output "$to/checkpoint_last.pt"
    taken+=("$to/checkpoint_last.pt")
}

# supernet ROUTING: trains it, and takes the architectures out of it
supernet() {
    local name taken=()
    local folder=$work/$1-$seed/$task-$count-inherited
    warm_start "$1"
    train_classifiers "inherited-$task-$count-$1-$seed" "$classifier_epochs" "$folder" "$work/$1-$seed/warm.pt" \
        --task sentence_prediction_mos --search-space "$space" --arch roberta_mos --mos-routing "$1" \
        --subnet-sampling random --cost-strata 8 --criterion sentence_prediction
    for name in "${names[@]}"; do
        take inherited "$name" "$1" "$folder/checkpoint_last.pt"
    done
    python "$here/score.py" "$data" "${taken[@]}"
}

# one SOURCE NAME ROUTING START: trains one architecture, and scores it
one() {
    local to=$work/tuned/$task-$count-$1-$2-$3-$seed
    train_classifiers "$1-${to##*/}" "$epochs" "$to" "$4" --task sentence_prediction --arch roberta_subnet \
        --subnet "$architectures/$2.yaml" --criterion sentence_prediction
    python "$here/score.py" "$data" "$to/checkpoint_last.pt"
}

# alone: trains architectures from the encoder
alone() {
    local name from
    warm_start none
    for name in "${chosen[@]}"; do
        from=$work/none-$seed/start-$name.pt
        step "start-$name-$seed" mos-export --path "$work/none-$seed/warm.pt" \
            --subnet "$architectures/$name.yaml" --output "$from"
        one alone "$name" none "$from"
    done
}

# tuned ROUTING: trains architectures from what they inherit
tuned() {
    local name
    supernet "$1"
    for name in "${chosen[@]}"; do
        one tuned "$name" "$1" "$work/tuned/$task-$count-inherited-$name-$1-$seed/checkpoint_last.pt"
    done
}

# taught ROUTING: trains architectures from what they inherit by a teacher
taught() {
    local name folder taken=() teacher=$work/tuned/$task-$count-alone-a08-none-$seed/checkpoint_last.pt
    if [ ! -e "$teacher" ]; then
        echo "error: $teacher is missing: PARTS=alone makes it" >&2
        exit 1
    fi
    supernet "$1"
    for name in "${chosen[@]}"; do
        folder=$work/$1-$seed/$task-$count-taught-$name
        train_classifiers "taught-$task-$count-$name-$1-$seed" "$epochs" "$folder" \
            "$work/$1-$seed/$task-$count-inherited/checkpoint_last.pt" --task sentence_prediction_mos \
            --search-space "$space" --arch roberta_mos --mos-routing "$1" --subnet-sampling fixed \
            --subnet "$architectures/$name.yaml" --criterion distillation_mos --teacher "$teacher" \
            --distillation-weight 0.5 --distillation-temperature 2
        take taught "$name" "$1" "$folder/checkpoint_last.pt"
    done
    python "$here/score.py" "$data" "${taken[@]}"
}

# masked ROUTING: trains a supernet on masked words, and from it architectures
masked() {
    local name to exported=()
    masked_supernet "$1"
    for name in "${names[@]}"; do
        to=$work/masked/$name-$1-$seed
        mkdir -p "$to"
        step "masked-$name-$1-$seed" mos-export --path "$work/$1-$seed/checkpoints/checkpoint_last.pt" \
            --subnet "$architectures/$name.yaml" --output "$to/checkpoint_last.pt"
        exported+=("$to/checkpoint_last.pt")
    done
    python "$here/masked_words.py" "$prepared/data-bin/text" "${exported[@]}" --texts "$samples"
    for name in "${chosen[@]}"; do
        one masked "$name" "$1" "$work/masked/$name-$1-$seed/checkpoint_last.pt"
    done
}

for seed in "${seeds[@]}"; do
    for task in "${tasks[@]}"; do
        for count in "${examples[@]}"; do
            data=$work/data/$task-$count
            for part in "${parts[@]}"; do
                case $part in
                supernets) for routing in "${routings[@]}"; do supernet "$routing"; done ;;
                alone) alone ;;
                tuned) for routing in "${routings[@]}"; do tuned "$routing"; done ;;
                taught) for routing in "${routings[@]}"; do taught "$routing"; done ;;
                masked) for routing in "${routings[@]}"; do masked "$routing"; done ;;
                esac
            done
        done
    done
done
python "$here/accuracies.py" "$work" >/dev/null
python "$here/inherited.py" "$work"
