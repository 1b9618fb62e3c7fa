#!/usr/bin/env bash
# Who should train in an update? Ways of choosing subnets, compared after as many forward and backward passes.
#   bash examples/recipes/run.sh WORK_DIR [SEED…]              # MOS_RECIPES='sandwich alternate-by-cost': some only
# Makes the quickstart's corpus; trains its supernet in each way, for 2,724 passes of one subnet on one mini-batch; and
# translates the test set with five subnets. WORK_DIR/scores.json has a row for each. Run again, it goes on where it
# stopped.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
# name -> who trains, in as many updates as make 2,724 passes
declare -A recipes=(
    [sandwich]="--subnet-sampling sandwich --max-update 908"
    [sandwich-by-cost]="--subnet-sampling sandwich --cost-strata 8 --max-update 908"
    [sandwich-smallest-4th]="--subnet-sampling sandwich --cost-strata 8 --smallest-interval 4 --max-update 1211"
    [alternate-by-cost]="--subnet-sampling alternate --cost-strata 8 --max-update 2724"
    [random-by-cost]="--subnet-sampling random --cost-strata 8 --max-update 2724"
)
order=(sandwich alternate-by-cost random-by-cost sandwich-by-cost sandwich-smallest-4th)
if [ -n "${MOS_RECIPES:-}" ]; then
    read -ra order <<<"$MOS_RECIPES" # some of them only
fi
for recipe in "${order[@]}"; do
    if [ -z "${recipes[$recipe]:-}" ]; then
        allowed=$(printf '%s\n' "${!recipes[@]}" | LC_ALL=C sort | paste -sd ' ')
        echo "error: MOS_RECIPES has $recipe: allowed are $allowed" >&2
        exit 1
    fi
done
. "$here/../cpu_env.sh"
. "$here/../steps.sh"
seeded_study "$@"
if ! command -v fairseq-generate >/dev/null; then
    export PATH="$root/.venv/bin:$PATH" # of setup_venv.sh
fi
data=$work/data-bin
subnets=(largest random:3 random:5 random:7 smallest)

step text python "$root/examples/embedded_corpus.py" --output "$work/text" --seed 1 \
    --train 20000 --valid 500 --test 500
step subwords python "$root/examples/subwords.py" --text "$work/text" --output "$work/spm" --vocab-size 2000
step preprocess fairseq-preprocess --source-lang en --target-lang de --joined-dictionary --srcdict "$work/spm/dict.txt" \
    --trainpref "$work/spm/train" --validpref "$work/spm/valid" --testpref "$work/spm/test" --destdir "$data" --workers 1
for seed in "${seeds[@]}"; do
    for recipe in "${order[@]}"; do
        name=$recipe-$seed
        # shellcheck disable=SC2086  # several options
        step "$name" fairseq-train "$data" --user-dir "$root/mos_fairseq" --task translation_mos --arch transformer_mos \
            --search-space tiny --share-all-embeddings ${recipes[$recipe]} \
            --criterion label_smoothed_cross_entropy_mos --label-smoothing 0.1 --dropout 0.1 \
            --optimizer adam_fused --adam-betas '(0.9, 0.98)' --lr 2e-3 --lr-scheduler inverse_sqrt \
            --warmup-updates 300 --max-tokens 2048 --required-batch-size-multiple 1 --seed "$seed" --num-workers 0 \
            --disable-validation --no-epoch-checkpoints --log-format simple --save-dir "$work/$name"
        for subnet in "${subnets[@]}"; do
            step "translations-$name-${subnet//:/-}" fairseq-generate "$data" --user-dir "$root/mos_fairseq" \
                --task translation_mos --path "$work/$name/checkpoint_last.pt" --subnet "$subnet" --gen-subset test \
                --beam 4 --max-len-a 1.2 --max-len-b 10 --remove-bpe sentencepiece --scoring sacrebleu \
                --max-tokens 8000 --required-batch-size-multiple 1 --num-workers 0
        done
        python "$here/scores.py" "$work" # as they come
    done
done
