#!/usr/bin/env python3
"""Cut a corpus into parts that differ: shards.py DATA OUTPUT NUMBER...

OUTPUT/NUMBER has a folder for each of NUMBER parts: consecutive training sentences (of a corpus in the order of its
sources, so that parts are of different sources), the whole validation set, and the dictionaries.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from fairseq.data import indexed_dataset


def write_part(prefix: str, target: str, part: int, number: int) -> None:
    """Write the sentences of one part."""
    dataset = indexed_dataset.make_dataset(prefix, "mmap")
    builder = indexed_dataset.make_builder(f"{target}.bin", "mmap", vocab_size=None)
    for index in range(part * len(dataset) // number, (part + 1) * len(dataset) // number):
        builder.add_item(dataset[index])
    builder.finalize(f"{target}.idx")


def main(data: str, output: str, *numbers: str) -> None:
    """Entry point."""
    source = Path(data)
    for number in map(int, numbers):
        for part in range(number):
            folder = Path(output) / str(number) / f"part{part}"
            folder.mkdir(parents=True, exist_ok=True)
            for path in (*source.glob("dict.*.txt"), *source.glob("valid.*")):
                shutil.copy(path, folder)
            for path in source.glob("train.*.bin"):
                write_part(str(path.with_suffix("")), str(folder / path.stem), part, number)


if __name__ == "__main__":
    main(*sys.argv[1:])
