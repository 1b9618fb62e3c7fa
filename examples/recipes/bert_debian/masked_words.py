"""Loss of masked language models on the first test texts, in masked.json beside each checkpoint.

    python examples/recipes/bert_debian/masked_words.py data-bin/text --texts 1000 masked/*/checkpoint_last.pt

In bits a masked word. All models predict the same words, whichever seed they were trained with. The file has the bits
and the number of words of each text, for comparisons in pairs.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import sys
from pathlib import Path

logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported

import torch  # noqa: E402
from fairseq import checkpoint_utils  # noqa: E402

import mos_fairseq  # noqa: E402, F401  makes checkpoints readable
from mos_fairseq.errors import InputError  # noqa: E402
from mos_fairseq.files import write_atomically  # noqa: E402
from mos_fairseq.masked import predicted_tokens, summed_loss  # noqa: E402


@torch.inference_mode()
def losses(path: Path, data: str, texts: int) -> dict[str, object]:
    """Bits a word; bits and number of words of each text."""
    overrides = {"data": data, "seed": 1}
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)], arg_overrides=overrides)
    task.load_dataset("test")
    dataset, model, padding = task.dataset("test"), model.eval(), task.source_dictionary.pad()
    dataset.set_epoch(1)
    bits, words = [], []
    for i in range(min(texts, len(dataset))):
        sample = dataset.collater([dataset[i]])
        bits.append(float(summed_loss(model, sample, padding)) / math.log(2))
        words.append(predicted_tokens(model, sample, padding))
    asked = {"data": data, "texts": texts}
    return asked | {"mean": sum(bits) / sum(words), "bits": bits, "words": words}


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("paths", nargs="+", type=Path, metavar="CKPT")
    parser.add_argument("--texts", required=True, type=int, metavar="N")
    args = parser.parse_args(argv)
    if args.texts < 1:
        parser.error(f"--texts is {args.texts}: allowed are numbers from 1")
    for path in args.paths:
        output = path.parent / "masked.json"
        if output.exists() and output.stat().st_mtime >= path.stat().st_mtime:
            found = json.loads(output.read_text())
            if (found["data"], found["texts"]) == (args.data, args.texts):
                print(f"{path.parent.name}: {found['mean']:.3f} bits a word, measured before")
                continue
        try:
            found = losses(path, args.data, args.texts)
        except (InputError, OSError) as error:
            sys.exit(f"error: {error}")
        write_atomically(output, json.dumps(found) + "\n")
        print(f"{path.parent.name}: {found['mean']:.3f} bits a word, {sum(found['words'])} words", flush=True)


if __name__ == "__main__":
    main()
