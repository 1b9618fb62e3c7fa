#!/usr/bin/env bash
# Sampling rules compared at the same number of forward and backward passes: which subnets should train in an update?
#   bash examples/studies/sampling/run.sh embedded WORK_DIR [SEED…]
#   bash examples/studies/sampling/run.sh libreoffice WORK_DIR DATA [SEED…]
# Trains a supernet in each way, for as many passes of one subnet on one mini-batch (for as many tokens, where mini-batches
# are smaller), and translates the test set with five subnets. "embedded" is the quickstart's corpus and supernet, 2,724
# passes; "libreoffice" the corpus and supernet of examples/recipes/libreoffice_help, DATA its data-bin, 3,168 passes.
# WORK_DIR/scores.json has a row for each, with BLEU and the loss in bits a token, and scores.png plots BLEU over FLOPs. Run
# again, it goes on where it stopped.
# MOS_RECIPES="sandwich random": some recipes only.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
. "$here/../../tools/steps.sh"
linear="--max-tokens 1024 --lr-scheduler polynomial_decay --lr 3e-3"
# name -> passes in four updates, and the subnets that train
declare -A recipes=(
    [sandwich]="12 --subnet-sampling sandwich"
    [sandwich-by-cost]="12 --subnet-sampling sandwich --cost-strata 8"
    [sandwich-smallest-4th]="9 --subnet-sampling sandwich --cost-strata 8 --smallest-interval 4"
    [alternate]="4 --subnet-sampling alternate"
    [alternate-by-cost]="4 --subnet-sampling alternate --cost-strata 8"
    [decay-by-cost]="4 --subnet-sampling decay --cost-strata 8"
    [random]="4 --subnet-sampling random"
    [random-by-cost]="4 --subnet-sampling random --cost-strata 8"
    [random-by-cost-cosine]="4 --subnet-sampling random --cost-strata 8 --lr-scheduler cosine"
    [random-by-cost-linear]="4 --subnet-sampling random --cost-strata 8 $linear"
    [random-by-cost-linear-none]="4 --subnet-sampling random --cost-strata 8 $linear --mos-routing none"
    [random-by-cost-linear-layer]="4 --subnet-sampling random --cost-strata 8 $linear --mos-routing layer"
    [random-by-cost-none]="4 --subnet-sampling random --cost-strata 8 --mos-routing none"
    [random-by-cost-layer]="4 --subnet-sampling random --cost-strata 8 --mos-routing layer"
)
order=(sandwich alternate-by-cost random-by-cost random-by-cost-linear random-by-cost-cosine random alternate)
order+=(decay-by-cost sandwich-by-cost sandwich-smallest-4th random-by-cost-none random-by-cost-layer)
order+=(random-by-cost-linear-none random-by-cost-linear-layer)
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
. "$here/corpora.sh"
choose_corpus "$@"
corpus=$1
if [ "$corpus" = embedded ]; then
    subnets=(largest random:3 random:5 random:7 smallest)
else
    subnets=(largest "$root"/examples/recipes/libreoffice_help/subnets/r{1,2,3}.yaml smallest)
fi
. "$here/../../tools/cpu_env.sh"
if ! command -v fairseq-generate >/dev/null; then
    export PATH="$root/.venv/bin:$PATH" # of setup_venv.sh
fi
if [ "$corpus" = embedded ]; then
    step text python "$root/examples/tools/embedded_corpus.py" --output "$work/text" --seed 1 \
        --train 20000 --valid 500 --test 500
    step subwords python "$root/examples/tools/subwords.py" --text "$work/text" --output "$work/spm" --vocab-size 2000
    step preprocess fairseq-preprocess --source-lang en --target-lang de --joined-dictionary \
        --srcdict "$work/spm/dict.txt" --trainpref "$work/spm/train" --validpref "$work/spm/valid" \
        --testpref "$work/spm/test" --destdir "$data" --workers 1
fi
for seed in "${seeds[@]}"; do
    for recipe in "${order[@]}"; do
        name=$recipe-$seed
        read -ra options <<<"${recipes[$recipe]}"
        updates=$(((4 * passes + options[0] - 1) / options[0])) warm=$warmup
        if [[ ${options[*]} == *"--max-tokens 1024"* ]]; then # for as many tokens
            updates=$((updates * tokens / 1024))
            warm=$((updates / 8))
            options+=(--total-num-update "$updates")
        fi
        [[ $recipe != decay* ]] || options+=(--largest-until "$updates")
        step "$name" fairseq-train "$data" --user-dir "$root/mos_fairseq" --task translation_mos \
            --arch transformer_mos --search-space "$space" --share-all-embeddings \
            --max-update "$updates" \
            --criterion label_smoothed_cross_entropy_mos --label-smoothing 0.1 --dropout 0.1 \
            --optimizer adam_fused --adam-betas '(0.9, 0.98)' --lr 2e-3 --lr-scheduler inverse_sqrt \
            --warmup-updates "$warm" --max-tokens "$tokens" --required-batch-size-multiple 1 --seed "$seed" \
            --num-workers 0 --disable-validation --no-epoch-checkpoints --log-format simple --save-dir "$work/$name" \
            "${options[@]:1}" # the last of an option's values wins
        for subnet in "${subnets[@]}"; do
            called=$(basename "$subnet" .yaml)
            step "translations-$name-${called//:/-}" fairseq-generate "$data" --user-dir "$root/mos_fairseq" \
                --task translation_mos --path "$work/$name/checkpoint_last.pt" --subnet "$subnet" --gen-subset test \
                --beam 4 --max-len-a 1.2 --max-len-b 10 --remove-bpe sentencepiece --scoring sacrebleu \
                --max-tokens 8000 --required-batch-size-multiple 1 --num-workers 0
        done
        step "losses-$name" fairseq-validate "$data" --user-dir "$root/mos_fairseq" --task translation_mos \
            --path "$work/$name/checkpoint_last.pt" --valid-subset test --valid-subnets "$(IFS=, && echo "${subnets[*]}")" \
            --max-tokens 8000 --required-batch-size-multiple 1 --num-workers 0 --log-format json
        python "$here/scores.py" "$work" # as they come
        python "$here/plot.py" "$work/scores.json" "$space" "$work/scores.png"
    done
done
