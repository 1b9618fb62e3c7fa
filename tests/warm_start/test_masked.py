"""The largest subnet of a warm start is the masked language model that it is made of."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from mos_fairseq.errors import InputError
from mos_fairseq.export import save_huggingface
from mos_fairseq.masked import summed_loss
from mos_fairseq.models import RobertaMosConfig
from mos_fairseq.modules.factored_linear import writer
from mos_fairseq.search_space import SearchSpace
from mos_fairseq.warm_start import (
    Orders,
    check_masked_space,
    has_narrower_embeddings,
    masked_orders,
    masked_supernet,
    read_huggingface,
    supernet_checkpoint,
)
from tests.helpers import masked_language_model, perturb
from tests.models.test_masked_language_model import sentences
from tests.spaces import BERT_RANK_SPACE, BERT_SPACE, BOTTLENECK_SPACE

SPACES = {
    "uniform": BERT_SPACE,
    "bottleneck": BOTTLENECK_SPACE,
    "factorised": BERT_SPACE | {"encoder_embed_dim": [24], "encoder_hidden_dim": [24, 12]},
    "rank": BERT_RANK_SPACE,
}
TOKENS = ["[PAD]", "[unused0]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(20)), "##x"]


@pytest.fixture(scope="module")
def transformers():
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "torchaudio", None)
        import transformers

        yield transformers


@pytest.fixture(scope="module")
def bert(transformers, tmp_path_factory):
    """(folder, model) of a BERT of Hugging Face's, whose words are in another order than fairseq's."""
    folder = tmp_path_factory.mktemp("bert")
    sizes = {"hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 4, "intermediate_size": 37}
    torch.manual_seed(3)
    config = transformers.BertConfig(vocab_size=len(TOKENS) + 2, max_position_embeddings=20, **sizes)
    model = transformers.BertForMaskedLM(config).eval()
    perturb(model)
    model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    return folder, model


def in_both(words: list[str]) -> tuple[torch.Tensor, torch.Tensor, dict[str, int]]:
    """Two sentences, one padded, in Hugging Face's numbers and in fairseq's; and fairseq's numbers."""
    numbers = {word: number for number, word in enumerate([*words, "<mask>"])}
    names = {"[CLS]": "<s>", "[PAD]": "<pad>", "[SEP]": "</s>", "[UNK]": "<unk>", "[MASK]": "<mask>"}
    lines = ["[CLS] w3 [MASK] ##x w19 [UNK] [SEP]".split(), "[CLS] w0 [MASK] [SEP] [PAD] [PAD] [PAD]".split()]
    theirs = torch.tensor([[TOKENS.index(token) for token in line] for line in lines])
    mine = torch.tensor([[numbers[names.get(token, token)] for token in line] for line in lines])
    return theirs, mine, numbers


@torch.no_grad()
def test_a_bert_of_hugging_faces(bert):
    """Hidden states and predictions are equal, and words are in fairseq's order."""
    folder, model = bert
    source = read_huggingface(str(folder))
    assert source.words[:6] == ["<s>", "<pad>", "</s>", "<unk>", "[unused0]", "w0"] and source.words[-1] == "##x"
    assert source.model.max_positions() == 20 and source.model.cfg.layer_norm_eps == 1e-12
    theirs, mine, numbers = in_both(source.words)
    real = mine.ne(1)
    expected = model(theirs, attention_mask=real.long(), output_hidden_states=True)
    logits, _ = source.model(mine)
    states = source.model(mine, return_all_hiddens=True)[1]["inner_states"]
    assert len(states) == len(expected.hidden_states) == 4
    for state, wanted in zip(states, expected.hidden_states, strict=True):
        torch.testing.assert_close(state.transpose(0, 1)[real], wanted[real], atol=1e-5, rtol=1e-5)
    columns = [TOKENS.index(word) for word in source.words if word in TOKENS]
    mine_columns = [numbers[TOKENS[column]] for column in columns]
    torch.testing.assert_close(logits[real][:, mine_columns], expected.logits[real][:, columns], atol=1e-5, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("space", SPACES)
@pytest.mark.parametrize("routing", ["none", "layer", "neuron"])
def test_the_largest_subnet_is_the_source(bert, space, routing):
    """Whatever is reordered; experts differ, and smaller subnets are parts of it."""
    source = read_huggingface(str(bert[0]))
    search_space = SearchSpace.from_dict(SPACES[space])
    cfg = RobertaMosConfig(search_space=search_space.dumps(), mos_routing=routing, mos_linears="all")
    orders = masked_orders(source.model)
    assert len(orders.ffn) == len(orders.heads) == 3 and list(orders.channels) == ["encoder"]
    assert orders.channels["encoder"].tolist() != list(range(24))
    model = masked_supernet(source, cfg, orders, expert_noise=0.1)
    _, tokens, _ = in_both(source.words)
    real = tokens.ne(1)
    with torch.no_grad():
        torch.testing.assert_close(model(tokens)[0][real], source.model(tokens)[0][real], atol=1e-5, rtol=1e-5)
    fc1 = writer(model.encoder.layers[0].fc1).weight
    assert routing == "none" or not torch.equal(fc1[0], fc1[1])
    plain = masked_supernet(source, RobertaMosConfig(search_space=search_space.dumps(), mos_routing="none"), Orders())
    assert torch.equal(plain.encoder.embed_tokens.weight, source.model.encoder.embed_tokens.weight)
    recorded = supernet_checkpoint(source.state, model)["cfg"]
    assert recorded["task"]["_name"] == "masked_lm_mos" and recorded["model"]["layer_norm_eps"] == 1e-12


@pytest.mark.parametrize("space", SPACES)
def test_channels_stay_where_all_subnets_use_them(space):
    """Sorted, they permute the hidden states; narrower layers or embeddings use the first ones."""
    search_space = SearchSpace.from_dict(SPACES[space])
    assert has_narrower_embeddings(search_space)
    widths = [key for key in SPACES[space] if key.endswith(("embed_dim", "hidden_dim", "bottleneck_dim"))]
    one = {key: SPACES[space][key][:1] for key in widths if "ffn" not in key}
    assert not has_narrower_embeddings(SearchSpace.from_dict(SPACES[space] | one))


def test_important_neurons_and_channels_come_first(bert):
    source = read_huggingface(str(bert[0]))
    with torch.no_grad():
        for layer in source.model.encoder.layers:
            layer.fc1.weight[11] *= 50
            layer.fc1.weight[:, 7] *= 50
    assert not masked_orders(source.model, channels=False).channels
    orders = masked_orders(source.model, heads=False)
    assert not orders.heads and orders.channels["encoder"][0] == 7
    assert all(order[0] == 11 for order in orders.ffn.values())


def test_importance_by_gradients(bert):
    """The change of the masked words' loss where a unit is taken away, to first order: exact in the limit."""
    source = read_huggingface(str(bert[0]))
    model, padding = source.model, source.model.encoder.dictionary.pad()
    tokens = in_both(source.words)[1]
    masked = torch.zeros_like(tokens).bool()
    masked[:, 1:3] = True
    target = tokens.masked_fill(~masked, padding)
    batch = {"net_input": {"src_tokens": tokens}, "target": target, "ntokens": 4}
    nothing = batch | {"target": torch.full_like(tokens, padding)}
    orders = masked_orders(model, [nothing, batch])
    assert len(orders.ffn) == len(orders.heads) == 3 and all(p.grad is None for p in model.parameters())
    model.double()

    def loss_in_float64() -> torch.Tensor:  # summed_loss is in float32, too coarse for a small change
        logits = model(**batch["net_input"])[0]
        words = torch.nn.functional.cross_entropy(logits[masked], target[masked], reduction="sum")
        assert words.dtype == torch.float64
        return words

    assert float(loss_in_float64()) == pytest.approx(float(summed_loss(model, batch, padding)), rel=1e-5)
    fc2, changes = model.encoder.layers[1].fc2.weight, []
    for neuron in range(37):
        with torch.no_grad():
            kept = fc2[:, neuron].clone()
            losses = []
            for part in (1e-3, -1e-3):
                fc2[:, neuron] = kept * (1 + part)
                losses.append(loss_in_float64())
            changes.append(abs(float(losses[0] - losses[1])))
            fc2[:, neuron] = kept
    order = orders.ffn["encoder", 1].tolist()
    ranked = [changes[neuron] for neuron in order]
    near = pytest.approx(sorted(changes, reverse=True), rel=1e-2, abs=1e-3 * max(changes))  # sums in float32
    assert sorted(order) == list(range(37)) and ranked == near
    with pytest.raises(InputError, match="^no token of the chosen examples is masked$"):
        masked_orders(model.float(), [nothing])


@pytest.mark.parametrize("untied", [False, True])
@torch.no_grad()
def test_a_roberta_of_hugging_faces_there_and_back(tmp_path, untied):
    """What was exported is read again."""
    twin = masked_language_model(untie_weights_roberta=untied).get_active_subnet()
    words = [*twin.encoder.dictionary.symbols[:-1], "<mask>"]
    save_huggingface(twin, words, tmp_path / "out")
    source = read_huggingface(str(tmp_path / "out"))
    assert source.words == words[:-1] and source.model.cfg.untie_weights_roberta == untied
    tokens = sentences()
    real = tokens.ne(1)
    torch.testing.assert_close(source.model(tokens)[0][real], twin(tokens)[0][real], atol=1e-5, rtol=1e-5)


def test_norms_under_their_older_names(bert, tmp_path):
    """Google's own files name weights gamma and biases beta."""
    for name in ("config.json", "vocab.txt"):
        (tmp_path / name).write_bytes((bert[0] / name).read_bytes())
    older = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    tensors = load_file(bert[0] / "model.safetensors")
    for new, old in older.items():
        tensors = {name.replace(new, old): tensor for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    expected, found = (read_huggingface(str(folder)).model.state_dict() for folder in (bert[0], tmp_path))
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


@torch.no_grad()
def test_a_model_without_a_head(transformers, bert, tmp_path):
    """As sentence encoders are published: its hidden states are kept, a head is drawn."""
    bert[1].bert.save_pretrained(tmp_path)
    (tmp_path / "vocab.txt").write_text((bert[0] / "vocab.txt").read_text())
    source, whole = read_huggingface(str(tmp_path)), read_huggingface(str(bert[0]))
    _, tokens, _ = in_both(source.words)
    mine, expected = (found.model(tokens, features_only=True)[0] for found in (source, whole))
    torch.testing.assert_close(mine, expected, atol=0, rtol=0)
    assert not source.model.encoder.lm_head.bias.any()


def spoil(folder: Path, **changes) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def numbers(folder: Path, token: str) -> None:
    """A vocabulary with numbers, but not of ``token``."""
    known = {word: number for number, word in enumerate(TOKENS)}
    (folder / "vocab.json").write_text(json.dumps(known | {token: None}))


def without_a_tensor(folder: Path) -> None:
    path = folder / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if not k.endswith("layer.2.output.dense.bias")}, path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: (f / "model.safetensors").unlink(), "no such file .pickled weights are not read"),
        (lambda f: (f / "model.safetensors").write_text("x"), "it is no file of safetensors"),
        (lambda f: (f / "config.json").write_text("[1]"), "config.json: it is no object of JSON"),
        (lambda f: (f / "vocab.txt").unlink(), "it lacks vocab.txt, vocab.json and tokenizer.json"),
        (lambda f: (f / "vocab.txt").write_text("[PAD]\n[UNK]\nw"), r"its vocabulary lacks \[CLS\], \[SEP\], \[MASK\]"),
        (lambda f: (f / "vocab.txt").write_text("\n".join([*TOKENS, "a b"])), "its token 'a b' .number 27. can be no"),
        (lambda f: (f / "vocab.txt").write_text("\n".join([*TOKENS, *"abcd"])), "has token 30, its embeddings 29 rows"),
        (lambda f: spoil(f, model_type="t5"), "its model_type is t5, allowed are bert, roberta"),
        (lambda f: spoil(f, hidden_act="silu"), "hidden_act is silu, supernets have gelu"),
        (lambda f: spoil(f, intermediate_size=36), r"fc1.weight is \(37, 24\), its sizes say \(36, 24\)"),
        (lambda f: spoil(f, layer_norm_eps=None), "layer_norm_eps is None: allowed are numbers from 0 up"),
        (lambda f: spoil(f, hidden_dropout_prob=None), "hidden_dropout_prob is None: allowed are numbers from 0 up"),
        (lambda f: spoil(f, hidden_size="x"), "hidden_size is x: allowed are whole numbers from 1 up"),
        (lambda f: (f / "vocab.txt").rename(f / "a") and numbers(f, "w"), "the number of token 'w' is None, no whole"),
        (without_a_tensor, "model.safetensors lacks encoder.layer.2.output.dense.bias"),
    ],
)
def test_bad_folders(bert, tmp_path, change, message):
    for name in ("config.json", "model.safetensors", "vocab.txt"):
        (tmp_path / name).write_bytes((bert[0] / name).read_bytes())
    change(tmp_path)
    with pytest.raises(InputError, match=message):
        read_huggingface(str(tmp_path))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"encoder_layers": [2]}, "encoder_layers of the model is 3: that of the space's largest subnet is 2"),
        ({"encoder_ffn_embed_dim": [40]}, "encoder_ffn_embed_dim of the model is 37: that of the space's largest"),
        ({"encoder_hidden_dim": [12]}, "encoder_hidden_dim of the model is 24: that of the space's largest subnet is"),
        ({"head_dim": 5}, "the width of its attention of the model is 24: that of the space's largest subnet is 20"),
    ],
)
def test_a_space_that_does_not_fit(bert, changes, message):
    source = read_huggingface(str(bert[0]))
    with pytest.raises(InputError, match=f"^{message}"):
        check_masked_space(source.model.subnet, SearchSpace.from_dict(BERT_SPACE | changes))
