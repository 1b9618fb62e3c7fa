#!/usr/bin/env bash
# From a small Hugging Face encoder to classifiers within budgets, beside the same architectures without the supernet:
#   bash examples/recipes/bert_debian/run.sh WORK_DIR [SEED…]
# A warm start of all-MiniLM-L6-v2 becomes a supernet, trained on masked words of Debian's descriptions with
# distillation; mos-search finds subnets within BUDGETS (per cent of the encoder's parameters); each is exported, fine-tuned
# by fairseq's own sentence_prediction on EXAMPLES examples of two tasks, scored, and exported for transformers. For
# comparison, each architecture is also cut out of the warm start before the supernet was trained (in SOURCES: start), and
# may begin with random weights (random).
# SAMPLING=sandwich: in each update, the largest subnet learns from the labels, and two others from it. SAMPLING=random: one
# subnet learns from the labels and from the encoder, which stays fixed, half and half.
# PRECISION=bf16 trains all but the head for masked words with --bf16. WORK_DIR/rows.jsonl has a row for each, and table.md
# the table. Run again with the same settings, it goes on where it stopped. SMALL=1 shows in some ten minutes that the chain
# works; all settings of settings.sh can be given by name. Without DATA, prepare.sh runs first where it has not run.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
. "$here/settings.sh"
seeded_study "$@"
keep_settings run "SPACE=${SPACE:-space.yaml} TEST_EXAMPLES=$test_examples EPOCHS=$epochs PRECISION=${PRECISION:-fp32} \
VALID_SAMPLES=$samples POPULATION=$population ITERATIONS=$iterations"
keep_masked_settings
prepare_data

# tune NAME CHECKPOINT SUBNET DATA SEED: fine-tunes a static twin; without a CHECKPOINT, random weights
tune() {
    local classes from=()
    [ -z "$2" ] || from=(--finetune-from-model "$2")
    classes=$(wc -l <"$4/label/dict.txt")
    step "tune-$1" fairseq-train "$4" "${plugin[@]}" --task sentence_prediction --num-classes "$classes" \
        --init-token 0 --separator-token 2 --max-positions 512 --shorten-method truncate --arch roberta_subnet \
        --subnet "$3" --layer-norm-eps 1e-12 "${from[@]}" "${precision[@]}" --criterion sentence_prediction \
        --optimizer adam --adam-betas "(0.9, 0.98)" --weight-decay 0.01 --lr 2e-4 --lr-scheduler cosine --warmup-updates 20 \
        --max-update "$(updates_of "$epochs" "$4")" --batch-size 32 --seed "$5" \
        --disable-validation --no-epoch-checkpoints --no-save-optimizer-state --save-dir "$work/tuned/$1"
}

take_examples
python -c 'import sys; from mos_fairseq.search_space import SearchSpace as S; S.from_spec(sys.argv[1]).largest().save(sys.argv[2])' \
    "$space" "$work/largest.yaml"
for seed in "${seeds[@]}"; do
    for routing in "${routings[@]}"; do
        run=$routing-$seed
        masked_supernet "$routing"
        names=(largest) subnets=("$work/largest.yaml")
        for budget in "${budgets[@]}"; do
            step "search-$budget-$run" mos-search "$prepared/data-bin/text" --valid-samples "$samples" \
                --path "$work/$run/checkpoints/checkpoint_last.pt" --population-size "$population" \
                --iterations "$iterations" --parents $((population / 3)) --mutations $((population / 2)) \
                --crossovers $((population / 2)) --constraint "params_without_embeddings<=$budget%" \
                --seed "$seed" --output "$work/$run/search-$budget"
            take_found "$work/$run/search-$budget" "$work/$run" "$budget"
            for kind in best uniform; do
                names+=("$kind-$budget") subnets+=("$work/$run/$kind-$budget.yaml")
            done
        done
        mos-cost --search-space "$space" --subnet "$(IFS=, && echo "${subnets[*]}")" --json --src-len 128 \
            --vocab-size "$words" >"$work/$run/costs.jsonl"
        step "latency-$run" mos-latency measure --search-space "$space" --subnet "$(IFS=, && echo "${subnets[*]}")" \
            --src-len 128 --vocab-size "$words" --threads 1 --repeats 5 --output "$work/$run/latency.jsonl"
        for position in "${!names[@]}"; do
            for source in "${sources[@]}"; do
                [ "$source" != random ] || continue
                from=$work/$run/start.pt
                [ "$source" = start ] || from=$work/$run/checkpoints/checkpoint_last.pt
                step "export-$source-${names[position]}-$run" mos-export --path "$from" \
                    --subnet "${subnets[position]}" --output "$work/$run/$source-${names[position]}.pt"
            done
        done
        step "huggingface-masked-$run" mos-export --path "$work/$run/supernet-best-${budgets[0]}.pt" \
            --format huggingface --allow-padding --tokenizer "$prepared/encoder/tokenizer.json" \
            --output "$work/$run/huggingface-masked"
        step "fill-mask-$run" python "$here/fill_mask.py" "$work/$run/huggingface-masked" \
            --path "$work/$run/supernet-best-${budgets[0]}.pt" --data "$prepared/data-bin/text" \
            --text "$prepared/text/text/test.text" --length "$length"
        for task in "${tasks[@]}"; do
            for count in "${examples[@]}"; do
                tuned=()
                for position in "${!names[@]}"; do
                    for source in "${sources[@]}"; do
                        name=$task-$count-$source-${names[position]}-$run
                        from=$work/$run/$source-${names[position]}.pt
                        [ "$source" != random ] || from=
                        tune "$name" "$from" "${subnets[position]}" \
                            "$work/data/$task-$count" "$seed"
                        tuned+=("$work/tuned/$name/checkpoint_last.pt")
                    done
                done
                python "$here/score.py" "$work/data/$task-$count" "${tuned[@]}"
            done
        done
        if [[ " ${tasks[*]} " != *" section "* ]]; then
            continue # the last steps are for one text
        fi
        winner=section-${examples[0]}-supernet-best-${budgets[0]}-$run
        step "huggingface-$run" mos-export --path "$work/tuned/$winner/checkpoint_last.pt" --format huggingface \
            --allow-padding --tokenizer "$prepared/encoder/tokenizer.json" --output "$work/$run/huggingface"
        step "pipeline-$run" python "$here/pipeline.py" "$work/$run/huggingface" --length "$length" \
            --text "$prepared/text/section/test.input0" --scores "$work/tuned/$winner/score.json"
    done
done
python "$here/accuracies.py" "$work"
