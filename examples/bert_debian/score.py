"""Accuracy of a fine-tuned classifier on its test set, and whether Hugging Face's pipeline tells the same classes.

    python examples/bert_debian/score.py data-bin/section --path checkpoint_last.pt --output score.json
    python examples/bert_debian/score.py data-bin/section --path checkpoint_last.pt --output score.json \
        --huggingface FOLDER --text data/text/section/test.input0 --length 96
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.data import data_utils

import mos_fairseq  # noqa: F401  makes checkpoints readable
from mos_fairseq.files import write_atomically

HEAD = "sentence_classification_head"


@torch.inference_mode()
def classes(path: str, data: str) -> tuple[list[str], list[str], int]:
    """(found, right) classes of the test set's examples, and the model's parameters."""
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([path], arg_overrides={"data": data})
    task.load_dataset("test")
    dataset, model = task.dataset("test"), model.eval()
    names = task.label_dictionary.symbols[task.label_dictionary.nspecial :]
    found, right = {}, {}
    order = sorted(range(len(dataset)), key=dataset.num_tokens)
    for batch in data_utils.batch_by_size(order, dataset.num_tokens, max_tokens=4000):
        sample = dataset.collater([dataset[int(index)] for index in batch])
        logits, _ = model(**sample["net_input"], classification_head_name=HEAD)
        for index, mine, true in zip(batch, logits.argmax(-1), sample["target"].flatten(), strict=True):
            found[int(index)], right[int(index)] = names[int(mine)], names[int(true)]
    params = sum(parameter.numel() for parameter in model.parameters())
    return [found[i] for i in range(len(found))], [right[i] for i in range(len(right))], params


def pipeline_classes(folder: str, texts: list[str], length: int) -> list[str]:
    """Classes that transformers' pipeline tells."""
    sys.modules["torchaudio"] = None  # fairseq's, which is of another version than torch's; transformers would load it
    from transformers import pipeline

    classify = pipeline("text-classification", model=folder)
    return [classify(text, truncation=True, max_length=length)[0]["label"] for text in texts]


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder that fairseq-preprocess made")
    parser.add_argument("--path", required=True, metavar="CKPT")
    parser.add_argument("--output", required=True, metavar="JSON")
    parser.add_argument("--huggingface", metavar="DIR", help="the same model, of mos-export --format huggingface")
    parser.add_argument("--text", type=Path, help="with --huggingface: the test set's text")
    parser.add_argument("--length", type=int, help="with --huggingface: tokens after which text is cut off")
    parser.add_argument("--lines", type=int, default=500, help="with --huggingface: of the text (default: %(default)s)")
    args = parser.parse_args(argv)
    found, right, params = classes(args.path, args.data)
    hits = [mine == true for mine, true in zip(found, right, strict=True)]
    result: dict[str, Any] = {"accuracy": 100 * sum(hits) / len(hits), "examples": len(hits), "params": params}
    if args.huggingface:
        texts = args.text.read_text(encoding="utf-8").split("\n")[: min(args.lines, len(found))]
        theirs = pipeline_classes(args.huggingface, texts, args.length)
        result["huggingface"] = {
            "texts": len(theirs),
            "same": sum(mine == other for mine, other in zip(found, theirs, strict=False)),
        }
    print(json.dumps(result))
    write_atomically(args.output, json.dumps(result | {"hits": "".join("01"[hit] for hit in hits)}) + "\n")


if __name__ == "__main__":
    main()
