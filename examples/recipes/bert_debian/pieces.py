"""Split text into the tokens of a Hugging Face tokenizer.json, separated by spaces, for fairseq-preprocess.

    python examples/recipes/bert_debian/pieces.py --tokenizer tokenizer.json --text text --output pieces --length 96

Texts of ``text/`` become as many lines as they need, of at most ``--length`` tokens with the two that fairseq adds.
Examples of the other folders are cut: a single ``input0`` has the whole length, the ``input0`` of a pair a third. With
``--pairs longest``, a pair loses tokens of its longer text until it fits, as BERT does.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Tokenizer


def pieces_of(tokenizer: Tokenizer, path: Path) -> Iterator[list[str]]:
    """Tokens of each line."""
    lines = path.read_text(encoding="utf-8").split("\n")[:-1]
    for encoding in tokenizer.encode_batch(lines, add_special_tokens=False):
        yield encoding.tokens


def room(path: Path, length: int) -> int:
    """How many tokens of an example fairseq's sentence_prediction leaves to one of its columns: it adds <s>, </s>,
    and for a pair another </s> between."""
    if not path.with_suffix(".input1").exists():
        return length - 2
    return (length - 3) // 3 if path.suffix == ".input0" else length - 3 - (length - 3) // 3


def cut_pair(first: list[str], second: list[str], most: int) -> tuple[list[str], list[str]]:
    """Take the last token off the longer text, off the second where both are as long, until ``most`` are left."""
    while len(first) + len(second) > most:
        (first if len(first) > len(second) else second).pop()
    return first, second


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tokenizer", required=True, help="tokenizer.json")
    parser.add_argument("--text", required=True, type=Path, help="what descriptions.py made")
    parser.add_argument("--output", required=True, type=Path)
    parser.add_argument("--length", required=True, type=int, metavar="N", help="tokens that a model sees at a time")
    parser.add_argument("--pairs", choices=("third", "longest"), default="third", help="how pairs are cut")
    args = parser.parse_args(argv)
    tokenizer = Tokenizer.from_file(args.tokenizer)
    tokenizer.no_truncation()
    tokenizer.no_padding()
    for path in sorted(args.text.glob("*/*.*")):
        target = args.output / path.relative_to(args.text)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".label":
            target.write_bytes(path.read_bytes())
            continue
        second = path.with_suffix(".input1")
        if args.pairs == "longest" and second.exists():
            if path.suffix == ".input0":
                pairs = zip(pieces_of(tokenizer, path), pieces_of(tokenizer, second), strict=True)
                cut = [cut_pair(*pair, args.length - 3) for pair in pairs]
                for column, name in ((0, "input0"), (1, "input1")):
                    lines = "".join(" ".join(pair[column]) + "\n" for pair in cut)
                    target.with_suffix(f".{name}").write_text(lines, encoding="utf-8")
            continue
        most = room(path, args.length)
        with open(target, "w", encoding="utf-8") as lines:
            for tokens in pieces_of(tokenizer, path):
                end = len(tokens) if path.suffix == ".text" else 1
                for start in range(0, end, most):
                    lines.write(" ".join(tokens[start : start + most]) + "\n")


if __name__ == "__main__":
    main()
