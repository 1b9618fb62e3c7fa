#!/usr/bin/env python3
"""Updates of masked language models: supernets by routing against stock fairseq's ``roberta``, in turn in one process.

    OMP_NUM_THREADS=1 python examples/studies/benchmarks/masked_updates.py --repeats 20 --output rows.json

The sizes are those of all-MiniLM-L6-v2 by default: 6 layers, 384 wide, 30,522 words. The largest subnet trains. An
update is a forward and backward pass of masked words' cross entropy (15 % of the tokens) and a step of Adam.
"""

from __future__ import annotations

import argparse
import json
import logging
from argparse import Namespace
from collections.abc import Callable
from types import SimpleNamespace

logging.disable(logging.INFO)  # fairseq sets the root logger to debug when it is imported

import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from fairseq.models.roberta import RobertaModel  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from mos_fairseq.benchmark.timing import Section, in_turn  # noqa: E402
from mos_fairseq.files import write_atomically  # noqa: E402
from mos_fairseq.latency import machine  # noqa: E402
from mos_fairseq.models import RobertaMosConfig, RobertaMosModel, placeholder_dictionary  # noqa: E402
from mos_fairseq.search_space import SearchSpace  # noqa: E402

STOCK, LENGTH, MASKED = "stock roberta", 96, 0.15
TARGETS = {STOCK: {"none": 1.03}, "none": {"layer": 1.05, "neuron": 1.05}}


def update(model: nn.Module, tokens: Tensor, masked: Tensor) -> Callable[[], None]:
    """A function that trains once on the tokens [sentences, length], of which ``masked`` are predicted."""
    model.train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01, fused=True)

    def step() -> None:
        optimizer.zero_grad()
        logits = model(tokens, masked_tokens=masked)[0]
        F.cross_entropy(logits, tokens[masked], reduction="sum").backward()
        optimizer.step()

    return step


def main(argv: list[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("layers", 6), ("width", 384), ("ffn", 1536), ("heads", 12), ("words", 30518)):
        parser.add_argument(f"--{name}", type=int, default=default, help="(default: %(default)s)")
    parser.add_argument("--tokens", type=int, default=1024, help="of a mini-batch (default: %(default)s)")
    parser.add_argument("--repeats", type=int, default=20, help="rounds (default: %(default)s)")
    parser.add_argument("--output", help="file of the rows as JSON")
    args = parser.parse_args(argv)
    words = placeholder_dictionary(args.words)
    words.add_symbol("<mask>")
    sizes = Namespace(encoder_embed_dim=args.width, encoder_ffn_embed_dim=args.ffn, encoder_layers=args.layers)
    sizes.encoder_attention_heads, sizes.max_positions = args.heads, 512
    space = SearchSpace.from_dict(
        {
            "family": "encoder_only",
            "encoder_embed_dim": [args.width],
            "encoder_layers": [args.layers, args.layers // 2],
            "encoder_ffn_embed_dim": [args.ffn, args.ffn // 2],
            "encoder_attention_heads": [args.heads, args.heads // 2],
            "head_dim": args.width // args.heads,
        }
    )
    generator = torch.Generator().manual_seed(1)
    tokens = torch.randint(4, len(words), (max(1, args.tokens // LENGTH), LENGTH), generator=generator)
    masked = torch.rand(tokens.shape, generator=generator).lt(MASKED)
    torch.manual_seed(1)
    models: dict[str, nn.Module] = {}
    models[STOCK] = RobertaModel.build_model(sizes, SimpleNamespace(source_dictionary=words))
    for routing in ("none", "layer", "neuron"):
        cfg = RobertaMosConfig(search_space=space.dumps(), mos_routing=routing, max_positions=512)
        models[routing] = RobertaMosModel.from_search_space(cfg, space, words)
        models[routing].set_active_subnet(space.largest())
    seconds = in_turn({name: update(model, tokens, masked) for name, model in models.items()}, args.repeats, 2)
    found = []
    for base, names in ((STOCK, [STOCK, "none"]), ("none", ["none", "layer", "neuron"])):
        section = Section("update", {name: seconds[name] for name in names}, base, tokens.numel(), TARGETS[base])
        found.append(section.to_dict())
        for row in section.rows():
            ratio = f"{row['ratio']:.3f} of {base} {row['interval']}" if "ratio" in row else "1"
            print(f"{row['variant']:14} {row['median_ms']:8.1f} ms  {ratio}", flush=True)
    if args.output:
        record = {"sizes": vars(args), "threads": torch.get_num_threads(), "machine": machine(), "sections": found}
        write_atomically(args.output, json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
