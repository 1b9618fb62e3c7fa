#!/usr/bin/env bash
# Classifiers out of a supernet beside the same architectures trained alone, all from the encoder's weights:
#   bash examples/recipes/bert_debian/alone.sh WORK_DIR [SEED…]
# Eight architectures span the space's costs evenly. For each routing, a supernet of classifiers (sentence_prediction_mos)
# starts from the encoder and trains one random subnet an update, by the labels, for CLASSIFIER_EPOCHS, four times EPOCHS by
# default; the architectures are scored with what they inherit. Cut out of the encoder, each also trains alone for EPOCHS,
# with the same rule and rate. run.sh need not run before.
# PARTS=supernets or PARTS=alone trains those only. PRECISION=bf16 trains with --bf16. WORK_DIR/rows.jsonl has a row for each
# architecture, and alone.md tells bias, MAE, spread and Kendall's tau. Run again with the same settings, it goes on where
# it stopped. Other settings, SMALL=1 included, are run.sh's.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/settings.sh"
read -ra parts <<<"${PARTS:-supernets alone}"
if [ ${#parts[@]} -eq 0 ]; then
    echo "error: PARTS is empty: allowed are supernets and alone" >&2
    exit 1
fi
for part in "${parts[@]}"; do
    case $part in
    supernets | alone) ;;
    *) echo "error: PARTS has $part: allowed are supernets and alone" >&2 && exit 1 ;;
    esac
done
precision=()
case ${PRECISION:-fp32} in
fp32) ;;
bf16) precision=(--bf16) ;;
*) echo "error: PRECISION is $PRECISION: allowed are fp32 and bf16" >&2 && exit 1 ;;
esac
seeded_study "$@"
classifier_epochs=${CLASSIFIER_EPOCHS:-$((4 * epochs))}
keep_settings alone "SPACE=${SPACE:-space.yaml} TEST_EXAMPLES=$test_examples EPOCHS=$epochs CLASSIFIER_EPOCHS=$classifier_epochs LR=$lr \
PRECISION=${PRECISION:-fp32}"
prepare_data
take_examples
architectures=$work/architectures

# choose_architectures: and counts their costs
choose_architectures() {
    local list
    python "$root/examples/studies/sampling/architectures.py" "$space" 8 "$architectures" || return 1
    list=$(printf '%s,' "$architectures"/a*.yaml)
    mos-cost --search-space "$space" --subnet "${list%,}" --json --src-len 128 --vocab-size "$words" \
        >"$architectures/costs.jsonl"
}
step architectures choose_architectures

# learn STEP EPOCHS SAVE_DIR START OPTION…: trains classifiers
learn() {
    train_classifiers "$@" --criterion sentence_prediction "${precision[@]}"
}

# warm ROUTING: sets start to the encoder as a supernet
warm() {
    start=$work/$1-$seed/warm.pt
    mkdir -p "$work/$1-$seed"
    step "warm-$1-$seed" mos-warm-start --path "$prepared/encoder" --search-space "$space" --mos-routing "$1" \
        --seed "$seed" --output "$start"
}

# supernet ROUTING: trains it, and takes the architectures out of it
supernet() {
    local name=$task-$count-$1-$seed subnet to scored=()
    local folder=$work/$1-$seed/$task-$count-inherited
    warm "$1"
    learn "inherited-$name" "$classifier_epochs" "$folder" "$start" --task sentence_prediction_mos --search-space "$space" \
        --arch roberta_mos --mos-routing "$1" --subnet-sampling random --cost-strata 8
    for subnet in "$architectures"/a*.yaml; do
        to=$work/tuned/$task-$count-inherited-$(basename "$subnet" .yaml)-$1-$seed
        mkdir -p "$to"
        step "export-${to##*/}" mos-export --path "$folder/checkpoint_last.pt" --subnet "$subnet" \
            --output "$to/checkpoint_last.pt"
        scored+=("$to/checkpoint_last.pt")
    done
    python "$here/score.py" "$data" "${scored[@]}"
}

# alone: trains each architecture
alone() {
    local subnet name from to
    warm none
    for subnet in "$architectures"/a*.yaml; do
        name=$(basename "$subnet" .yaml) to=$work/tuned/$task-$count-alone-$name-none-$seed
        from=$work/none-$seed/start-$name.pt
        step "start-$name-$seed" mos-export --path "$start" --subnet "$subnet" --output "$from"
        learn "alone-${to##*/}" "$epochs" "$to" "$from" --task sentence_prediction --arch roberta_subnet --subnet "$subnet"
        python "$here/score.py" "$data" "$to/checkpoint_last.pt"
    done
}

for seed in "${seeds[@]}"; do
    for task in "${tasks[@]}"; do
        for count in "${examples[@]}"; do
            data=$work/data/$task-$count
            for part in "${parts[@]}"; do
                if [ "$part" = alone ]; then
                    alone
                    continue
                fi
                for routing in "${routings[@]}"; do
                    supernet "$routing"
                done
            done
        done
    done
done
python "$here/accuracies.py" "$work" >/dev/null
python "$here/inherited.py" "$work"
