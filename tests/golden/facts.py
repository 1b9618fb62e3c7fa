"""Facts that files of earlier versions depend on, recomputed: keys, order, drawing, encodings, genes, costs, names.

``architecture.json`` has these facts as commit f468d68 computed them. The test beside it compares. A difference means
that checkpoints, searches or predictors of earlier versions no longer mean the same. Made by

    python -m tests.golden.facts >tests/golden/architecture.json
"""

from __future__ import annotations

import json
import random
from itertools import islice
from typing import Any

from mos_fairseq.cost import CostOptions, subnet_cost
from mos_fairseq.latency.features import Features
from mos_fairseq.nas.genes import GeneSpace
from mos_fairseq.search_space import ENCODING_KINDS, ElasticSchedule, SearchSpace, Subnet, arch_encoding, resolve_subnet
from tests.helpers import supernet
from tests.spaces import HEAD_DIM_SPACE, SMALL_SPACE

SPACES = {name: name for name in ("iwslt14_de_en", "tiny", "wmt14_en_de", "wmt14_en_fr", "wmt19_en_de")}
SPACES |= {"small": json.dumps(SMALL_SPACE), "head_dim": json.dumps(HEAD_DIM_SPACE)}
COSTS = (
    CostOptions(),
    CostOptions(src_len=7, tgt_len=5, vocab_size=101, tgt_vocab_size=97, encoder_normalize_before=True),
    CostOptions(vocab_size=50, share_all_embeddings=True, layernorm_embedding=True, decoder_normalize_before=True),
    CostOptions(vocab_size=50, share_decoder_input_output_embed=True, encoder_learned_pos=True),
    CostOptions(vocab_size=50, decoder_learned_pos=True, max_target_positions=9),
)
SUPERNETS = (
    {"mos_routing": "none"},
    {"mos_routing": "layer", "num_experts": 3, "mos_linears": "all"},
    {"mos_routing": "neuron", "router_layers": 1},
    {"mos_routing": "neuron", "mos_linears": "attention", "arch_encoding": "per_layer"},
    {"mos_routing": "layer", "share_all_embeddings": False, "share_decoder_input_output_embed": True},
    {"mos_routing": "none", "layernorm_embedding": True, "decoder_learned_pos": True, "encoder_normalize_before": True},
)


def space_facts(spec: str) -> dict[str, Any]:
    """Of one search space."""
    space = SearchSpace.from_spec(spec)
    genes, rng = GeneSpace(space), random.Random("golden")
    first = genes.random(rng)
    drawn = [first, genes.mutate(first, 0.3, rng), genes.crossover(first, genes.random(rng), rng)]
    shrinking = ElasticSchedule.from_spec("decoder_ffn_embed_dim:10,decoder_layers:20", space)
    subnets = [resolve_subnet(spec, space) for spec in ("largest", "smallest", "random:3", "random:4")]
    subnets += [space.sample_subnet("train", seed, update, 0) for seed, update in ((1, 0), (7, 500))]
    return {
        "dumps": space.dumps(),
        "size": space.size,
        "first": [subnet.key for subnet in islice(space.iterate(), 5)],
        "genes": {"sizes": genes.sizes, "drawn": drawn, "decoded": [genes.decode(vector).key for vector in drawn]},
        "shrinking": [shrinking.space_at(update).dumps() for update in (9, 10, 20)],
        "subnets": [subnet_facts(subnet, space, genes) for subnet in subnets],
    }


def subnet_facts(subnet: Subnet, space: SearchSpace, genes: GeneSpace) -> dict[str, Any]:
    """Of one subnet."""
    features = Features.of_subnets([subnet], space)
    return {
        "key": subnet.key,
        "summary": subnet.summary(),
        "cross_spans": subnet.cross_spans,
        "genes": genes.encode(subnet),
        "encoding": {kind: arch_encoding(subnet, space, kind) for kind in ENCODING_KINDS},
        "costs": [subnet_cost(subnet, options).to_dict() for options in COSTS],
        "terms": features.terms[0].tolist(),
        "features": features.everything[0].tolist(),
    }


def supernet_facts(options: dict[str, Any]) -> dict[str, Any]:
    """Return the names and shapes of the weights in checkpoints of a supernet of the small space."""
    model = supernet(**{"num_experts": 2} | options)
    twin = model.get_active_subnet()
    return {
        "options": options,
        "parameters": {name: list(p.shape) for name, p in model.named_parameters()},
        "twin": {name: list(p.shape) for name, p in twin.named_parameters()},
    }


def facts() -> dict[str, Any]:
    """All of them, as JSON holds them."""
    found = {
        "spaces": {name: space_facts(spec) for name, spec in SPACES.items()},
        "supernets": [supernet_facts(options) for options in SUPERNETS],
    }
    return json.loads(json.dumps(found))


def text() -> str:
    """The facts with a line for each subnet and each supernet, so that a difference shows where it is."""
    line = json.dumps(facts(), separators=(",", ":"))
    for start in ('{"key"', '{"options"'):
        line = line.replace(start, f"\n{start}")
    return line


if __name__ == "__main__":
    print(text())
