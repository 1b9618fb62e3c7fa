"""A warm-started supernet: the largest subnet is the stock model, and prefix slices keep what matters."""

from argparse import Namespace
from pathlib import Path

import pytest
import torch
import yaml
from fairseq.models.transformer import TransformerModel
from fairseq.models.transformer.transformer_legacy import base_architecture

from mos_fairseq.cli.warm_start import main
from mos_fairseq.errors import InputError
from mos_fairseq.export.check import ExportError
from mos_fairseq.models import TransformerMosConfig
from mos_fairseq.search_space import SearchSpace
from mos_fairseq.warm_start import (
    Orders,
    StockModel,
    check_space,
    has_narrower_attention,
    importance_orders,
    read_transformer,
    supernet,
    supernet_from,
)
from tests.helpers import batch, decode_stepwise, fake_task, perturb, sample_of
from tests.seeds import moved
from tests.spaces import LM_SPACE

QKV = {
    "encoder_embed_dim": [24, 18],
    "decoder_embed_dim": [24, 12],
    "encoder_layers": [3],
    "decoder_layers": [2, 1],
    "encoder_ffn_embed_dim": [33, 17],
    "encoder_attention_heads": [4, 2],
    "decoder_ffn_embed_dim": [37, 19],
    "decoder_attention_heads": [4, 1],
    "decoder_ende_attention_heads": [4, 2],
    "decoder_arbitrary_ende_attn": [-1],
    "qkv_dim": 24,
}
HEAD_DIM = {key: value for key, value in QKV.items() if key != "qkv_dim"} | {"head_dim": 6}
ELASTIC_Q = {"encoder_qkv_dim": [24, 16], "decoder_qkv_dim": [24, 8]}
NOISY = {"expert_noise": 0.5, "seed": 4}


def stock(**options) -> StockModel:
    sizes = {"ffn_embed_dim": (33, 37), "layers": (3, 2), "embed_dim": (24, 24), "attention_heads": (4, 4)}
    values = {f"{side}_{key}": pair[i] for i, side in enumerate(("encoder", "decoder")) for key, pair in sizes.items()}
    args = Namespace(**(values | {"max_source_positions": 50, "max_target_positions": 50} | options))
    base_architecture(args)
    torch.manual_seed(moved(5))
    model = TransformerModel.build_model(args, fake_task())
    perturb(model)
    return StockModel({}, args, model.eval())


def config(space: dict, **options) -> TransformerMosConfig:
    return TransformerMosConfig(search_space=SearchSpace.from_dict(space).dumps(), router_hidden_dim=9, **options)


def batches(number: int = 2) -> list[dict]:
    return [sample_of(*batch(seed=seed)) for seed in range(number)]


OPTIONS = [
    {"share_all_embeddings": True},
    {"share_decoder_input_output_embed": True, "encoder_normalize_before": True, "encoder_learned_pos": True},
    {"layernorm_embedding": True, "decoder_normalize_before": True, "decoder_learned_pos": True},
    {"no_token_positional_embeddings": True, "no_scale_embedding": True},
]


@pytest.mark.parametrize("by_gradient", [False, True])
@pytest.mark.parametrize("routing", ["neuron", "layer", "none"])
@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(o))
def test_largest_subnet_is_the_stock_model(options, routing, by_gradient):
    """With everything reordered, and experts that differ widely."""
    source = stock(**options)
    orders = importance_orders(source.model, batches() if by_gradient else None)
    assert not any(torch.equal(order, torch.arange(len(order))) for order in orders.channels.values())
    learned = {"encoder_learned_pos": True, "decoder_learned_pos": True}
    cfg = config(HEAD_DIM, mos_routing=routing, num_experts=3, mos_linears="all", **learned)
    model = supernet_from(source, cfg, orders, **NOISY)
    src, prev, target = batch()
    real, lengths = target.ne(1), src.ne(1).sum(1)
    with torch.no_grad():
        expected = source.model(src, lengths, prev)[0][real]
        torch.testing.assert_close(model(src, lengths, prev)[0][real], expected, atol=1e-5, rtol=1e-5)
        stepwise = decode_stepwise(model, model.encoder(src, lengths), prev)[real]
        torch.testing.assert_close(stepwise, expected, atol=1e-5, rtol=1e-5)


def saved(source: StockModel, path: Path, **changes) -> Path:
    """The file of a stock model's checkpoint, with other options."""
    args = Namespace(**vars(source.args) | {"arch": "transformer"} | changes)
    history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {}, "num_updates": 1}
    state = {"args": None, "cfg": {"model": args}, "model": source.model.state_dict(), "optimizer_history": [history]}
    torch.save(state | {"extra_state": {"train_iterator": {"epoch": 1}}}, path)
    return path


def test_files_of_embeddings_are_not_needed(tmp_path):
    """Of a stock model that began with pre-trained embeddings: its weights hold them."""
    source = stock()
    found = read_transformer(saved(source, tmp_path / "stock.pt", encoder_embed_path="gone.txt"))
    table = source.model.encoder.embed_tokens.weight
    assert found.args.encoder_embed_path is None and torch.equal(found.model.encoder.embed_tokens.weight, table)


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"encoder_learned_pos": True, "decoder_learned_pos": True}, "learned"),
        ({"no_token_positional_embeddings": True}, "no"),
    ],
)
def test_positions_that_are_not_learned_anew(tmp_path, options, kind):
    (tmp_path / "space.yaml").write_text(yaml.safe_dump(HEAD_DIM))
    path = saved(stock(**options), tmp_path / "stock.pt")
    words = ["--path", str(path), "--search-space", str(tmp_path / "space.yaml"), "--output", str(tmp_path / "out.pt")]
    with pytest.raises(InputError, match=f"learn_positions is True: it has no effect, the checkpoint has {kind} pos"):
        main([*words, "--learn-positions"])


@pytest.mark.parametrize("options", [{"share_all_embeddings": True}, {}], ids=["shared", "apart"])
def test_heads_that_repartition_stay_in_place(options):
    source = stock(**options)
    orders = importance_orders(source.model, heads=False, channels=False)
    assert not orders.heads and not orders.channels and len(orders.ffn) == 5
    model = supernet_from(source, config(QKV), orders, **NOISY)
    assert torch.equal(model.encoder.embed_tokens.weight, source.model.encoder.embed_tokens.weight)
    k_proj = source.model.decoder.layers[1].encoder_attn.k_proj.weight
    assert torch.equal(model.decoder.layers[1].encoder_attn.kv_proj.weight[0, 0], k_proj)


@pytest.mark.slow
def test_experts_differ_for_other_subnets_only():
    source = stock()
    cfg, space = config(QKV), SearchSpace.from_dict(QKV)
    noisy, equal = supernet_from(source, cfg, Orders(), **NOISY), supernet_from(source, cfg, Orders())
    fc1 = equal.encoder.layers[0].fc1.weight
    assert torch.equal(fc1[0], fc1[1]) and torch.equal(fc1[0, 0], source.model.encoder.layers[0].fc1.weight)
    spread = (noisy.encoder.layers[0].fc1.weight[0] - noisy.encoder.layers[0].fc1.weight[1]).std() / fc1.std()
    assert spread.item() == pytest.approx(0.5 * 2**0.5, rel=0.1)
    again = supernet_from(source, cfg, Orders(), **NOISY)
    assert torch.equal(again.encoder.layers[0].fc1.weight, noisy.encoder.layers[0].fc1.weight)
    src, prev, _ = batch()
    for subnet, same in ((space.largest(), True), (space.smallest(), False)):
        for model in (noisy, equal):
            model.set_active_subnet(subnet)
        with torch.no_grad():
            logits = [model(src, src.ne(1).sum(1), prev)[0] for model in (noisy, equal)]
        assert torch.allclose(*logits, atol=1e-5) is same


@torch.no_grad()
def planted() -> tuple[StockModel, dict]:
    """A stock model of which some neurons, heads and channels do nothing (much), and which."""
    source = stock(encoder_learned_pos=True, decoder_learned_pos=True, share_all_embeddings=True)
    idle = {"ffn": [2, 5, 31], "heads": [0, 2], "channels": [1, 8, 20]}
    for side in ("encoder", "decoder"):
        stack = getattr(source.model, side)
        for module in stack.modules():
            if isinstance(module, torch.nn.LayerNorm):
                module.weight[idle["channels"]] = module.bias[idle["channels"]] = 0
        stack.embed_tokens.weight[:, idle["channels"]] = 0
        for layer in stack.layers:
            layer.fc2.weight[:, idle["ffn"]] *= 1e-3
            for name in ("self_attn", "encoder_attn"):
                if hasattr(layer, name):
                    getattr(layer, name).out_proj.weight.unflatten(1, (4, 6))[:, idle["heads"]] *= 1e-3
            for name, matrix in layer.named_modules():
                if name.endswith(("q_proj", "k_proj", "v_proj", "fc1")):
                    matrix.weight[:, idle["channels"]] *= 1e-3
    return source, idle


@pytest.mark.parametrize("by_gradient", [False, True])
def test_what_does_nothing_comes_last(by_gradient):
    source, idle = planted()
    orders = importance_orders(source.model, batches(20) if by_gradient else None)
    assert len(orders.ffn) == 5 and len(orders.heads) == 7
    for kind, found in (("ffn", orders.ffn), ("heads", orders.heads), ("channels", orders.channels)):
        for key, order in found.items():
            assert sorted(order.tolist()) == list(range(len(order)))
            assert sorted(order[-len(idle[kind]) :].tolist()) == idle[kind], (kind, key)
    assert torch.equal(orders.channels["encoder"], orders.channels["decoder"])  # one table


def test_a_slice_without_idle_parts_is_the_stock_model():
    """The subnet that lacks only what does nothing is nearly the same model, but for the norms' count of channels."""
    source, _ = planted()
    space = HEAD_DIM | {"encoder_ffn_embed_dim": [33, 30], "decoder_ffn_embed_dim": [37, 34]}
    space |= {"encoder_embed_dim": [24], "decoder_embed_dim": [24], "decoder_layers": [2]}
    space |= {"decoder_attention_heads": [4, 2]}
    src, prev, target = batch()
    real, errors = target.ne(1), []
    for orders in (importance_orders(source.model), Orders()):
        model = supernet_from(source, config(space, mos_routing="none"), orders)
        model.set_active_subnet(model.search_space.smallest())
        with torch.no_grad():
            ours, theirs = (m(src, src.ne(1).sum(1), prev)[0][real] for m in (model, source.model))
        errors.append((ours - theirs).abs().max().item())
    assert errors[0] < 0.02 and errors[1] > 10 * errors[0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_embed_dim": [32, 24]}, "encoder_embed_dim of the checkpoint is 24: the largest choice .* is 32"),
        ({"decoder_layers": [3, 2]}, "decoder_layers of the checkpoint is 2: .* is 3"),
        ({"decoder_ende_attention_heads": [2]}, "ende_attention_heads of the checkpoint is 4: .* is 2"),
        ({"qkv_dim": 48}, "qkv_dim of the search space is 48: the checkpoint's attention is 24 wide"),
        ({"qkv_dim": None, "head_dim": 8}, "head_dim of the search space is 8: .* 4 heads are 6 wide each"),
        ({"qkv_dim": None, **ELASTIC_Q, "decoder_qkv_dim": [16, 8]}, "decoder_qkv_dim .* is 16 at most: .* is 24 wide"),
        ({"decoder_arbitrary_ende_attn": [-1, 1]}, r"decoder_arbitrary_ende_attn .* \[1, -1\]: .*last encoder"),
    ],
)
def test_spaces_that_do_not_fit(changes, message):
    space = {key: value for key, value in (QKV | changes).items() if value is not None}
    with pytest.raises(InputError, match=message):
        check_space(stock().args, SearchSpace.from_dict(space))


def test_a_space_of_another_family():
    with pytest.raises(InputError, match="^mos-warm-start: for encoder_decoder, the search space is decoder_only$"):
        check_space(stock().args, SearchSpace.from_dict(LM_SPACE))


def test_a_space_with_a_q_for_each_layer():
    """Its largest subnet is the stock model; smaller ones use fewer rows, so that the order of heads counts."""
    space = {key: value for key, value in QKV.items() if key != "qkv_dim"} | ELASTIC_Q
    assert has_narrower_attention(SearchSpace.from_dict(space))
    assert has_narrower_attention(SearchSpace.from_dict(HEAD_DIM))
    assert not has_narrower_attention(SearchSpace.from_dict(QKV))
    source = stock()
    model = supernet_from(source, config(space), importance_orders(source.model, channels=False), **NOISY)
    src, prev, target = batch()
    real, lengths = target.ne(1), src.ne(1).sum(1)
    with torch.no_grad():
        expected = source.model(src, lengths, prev)[0][real]
        torch.testing.assert_close(model(src, lengths, prev)[0][real], expected, atol=1e-5, rtol=1e-5)


def test_another_model_is_not_made(monkeypatch):
    def copy_with_a_mistake(source, target, *more):
        copy_layer(source, target, *more)
        target.fc1.bias.add_(0.5)

    copy_layer = supernet._copy_layer
    monkeypatch.setattr(supernet, "_copy_layer", copy_with_a_mistake)
    with pytest.raises(ExportError, match="largest subnet does not compute what the checkpoint computes: "):
        supernet_from(stock(), config(QKV), Orders())


def test_channels_under_sinusoids():
    source = stock()
    with pytest.raises(InputError, match="channels cannot be reordered under sinusoidal positions"):
        supernet_from(source, config(QKV), importance_orders(source.model, heads=False))
