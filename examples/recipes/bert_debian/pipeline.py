"""Check that Hugging Face's pipeline predicts the same classes as fairseq on the same examples.

python examples/recipes/bert_debian/pipeline.py FOLDER --text test.input0 --length 96 --scores score.json
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

sys.modules["torchaudio"] = None  # fairseq's, which is of another version than torch's; transformers would load it

from transformers import pipeline  # noqa: E402


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", help="of mos-export --format huggingface")
    parser.add_argument("--text", required=True, type=Path, help="a text a line")
    parser.add_argument("--length", required=True, type=int, help="tokens after which text is cut off")
    parser.add_argument("--scores", required=True, type=Path, help="of score.py")
    parser.add_argument("--lines", type=int, default=500, metavar="N", help="of the text (default: %(default)s)")
    args = parser.parse_args(argv)
    fairseqs = json.loads(args.scores.read_text())["found"][: args.lines]
    texts = args.text.read_text(encoding="utf-8").split("\n")[: len(fairseqs)]
    classify = pipeline("text-classification", model=args.folder)
    found = [classify(text, truncation=True, max_length=args.length)[0]["label"] for text in texts]
    same = sum(mine == theirs for mine, theirs in zip(found, fairseqs, strict=True))
    print(json.dumps({"texts": len(texts), "same": same}))


if __name__ == "__main__":
    main()
