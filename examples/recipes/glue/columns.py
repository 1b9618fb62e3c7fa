"""Take texts and labels out of a GLUE task's folder, as train, valid and test.

    python examples/recipes/glue/columns.py --task RTE --glue glue_data/RTE --output text/RTE

GLUE's own test sets have no labels: its development set (of MNLI, the matched one) becomes ``test``, and every 20th
example of its training set becomes ``valid``, on which a search may choose.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported

from mos_fairseq.files import write_atomically  # noqa: E402

# task -> names of the columns of the text, of a second one, and of the label
TASKS: dict[str, tuple[str, ...]] = {
    "CoLA": ("sentence", "label"),
    "SST-2": ("sentence", "label"),
    "MRPC": ("#1 String", "#2 String", "Quality"),
    "QQP": ("question1", "question2", "is_duplicate"),
    "MNLI": ("sentence1", "sentence2", "gold_label"),
    "QNLI": ("question", "sentence", "label"),
    "RTE": ("sentence1", "sentence2", "label"),
    "WNLI": ("sentence1", "sentence2", "label"),
}
COLA = ["source", "label", "original", "sentence"]  # its files have no line of names
HELD_OUT = 20


def examples(path: Path, task: str) -> Iterator[tuple[str, ...]]:
    """Texts and label of each line. Lines with another number of columns, an empty text, or a label that is not one
    word (of CoLA, 0 or 1) are left out, and counted."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        sys.exit(f"error: {path} cannot be read as UTF-8: {error}")
    rows = [line.rstrip("\r").split("\t") for line in lines if line]
    if not rows:
        sys.exit(f"error: {path} is empty")
    names = COLA if task == "CoLA" else rows.pop(0)
    missing = [name for name in TASKS[task] if name not in names]
    if missing:
        sys.exit(f"error: {path} has no column {', '.join(missing)}: is it GLUE's {task}?")
    places = [names.index(name) for name in TASKS[task]]
    left_out = 0
    for row in rows:
        found = tuple(" ".join(row[place].split()) for place in places) if len(row) == len(names) else ()
        if found and all(found) and " " not in found[-1] and (task != "CoLA" or found[-1] in ("0", "1")):
            yield found
        else:
            left_out += 1
    if left_out:
        print(
            f"warning: {path}: {left_out} of {len(rows)} lines are no examples of {task}, and left out", file=sys.stderr
        )


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", required=True, choices=TASKS, help="STS-B is regression: not supported")
    parser.add_argument("--glue", required=True, type=Path, help="the task's folder, with train.tsv and dev.tsv")
    parser.add_argument("--output", required=True, type=Path)
    args = parser.parse_args(argv)
    dev = args.glue / ("dev_matched.tsv" if args.task == "MNLI" else "dev.tsv")
    for path in (args.glue / "train.tsv", dev):
        if not path.is_file():
            sys.exit(f"error: {path} is missing")
    train = list(examples(args.glue / "train.tsv", args.task))
    splits = {
        "train": [example for i, example in enumerate(train, start=1) if i % HELD_OUT],
        "valid": train[HELD_OUT - 1 :: HELD_OUT],
        "test": list(examples(dev, args.task)),
    }
    if not (splits["valid"] and splits["test"]):
        sizes = f"{len(train)} and {len(splits['test'])} examples"
        sys.exit(f"error: {args.glue} has {sizes}: allowed are {HELD_OUT} and 1 or more")
    names = ["input0", "input1", "label"] if len(TASKS[args.task]) == 3 else ["input0", "label"]
    try:
        args.output.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        sys.exit(f"error: {args.output}: {error.strerror}")
    for split, found in splits.items():
        for name, column in zip(names, zip(*found, strict=True), strict=True):
            write_atomically(args.output / f"{split}.{name}", "".join(f"{text}\n" for text in column))
    print(f"{args.output}: {', '.join(f'{len(found)} {split}' for split, found in splits.items())}")


if __name__ == "__main__":
    main()
