"""Accuracy of fine-tuned classifiers on their test set, in score.json beside each checkpoint.

python examples/recipes/bert_debian/score.py data-bin/section tuned/*/checkpoint_last.pt
"""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path

logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported

import torch  # noqa: E402
from fairseq import checkpoint_utils  # noqa: E402
from fairseq.data import data_utils  # noqa: E402

import mos_fairseq  # noqa: E402, F401  makes checkpoints readable
from mos_fairseq.files import write_atomically  # noqa: E402

HEAD = "sentence_classification_head"


@torch.inference_mode()
def classes(path: Path, data: str) -> tuple[list[str], list[str]]:
    """(found, right) classes of the test set's examples."""
    (model,), _, task = checkpoint_utils.load_model_ensemble_and_task([str(path)], arg_overrides={"data": data})
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
    return [found[i] for i in range(len(found))], [right[i] for i in range(len(right))]


def main() -> None:
    """Entry point."""
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    data, *paths = sys.argv[1:]
    for path in map(Path, paths):
        output = path.parent / "score.json"
        if output.exists() and output.stat().st_mtime >= path.stat().st_mtime:
            print(f"{path.parent.name}: {json.loads(output.read_text())['accuracy']:.1f}, scored before")
            continue
        found, right = classes(path, data)
        hits = [mine == true for mine, true in zip(found, right, strict=True)]
        result = {"accuracy": 100 * sum(hits) / len(hits), "examples": len(hits)}
        print(f"{path.parent.name}: {result['accuracy']:.1f} of {len(hits)}", flush=True)
        result |= {"hits": "".join("01"[hit] for hit in hits), "found": found}
        write_atomically(output, json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
