"""Counted costs equal the built twin's, torch's own FLOP counter's and HAT's published ones."""

import json

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mos_fairseq.cli import cost as cost_command
from mos_fairseq.cost import CostOptions, subnet_cost
from mos_fairseq.errors import InputError
from mos_fairseq.models import (
    RobertaSubnetConfig,
    RobertaSubnetModel,
    TransformerLanguageModelSubnetConfig,
    TransformerLanguageModelSubnetModel,
    TransformerSubnetConfig,
    TransformerSubnetModel,
)
from mos_fairseq.search_space import SearchSpace, Subnet, check_options
from tests.helpers import dictionary
from tests.spaces import (
    BERT_RANK_SPACE,
    BERT_SPACE,
    BOTTLENECK_SPACE,
    ELASTIC_Q_SPACE,
    FACTORISED_SPACE,
    HEAD_DIM_SPACE,
    LM_SPACE,
    RANK_SPACE,
    SMALL_SPACE,
)

SPACES = {"q": SMALL_SPACE, "head": HEAD_DIM_SPACE, "elastic_q": ELASTIC_Q_SPACE, "rank": RANK_SPACE}
VOCAB, TARGET_VOCAB = 31, 37
EMBEDDINGS = [
    {"share_all_embeddings": True, "encoder_normalize_before": True},
    {"share_decoder_input_output_embed": True, "decoder_normalize_before": True, "decoder_learned_pos": True},
    {"layernorm_embedding": True, "encoder_learned_pos": True, "max_source_positions": 19},
]
HAT_EXAMPLE = Subnet(  # published with HAT (arXiv 2005.14187): 49.38 M parameters, 3.09 GFLOPs
    encoder_embed_dim=512,
    decoder_embed_dim=512,
    encoder_layers=6,
    decoder_layers=5,
    encoder_ffn_embed_dim=3072,
    encoder_attention_heads=8,
    decoder_ffn_embed_dim=(2048, 2048, 3072, 3072, 3072),
    decoder_attention_heads=8,
    decoder_ende_attention_heads=8,
    decoder_arbitrary_ende_attn=(-1, 1, 1, 1, -1),
    qkv_dim=512,
)


def build(subnet: Subnet, target_vocab: int, **options) -> TransformerSubnetModel:
    positions = {"max_source_positions": 50, "max_target_positions": 50}
    cfg = TransformerSubnetConfig(subnet=subnet.key, **(positions | options))
    return TransformerSubnetModel.from_subnet(cfg, subnet, dictionary(VOCAB), dictionary(target_vocab)).eval()


def counted_flops(model, src_len: int, tgt_len: int) -> int:
    src, prev = torch.full((1, src_len), 5), torch.full((1, tgt_len), 6)
    # the counter supports matrix products; fused CPU attention is an operation that it lacks
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(src, torch.tensor([src_len]), prev)
    return counter.get_total_flops()


@pytest.mark.parametrize("options", EMBEDDINGS, ids=lambda o: "-".join(o))
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_counts_are_those_of_the_built_twin(space, options):
    space = SearchSpace.from_dict(space)
    target_vocab = VOCAB if options.get("share_all_embeddings") else TARGET_VOCAB
    sizes = {"src_len": 7, "tgt_len": 5, "vocab_size": VOCAB, "tgt_vocab_size": target_vocab}
    positions = {"max_source_positions": 50, "max_target_positions": 50}
    for subnet in (space.largest(), space.smallest(), *(space.sample_subnet("cost", i) for i in range(4))):
        model = build(subnet, target_vocab, **options)
        cost = subnet_cost(subnet, CostOptions(**(sizes | positions | options)))
        total = sum(p.numel() for p in model.parameters())
        outer = {id(p): p.numel() for n, p in model.named_parameters() if "embed_" in n or "output_embedding" in n}
        assert cost.params == total
        assert cost.params_without_embeddings == total - sum(outer.values())
        assert cost.flops == counted_flops(model, 7, 5)
        projection = 2 * 5 * subnet.decoder_embed_dim * target_vocab
        assert cost.flops_without_output_projection == cost.flops - projection


@pytest.mark.parametrize(
    "options",
    [
        {"share_decoder_input_output_embed": True, "decoder_learned_pos": True},
        {"layernorm_embedding": True, "share_decoder_input_output_embed": False},
    ],
    ids=lambda o: "-".join(o),
)
@pytest.mark.parametrize("elastic_q", [False, True])
def test_a_language_models_counts_are_those_of_the_built_twin(elastic_q, options):
    q = {"decoder_qkv_dim": [24, 16], "decoder_ffn_rank": [12, 5]} if elastic_q else {"qkv_dim": 24}
    space = SearchSpace.from_dict({key: value for key, value in LM_SPACE.items() if key != "qkv_dim"} | q)
    for subnet in (space.largest(), space.smallest(), space.sample_subnet("cost")):
        config = TransformerLanguageModelSubnetConfig(subnet=subnet.key, max_target_positions=19, **options)
        model = TransformerLanguageModelSubnetModel.from_subnet(config, subnet, dictionary(VOCAB)).eval()
        cost = subnet_cost(subnet, CostOptions(tgt_len=5, vocab_size=VOCAB, max_target_positions=19, **options))
        assert cost.params == sum(p.numel() for p in model.parameters())
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(torch.full((1, 5), 6))
        assert cost.flops == counter.get_total_flops()


def test_a_model_without_positions_has_no_learned_ones():
    subnet = SearchSpace.from_dict(SMALL_SPACE).largest()
    learned = {"encoder_learned_pos": True, "decoder_learned_pos": True, "share_all_embeddings": True}
    for without in (False, True):
        model = build(subnet, VOCAB, no_token_positional_embeddings=without, **learned)
        cost = subnet_cost(subnet, CostOptions.of_model(model.cfg, VOCAB, VOCAB))
        assert cost.params == sum(p.numel() for p in model.parameters())


MASKED = {"bert": BERT_SPACE, "hidden": FACTORISED_SPACE, "bottleneck": BOTTLENECK_SPACE, "rank": BERT_RANK_SPACE}


@pytest.mark.parametrize("options", [{}, {"untie_weights_roberta": True, "encoder_normalize_before": True}], ids=len)
@pytest.mark.parametrize("data", MASKED.values(), ids=MASKED)
def test_a_masked_language_models_counts_are_those_of_the_built_twin(data, options):
    space = SearchSpace.from_dict(data)
    for subnet in (space.largest(), space.smallest(), *(space.sample_subnet("cost", i) for i in range(8))):
        config = RobertaSubnetConfig(subnet=subnet.key, max_positions=19, **options)
        model = RobertaSubnetModel.from_subnet(config, subnet, dictionary(VOCAB)).eval()
        cost = subnet_cost(subnet, CostOptions(src_len=5, vocab_size=VOCAB, max_positions=19, **options))
        assert cost.params == sum(p.numel() for p in model.parameters())
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
            model(torch.full((1, 5), 6))
        assert cost.flops == counter.get_total_flops()
        assert cost.flops - cost.flops_without_output_projection == 2 * 5 * subnet.encoder_embed_dim * VOCAB


def test_published_figures_of_mos_bert():
    """Of MoS-BERT's code (arXiv 2306.04845): bert-base-uncased's vocabulary, maps merged, no bias of the output."""
    options = CostOptions(vocab_size=30522)  # 512 positions; its table has as many, and two token types

    def params(subnet: Subnet) -> int:
        return subnet_cost(subnet, options).params - options.vocab_size

    bottleneck = SearchSpace.from_spec("bert_bottleneck")
    assert bottleneck.size == 7**12
    assert params(bottleneck.smallest()) == 34_362_624
    assert params(bottleneck.smallest().replace(encoder_bottleneck_dim=360)) == 59_251_584
    assert params(bottleneck.largest()) == 117_161_472
    sizes = {"encoder_layers": 12, "encoder_attention_heads": 6}
    for width, ratio, published in ((120, 200, 5_137_560), (768, 400, 109_483_776)):
        found = Subnet("encoder_only", encoder_embed_dim=width, encoder_ffn_ratio=ratio, **sizes)
        assert params(found) == published


def test_options_that_mean_nothing_for_a_family_are_refused():
    family = SearchSpace.from_dict(LM_SPACE).family
    check_options(CostOptions(vocab_size=VOCAB, tgt_len=3, decoder_learned_pos=True), family)
    for name, value in {"src_len": 3, "share_all_embeddings": True, "encoder_learned_pos": True}.items():
        with pytest.raises(InputError, match=f"^{name} is {value}: it has no effect on subnets of"):
            check_options(CostOptions(vocab_size=VOCAB, **{name: value}), family)


def test_published_figures_of_hat():
    cost = subnet_cost(HAT_EXAMPLE)
    assert cost.params_without_embeddings == 49_380_864  # "49.38 M"
    assert cost.flops_without_output_projection == pytest.approx(3.09e9, rel=0.005)
    assert cost.params is None and cost.flops is None  # they depend on the dictionary


def test_bad_sizes_are_refused():
    with pytest.raises(InputError, match="src_len is 0"):
        CostOptions(src_len=0)
    with pytest.raises(InputError, match="tgt_vocab_size=37 with share_all_embeddings"):
        CostOptions(vocab_size=31, tgt_vocab_size=37, share_all_embeddings=True)
    with pytest.raises(InputError, match="tgt_vocab_size is 37: it has no effect without vocab_size"):
        CostOptions(tgt_vocab_size=37)


@pytest.mark.parametrize(("space", "side"), [("tiny", "source"), ("tiny", "target"), ("tiny_lm", "target")])
def test_a_number_of_positions_that_are_not_learned_is_refused(capsys, space, side):
    """At its default, it passes: a script may give all of them."""
    name = {"source": "encoder", "target": "decoder"}[side]
    words = ["--search-space", space, "--subnet", "smallest", f"--max-{side}-positions"]
    with pytest.raises(InputError, match=f"^max_{side}_positions is 5: it has no effect without {name}_learned_pos"):
        cost_command.main([*words, "5"])
    cost_command.main([*words, "1024"])
    cost_command.main([*words, "5", f"--{name}-learned-pos"])
    assert capsys.readouterr().out.count("smallest") == 2
    bert = ["--search-space", "bert_tiny", "--subnet", "smallest", "--vocab-size", "20", "--json", "--max-positions"]
    for number in ("5", "6"):
        cost_command.main([*bert, number])
    five, six = map(json.loads, capsys.readouterr().out.splitlines())
    assert six["params"] > five["params"]
