#!/usr/bin/env python3
"""Train a joint SentencePiece model on a parallel corpus and encode the corpus for fairseq-preprocess.

    python examples/tools/subwords.py --text data/raw --output data/spm --source en --target de --vocab-size 2000

reads {train,valid,test}.{en,de} and writes spm.model, dict.txt (the vocabulary in fairseq's format, for
``fairseq-preprocess --joined-dictionary --srcdict``) and the encoded files under the same names.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import sentencepiece

SPLITS = ("train", "valid", "test")


def train(files: list[Path], model: Path, vocab_size: int) -> sentencepiece.SentencePieceProcessor:
    """Train a unigram model that knows every character of the training text and has no BOS piece."""
    sentencepiece.SentencePieceTrainer.train(
        input=",".join(str(file) for file in files),
        model_prefix=str(model.with_suffix("")),
        vocab_size=vocab_size,
        model_type="unigram",
        character_coverage=1.0,
        bos_id=-1,
        num_threads=1,  # the model does not depend on the machine then
        minloglevel=2,
    )
    return sentencepiece.SentencePieceProcessor(model_file=str(model))


def fairseq_dictionary(processor: sentencepiece.SentencePieceProcessor) -> str:
    """The pieces in fairseq's format; fairseq adds its own special symbols."""
    ordinary = [
        processor.id_to_piece(index)
        for index in range(processor.get_piece_size())
        if not processor.is_control(index) and not processor.is_unknown(index)
    ]
    return "".join(f"{piece} 1\n" for piece in ordinary)


def encode(processor: sentencepiece.SentencePieceProcessor, source: Path, target: Path) -> None:
    """Write one file as space-separated pieces."""
    with source.open(encoding="utf-8") as lines, target.open("w", encoding="utf-8") as encoded:
        for line in lines:
            encoded.write(" ".join(processor.encode(line.rstrip("\n"), out_type=str)) + "\n")


def main(arguments: list[str] | None = None) -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description="Train and apply a joint SentencePiece model.")
    parser.add_argument("--text", type=Path, required=True, help="folder with train.en, train.de, …")
    parser.add_argument("--output", type=Path, required=True, help="folder for the model and the encoded files")
    parser.add_argument("--source", default="en", help="source language (default: %(default)s)")
    parser.add_argument("--target", default="de", help="target language (default: %(default)s)")
    parser.add_argument("--vocab-size", type=int, default=2000, help="number of pieces (default: %(default)s)")
    options = parser.parse_args(arguments)
    names = [f"{split}.{language}" for split in SPLITS for language in (options.source, options.target)]
    missing = [name for name in names if not (options.text / name).is_file()]
    if missing:
        sys.exit(f"subwords.py: {options.text} lacks {', '.join(missing)}")
    options.output.mkdir(parents=True, exist_ok=True)
    try:
        processor = train([options.text / name for name in names[:2]], options.output / "spm.model", options.vocab_size)
    except (RuntimeError, OSError) as error:  # SentencePiece says so when the text is too small, for one
        sys.exit(f"subwords.py: SentencePiece could not train on {options.text}: {error}")
    (options.output / "dict.txt").write_text(fairseq_dictionary(processor), encoding="utf-8")
    for name in names:
        encode(processor, options.text / name, options.output / name)
    print(f"{options.output}: {processor.get_piece_size()} pieces")


if __name__ == "__main__":
    main()
