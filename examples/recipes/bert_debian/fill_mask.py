"""Check that the fill-mask pipeline of Hugging Face finds the same words as fairseq for the middle word of each text.

    python examples/recipes/bert_debian/fill_mask.py FOLDER --path subnet.pt --data data-bin/text --text test.text

FOLDER is what ``mos-export --format huggingface --path subnet.pt`` made of a masked language model.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

sys.modules["torchaudio"] = None  # fairseq's, which is of another version than torch's; transformers would load it
logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported

import torch  # noqa: E402
from fairseq import checkpoint_utils  # noqa: E402
from transformers import pipeline  # noqa: E402

import mos_fairseq  # noqa: E402, F401  makes checkpoints readable


def masked(text: str, mask: str) -> str:
    """Replace the word in the middle."""
    words = text.split()
    words[len(words) // 2] = mask
    return " ".join(words)


@torch.inference_mode()
def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="of mos-export --format huggingface")
    parser.add_argument("--path", required=True, metavar="CKPT", help="the exported subnet, for fairseq")
    parser.add_argument("--data", required=True, help="folder with the dictionary")
    parser.add_argument("--text", required=True, type=Path, help="a text a line")
    parser.add_argument("--length", required=True, type=int, help="tokens; longer texts are left out")
    parser.add_argument("--lines", type=int, default=500, metavar="N", help="of the text (default: %(default)s)")
    args = parser.parse_args(argv)
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([args.path], arg_overrides={"data": args.data})
    words = task.source_dictionary
    fill = pipeline("fill-mask", model=args.folder, top_k=1)
    tokenizer = fill.tokenizer
    count = same = 0
    for line in args.text.read_text(encoding="utf-8").split("\n"):
        if count == args.lines or not line:
            break
        text = masked(line, tokenizer.mask_token)
        tokens = tokenizer.tokenize(text, add_special_tokens=True)
        if len(tokens) > args.length:
            continue
        symbols = ["<mask>" if token == tokenizer.mask_token else token for token in tokens[1:-1]]
        ids = [words.bos(), *map(words.index, symbols), words.eos()]
        logits = model.eval()(torch.tensor([ids]))[0][0, tokens.index(tokenizer.mask_token)]
        theirs = tokenizer.convert_ids_to_tokens(fill(text)[0]["token"])
        same += words[int(logits.argmax())] == theirs
        count += 1
    print(json.dumps({"texts": count, "same": same}))


if __name__ == "__main__":
    main()
