#!/usr/bin/env bash
# How good are the subnets of a language model's supernet, with each routing?
#   bash examples/studies/language_model/run.sh WORK_DIR [SEED…]
# Makes the quickstart's corpus, of which the German side is the text; trains the preset tiny_lm by its recipe, with
# routing none, layer and neuron, for as many updates on the same batches; and measures the loss of five subnets on the
# test set with fairseq-eval-lm. WORK_DIR/losses.json has a row for each. Run again, it goes on where it stopped.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
. "$here/../../tools/cpu_env.sh"
. "$here/../../tools/steps.sh"
seeded_study "$@"
if ! command -v fairseq-eval-lm >/dev/null; then
    export PATH="$root/.venv/bin:$PATH" # of setup_venv.sh
fi
data=$work/data-bin space=tiny_lm
subnets=(largest random:1 random:2 random:3 smallest)

step text python "$root/examples/tools/embedded_corpus.py" --output "$work/text" --seed 1 \
    --train 20000 --valid 500 --test 500
step subwords python "$root/examples/tools/subwords.py" --text "$work/text" --output "$work/spm" --vocab-size 2000
step preprocess fairseq-preprocess --only-source --srcdict "$work/spm/dict.txt" --trainpref "$work/spm/train.de" \
    --validpref "$work/spm/valid.de" --testpref "$work/spm/test.de" --destdir "$data" --workers 1
words=$(($(wc -l <"$data/dict.txt") + 4)) # fairseq adds four symbols
mos-cost --search-space "$space" --subnet "$(IFS=,; echo "${subnets[*]}")" --vocab-size "$words" \
    --share-decoder-input-output-embed --json >"$work/costs.jsonl"
for seed in "${seeds[@]}"; do
    for routing in none layer neuron; do
        name=$routing-$seed
        step "$name" fairseq-hydra-train --config-dir "$root/mos_fairseq/config" --config-name language_modeling_mos \
            search_space="$space" task.data="$data" model.mos_routing="$routing" common.seed="$seed" \
            checkpoint.save_dir="$work/$name" common.log_format=simple
        for subnet in "${subnets[@]}"; do
            step "loss-$name-${subnet//:/-}" fairseq-eval-lm "$data" --user-dir "$root/mos_fairseq" \
                --task language_modeling_mos --path "$work/$name/checkpoint_last.pt" --subnet "$subnet" \
                --gen-subset test --sample-break-mode eos --tokens-per-sample 128 --max-tokens 2048 --num-workers 0
        done
    done
done
python "$here/losses.py" "$work" "${seeds[@]}"
