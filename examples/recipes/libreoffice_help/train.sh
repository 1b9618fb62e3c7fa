#!/usr/bin/env bash
# Trains one supernet on a corpus of prepare.sh, or any fairseq data folder:
#   bash examples/recipes/libreoffice_help/train.sh DATA none|layer|neuron SAVE_DIR [more options of fairseq-train]
# Run again, it goes on from the last checkpoint.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
if [ $# -lt 3 ]; then
    sed -n '2,4s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
data=$1 routing=$2 save=$3
shift 3
. "$here/../../tools/cpu_env.sh"
if ! command -v fairseq-train >/dev/null; then
    export PATH="$(cd "$here/../../.." && pwd)/.venv/bin:$PATH" # of setup_venv.sh
fi

# 14 epochs of one random subnet in an update, drawn by cost; examples/studies/sampling compares the ways. The rate rises for
# an eighth of the updates and is 0 after the last: to train longer, change all three numbers.
fairseq-train "$data" --user-dir "$here/../../../mos_fairseq" --task translation_mos \
    --search-space "$here/search_space.yaml" --arch transformer_mos --share-all-embeddings \
    --mos-routing "$routing" --subnet-sampling random --cost-strata 8 \
    --criterion label_smoothed_cross_entropy_mos --label-smoothing 0.1 --dropout 0.1 \
    --optimizer adam_fused --adam-betas '(0.9, 0.98)' --clip-norm 0.0 --lr 3e-3 --lr-scheduler polynomial_decay \
    --warmup-updates 1160 --total-num-update 9281 --max-update 9281 --max-tokens 1024 --required-batch-size-multiple 1 \
    --valid-subnets "largest,$here/subnets/r1.yaml,$here/subnets/r2.yaml,$here/subnets/r3.yaml,smallest" --seed 1 \
    --num-workers 0 --log-format simple --log-interval 50 --no-epoch-checkpoints --save-dir "$save" "$@"
