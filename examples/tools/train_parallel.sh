#!/usr/bin/env bash
# Trains with fairseq-train in several processes that average their gradients; the first argument is their number on
# this machine, all others are fairseq-train's. Without a GPU they talk by gloo, else by NCCL, one GPU each.
#   bash examples/tools/train_parallel.sh 2 data-bin --user-dir mos_fairseq --task translation_mos ...
# TORCHRUN_ARGS are torchrun's, for several machines; the same command is started on each, with its own --node-rank:
#   TORCHRUN_ARGS="--nnodes 2 --node-rank 0 --master-addr HOST --master-port 29500" bash examples/tools/train_parallel.sh 8 ...
set -euo pipefail
if ! [[ ${1:-} =~ ^[1-9][0-9]*$ ]]; then
    echo "error: the number of processes is '${1:-}': allowed are whole numbers from 1 (then fairseq-train's arguments)" >&2
    exit 1
fi
processes=$1
shift
backend=nccl
if ! python -P -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    backend=gloo
    export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
fi
export DDP_COMMUNICATION=$backend
read -r -a where <<<"${TORCHRUN_ARGS:---standalone}"
# what every process adds is its own: torchrun tells it by the environment
# shellcheck disable=SC2016
together='exec fairseq-train "$@" --distributed-world-size "$WORLD_SIZE" --distributed-rank "$RANK" \
    --distributed-init-method env:// --distributed-no-spawn --distributed-backend "$DDP_COMMUNICATION" \
    --device-id "$LOCAL_RANK"'
exec torchrun "${where[@]}" --nproc-per-node "$processes" --no-python bash -c "$together" fairseq-train "$@"
