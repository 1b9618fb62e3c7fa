#!/usr/bin/env bash
# Supernets that differ in one option, trained with as many passes of a random subnet on a mini-batch ("schedules": on as
# many tokens):
#   bash examples/studies/training/run.sh STUDY WORK_DIR DATA [SEED…]
# STUDY is "experts" (none, full, of low rank, a single one), "frozen" (experts of low rank on a trained supernet, and
# the same supernet trained on), "optimizers" (adam and scaled_adam at three learning rates), "schedules" (smaller
# mini-batches in more updates, for as many tokens; a rate that falls with the square root or linearly) or "rounds"
# (processes that average in every update, and every 1, 4 or 16; with the same data, and with data that differ). DATA is
# the data-bin of a translation corpus with a joined dictionary, as examples/recipes/libreoffice_help makes it.
# WORK_DIR/STUDY.jsonl has a row for each supernet: losses of twelve subnets on the test set. Run again, it goes on where
# it stopped.
# MOS_UPDATES: updates of a training (1500 by default); MOS_SPACE: the search space (tiny); MOS_TOKENS: of a mini-batch
# (2048).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
. "$here/../../tools/steps.sh"
[ $# -ge 3 ] || seeded_study
study=$1 data=$3
case $study in
experts | frozen | optimizers | schedules | rounds) ;;
*)
    echo "error: STUDY is $study: allowed are experts, frozen, optimizers, schedules and rounds" >&2
    exit 1
    ;;
esac
if [ ! -d "$data" ]; then
    echo "error: DATA is $data: no such folder" >&2
    exit 1
fi
data=$(cd "$data" && pwd)
seeded_study "$2" "${@:4}"
. "$here/../../tools/cpu_env.sh"
if ! command -v fairseq-train >/dev/null; then
    export PATH="$root/.venv/bin:$PATH" # of setup_venv.sh
fi
updates=${MOS_UPDATES:-1500} space=${MOS_SPACE:-tiny} tokens=${MOS_TOKENS:-2048}
adam=(--optimizer adam --adam-betas '(0.9, 0.98)')
low_rank=(--mos-routing layer --num-experts 2 --expert-rank 8)

# train PROCESSES DATA NAME SEED OPTIONS…: the last of an option's values wins
train() {
    local program=(fairseq-train)
    [ "$1" = 1 ] || program=(bash "$here/../../tools/train_parallel.sh" "$1")
    "${program[@]}" "$2" --user-dir "$root/mos_fairseq" --task translation_mos \
        --arch transformer_mos --search-space "$space" --share-all-embeddings --subnet-sampling random \
        --cost-strata 8 --max-update "$updates" --criterion label_smoothed_cross_entropy_mos --label-smoothing 0.1 \
        --dropout 0.1 "${adam[@]}" --lr 2e-3 --lr-scheduler inverse_sqrt \
        --warmup-updates "$((updates / 5))" --max-tokens "$tokens" --required-batch-size-multiple 1 --seed "$4" \
        --num-workers 0 --disable-validation --no-epoch-checkpoints --log-format simple --save-dir "$work/$3-$4" \
        "${@:5}"
}

judged=()
# arm_of PROCESSES DATA NAME SEED OPTIONS…: one supernet
arm_of() {
    step "$3-$4" train "$@"
    judged+=("$3-$4")
}

# arm NAME SEED OPTIONS…: one supernet, trained by one process
arm() {
    arm_of 1 "$data" "$@"
}

experts() { # SEED
    arm none "$1" --mos-routing none
    arm full "$1" --mos-routing layer --num-experts 2
    arm low-rank "$1" "${low_rank[@]}"
    arm single "$1" "${low_rank[@]}" --num-experts 1
    arm components "$1" "${low_rank[@]}" --mos-routing rank
}

frozen() { # SEED
    local origin=$work/none-$1/checkpoint_last.pt begun name options
    local further=(--reset-optimizer --reset-lr-scheduler --reset-dataloader --reset-meters --max-update "$((updates / 3))")
    arm none "$1" --mos-routing none
    arm longer "$1" --mos-routing none --restore-file "$origin" "${further[@]}"
    for name in frozen frozen-single; do
        begun=$work/begun-$name-$1.pt
        options=("${low_rank[@]}")
        [ "$name" = frozen ] || options+=(--num-experts 1)
        step "begin-$name-$1" mos-warm-start --path "$origin" --search-space "$space" \
            "${options[@]}" --output "$begun"
        arm "$name" "$1" "${options[@]}" --freeze-shared --restore-file "$begun" "${further[@]}"
    done
}

optimizers() { # SEED
    local rate adam=("${adam[@]}")
    for rate in 5e-4 2e-3 8e-3; do
        arm "adam-$rate" "$1" --mos-routing layer --num-experts 2 --lr "$rate"
    done
    adam=(--optimizer scaled_adam)
    for rate in 1e-2 2e-2 4e-2; do
        arm "scaled-adam-$rate" "$1" --mos-routing layer --num-experts 2 --lr "$rate"
    done
}

schedules() { # SEED
    local arms=("1 inverse_sqrt 2e-3" "1 polynomial_decay 4e-3" "2 inverse_sqrt 2e-3" "2 polynomial_decay 3e-3"
        "4 polynomial_decay 2e-3") one part schedule rate more
    for one in "${arms[@]}"; do
        read -r part schedule rate <<<"$one"
        more=$((updates * part))
        set -- "$1" --max-tokens "$((tokens / part))" --lr "$rate" --lr-scheduler "$schedule" --max-update "$more" \
            --warmup-updates "$((more / 8))" --mos-routing neuron --num-experts 2
        [ "$schedule" = inverse_sqrt ] || set -- "$@" --total-num-update "$more"
        arm "$((tokens / part))-$schedule-$rate" "$@"
    done
}

rounds() { # SEED
    local processes kind where interval options
    step shards python "$here/shards.py" "$data" "$work/shards" 2 4
    for processes in 2 4; do
        for kind in same different; do
            where=$data
            if [ "$kind" = different ]; then
                where=$(printf ":%s" "$work/shards/$processes"/*)
                where=${where:1}
            fi
            for interval in 0 1 4 16; do
                options=(--mos-routing none --max-update "$((updates / processes))"
                    --warmup-updates "$((updates / processes / 5 + 1))")
                [ "$kind" = same ] || options+=(--shard-data)
                [ "$interval" = 0 ] || options+=(--local-updates "$interval")
                arm_of "$processes" "$where" "$processes-$kind-$interval" "$1" "${options[@]}"
            done
        done
    done
}

for seed in "${seeds[@]}"; do
    "$study" "$seed"
    python "$here/arms.py" "$study" "$work" "$data" "${judged[@]}" # as they come
done
