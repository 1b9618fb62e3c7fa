#!/usr/bin/env bash
# A task of GLUE, binarized for an encoder of Hugging Face's (a folder of a BERT or RoBERTa with tokenizer.json):
#   bash examples/recipes/glue/prepare.sh GLUE_DIR TASK ENCODER WORK_DIR
# GLUE_DIR has a folder for each task, with train.tsv and dev.tsv. LENGTH (128): tokens that models see at a time.
# SPACE (bert_uniform): the search space whose largest subnet the encoder becomes, ROUTING (neuron) its routing.
# Afterwards WORK_DIR/TASK has data-bin, and encoder.pt, the supernet to start from. Run again, it makes both anew.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../../.." && pwd)
if [ $# -ne 4 ]; then
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "${BASH_SOURCE[0]}" >&2
    exit 2
fi
glue=$1 task=$2 encoder=$3 length=${LENGTH:-128}
[[ $length =~ ^[0-9]{1,3}$ ]] && [ "$length" -ge 8 ] && [ "$length" -le 512 ] || {
    echo "error: LENGTH is $length: allowed are 8 to 512, a BERT's positions" >&2
    exit 1
}
if [ ! -r "$encoder/tokenizer.json" ]; then
    echo "error: $encoder/tokenizer.json is missing" >&2
    exit 1
fi
if ! command -v fairseq-preprocess >/dev/null; then
    export PATH="$root/.venv/bin:$PATH" # of setup_venv.sh huggingface
fi
mkdir -p "$4/$task"
work=$(cd "$4/$task" && pwd)
python "$here/columns.py" --task "$task" --glue "$glue/$task" --output "$work/text/examples"
mos-warm-start --path "$encoder" --search-space "${SPACE:-bert_uniform}" --mos-routing "${ROUTING:-neuron}" \
    --output "$work/encoder.pt"
python "$root/examples/recipes/bert_debian/pieces.py" --tokenizer "$encoder/tokenizer.json" --text "$work/text" \
    --output "$work/pieces" --length "$length" --pairs longest
rm -rf "$work/data-bin.new"
for column in input0 input1 label; do
    from=$work/pieces/examples
    [ -e "$from/train.$column" ] || continue
    words=(--srcdict "$work/encoder.pt.dict.txt")
    [ $column != label ] || words=(--padding-factor 1)
    fairseq-preprocess --only-source --trainpref "$from/train.$column" --validpref "$from/valid.$column" \
        --testpref "$from/test.$column" "${words[@]}" --destdir "$work/data-bin.new/$column" --workers 1 \
        >"$work/preprocess.log" 2>&1 || {
        echo "error: fairseq-preprocess failed: see $work/preprocess.log" >&2
        exit 1
    }
done
rm -rf "$work/data-bin"
mv "$work/data-bin.new" "$work/data-bin"
echo "data: $work/data-bin"
