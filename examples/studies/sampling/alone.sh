#!/usr/bin/env bash
# How far are the subnets of run.sh's supernets from the same architectures trained alone? Start it after run.sh,
# with the same arguments:
#   bash examples/studies/sampling/alone.sh embedded WORK_DIR [SEED…]
#   bash examples/studies/sampling/alone.sh libreoffice WORK_DIR DATA [SEED…]
# Twelve architectures that span the space's costs evenly are trained from scratch for as many updates as the supernets
# have passes, with each seed (mos-gap), and scored with what they inherit from each supernet. evidence.py prints the
# table. Run again, it goes on where it stopped. MOS_WORKERS=2: trainings at a time.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
. "$here/../../tools/steps.sh"
. "$here/corpora.sh"
choose_corpus "$@"
. "$here/../../tools/cpu_env.sh"
if ! command -v mos-gap >/dev/null; then
    export PATH="$root/.venv/bin:$PATH" # of setup_venv.sh
fi
step architectures python "$here/architectures.py" "$space" 12 "$work/architectures"
subnets=$(printf '%s,' "$work"/architectures/a*.yaml)
reports=()
for seed in "${seeds[@]}"; do
    paths=()
    for checkpoint in "$work"/*-"$seed"/checkpoint_last.pt; do
        name=$(basename "$(dirname "$checkpoint")")
        # one with another schedule would have other standalone models
        if [ -e "$work/$name.done" ] && [[ $name != *-cosine-* ]]; then
            paths+=(--path "${name%-"$seed"}=$checkpoint")
        fi
    done
    if [ ${#paths[@]} -eq 0 ]; then
        echo "error: $work has no supernet of seed $seed: run.sh trains them" >&2
        exit 1
    fi
    echo "$(date +%T) seed $seed: $((${#paths[@]} / 2)) supernets"
    mos-gap measure "$data" "${paths[@]}" --subnet "${subnets%,}" --max-update "$passes" --bootstrap 0 \
        --workers "${MOS_WORKERS:-1}" --remove-bpe sentencepiece --output "$work/alone-$seed" \
        --standalone "$work/standalone" >>"$work/alone-$seed.log"
    reports+=("$work/alone-$seed/gap.json")
    python "$here/evidence.py" "${reports[@]}" # as they come
done
