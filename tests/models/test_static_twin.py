"""The static twin computes the same as the active subnet, with its parameters and no others."""

import argparse
import copy
from dataclasses import fields

import pytest
import torch
from fairseq.dataclass.utils import gen_parser_from_dataclass
from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.sequence_generator import SequenceGenerator
from fairseq.tasks import TASK_DATACLASS_REGISTRY, TASK_REGISTRY

from mos_fairseq.models import SUPERNETS, TransformerSubnetModel
from mos_fairseq.modules import ElasticLinear, LayerRouter, NeuronRouter
from mos_fairseq.search_space import SearchSpace
from tests.helpers import batch, dictionary, perturb, sample_of, supernet
from tests.spaces import HEAD_DIM_SPACE, RANK_SPACE, SMALL_SPACE

PRE_NORM = {"encoder_normalize_before": True, "decoder_normalize_before": True}
EMBEDDINGS = [
    {"layernorm_embedding": True, "decoder_normalize_before": True},
    {"share_all_embeddings": False, "share_decoder_input_output_embed": True, "encoder_learned_pos": True},
    {"share_all_embeddings": False, "decoder_learned_pos": True, **PRE_NORM},
]
ROUTINGS = [{"mos_routing": "none"}] + [
    {"mos_routing": routing, "num_experts": 3, "mos_linears": linears}
    for routing in ("layer", "neuron")
    for linears in ("ffn", "attention", "all")
]
SPACES = {"qkv_dim": SMALL_SPACE, "head_dim": HEAD_DIM_SPACE, "rank": RANK_SPACE}


def make(space: str, routing: dict, **options):
    return supernet(SearchSpace.from_dict(SPACES[space]), **routing, **options).eval()


@torch.no_grad()
def logits(model, src, prev) -> torch.Tensor:
    return model(src, src.ne(1).sum(1), prev)[0]


def hypotheses(model, eos_bonus: float = 0.0) -> list[tuple[list[int], float]]:
    """Five of each sentence; a bonus on the end of sentence lets sentences leave the batch at different times."""
    bonus = torch.zeros(31).index_fill(0, torch.tensor(2), eos_bonus)
    model.decoder.output_layer = lambda x: type(model.decoder).output_layer(model.decoder, x) + bonus
    generator = SequenceGenerator([model], dictionary(), beam_size=5, max_len_a=0, max_len_b=9)
    with torch.no_grad():
        found = generator.generate([model], sample_of(*batch()))
    return [(h["tokens"].tolist(), h["positional_scores"].sum().item()) for sentence in found for h in sentence]


@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("routing", ROUTINGS, ids=lambda o: "-".join(map(str, o.values())))
def test_twin_equals_the_active_subnet(routing, space):
    index = ROUTINGS.index(routing) + len(space)
    model = make(space, routing, **EMBEDDINGS[index % 3])
    src, prev, target = batch()
    real = target.ne(1)
    for subnet in (model.search_space.largest(), model.sample_subnet(index), model.search_space.smallest()):
        model.set_active_subnet(subnet)
        twin = model.get_active_subnet()
        torch.testing.assert_close(logits(twin, src, prev)[real], logits(model, src, prev)[real], atol=1e-5, rtol=1e-5)
        assert not any(isinstance(m, (ElasticLinear, LayerRouter, NeuronRouter)) for m in twin.modules())


@torch.no_grad()
def test_attention_to_several_encoder_layers_is_of_source_tokens():
    """A token's weight is the sum over the layers, so that all weights of a target token add up to one."""
    model = make("qkv_dim", {"mos_routing": "neuron"})
    src, prev, _ = batch()
    assert model.decoder.cross_spans[-1] == 3
    twin = model.get_active_subnet()
    mine, twins = (net(src, None, prev)[1]["attn"][0] for net in (model, twin))
    assert mine.shape == (*prev.shape, src.size(1)) and not mine[src.eq(1)[:, None].expand_as(mine)].any()
    torch.testing.assert_close(mine.sum(-1), torch.ones(prev.shape))
    torch.testing.assert_close(twins, mine)
    state: dict = {}
    encoder_out = twin.encoder(src, None)
    for step in range(prev.size(1)):
        found = twin.decoder(prev[:, : step + 1], encoder_out, state)[1]["attn"][0]
    longest = prev[:, -1].ne(1)
    torch.testing.assert_close(found[longest, 0], mine[longest, -1])


@pytest.mark.slow
@pytest.mark.parametrize("options", EMBEDDINGS, ids=lambda o: "-".join(o))
@pytest.mark.parametrize("routing", ROUTINGS[::3], ids=lambda o: o["mos_routing"])
def test_beam_search_finds_the_same_hypotheses(routing, options):
    model = make("qkv_dim", routing, **options)
    lengths = set()
    for seed, bonus in ((1, 1.5), (2, 2.5)):
        model.sample_subnet("beam", seed)
        mine, twins = hypotheses(model, bonus), hypotheses(model.get_active_subnet(), bonus)
        assert len(mine) == 15
        lengths |= {len(tokens) for tokens, _ in mine}
        assert [score for _, score in mine] == pytest.approx([score for _, score in twins], abs=1e-4)
        # of two that are as probable, rounding chooses which comes first
        assert sum(one[0] != other[0] for one, other in zip(mine, twins, strict=True)) <= 2
    assert len(lengths) > 1


def test_scores_of_beam_search_are_those_of_a_full_forward():
    """Catches caches that follow the wrong beam."""
    model = make("qkv_dim", {"mos_routing": "neuron"})
    model.sample_subnet("scores")
    src, _, _ = batch()
    for row, (tokens, score) in enumerate(hypotheses(model)):
        prev = torch.tensor([[2, *tokens[:-1]]])
        sentence = src[row // 5]
        log_probs = logits(model, sentence[sentence.ne(1)][None], prev)[0].log_softmax(-1)
        expected = sum(log_probs[t, word].item() for t, word in enumerate(tokens))
        assert score == pytest.approx(expected, abs=1e-3)


def hand_count(subnet, share: bool) -> int:
    """Parameters of a post-norm Transformer with sinusoidal positions and 31 words."""
    d, e = subnet.decoder_embed_dim, subnet.encoder_embed_dim
    total = 31 * max(d, e) if share else 31 * (e + 2 * d)

    def attention(width: int, memory: int, heads: int) -> int:
        q = subnet.qkv_dim or subnet.head_dim * heads
        return (width * q + q) + 2 * (memory * q + q) + (q * width + width)

    def both(width: int, inner: int, ranks) -> int:
        r = ranks[i] if ranks else 0
        return 2 * (r * (width + inner) if 0 < r < width * inner / (width + inner) else width * inner)

    for i in range(subnet.encoder_layers):
        f = subnet.encoder_ffn_embed_dim[i]
        total += (
            attention(e, e, subnet.encoder_attention_heads[i]) + both(e, f, subnet.encoder_ffn_rank) + f + e + 2 * 2 * e
        )
    for i in range(subnet.decoder_layers):
        f = subnet.decoder_ffn_embed_dim[i]
        total += attention(d, d, subnet.decoder_attention_heads[i])
        total += attention(d, e, subnet.decoder_ende_attention_heads[i])
        total += both(d, f, subnet.decoder_ffn_rank) + f + d + 3 * 2 * d
    return total


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("space", SPACES)
def test_parameter_count(space, share):
    model = make(space, {"mos_routing": "neuron", "num_experts": 3, "mos_linears": "all"}, share_all_embeddings=share)
    for seed in range(5):
        subnet = model.sample_subnet(seed)
        twin = model.get_active_subnet()
        assert sum(p.numel() for p in twin.parameters()) == hand_count(subnet, share)
        assert twin.subnet == subnet and dict(twin.named_buffers()).keys() == {"position_dims"}
        assert {p.dim() for p in twin.parameters()} <= {1, 2}


def test_twin_is_independent_and_the_supernet_unchanged():
    model = make("qkv_dim", {"mos_routing": "layer"}, dropout=0.3, attention_dropout=0.2).train()
    model.set_active_subnet(model.search_space.smallest())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    twin = model.get_active_subnet()
    assert model.training and all(m.training for m in model.modules())
    assert not any(m.training for m in twin.modules())
    src, prev, _ = batch()
    expected = logits(model.eval(), src, prev)
    perturb(twin)
    assert not torch.allclose(logits(twin, src, prev), expected)
    torch.testing.assert_close(logits(model, src, prev), expected, atol=1e-5, rtol=1e-5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.is_leaf for p in twin.parameters())
    # rates as configured, not as scaled by the supernet
    assert twin.decoder.dropout_module.p == 0.3
    assert twin.decoder.layers[0].encoder_attn.dropout_module.p == 0.2


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_twin_keeps_the_dtype(dtype):
    twin = make("qkv_dim", {"mos_routing": "neuron"}).to(dtype).get_active_subnet()
    assert {p.dtype for p in twin.parameters()} == {dtype}
    src, prev, _ = batch()
    assert logits(twin, src, prev).dtype == dtype


def test_twin_weights_travel_by_state_dict():
    model = make("head_dim", {"mos_routing": "layer", "mos_linears": "all"}, **EMBEDDINGS[1])
    subnet = model.sample_subnet("travel")
    twin = model.get_active_subnet()
    fresh = TransformerSubnetModel.from_subnet(model._twin_config(), subnet, dictionary(), dictionary()).eval()
    fresh.load_state_dict(twin.state_dict())
    src, prev, _ = batch()
    assert torch.equal(logits(fresh, src, prev), logits(twin, src, prev))


# --- nothing is left out, with python -O too, so no assert may check it ---


LEFT_OUT = {
    "counterpart": (lambda m: m.encoder.layers[0].add_module("gate", torch.nn.Linear(2, 2)), "layers.0.gate"),
    "kind": (lambda m: setattr(m.decoder, "layer_norm", torch.nn.LayerNorm(28)), "layer_norm.*LayerNorm"),
    "size": (lambda m: m.encoder.layers[0].fc1.set_active_size(20, 32), r"fc1.*\(33, 20\).*\(32, 20\)"),
    "unwritten": (lambda m: setattr(m.encoder, "layernorm_embedding", None), "layernorm_embedding.weight"),
    "positions": (lambda m: m.encoder.embed_positions.set_table_width(44), "width 20.* 44"),
    "buffer": (lambda m: m.decoder.register_buffer("scale", torch.ones(1)), "TransformerDecoder: how to copy"),
}


@pytest.mark.parametrize("what", LEFT_OUT)
def test_what_cannot_be_copied_is_an_error(what):
    change, message = LEFT_OUT[what]
    model = make("qkv_dim", ROUTINGS[1], layernorm_embedding=True, decoder_normalize_before=True)
    change(model)
    with pytest.raises((TypeError, RuntimeError), match=message):
        model.get_active_subnet()


def test_a_model_built_in_inference_mode_is_like_any_other():
    expected = make("qkv_dim", ROUTINGS[1])
    src, prev, target = batch()
    with torch.inference_mode():
        model = make("qkv_dim", ROUTINGS[1])
        twin = model.get_active_subnet()
        within = logits(model, src, prev)
    for found in (within, logits(model, src, prev), logits(twin, src, prev)):
        torch.testing.assert_close(found, logits(expected, src, prev), atol=1e-5, rtol=1e-5)
    for built in (model, twin):
        built(src, src.ne(1).sum(1), prev)[0][target.ne(1)].sum().backward()
        assert all(p.grad is not None for p in built.parameters())


def test_weights_loaded_into_a_copy_made_in_inference_mode_are_seen():
    model, other = make("qkv_dim", ROUTINGS[1]), make("qkv_dim", ROUTINGS[1], seed=2)
    src, prev, _ = batch()
    with torch.inference_mode():
        copied = copy.deepcopy(model)
        logits(copied, src, prev), logits(copied, src, prev)
        copied.load_state_dict(other.state_dict())
        torch.testing.assert_close(logits(copied, src, prev), logits(other, src, prev), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", SUPERNETS)
def test_a_command_with_its_options_makes_the_same_model(kind):
    """The supernet's or the twin's, with each option but dropout away from its default."""
    supernet = SUPERNETS[kind]
    twin, stock = supernet.twin, TASK_REGISTRY[supernet.task].stock
    special = {"activation_fn": "gelu_fast", "pooler_activation_fn": "relu", "layer_norm_eps": 1e-12}
    values = {
        option.name: special.get(option.name, True if option.default is False else 77)
        for option in fields(twin.config)
        if option.name in twin.shared_options() and not option.name.endswith(("dropout", "_heads"))
    }
    for arch, task in ((supernet.arch, supernet.task), (twin.arch, stock)):
        words = " ".join(twin.command_options(twin.config(**values), task)).split()
        parser = argparse.ArgumentParser()
        for config in (TASK_DATACLASS_REGISTRY[task], MODEL_DATACLASS_REGISTRY[arch]):
            gen_parser_from_dataclass(parser, config())
        found = parser.parse_args(["data", *words])
        assert {name: str(getattr(found, name)) for name in values} == {k: str(v) for k, v in values.items()}


def test_options_at_their_defaults_are_not_named():
    """Those of a task neither; one that follows from another option always is."""
    counts = {"max_source_positions": 1024, "max_target_positions": 1024}
    translation, masked = (SUPERNETS[kind].twin for kind in ("encoder_decoder", "encoder_only"))
    assert translation.command_options(translation.config(**counts, dropout=0.3), "translation") == []
    assert masked.command_options(masked.config(max_positions=512), "masked_lm") == ["--max-positions 512"]


def test_dropout_is_retained_under_the_names_of_fairseqs_modules():
    model = make("qkv_dim", ROUTINGS[1])
    for found in (model, model.get_active_subnet()):
        found.make_generation_fast_(retain_dropout=True, retain_dropout_modules=["TransformerEncoderLayer"])
        kept = {name for name, module in found.named_modules() if getattr(module, "apply_during_inference", False)}
        assert kept == {
            f"encoder.layers.{number}.{kind}dropout_module"
            for number in range(len(found.encoder.layers))
            for kind in ("", "activation_")
        }
