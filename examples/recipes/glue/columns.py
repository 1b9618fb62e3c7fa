"""Take texts and labels out of a GLUE task's folder, as train, valid and test.

    python examples/recipes/glue/columns.py --task RTE --glue glue_data/RTE --output text/RTE

GLUE's own test sets have no labels: its development set (of MNLI, the matched one) becomes ``test``, and every 20th
example of its training set becomes ``valid``, on which a search may choose.
"""

from __future__ import annotations

import argparse
import csv
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported

from mos_fairseq.files import write_atomically  # noqa: E402

# task -> columns of the text, of a second one, and of the label: their names, or their places where there is no header
TASKS: dict[str, tuple[str, str | None, str] | tuple[int, None, int]] = {
    "CoLA": (3, None, 1),
    "SST-2": ("sentence", None, "label"),
    "MRPC": ("#1 String", "#2 String", "Quality"),
    "QQP": ("question1", "question2", "is_duplicate"),
    "MNLI": ("sentence1", "sentence2", "gold_label"),
    "QNLI": ("question", "sentence", "label"),
    "RTE": ("sentence1", "sentence2", "label"),
    "WNLI": ("sentence1", "sentence2", "label"),
}
HELD_OUT = 20


def examples(path: Path, task: str) -> Iterator[tuple[str, ...]]:
    """Texts and label of each line; lines with another number of columns than the first are left out, and counted."""
    left_out = 0
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        first = next(rows, None)
        if first is None:
            sys.exit(f"error: {path} is empty")
        chosen = [column for column in TASKS[task] if column is not None]
        if isinstance(chosen[0], str):
            missing = [str(column) for column in chosen if column not in first]
            if missing:
                sys.exit(f"error: {path} has no column {', '.join(missing)}: is it GLUE's {task}?")
            places, header = [first.index(column) for column in chosen], True
        else:
            places, header = [int(column) for column in chosen], False
            if len(first) <= max(places):
                sys.exit(f"error: {path} has {len(first)} columns: is it GLUE's {task}?")
        for row in rows if header else (first, *rows):
            if len(row) == len(first):
                yield tuple(" ".join(row[place].split()) for place in places)
            else:
                left_out += 1
    if left_out:
        print(f"warning: {path}: left out for another number of columns: {left_out} of its lines", file=sys.stderr)


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
    names = ["input0", "label"] if TASKS[args.task][1] is None else ["input0", "input1", "label"]
    args.output.mkdir(parents=True, exist_ok=True)
    for split, found in splits.items():
        for name, column in zip(names, zip(*found, strict=True), strict=True):
            write_atomically(args.output / f"{split}.{name}", "".join(f"{text}\n" for text in column))
    print(f"{args.output}: {', '.join(f'{len(found)} {split}' for split, found in splits.items())}")


if __name__ == "__main__":
    main()
