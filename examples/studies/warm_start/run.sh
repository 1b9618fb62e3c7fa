#!/usr/bin/env bash
# How good is a supernet that starts from fairseq's own trained model?
#   bash examples/studies/warm_start/run.sh DATA WORK_DIR [more options of fairseq-train]
# Trains fairseq's transformer on a folder of fairseq-preprocess (joined dictionary), makes supernets of it without
# reordering, and in the order of weights and of gradients; compares the largest subnet's translations of the test set
# with the transformer's, and the losses of smaller subnets, before any training. Run again, it goes on where it stopped.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
if [ $# -lt 2 ]; then
    sed -n '2,6s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
data=$1 work=$2 space=$here/search_space.yaml
shift 2
if [ ! -d "$data" ]; then
    echo "error: DATA is $data: no such folder" >&2
    exit 1
fi
. "$here/../../tools/cpu_env.sh"
. "$here/../../tools/steps.sh"
if ! command -v mos-warm-start >/dev/null; then
    export PATH="$root/.venv/bin:$PATH" # of setup_venv.sh
fi
mkdir -p "$work"
if [ "$(cat "$work/options" 2>/dev/null || printf '%s' "$data $*")" != "$data $*" ]; then
    echo "error: WORK_DIR $work holds models of other data or options: $(cat "$work/options")" >&2
    exit 1
fi
printf '%s' "$data $*" >"$work/options"

translate=(--gen-subset test --beam 4 --max-len-a 1.2 --max-len-b 10 --max-tokens 6000 --num-workers 0
    --remove-bpe sentencepiece --scoring sacrebleu)
plugin=(--user-dir "$root/mos_fairseq") # without it fairseq reads no checkpoint under torch >= 2.6

step transformer fairseq-train "$data" "${plugin[@]}" --task translation --arch transformer --share-all-embeddings \
    --encoder-embed-dim 192 --encoder-ffn-embed-dim 768 --encoder-layers 3 --encoder-attention-heads 4 \
    --decoder-embed-dim 192 --decoder-ffn-embed-dim 768 --decoder-layers 3 --decoder-attention-heads 4 \
    --criterion label_smoothed_cross_entropy --label-smoothing 0.1 --dropout 0.1 --optimizer adam \
    --adam-betas '(0.9, 0.98)' --lr 2e-3 --lr-scheduler inverse_sqrt --warmup-updates 400 --max-tokens 3000 \
    --max-epoch 4 --seed 1 --num-workers 0 --log-format simple --no-epoch-checkpoints --save-dir "$work" "$@"
stock=$work/checkpoint_last.pt
step translations-of-transformer fairseq-generate "$data" "${plugin[@]}" --task translation --path "$stock" \
    "${translate[@]}" --required-batch-size-multiple 1

orders=(unordered weights gradients gradients-and-channels)
for order in "${orders[@]}"; do
    case $order in
    unordered) options=(--no-reorder) ;;
    weights) options=() ;;
    gradients) options=(--data "$data") ;;
    gradients-and-channels) options=(--data "$data" --learn-positions) ;;
    esac
    step "$order" mos-warm-start --path "$stock" --search-space "$space" --output "$work/$order.pt" "${options[@]}"
    step "translations-of-$order" fairseq-generate "$data" "${plugin[@]}" --task translation_mos --subnet largest \
        --path "$work/$order.pt" "${translate[@]}"
done
python "$here/warm_starts.py" "$data" "$work" "${orders[@]}"
