"""A baseline of word counts on the same examples: TF-IDF of words and pairs of words, and logistic
regression.

    python examples/recipes/bert_debian/baseline.py --text data/text/section --examples 4000 --output score.json

Features of a pair: the weight of each word and pair of words in both texts, and the texts' similarity (cosine).
"""

from __future__ import annotations

import argparse
import json
from collections import Counter
from pathlib import Path
from typing import Any

import scipy.sparse
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from mos_fairseq.files import write_atomically


def lines(path: Path, count: int | None = None) -> list[str]:
    """The first ``count`` lines of a file."""
    return path.read_text(encoding="utf-8").split("\n")[:-1][:count]


def features(words: TfidfVectorizer, columns: list[list[str]]) -> Any:
    """Of examples with one or two texts."""
    tables = [words.transform(column) for column in columns]
    if len(tables) == 1:
        return tables[0]
    both = tables[0].multiply(tables[1])
    return scipy.sparse.hstack([both, both.sum(axis=1)]).tocsr()


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True, type=Path, help="folder of a task that descriptions.py made")
    parser.add_argument("--examples", type=int, metavar="N", help="to learn from (default: all)")
    parser.add_argument("--test-examples", type=int, metavar="N", help="to be judged on (default: all)")
    parser.add_argument("--output", required=True, metavar="JSON")
    args = parser.parse_args(argv)
    names = [name for name in ("input0", "input1") if (args.text / f"train.{name}").exists()]
    counts = {"train": args.examples, "test": args.test_examples}
    columns = {split: [lines(args.text / f"{split}.{name}", n) for name in names] for split, n in counts.items()}
    labels = {split: lines(args.text / f"{split}.label", n) for split, n in counts.items()}
    words = TfidfVectorizer(sublinear_tf=True, ngram_range=(1, 2), min_df=2)
    words.fit([text for column in columns["train"] for text in column])
    model = LogisticRegression(C=10, max_iter=300).fit(features(words, columns["train"]), labels["train"])
    found = model.predict(features(words, columns["test"]))
    hits = [mine == true for mine, true in zip(found, labels["test"], strict=True)]
    commonest = Counter(labels["train"]).most_common(1)[0][0]
    result = {
        "accuracy": 100 * sum(hits) / len(hits),
        "majority": 100 * labels["test"].count(commonest) / len(hits),
        "examples": len(hits),
    }
    print(json.dumps(result))
    write_atomically(args.output, json.dumps(result | {"hits": "".join("01"[hit] for hit in hits)}) + "\n")


if __name__ == "__main__":
    main()
