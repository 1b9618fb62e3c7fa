#!/usr/bin/env bash
# On one GPU: the tests that need one, the benchmark, measured latencies, and a small study of routings under autocast.
#   bash examples/gpu/run.sh WORK_DIR [PART…]
# Without parts, all of them; `--list` in the place of WORK_DIR names them. Each takes less than ten minutes and goes on
# where it stopped, or is left out once it is done. WORK_DIR/results.jsonl has a row for each result.
# Without a network, nothing is installed: PACKAGES is a file of packages.sh, PYTHON the interpreter whose torch is used:
#   PYTHON=python3.12 PACKAGES=packages.tar.xz bash examples/gpu/run.sh WORK_DIR tests benchmark-wmt-4096
# Part data makes the corpus, on any machine (it needs the extra quickstart); WORK_DIR is carried then. MOS_GPU_TRIAL=1
# tries the script itself: on a CPU, with tiny sizes.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
routings=(none layer neuron)
known=(data tests benchmark-small benchmark-wmt-4096 benchmark-wmt-16384 benchmark-decode benchmark-memory latency)
known+=("${routings[@]/#/study-}")
fail() {
    echo "error: $1" >&2
    exit 1
}
if [ "${1:-}" = --list ]; then
    printf '%s\n' "${known[@]}"
    exit 0
fi
if [ $# -lt 1 ]; then
    sed -n '2,11s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
mkdir -p "$1"
work=$(cd "$1" && pwd)
shift
parts=("$@")
[ $# -gt 0 ] || parts=("${known[@]}")
for part in "${parts[@]}"; do
    [[ " ${known[*]} " == *" $part "* ]] || fail "PART is $part: allowed are ${known[*]}"
done

# --- what runs ---
if [ -n "${PACKAGES:-}" ]; then
    [ -f "$PACKAGES" ] || fail "PACKAGES is $PACKAGES: no such file"
    if [ ! -e "$work/unpacked" ] || [ "$PACKAGES" -nt "$work/unpacked" ]; then
        rm -rf "$work/packages"
        tar -C "$work" -xJf "$PACKAGES"
        touch "$work/unpacked"
    fi
    export PYTHONPATH="$work/packages:$root${PYTHONPATH:+:$PYTHONPATH}"
    python=${PYTHON:-python3}
else
    bash "$root/examples/tools/setup_venv.sh" test
    python=$root/.venv/bin/python
fi
python=$(command -v "$python") || fail "PYTHON is $python: not found"
if [ -n "${MOS_GPU_TRIAL:-}" ]; then
    device=cpu amp=() export_tests=pretended
    sizes=(--vocab-size 40 --length 6 --repeats 2) small=tiny wmt=tiny few=24 many=48
    lines=300 updates=6 subnets=2 visits=2 vocabulary=40
else
    "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())' || fail "torch sees no GPU here"
    device=cuda amp=(--amp) export_tests=
    sizes=(--repeats 10) small=$root/examples/studies/benchmarks/small.yaml wmt=wmt14_en_de few=4096 many=16384
    lines=20000 updates=1200 subnets=40 visits=3 vocabulary=32000
fi
# fairseq's commands and ours, by this interpreter
bin=$work/bin
mkdir -p "$bin"
command_file() { # NAME MODULE FUNCTION
    printf '#!%s\nimport sys\nfrom %s import %s\nsys.exit(%s())\n' "$python" "$2" "$3" "$3" >"$bin/$1"
    chmod +x "$bin/$1"
}
for name in preprocess train validate; do
    command_file "fairseq-$name" "fairseq_cli.$name" cli_main
done
for name in benchmark latency; do
    command_file "mos-$name" "mos_fairseq.cli.$name" main
done
export PATH="$bin:$PATH"

# --- parts ---
# a part that takes longer is stopped, and goes on when the script is started again
within=(timeout --signal=INT "${MOS_GPU_SECONDS:-570}")
data=$work/data-bin
plugin=(--user-dir "$root/mos_fairseq" --task translation_mos)

part_data() {
    "$python" "$root/examples/tools/embedded_corpus.py" --output "$work/text" --seed 1 --train "$lines" --valid 500 --test 500
    "$python" "$root/examples/tools/subwords.py" --text "$work/text" --output "$work/spm" --vocab-size "$((lines > 2000 ? 2000 : 250))"
    rm -rf "$data"
    fairseq-preprocess --source-lang en --target-lang de --joined-dictionary --srcdict "$work/spm/dict.txt" \
        --trainpref "$work/spm/train" --validpref "$work/spm/valid" --testpref "$work/spm/test" --destdir "$data" --workers 1
}

part_tests() {
    local status=0
    MOS_TEST_CUDA=$export_tests "${within[@]}" "$python" -m pytest -q -p no:cacheprovider -c "$root/pyproject.toml" \
        --rootdir "$root" "$root/tests/gpu" --junitxml "$work/tests.xml" || status=$?
    "$python" "$here/results.py" tests "$work/tests.xml" "$work/results.jsonl"
    return "$status"
}

# benchmark NAME ARGUMENTS…: one report
benchmark() {
    local name=$1
    "${within[@]}" mos-benchmark --device "$device" "${sizes[@]}" "${@:2}" --output "$work/$name"
    "$python" "$here/results.py" benchmark "$work/$name/benchmark.json" "$work/results.jsonl"
}
words=()
[ -n "${MOS_GPU_TRIAL:-}" ] || words=(--vocab-size 32000)
part_benchmark_small() { benchmark benchmark-small --search-space "$small" --suite train,precision,mixture; }
part_benchmark_wmt_4096() {
    benchmark benchmark-wmt-4096 --search-space "$wmt" "${words[@]}" --tokens "$few" --suite precision
}
part_benchmark_wmt_16384() {
    benchmark benchmark-wmt-16384 --search-space "$wmt" "${words[@]}" --tokens "$many" --suite train
}
part_benchmark_decode() { benchmark benchmark-decode --search-space "$wmt" "${words[@]}" --suite decode,batches; }
part_benchmark_memory() {
    benchmark benchmark-memory --search-space "$wmt" "${words[@]}" --tokens "$few" --suite memory
}

part_latency() {
    local measured=$work/latency.jsonl
    "${within[@]}" mos-latency measure --search-space "$wmt" --vocab-size "$vocabulary" \
        --device "$device" --num-subnets "$subnets" --repeats "$visits" --output "$measured"
    "$python" "$here/results.py" latency "$measured" "$work/results.jsonl"
}

study() { # ROUTING
    local folder=$work/study-$1
    [ -e "$work/data.done" ] || fail "WORK_DIR holds no corpus: run part data first"
    "${within[@]}" fairseq-train "$data" "${plugin[@]}" --arch transformer_mos --search-space tiny --share-all-embeddings \
        --mos-routing "$1" --subnet-sampling sandwich --criterion label_smoothed_cross_entropy_mos \
        --label-smoothing 0.1 --dropout 0.1 "${amp[@]}" \
        --optimizer adam_fused --adam-betas '(0.9, 0.98)' --lr 2e-3 --lr-scheduler inverse_sqrt --warmup-updates 300 \
        --max-tokens 2048 --max-update "$updates" --seed 1 --num-workers 2 --log-format json --log-interval 100 \
        --save-dir "$folder" --save-interval-updates 200 --keep-interval-updates 1 --no-epoch-checkpoints \
        --valid-subnets largest,smallest
    fairseq-validate "$data" "${plugin[@]}" --path "$folder/checkpoint_last.pt" --max-tokens 4096 --log-format json \
        --valid-subnets largest,random:1,random:2,random:3,smallest --valid-subset test >"$folder/validate.log"
    "$python" "$here/results.py" study "$folder/validate.log" "$work/results.jsonl" "$1"
}
part_study_none() { study none; }
part_study_layer() { study layer; }
part_study_neuron() { study neuron; }

for part in "${parts[@]}"; do
    if [ -e "$work/$part.done" ]; then
        continue
    fi
    echo "$(date +%T) $part"
    set +e # bash would ignore errors in what stands before || or in a condition
    (
        set -e
        "part_${part//-/_}"
    ) >"$work/$part.log" 2>&1
    status=$?
    set -e
    if [ "$status" != 0 ]; then
        tail -n 1 "$work/$part.log" >&2
        fail "$part ended with status $status, and goes on when started again: $work/$part.log"
    fi
    touch "$work/$part.done"
done
