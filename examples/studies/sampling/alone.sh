#!/usr/bin/env bash
# How far are the subnets of run.sh's supernets from the same architectures trained alone? Start it after run.sh,
# with the same arguments:
#   bash examples/studies/sampling/alone.sh embedded WORK_DIR [SEED…]
#   bash examples/studies/sampling/alone.sh libreoffice WORK_DIR DATA [SEED…]
# Twelve architectures that span the space's costs evenly are trained from scratch on as many tokens as the supernets, with
# each seed (mos-gap), and scored with what they inherit from each supernet. Supernets of a linear schedule have their own
# standalone models, and their own report. evidence.py prints the tables. Run again, it goes on where it stopped.
# MOS_WORKERS=2: trainings at a time.
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

# supernets SEED SCHEDULE: sets paths, mos-gap's options of the supernets that are done; those of another schedule have
# other standalone models
supernets() {
    local checkpoint name schedule
    paths=()
    for checkpoint in "$work"/*-"$1"/checkpoint_last.pt; do
        name=$(basename "$(dirname "$checkpoint")")
        case $name in
        *-cosine-*) continue ;;
        *-linear-*) schedule=linear ;;
        *) schedule=usual ;;
        esac
        if [ -e "$work/$name.done" ] && [ "$schedule" = "$2" ]; then
            paths+=(--path "${name%-"$1"}=$checkpoint")
        fi
    done
}

# compare SCHEDULE UPDATES REPORT: of all seeds
compare() {
    local seed reports=()
    for seed in "${seeds[@]}"; do
        supernets "$seed" "$1"
        [ ${#paths[@]} -gt 0 ] || continue
        compared[$seed]=1
        echo "$(date +%T) seed $seed: $((${#paths[@]} / 2)) supernets, architectures alone for $2 updates"
        mos-gap measure "$data" "${paths[@]}" --subnet "${subnets%,}" --max-update "$2" --bootstrap 0 \
            --workers "${MOS_WORKERS:-1}" --remove-bpe sentencepiece --output "$work/$3-$seed" \
            --standalone "$work/standalone" >>"$work/$3-$seed.log"
        reports+=("$work/$3-$seed/gap.json")
        python "$here/evidence.py" "${reports[@]}" # as they come
    done
}

declare -A compared=()
compare usual "$passes" alone
compare linear $((passes * tokens / 1024)) alone-linear # for as many tokens
for seed in "${seeds[@]}"; do
    if [ -z "${compared[$seed]:-}" ]; then
        echo "error: $work has no supernet of seed $seed: run.sh trains them" >&2
        exit 1
    fi
done
