#!/usr/bin/env bash
# A controller in training against evolution after it, with as many passes:
#   bash examples/studies/controller/run.sh WORK_DIR [SEED…]
# For each seed (1 by default) it trains two supernets of space.yaml on a small corpus like the quickstart's: one by
# sandwich, and one by a controller, which gets fewer updates, as it also makes forward passes on held-out batches. Then evolution searches both, and compare.py prints a table. Run again, it goes on where it stopped.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
. "$here/../../tools/steps.sh"
seeded_study "$@"
. "$here/../../tools/cpu_env.sh"
if ! command -v fairseq-train >/dev/null; then
    export PATH="$root/.venv/bin:$PATH" # of setup_venv.sh
fi
space=$here/space.yaml
budget='flops_without_output_projection<=60%'
# before every update the controller makes 2 forward passes: as 2/3 of a pass with its backward pass, beside 3 of those
updates=600 fewer=512 interval=1 from=120 # (600 - 120) / (1 + 2/9) + 120, rounded down

corpus() {
    python "$root/examples/tools/embedded_corpus.py" --output "$work/text" --seed 1 --train 8000 --valid 300 --test 300
    python "$root/examples/tools/subwords.py" --text "$work/text" --output "$work/spm" --vocab-size 600
    rm -rf "$work/data-bin"
    fairseq-preprocess --source-lang en --target-lang de --joined-dictionary --srcdict "$work/spm/dict.txt" \
        --trainpref "$work/spm/train" --validpref "$work/spm/valid" --testpref "$work/spm/test" \
        --destdir "$work/data-bin" --workers 1
}

# train NAME SEED UPDATES OPTIONS…
train() {
    fairseq-train "$work/data-bin" --user-dir "$root/mos_fairseq" --task translation_mos --search-space "$space" \
        --arch transformer_mos --share-all-embeddings --mos-routing neuron --num-experts 2 --dropout 0.1 \
        --criterion label_smoothed_cross_entropy_mos --label-smoothing 0.1 --optimizer adam --adam-betas '(0.9, 0.98)' \
        --lr 3e-3 --lr-scheduler inverse_sqrt --warmup-updates 100 --max-tokens 512 --required-batch-size-multiple 1 \
        --seed "$2" --max-update "$3" --num-workers 0 --no-epoch-checkpoints --disable-validation \
        --log-format simple --log-interval 50 --save-dir "$work/$1-$2" "${@:4}"
}

step corpus corpus
for seed in "${seeds[@]}"; do
    step "sandwich-$seed" train sandwich "$seed" "$updates" --subnet-sampling sandwich
    step "controller-$seed" train controller "$seed" "$fewer" --subnet-sampling controller \
        --controller-budget "$budget" --controller-from "$from" --controller-interval "$interval" \
        --max-tokens-valid 1024
done
python "$here/compare.py" "$work" "$budget" "${seeds[@]}"
