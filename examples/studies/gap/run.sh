#!/usr/bin/env bash
# How far are subnets from the same architectures trained alone? Trains supernets with each routing (neuron-wise also with
# linear routers) and each distillation, and six architectures from scratch with the same options, updates and seed (mos-gap):
#   bash examples/studies/gap/run.sh embedded WORK_DIR [SEED…]
#   bash examples/studies/gap/run.sh libreoffice WORK_DIR DATA REFERENCE [SEED…]
# "embedded" makes its own corpus, 20,000 pairs of numbers and dates; "libreoffice" is for the corpus of
# examples/recipes/libreoffice_help, REFERENCE its raw test file of the target language. SUPERNETS="none neuron" trains fewer
# supernets. Run again, it goes on where it stopped.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
if [ $# -lt 2 ] || { [ "$1" != embedded ] && { [ "$1" != libreoffice ] || [ $# -lt 4 ]; }; }; then
    sed -n '2,9s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
fail() {
    echo "error: $1" >&2
    exit 1
}
corpus=$1 work=$2
shift 2
if [ "$corpus" = libreoffice ]; then
    data=$1 reference=$2
    shift 2
    [ -d "$data" ] || fail "DATA is $data: no such folder"
    [ -f "$reference" ] || fail "REFERENCE is $reference: no such file"
fi
seeds=("$@")
for seed in "$@"; do
    [[ $seed =~ ^[0-9]+$ ]] || fail "SEED is $seed: allowed are whole numbers"
done
known="none layer neuron linear kl alpha"
for name in ${SUPERNETS:=$known}; do
    [[ " $known " == *" $name "* ]] || fail "SUPERNETS has $name: allowed are $known"
done
. "$here/../../tools/cpu_env.sh"
if ! command -v mos-gap >/dev/null; then
    export PATH="$root/.venv/bin:$PATH" # of setup_venv.sh
fi
mkdir -p "$work"

if [ "$corpus" = embedded ]; then
    data=$work/data-bin
    space=tiny epochs=4 updates=908 warmup=300 tokens=2048
    subnets=largest,smallest sampled=4 judging=()
    batching=(--required-batch-size-multiple 1)
    if [ ! -e "$work/prepared" ]; then
        python "$root/examples/tools/embedded_corpus.py" --output "$work/text" --seed 1 --train 20000 --valid 500 --test 500
        python "$root/examples/tools/subwords.py" --text "$work/text" --output "$work/spm" --vocab-size 2000
        rm -rf "$data"
        fairseq-preprocess --source-lang en --target-lang de --joined-dictionary --srcdict "$work/spm/dict.txt" \
            --trainpref "$work/spm/train" --validpref "$work/spm/valid" --testpref "$work/spm/test" \
            --destdir "$data" --workers 1 >"$work/preprocess.log" 2>&1
        touch "$work/prepared"
    fi
else
    judging=(--reference "$reference")
    folder=$root/examples/recipes/libreoffice_help
    space=$folder/search_space.yaml epochs=4 updates=1056 warmup=400 tokens=3000
    subnets=largest,$folder/subnets/r1.yaml,$folder/subnets/r2.yaml,$folder/subnets/r3.yaml,smallest
    sampled=1 batching=()
fi
training=(
    --optimizer adam --adam-betas '(0.9, 0.98)' --lr 2e-3 --lr-scheduler inverse_sqrt --warmup-updates "$warmup"
    --dropout 0.1 --label-smoothing 0.1 --max-tokens "$tokens" "${batching[@]}"
    --max-epoch "$epochs" --num-workers 0 --log-format simple --log-interval 100 --no-epoch-checkpoints
)
plain=(--criterion label_smoothed_cross_entropy_mos)
distilled=(--mos-routing neuron --criterion distillation_mos --distillation-weight 0.5)

# Supernet NAME SEED: trains it unless it is trained with these options. Until distillation begins, kl, alpha and neuron
# (where it never does) are one run: its first half is trained once, named half.
supernet() {
    local folder=$work/$1-$2 options=(--mos-routing "$1" "${plain[@]}") wanted
    case $1 in
    linear) options=(--mos-routing neuron --router-layers 1 "${plain[@]}") ;;
    half | neuron) options=("${distilled[@]}" --distillation-from "$updates") ;;
    kl | alpha) options=("${distilled[@]}" --distillation-from $((updates / 2)) --distillation "$1") ;;
    esac
    if [ "$1" = half ]; then
        options+=(--max-epoch $((epochs / 2)))
    fi
    wanted="$data $space ${training[*]} ${options[*]}"
    if [ "$(cat "$folder/options" 2>/dev/null || true)" != "$wanted" ]; then
        rm -rf "$folder"
        mkdir -p "$folder"
        printf '%s' "$wanted" >"$folder/options"
    fi
    if [ ! -e "$folder/trained" ]; then
        if [[ $1 == @(neuron|kl|alpha) ]] && [ ! -e "$folder/checkpoint_last.pt" ]; then
            supernet half "$2"
            cp "$work/half-$2/checkpoint_last.pt" "$folder/copy" && mv "$folder/copy" "$folder/checkpoint_last.pt"
        fi
        echo "$(date +%T) $1, seed $2"
        fairseq-train "$data" --user-dir "$root/mos_fairseq" --task translation_mos --search-space "$space" \
            --arch transformer_mos --share-all-embeddings --num-experts 2 --subnet-sampling sandwich \
            --num-random-subnets 1 --valid-subnets "$subnets" "${training[@]}" "${options[@]}" --seed "$2" \
            --save-dir "$folder" >>"$folder/train.log" 2>&1 || {
            tail -n 1 "$folder/train.log" >&2
            exit 1
        }
        touch "$folder/trained"
    fi
}

reports=()
for seed in "${seeds[@]:-1}"; do
    paths=()
    for name in $SUPERNETS; do
        supernet "$name" "$seed"
        paths+=(--path "$name=$work/$name-$seed/checkpoint_last.pt")
    done
    mos-gap measure "$data" "${paths[@]}" --subnet "$subnets" --num-subnets "$sampled" --remove-bpe sentencepiece \
        "${judging[@]}" --output "$work/gap-$seed" --standalone "$work/standalone"
    reports+=("$work/gap-$seed/gap.json")
done
python "$here/summary.py" "${reports[@]}"
