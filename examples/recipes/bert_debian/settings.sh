# Source this with here set: the settings of run.sh, classifiers.sh and alone.sh, each by its name in capitals, and what they
# share.

root=$(cd "$here/../../.." && pwd)
. "$here/../../tools/cpu_env.sh"
. "$here/../../tools/steps.sh"
prepared=${DATA:-$root/data/bert_debian}
space=${SPACE:-$here/space.yaml}
length=${LENGTH:-96}
if [ -n "${SMALL:-}" ]; then
    defaults=(layer 20 40 1024 2e-4 20 6 1 300 500 8 50 supernet section)
else
    defaults=("none layer neuron" 1000 4000 2048 2e-4 1000 50 10 "4000 all" all 3 "50 25" "supernet start" "section pair")
fi
read -ra routings <<<"${ROUTINGS:-${defaults[0]}}"
head_updates=${HEAD_UPDATES:-${defaults[1]}} updates=${UPDATES:-${defaults[2]}} max_tokens=${MAX_TOKENS:-${defaults[3]}}
lr=${LR:-${defaults[4]}} samples=${VALID_SAMPLES:-${defaults[5]}} population=${POPULATION:-${defaults[6]}}
iterations=${ITERATIONS:-${defaults[7]}}
read -ra examples <<<"${EXAMPLES:-${defaults[8]}}"
test_examples=${TEST_EXAMPLES:-${defaults[9]}} epochs=${EPOCHS:-${defaults[10]}}
read -ra budgets <<<"${BUDGETS:-${defaults[11]}}"
read -ra sources <<<"${SOURCES:-${defaults[12]}}"
read -ra tasks <<<"${TASKS:-${defaults[13]}}"
for task in "${tasks[@]}"; do
    case $task in
    section | pair) ;;
    *) echo "error: TASKS has $task: allowed are section and pair" >&2 && exit 1 ;;
    esac
done
for source in "${sources[@]}"; do
    case $source in
    supernet | start | random) ;;
    *) echo "error: SOURCES has $source: allowed are supernet, start and random" >&2 && exit 1 ;;
    esac
done
if [[ " ${sources[*]} " != *" supernet "* ]]; then
    echo "error: SOURCES is ${sources[*]}: it lacks supernet, whose winner is exported" >&2
    exit 1
fi
sampling=${SAMPLING:-sandwich}
case $sampling in
sandwich | random) ;;
*) echo "error: SAMPLING is $sampling: allowed are sandwich and random" >&2 && exit 1 ;;
esac
for setting in "HEAD_UPDATES $head_updates" "UPDATES $updates" "MAX_TOKENS $max_tokens" "VALID_SAMPLES $samples" \
    "POPULATION $population" "ITERATIONS $iterations" "EPOCHS $epochs"; do
    if ! [[ $setting =~ ^[A-Z_]+\ [1-9][0-9]*$ ]]; then
        echo "error: ${setting%% *} is ${setting#* }: allowed are whole numbers from 1" >&2
        exit 1
    fi
done
precision=()
case ${PRECISION:-fp32} in
fp32) ;;
bf16) precision=(--bf16) ;;
*) echo "error: PRECISION is $PRECISION: allowed are fp32 and bf16" >&2 && exit 1 ;;
esac
plugin=(--user-dir "$root/mos_fairseq" --log-format simple --log-interval 50 --num-workers 0)

# prepare_data: makes $prepared where it is not there, and puts the commands on the path
prepare_data() {
    if ! { command -v fairseq-train && python -P -c 'import mos_fairseq, tokenizers, safetensors'; } >/dev/null 2>&1; then
        export PATH="$root/.venv/bin:$PATH" # of prepare.sh
    fi
    if [ ! -e "$prepared/data-bin/done" ]; then
        if [ -n "${DATA:-}" ]; then
            echo "error: $prepared is not prepared: bash examples/recipes/bert_debian/prepare.sh" >&2
            exit 1
        fi
        bash "$here/prepare.sh"
    fi
    words=$(($(wc -l <"$prepared/data-bin/text/dict.txt") + 5)) # fairseq adds four symbols, and <mask>
}

# take_found SEARCH FOLDER SUFFIX: copies what the search's algorithm itself found as FOLDER/best-SUFFIX.yaml (best.yaml may be
# a uniform subnet), and the best uniform subnet as FOLDER/uniform-SUFFIX.yaml
take_found() {
    python - "$1/search.json" "$2" "$3" <<'END'
import json
import sys

from mos_fairseq.search_space import Subnet

results = json.load(open(sys.argv[1], encoding="utf-8"))
rows = {"best": results.get("algorithm_best", results["best"]), "uniform": results["compared"]["uniform"]}
for name, row in rows.items():
    Subnet.from_dict(row["architecture"]).save(f"{sys.argv[2]}/{name}-{sys.argv[3]}.yaml")
END
}

# part_of TASK N: the first N examples for training and the first of the test set, binarized
part_of() {
    local task=$1 from=$prepared/pieces/$1 to=$work/data/$1-$2 column split
    for split in train test; do
        local count=$2
        [ "$split" = train ] || count=$test_examples
        [ "$count" != all ] || count=$(wc -l <"$from/$split.label")
        for column in "$prepared/data-bin/$task"/*; do
            column=$(basename "$column")
            mkdir -p "$to/text"
            head -n "$count" "$from/$split.$column" >"$to/text/$split.$column"
        done
    done
    for column in "$prepared/data-bin/$task"/*; do
        column=$(basename "$column")
        rm -rf "${to:?}/$column"
        fairseq-preprocess --only-source --srcdict "$prepared/data-bin/$task/$column/dict.txt" \
            --trainpref "$to/text/train.$column" --testpref "$to/text/test.$column" --destdir "$to/$column" --workers 1
    done
}

# take_examples: the parts of all tasks, and the linear model's accuracy on them
take_examples() {
    local task count given
    for task in "${tasks[@]}"; do
        for count in "${examples[@]}"; do
            step "data-$task-$count" part_of "$task" "$count"
            given=()
            [ "$count" = all ] || given+=(--examples "$count")
            [ "$test_examples" = all ] || given+=(--test-examples "$test_examples")
            step "baseline-$task-$count" python "$here/baseline.py" --text "$prepared/text/$task" "${given[@]}" \
                --output "$work/baseline-$task-$count.json"
        done
    done
}

# updates_of EPOCHS DATA: on mini-batches of 32 examples
updates_of() {
    echo $(($1 * (($(wc -l <"$2/text/train.label") + 31) / 32)))
}

# train SAVE_DIR UPDATES DATA OPTION…: a killed training goes on from a checkpoint of the last 100 updates. The last of these is
# as large as checkpoint_last.pt and of no use after the training.
train() {
    fairseq-train "${@:3}" "${plugin[@]}" "${precision[@]}" --max-positions 512 --layer-norm-eps 1e-12 \
        --optimizer adam_fused --adam-betas "(0.9, 0.98)" --weight-decay 0.01 --lr "$lr" --lr-scheduler polynomial_decay \
        --warmup-updates $(($2 / 10)) --total-num-update "$2" --max-update "$2" --clip-norm 1.0 --seed "$seed" \
        --disable-validation --no-epoch-checkpoints --save-interval-updates 100 --keep-interval-updates 1 \
        --save-dir "$1" || return
    rm -f "$1"/checkpoint_*_*.pt
}

# train_classifiers STEP EPOCHS SAVE_DIR START OPTION…: from the weights of START, on $data, with $seed
train_classifiers() {
    step "$1" train "$3" "$(updates_of "$2" "$data")" "$data" --num-classes "$(wc -l <"$data/label/dict.txt")" \
        --init-token 0 --separator-token 2 --shorten-method truncate --finetune-from-model "$4" --batch-size 32 "${@:5}"
}

# warm_start ROUTING: makes the encoder a supernet, $work/ROUTING-SEED/warm.pt
warm_start() {
    mkdir -p "$work/$1-$seed"
    step "warm-$1-$seed" mos-warm-start --path "$prepared/encoder" --search-space "$space" --mos-routing "$1" \
        --seed "$seed" --output "$work/$1-$seed/warm.pt"
}

# keep_masked_settings: of masked_supernet
keep_masked_settings() {
    keep_settings masked "SPACE=${SPACE:-space.yaml} UPDATES=$updates MAX_TOKENS=$max_tokens HEAD_UPDATES=$head_updates LR=$lr \
SAMPLING=$sampling LENGTH=$length PRECISION=${PRECISION:-fp32}"
}

# masked_supernet ROUTING: trains a supernet on masked words, $work/ROUTING-SEED/checkpoints, from the encoder and a head
masked_supernet() {
    local run=$1-$seed rule=(--subnet-sampling "$sampling")
    [ "$sampling" = sandwich ] || rule+=(--cost-strata 8 --teacher "$work/$run/start.pt" --distillation-weight 0.5)
    warm_start "$1"
    step "head-$run" python "$here/head.py" "$prepared/data-bin/text" --path "$work/$run/warm.pt" \
        --updates "$head_updates" --max-tokens "$max_tokens" --seed "$seed" --output "$work/$run/start.pt"
    step "supernet-$run" train "$work/$run/checkpoints" "$updates" "$prepared/data-bin/text" --task masked_lm_mos \
        --search-space "$space" --arch roberta_mos --mos-routing "$1" --finetune-from-model "$work/$run/start.pt" \
        --sample-break-mode eos --tokens-per-sample "$length" --max-tokens "$max_tokens" "${rule[@]}" \
        --criterion distillation_mos --dropout 0 --attention-dropout 0.1
}
